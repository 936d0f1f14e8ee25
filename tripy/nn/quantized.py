"""What layers with a quantized weight share: their scales, and how these are applied.

Quantization is written as quantize and dequantize around the layer's operation, which says exactly
what is computed. The compiler's rewrite rules find this form and put one operation on small numbers
in its place; so its order of operations is a contract with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from tripy import dtypes, ops
from tripy.nn import checks
from tripy.nn.module import Module
from tripy.nn.parameter import Declaration, Parameter
from tripy.ops import arguments
from tripy.tensor import Tensor


class QuantizedLayer(Module):
    """A layer with a weight that may be quantized, and whose input may be quantized too."""

    weight: Parameter
    bias: Optional[Parameter]
    weight_scale: Parameter
    input_scale: Optional[Parameter]
    pre_quant_scale: Optional[Parameter]

    def _declare_weight(
        self,
        shape: tuple[int, ...],
        inputs: int,
        bias: int,
        has_bias: bool,
        dtype: dtypes.dtype,
        quant_dtype: Optional[dtypes.dtype],
        weight_quant_dim: Optional[int],
        summed: int,
    ) -> None:
        """Declare weight and bias, and the scales if there is a ``quant_dtype``.

        ``inputs`` is the number of the input's features or channels; ``summed`` the dimension of
        the weight that the layer sums over.
        """
        layer = type(self).__name__
        self.dtype = checks.floating(layer, dtype)
        self.quant_dtype = quant_dtype
        if quant_dtype is not None:
            arguments.dtype(layer, quant_dtype, dtypes.QUANTIZED)
        self.weight_quant_dim = arguments.choice(
            layer, weight_quant_dim, "weight_quant_dim", (None, 0, 1)
        )
        kinds = (dtype,) if quant_dtype is None else (dtype, quant_dtype)
        self._declare("weight", Declaration(shape, kinds))
        present = arguments.choice(layer, has_bias, "bias", (True, False))
        self._declare("bias", Declaration((bias,), (dtype,), False, False), present)
        if quant_dtype is not None:
            self._declare("weight_scale", self._weight_scale(shape))
            self._declare("input_scale", self._input_scale(summed), present=False)
            pre = Declaration((inputs,), (dtype,), required=False, is_scale=True)
            self._declare("pre_quant_scale", pre, present=False)

    def _declare_quantized(
        self,
        bias: bool,
        dtype: dtypes.dtype,
        quant_dtype: Optional[dtypes.dtype],
        weight_quant_dim: Optional[int],
    ) -> None:
        """Declare all parameters for a quantization; a subclass knows their shapes."""
        raise NotImplementedError

    def _requantize(
        self,
        quant_dtype: dtypes.dtype,
        weight_quant_dim: Optional[int],
        **parameters: Optional[Tensor],
    ) -> None:
        """Become a layer quantized that way, with these parameters; the bias stays.

        A parameter that does not fit leaves the layer as it was.
        """
        before, bias = dict(vars(self)), self.bias
        declared = dict(self._declarations)
        try:
            self._declare_quantized(bias is not None, self.dtype, quant_dtype, weight_quant_dim)
            for name, value in {**parameters, "bias": bias}.items():
                setattr(self, name, value)
        except BaseException:
            vars(self).clear()
            vars(self).update(before, _declarations=declared)
            raise

    def _weight_scale(self, shape: tuple[int, ...]) -> Declaration:
        if self.weight_quant_dim is not None:
            size = shape[self.weight_quant_dim]
            return Declaration((size,), (self.dtype,), is_scale=True)
        legal, fits = "(); or (n,) with weight_quant_dim", None
        if len(shape) == 2:
            rows, columns = shape
            legal = (
                f"(), or (A, {columns}) where A divides {rows}, or ({rows}, B) where B divides "
                f"{columns}; or (n,) with weight_quant_dim"
            )
            fits = _scale_or_blocks((rows, columns))
        return Declaration((), (self.dtype,), fits=fits, legal=legal, is_scale=True)

    def _input_scale(self, summed: int) -> Declaration:
        reason = (
            f"with weight_quant_dim={summed} the input cannot be quantized: a weight scale along "
            "the summed dimension cannot leave the integer sum.",
            f"weight_quant_dim={1 - summed}, or None; or leave input_scale out to quantize the "
            "weight only",
        )
        refused = reason if self.weight_quant_dim == summed else None
        return Declaration((), (self.dtype,), required=False, is_scale=True, refused=refused)

    def _input_dtype(self) -> Optional[dtypes.dtype]:
        # 4 bits are too few for activations: an int4 weight meets an int8 input (W4A8).
        return dtypes.int8 if self.quant_dtype is dtypes.int4 else self.quant_dtype

    def _rounded_weight(self) -> Tensor:
        """The weight as the layer computes with it."""
        if self.quant_dtype is None:
            return self.weight
        weight, scale, dim = self.weight, self.weight_scale, self.weight_quant_dim
        if weight.dtype is self.quant_dtype:
            return ops.dequantize(weight, scale, self.dtype, dim)
        small = ops.quantize(weight, scale, self.quant_dtype, dim)
        return ops.dequantize(small, scale, self.dtype, dim)

    def _rounded_input(self, x: Tensor, spatial: int = 0) -> Tensor:
        """The input as the layer computes with it; ``spatial`` dimensions follow its channels."""
        kind = self._input_dtype()
        if kind is None:
            return x
        if self.pre_quant_scale is not None:
            scale: Tensor = self.pre_quant_scale
            if spatial:
                scale = ops.reshape(scale, (-1, *[1] * spatial))
            x = x * scale
        if self.input_scale is None:
            return x
        return ops.dequantize(ops.quantize(x, self.input_scale, kind), self.input_scale, self.dtype)

    def _summary(self) -> str:
        if self.quant_dtype is None:
            return ""
        if self.weight_quant_dim is not None:
            grain = f"per channel of dim {self.weight_quant_dim}"
        else:
            grain = "in blocks" if self.weight_scale.rank == 2 else "per tensor"
        text = f"weight {self.quant_dtype} {grain}"
        if self.input_scale is None:
            return text + ", input not quantized"
        return text + f", input {self._input_dtype()} per tensor"


def _scale_or_blocks(weight: tuple[int, int]) -> Callable[[tuple], bool]:
    """Tells whether a scale is one number, or cuts a matrix into blocks along one dimension."""

    def fits(scale: tuple) -> bool:
        return scale == () or (
            len(scale) == 2
            and any(
                scale[1 - axis] == weight[1 - axis]
                and scale[axis] > 0
                and weight[axis] % scale[axis] == 0
                for axis in (0, 1)
            )
        )

    return fits
