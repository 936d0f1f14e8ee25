"""Schemas of operations on neighbourhoods: padding, resizing and pooling."""

from __future__ import annotations

from fractions import Fraction

from tripy.dtypes import FLOATS, INTS, bool, float16, float32, int8
from tripy.graph import dims
from tripy.graph.schema import Inference, Shape, operation


@operation("pad", "input: T -> T", T=(*FLOATS, *INTS, bool))
def _pad(ctx: Inference) -> Shape:
    """Attributes low and high: one size a dimension; mode, "constant" or "reflect"; value."""
    shape, low, high = ctx.shape(), ctx.attrs["low"], ctx.attrs["high"]
    if len(low) != len(shape):
        raise ctx.fail(
            "there is not one pair of sizes for each dimension.",
            got=f"{len(low)} pairs with {ctx.describe_inputs()}",
            expected=f"{len(shape)} pairs (low, high)",
        )
    for size, pair in zip(shape, zip(low, high)):
        for width in pair:
            ctx.at_most(0, width, "a padding is negative.", f"0 or more, not {width}")
            if ctx.attrs["mode"] == "reflect" and width != 0:
                # Reflected about the edge, which is not repeated itself.
                ctx.at_most(width + 1, size, "there is too little to reflect.", f"less than {size}")
    return tuple(size + before + after for size, before, after in zip(shape, low, high))


def exact_scale(scale: float) -> Fraction:
    """The fraction that is meant by a scale: 0.7 is 7 / 10, not the float next to it."""
    return Fraction(scale).limit_denominator(1_000_000)


@operation("resize", "input: T -> T", T=(float32, float16, int8))
def _resize(ctx: Inference) -> Shape:
    """Attributes sizes; scales, or () where the sizes tell them; mode; align_corners."""
    shape, sizes = ctx.shape(), ctx.attrs["sizes"]
    if len(sizes) != len(shape):
        raise ctx.fail(
            "there is not one size or scale for each dimension.",
            got=f"{len(sizes)} with {ctx.describe_inputs()}",
            expected=f"{len(shape)}, those of dimensions that stay the same too",
        )
    for size, result in zip(shape, sizes):
        if size != result:
            what = "a dimension cannot be resized from nothing or to nothing."
            ctx.at_most(1, size, what, "sizes of 1 or more")
            ctx.at_most(1, result, what, "sizes of 1 or more")
    return sizes


def _pool(ctx: Inference) -> Shape:
    """Attributes kernel, stride and padding, with one entry a spatial dimension."""
    shape, kernel = ctx.shape(), ctx.attrs["kernel"]
    if len(shape) != len(kernel) + 2:
        raise ctx.fail(
            "the kernel's rank does not fit.",
            got=f"kernel_dims={kernel} with {ctx.describe_inputs()}",
            expected="an input [batch, channels, ...] with a size more for each of the kernel's",
        )
    sizes = []
    for size, extent, (before, after), stride in zip(
        shape[2:], kernel, ctx.attrs["padding"], ctx.attrs["stride"]
    ):
        ctx.at_most(1, size, "there is nothing to pool.", "sizes of 1 or more")
        padded = size + before + after
        ctx.at_most(
            extent, padded, "the kernel is larger than the padded input.", f"{extent} <= {padded}"
        )
        sizes.append(dims.floordiv(padded - extent, stride) + 1)
    return (*shape[:2], *sizes)


operation("maxpool", "input: T -> T", T=(*FLOATS, int8))(_pool)
operation("avgpool", "input: T -> T", T=(*FLOATS, int8))(_pool)  # Also: count_include_pad.
