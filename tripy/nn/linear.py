"""The fully connected layer, in floating point and quantized."""

from __future__ import annotations

from typing import Optional

from tripy import dtypes, ops
from tripy.nn import checks
from tripy.nn.quantized import QuantizedLayer
from tripy.tensor import Tensor


class Linear(QuantizedLayer):
    """``x @ weight.T + bias``.

    With ``quant_dtype``, the weight is quantized with ``weight_scale``, and with ``input_scale``
    the input too (int8 for an int4 weight); the product then sums the small values, and is scaled
    once. The result always has ``dtype``.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the result's last dimension.
        bias: Whether there is a bias.
        dtype: float32, float16 or bfloat16: of input, result, bias and scales.
        quant_dtype: int8, int4, float8, or None for no quantization.
        weight_quant_dim: What a weight scale belongs to: 0 for one an output feature (scale
            [out_features]), 1 for one an input feature (scale [in_features]; the input cannot be
            quantized then), None for one scale, or blocks. Nothing without ``quant_dtype``.

    Attributes:
        weight: [out_features, in_features] of ``dtype``; or of ``quant_dtype``, for a weight that
            is quantized already.
        bias: [out_features], or None.
        weight_scale: With ``quant_dtype``. By ``weight_quant_dim``: [out_features] for 0,
            [in_features] for 1; for None 0-D, or [A, in_features] or [out_features, B] for blocks
            along the first or the second dimension, where A divides out_features and B in_features.
        input_scale: With ``quant_dtype``; 0-D, or None to quantize the weight only.
        pre_quant_scale: With ``quant_dtype``; [in_features], what the input is multiplied with
            before it is quantized (SmoothQuant, AWQ), or None.

    Raises:
        TripyException: For sizes below 1 and for data types that are not listed; when assigned, for
            a parameter that does not fit, a scale of zero, a negative one, NaN or infinity, and an
            ``input_scale`` beside ``weight_quant_dim=1``.

    Example:
        >>> import tripy as tp
        >>> linear = tp.Linear(3, 2, bias=False)
        >>> linear.weight = tp.Tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]])
        >>> linear(tp.ones((1, 3))).tolist()
        [[6.0, 1.0]]

        int8 weights with one scale an output feature, and int8 inputs:

        >>> linear = tp.Linear(3, 2, bias=False, quant_dtype=tp.int8, weight_quant_dim=0)
        >>> linear.weight = tp.Tensor([[1.0, 2.0, 3.1], [0.0, 10.0, 0.0]])
        >>> linear.weight_scale = [1.0, 10.0]
        >>> linear.input_scale = 0.5
        >>> linear(tp.ones((1, 3))).tolist()
        [[6.0, 10.0]]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: dtypes.dtype = dtypes.float32,
        quant_dtype: Optional[dtypes.dtype] = None,
        weight_quant_dim: Optional[int] = None,
    ) -> None:
        self.in_features = checks.size("Linear", in_features, "in_features")
        self.out_features = checks.size("Linear", out_features, "out_features")
        self._declare_quantized(bias, dtype, quant_dtype, weight_quant_dim)

    def _declare_quantized(
        self,
        bias: bool,
        dtype: dtypes.dtype,
        quant_dtype: Optional[dtypes.dtype],
        weight_quant_dim: Optional[int],
    ) -> None:
        self._declare_weight(
            (self.out_features, self.in_features), self.in_features, self.out_features, bias,
            dtype, quant_dtype, weight_quant_dim, summed=1,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: [..., in_features] of ``dtype``.

        Returns:
            [..., out_features] of ``dtype``.

        Raises:
            TripyException: For an input of another data type or last dimension.

        Example:
            >>> import tripy as tp
            >>> linear = tp.Linear(3, 2)
            >>> linear.initialize_dummy_parameters()
            >>> linear(tp.ones((4, 3))).shape
            (4, 2)
        """
        checks.layer_input("Linear", x, self.dtype, -1, self.in_features)
        result = self._rounded_input(x) @ ops.transpose(self._rounded_weight(), 0, 1)
        return result if self.bias is None else result + self.bias
