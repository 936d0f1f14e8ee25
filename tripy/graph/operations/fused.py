"""Schemas of operations that only rewrites make: several ordinary ones in one kernel."""

from __future__ import annotations

from tripy.dtypes import ALL, FLOATS, INTS, QUANTIZED, float8, int8, int32
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
# dim, the weight scale's dimension as in dequantize. residual, shaped as the result, comes last.
operation(
    "quantized_linear",
    "input: X, weight: W, weight_scale: T, input_scale: T?, bias: T?, output_scale: T?, "
    "residual: T? -> @dtype",
    internal=True,
    X=ALL,
    W=QUANTIZED,
    T=FLOATS,
)(_linear_shape)


# layer_norm or rms_norm over the last dimension, divided by scale and rounded. Attributes: kind
# ("layer" or "rms"), eps, dtype.
@operation(
    "normalize_quantize",
    "input: T, weight: T, bias: T?, scale: T -> @dtype",
    internal=True,
    T=FLOATS,
    dtype=(int8, float8),
)
def _normalize_quantize(ctx: Inference) -> Shape:
    return ctx.shape()


# quantized_linear of a normalized input: of normalize_quantize where there is an input_scale, else
# of the floating-point norm. Attributes of both: kind, eps; activation, dim, dtype.
@operation(
    "normalized_linear",
    "input: T, norm_weight: T, norm_bias: T?, input_scale: T?, weight: W, weight_scale: T, "
    "bias: T?, output_scale: T?, residual: T? -> @dtype",
    internal=True,
    W=QUANTIZED,
    T=FLOATS,
    dtype=ALL,
)
def _normalized_linear(ctx: Inference) -> Shape:
    ctx.equal(ctx.shape()[-1], ctx.shape(4)[1], "the summed dimensions differ.")
    return (*ctx.shape()[:-1], ctx.shape(4)[0])


# One token's heads [batch, heads + 2 * groups, 1, dim] of query, key and value: key and value are
# written into the cache [batch, 2 * groups, capacity, dim] at write_indices, and the query attends
# to the first lengths. Attribute: scale.
@operation(
    "append_and_attend",
    "cache: T, heads: T, write_indices: I, lengths: I -> T, T",
    internal=True,
    T=FLOATS,
    I=(int32,),
)
def _append_and_attend(ctx: Inference) -> list[Shape]:
    cache, heads = ctx.shape(), ctx.shape(1)
    return [cache, (heads[0], heads[1] - cache[1], 1, heads[3])]


# gather of rows (dimension 0 of a matrix), plus that of another matrix where there is one.
@operation(
    "gather_rows",
    "input: T, index: I, other: T?, other_index: J? -> T",
    internal=True,
    T=FLOATS,
    I=INTS,
    J=INTS,
)
def _gather_rows(ctx: Inference) -> Shape:
    return (*ctx.shape(1), ctx.shape()[1])


# quantized_linear for a convolution; with the attributes of convolution too, and transposed:
# whether it is conv_transpose, whose weight is [in, out / groups, ...]. residual * residual_scale
# is added before the activation.
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
