"""Lowerings of quantize, dequantize and dynamic_quantize."""

from __future__ import annotations

from typing import Optional

import torch

from tripy import dtypes
from tripy.backends.torch.lowering.table import Attrs, T, lowering
from tripy.backends.torch.storage import to_float8
from tripy.graph.operations.quantization import block_axis


def aligned_scale(scale: T, shape: torch.Size, dim: Optional[int]) -> T:
    """A scale with the input's rank, so that it broadcasts; blocks are repeated."""
    if dim is not None:
        view = [1] * len(shape)
        view[dim] = -1
        return scale.view(view)
    if scale.dim() == 2 and len(shape) == 2:
        axis = block_axis(tuple(shape), tuple(scale.shape))
        assert axis is not None  # The schema has checked it.
        count = scale.shape[axis]
        if count not in (1, shape[axis]):
            return scale.repeat_interleave(shape[axis] // count, axis)
    return scale


@lowering("quantize")
def _quantize(attrs: Attrs, x: T, scale: T) -> T:
    # In float32 the quotient of two 16-bit numbers falls on a half only where it is one, so that
    # the result is the exact quotient's; in bfloat16 it would be rounded twice.
    scale = aligned_scale(scale, x.shape, attrs["dim"]).float()
    return rounded(x.float() / scale, attrs["dtype"])


def is_usable_scale(scale: T) -> bool:
    """Whether all scales are finite numbers above zero."""
    return bool(((scale > 0) & torch.isfinite(scale)).all())


def rounded(x: T, dtype: dtypes.dtype) -> T:
    """Values already divided by the scale, in the quantized type: rounded half to even.

    The values are overwritten: they are a quotient that nobody else sees.
    """
    if dtype is dtypes.float8:
        return to_float8(x)
    low, high = dtypes.QUANTIZED_RANGE[dtype]
    return x.round_().clamp_(low, high).to(torch.int8)


@lowering("dequantize")
def _dequantize(attrs: Attrs, q: T, scale: T) -> T:
    return q.to(scale.dtype) * aligned_scale(scale, q.shape, attrs["dim"])


@lowering("dynamic_quantize")
def _dynamic_quantize(attrs: Attrs, x: T) -> tuple[T, T]:
    high = dtypes.QUANTIZED_RANGE[attrs["dtype"]][1]
    rows = x.reshape(-1) if attrs["dim"] is None else x
    if rows.shape[-1]:
        amax = rows.abs().amax(-1, keepdim=attrs["dim"] is not None)
    else:
        amax = x.new_zeros(() if attrs["dim"] is None else (*x.shape[:-1], 1))
    # All zeros would give a scale of zero: any scale represents them, the smallest normal
    # number is positive in every type.
    scale = (amax.float() / high).clamp(min=torch.finfo(x.dtype).tiny).to(x.dtype)
    return rounded(x.float() / scale.float(), attrs["dtype"]), scale
