"""Schemas of quantize, dequantize and dynamic_quantize.

How a scale applies is told by its rank: 0-D to the whole tensor, 1-D along ``dim``, 2-D to blocks
of a matrix along its first or its second dimension. A scale of the input's rank whose last size is
1 applies to rows, as dynamic_quantize makes it.
"""

from __future__ import annotations

from typing import Optional

from tripy.dtypes import FLOATS, QUANTIZED
from tripy.graph.dims import Dim
from tripy.graph.schema import Inference, Shape, operation


def block_axis(shape: Shape, scale: Shape) -> Optional[int]:
    """The dimension that a 2-D scale cuts into blocks; None if it fits neither.

    A scale as large as the input (blocks of one element) reads the same either way: 0.
    """
    for axis in (0, 1):
        size, blocks = shape[axis], scale[axis]
        if shape[1 - axis] == scale[1 - axis] and blocks != 0 and _divides(blocks, size):
            return axis
    return None


def _divides(blocks: Dim, size: Dim) -> bool:
    if blocks == 1:
        return True
    return isinstance(blocks, int) and isinstance(size, int) and size % blocks == 0


def _is_one_a_row(ctx: Inference, shape: Shape, scale: Shape) -> bool:
    """Whether a scale has the input's shape but for a last dimension of 1."""
    if not scale or len(scale) != len(shape) or scale[-1] != 1:
        return False
    for own, other in zip(shape[:-1], scale[:-1]):
        ctx.equal(other, own, "there is not one scale for each row.", f"{(*shape[:-1], 1)}")
    return True


def _check_scale(ctx: Inference) -> Shape:
    shape, scale, dim = ctx.shape(), ctx.shape(1), ctx.attrs["dim"]
    if dim is not None:
        axis = ctx.axis(dim)
        if len(scale) != 1:
            raise ctx.fail(
                "a scale along a dimension has one dimension itself.",
                expected=f"a scale of shape ({shape[axis]},) for dim={dim}",
                hint="dim=None for a scale of rank 0 or 2",
            )
        ctx.equal(
            scale[0],
            shape[axis],
            "there is not one scale for each channel.",
            f"a scale of shape ({shape[axis]},) for dim={dim}",
        )
        return shape
    if not scale or (len(scale) == len(shape) == 2 and block_axis(shape, scale) is not None):
        return shape
    if _is_one_a_row(ctx, shape, scale):
        return shape
    if len(scale) == len(shape) == 2:
        raise ctx.fail(
            "the scale does not cut the input into blocks.",
            expected=f"a scale [A, {shape[1]}] with A dividing {shape[0]}, "
            f"or [{shape[0]}, B] with B dividing {shape[1]}",
        )
    raise ctx.fail(
        "the scale's shape does not fit.",
        expected="a scale of rank 0; rank 1 with dim; rank 2 for an input of rank 2; or one of "
        "the input's shape with a last size of 1",
        hint="dim=... for one scale a channel" if len(scale) == 1 else None,
    )


operation("quantize", "input: T, scale: T -> @dtype", T=FLOATS, dtype=QUANTIZED)(_check_scale)
operation("dequantize", "input: Q, scale: T -> T", Q=QUANTIZED, T=FLOATS)(_check_scale)


@operation("dynamic_quantize", "input: T -> @dtype, T", T=FLOATS, dtype=QUANTIZED)
def _dynamic_quantize(ctx: Inference) -> list[Shape]:
    """Attributes dtype, and dim: None for one scale, -1 for one a row."""
    dim = ctx.attrs["dim"]
    if dim is None:
        return [ctx.shape(), ()]
    if ctx.axis(dim) != ctx.rank() - 1:
        raise ctx.fail(
            "dim is not the last dimension.",
            got=f"dim={dim} with {ctx.describe_inputs()}",
            expected="None (one scale) or -1 (one scale a row)",
        )
    return [ctx.shape(), (*ctx.shape()[:-1], 1)]
