"""The fully connected layer, in floating point and quantized.

Quantization is written as quantize and dequantize around the matrix product, which says exactly
what is computed. The compiler's rewrite rules find this form and put one integer or float8 product
in its place; so its order of operations is a contract with them.
"""

from __future__ import annotations

from typing import Optional

from tripy import dtypes, ops
from tripy.nn import checks
from tripy.nn.module import Module
from tripy.nn.parameter import Declaration, Parameter
from tripy.ops import arguments
from tripy.tensor import Tensor


class Linear(Module):
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

    weight: Parameter
    bias: Optional[Parameter]
    weight_scale: Parameter
    input_scale: Optional[Parameter]
    pre_quant_scale: Optional[Parameter]

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
        self.dtype = checks.floating("Linear", dtype)
        self.quant_dtype = quant_dtype
        if quant_dtype is not None:
            arguments.dtype("Linear", quant_dtype, dtypes.QUANTIZED)
        self.weight_quant_dim = arguments.choice(
            "Linear", weight_quant_dim, "weight_quant_dim", (None, 0, 1)
        )
        kinds = (dtype,) if quant_dtype is None else (dtype, quant_dtype)
        self._declare("weight", Declaration((out_features, in_features), kinds))
        present = arguments.choice("Linear", bias, "bias", (True, False))
        self._declare("bias", Declaration((out_features,), (dtype,), False, False), present)
        if quant_dtype is not None:
            self._declare("weight_scale", self._weight_scale())
            self._declare("input_scale", self._input_scale(), present=False)
            pre = Declaration((in_features,), (dtype,), required=False, is_scale=True)
            self._declare("pre_quant_scale", pre, present=False)

    def _weight_scale(self) -> Declaration:
        if self.weight_quant_dim is not None:
            size = (self.out_features, self.in_features)[self.weight_quant_dim]
            return Declaration((size,), (self.dtype,), is_scale=True)
        out, inner = self.out_features, self.in_features
        return Declaration(
            (),
            (self.dtype,),
            fits=lambda shape: shape == () or is_block_scale(shape, (out, inner)),
            legal=f"(), or (A, {inner}) where A divides {out}, or ({out}, B) where B divides "
            f"{inner}; or (n,) with weight_quant_dim",
            is_scale=True,
        )

    def _input_scale(self) -> Declaration:
        reason = (
            "with weight_quant_dim=1 the input cannot be quantized: a weight scale along the "
            "summed dimension cannot leave the integer sum.",
            "weight_quant_dim=0, or None; or leave input_scale out to quantize the weight only",
        )
        refused = reason if self.weight_quant_dim == 1 else None
        return Declaration((), (self.dtype,), required=False, is_scale=True, refused=refused)

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
        weight: Tensor = self.weight
        kind, dim = self.quant_dtype, self.weight_quant_dim
        if kind is not None:
            if weight.dtype is not kind:
                weight = ops.quantize(weight, self.weight_scale, kind, dim)
            weight = ops.dequantize(weight, self.weight_scale, self.dtype, dim)
            if self.pre_quant_scale is not None:
                x = x * self.pre_quant_scale
            if self.input_scale is not None:
                # 4 bits are too few for activations: an int4 weight meets an int8 input (W4A8).
                input_kind = dtypes.int8 if kind is dtypes.int4 else kind
                x = ops.quantize(x, self.input_scale, input_kind)
                x = ops.dequantize(x, self.input_scale, self.dtype)
        result = x @ ops.transpose(weight, 0, 1)
        return result if self.bias is None else result + self.bias

    def _summary(self) -> str:
        if self.quant_dtype is None:
            return ""
        shape = self.weight_scale._value.shape
        if self.weight_quant_dim is not None:
            grain = f"per channel of dim {self.weight_quant_dim}"
        else:
            grain = "in blocks" if len(shape) == 2 else "per tensor"
        text = f"weight {self.quant_dtype} {grain}"
        if self.input_scale is None:
            return text + ", input not quantized"
        kind = dtypes.int8 if self.quant_dtype is dtypes.int4 else self.quant_dtype
        return text + f", input {kind} per tensor"


def is_block_scale(scale: tuple, weight: tuple[int, int]) -> bool:
    """Whether a 2-D scale cuts a weight of that shape into blocks along one dimension."""
    return len(scale) == 2 and any(
        scale[1 - axis] == weight[1 - axis] and scale[axis] and weight[axis] % scale[axis] == 0
        for axis in (0, 1)
    )
