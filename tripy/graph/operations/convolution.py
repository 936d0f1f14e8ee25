"""Schemas of convolutions over one, two or three dimensions.

Attributes, each with one entry a spatial dimension: stride, dilation and padding (a pair: before
and after); and groups.
"""

from __future__ import annotations

from tripy.dtypes import FLOATS
from tripy.graph import dims
from tripy.graph.dims import Dim
from tripy.graph.schema import Inference, Shape, operation


def _check(ctx: Inference, channels: Dim, out: Dim, weight: str, bias: int) -> None:
    shape, kernel = ctx.shape(0), ctx.shape(1)
    if len(kernel) not in (3, 4, 5) or len(shape) != len(kernel):
        raise ctx.fail(
            "the ranks do not fit.",
            expected=f"input [batch, channels, ...] and weight {weight} with 1 to 3 dimensions "
            "more, as many for both",
        )
    ctx.equal(
        shape[1], channels, "the number of channels does not fit.", f"{channels} channels of input"
    )
    if ctx.has(bias) and ctx.shape(bias) != (out,):
        raise ctx.fail("the bias does not fit.", expected=f"a bias of shape ({out},)")


@operation("convolution", "input: T, weight: T, bias: T? -> T", T=FLOATS)
def convolution_shape(ctx: Inference, bias: int = 2) -> Shape:
    """``bias`` is the position of the bias among the inputs."""
    shape, kernel, groups = ctx.shape(0), ctx.shape(1), ctx.attrs["groups"]
    channels = kernel[1] * groups if len(kernel) > 1 else 0
    _check(ctx, channels, kernel[0], "[out, in / groups, ...]", bias)
    sizes = []
    for size, extent, (before, after), stride, dilation in zip(
        shape[2:], kernel[2:], ctx.attrs["padding"], ctx.attrs["stride"], ctx.attrs["dilation"]
    ):
        reach, padded = dilation * (extent - 1) + 1, size + before + after
        ctx.at_most(
            reach, padded, "the kernel is larger than the padded input.", f"{reach} <= {padded}"
        )
        sizes.append(dims.floordiv(padded - reach, stride) + 1)
    return (shape[0], kernel[0], *sizes)


@operation("conv_transpose", "input: T, weight: T, bias: T? -> T", T=FLOATS)
def conv_transpose_shape(ctx: Inference, bias: int = 2) -> Shape:
    """The padding is what is cut off the result."""
    shape, kernel, groups = ctx.shape(0), ctx.shape(1), ctx.attrs["groups"]
    out = kernel[1] * groups if len(kernel) > 1 else 0
    _check(ctx, kernel[0], out, "[in, out / groups, ...]", bias)
    sizes = []
    for size, extent, (before, after), stride, dilation in zip(
        shape[2:], kernel[2:], ctx.attrs["padding"], ctx.attrs["stride"], ctx.attrs["dilation"]
    ):
        whole = (size - 1) * stride + dilation * (extent - 1) + 1
        ctx.at_most(
            before + after + 1, whole, "the padding cuts off all that there is.",
            f"{before} + {after} < {whole}",
        )  # fmt: skip
        sizes.append(whole - before - after)
    return (shape[0], out, *sizes)
