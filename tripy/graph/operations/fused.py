"""Schemas of operations that only rewrites make: several ordinary ones in one kernel."""

from __future__ import annotations

from tripy.dtypes import ALL, FLOATS, QUANTIZED, int8
from tripy.graph.operations.convolution import conv_transpose_shape, convolution_shape
from tripy.graph.schema import Inference, Shape, operation


def _linear_shape(ctx: Inference) -> Shape:
    ctx.equal(ctx.shape()[-1], ctx.shape(1)[1], "the summed dimensions differ.")
    return (*ctx.shape()[:-1], ctx.shape(1)[0])


# input @ weight.T + bias, with weight [out, in].
operation("linear", "input: T, weight: T, bias: T? -> T", internal=True, T=FLOATS)(_linear_shape)

# activation((input * input_scale) @ (weight * weight_scale).T + bias), divided by output_scale and
# rounded where there is one. Without input_scale the input is floating point and only the weight
# is quantized. Attributes: activation (None, relu, silu, gelu or gelu_tanh); dtype of the result;
# dim, the weight scale's dimension as in dequantize.
operation(
    "quantized_linear",
    "input: X, weight: W, weight_scale: T, input_scale: T?, bias: T?, output_scale: T? -> @dtype",
    internal=True,
    X=ALL,
    W=QUANTIZED,
    T=FLOATS,
)(_linear_shape)


# The same for a convolution; with the attributes of convolution too, and transposed: whether it is
# conv_transpose, whose weight is [in, out / groups, ...]. residual * residual_scale is added before
# the activation.
@operation(
    "quantized_convolution",
    "input: X, weight: W, weight_scale: T, input_scale: T?, bias: T?, output_scale: T?, "
    "residual: R?, residual_scale: T? -> @dtype",
    internal=True,
    X=ALL,
    W=QUANTIZED,
    T=FLOATS,
    R=(int8,),
)
def _quantized_convolution(ctx: Inference) -> Shape:
    infer = conv_transpose_shape if ctx.attrs["transposed"] else convolution_shape
    shape = infer(ctx, bias=4)
    if ctx.has(6):
        what = "the residual does not have the result's shape."
        if len(ctx.shape(6)) != len(shape):
            raise ctx.fail(what, expected=f"rank {len(shape)}")
        shape = tuple(ctx.equal(own, other, what) for own, other in zip(shape, ctx.shape(6)))
    return shape
