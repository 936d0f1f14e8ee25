"""Schemas of matrix products, normalization, attention and its cache."""

from __future__ import annotations

from tripy.dtypes import FLOATS, bool, int32
from tripy.graph import dims
from tripy.graph.schema import Inference, Shape, operation


@operation("matmul", "lhs: T, rhs: T -> T", T=FLOATS)
def _matmul(ctx: Inference) -> Shape:
    left, right = ctx.shape(0), ctx.shape(1)
    if not left or not right:
        raise ctx.fail("a scalar has no matrix product.", expected="tensors of rank 1 or more")
    ctx.equal(
        left[-1],
        right[-2] if len(right) > 1 else right[0],
        "the summed dimensions differ.",
        "lhs.shape[-1] == " + ("rhs.shape[-2]" if len(right) > 1 else "rhs.shape[0]"),
    )
    batch = ctx.broadcast(left[:-2], right[:-2])
    rows = left[-2:-1]  # Empty for a vector, whose dimension disappears.
    columns = right[-1:] if len(right) > 1 else ()
    return (*batch, *rows, *columns)


def _normalized(ctx: Inference) -> Shape:
    """Attribute eps. weight (and bias) have the shape of the trailing dimensions."""
    shape, weight = ctx.shape(), ctx.shape(1)
    if not weight or len(weight) > len(shape):
        raise ctx.fail("the weight's rank does not fit.", expected="1 to the input's rank")
    for own, other in zip(shape[len(shape) - len(weight) :], weight):
        ctx.equal(own, other, "the weight's shape does not fit.", "the input's trailing dimensions")
    if ctx.has(2) and ctx.shape(2) != weight:
        raise ctx.fail("weight and bias have different shapes.")
    return shape


operation("layer_norm", "input: T, weight: T, bias: T -> T", T=FLOATS)(_normalized)
operation("rms_norm", "input: T, weight: T -> T", T=FLOATS)(_normalized)


@operation(
    "scaled_dot_product_attention",
    "query: T, key: T, value: T, mask: M?, key_value_lengths: L? -> T",
    T=FLOATS,
    M=(*FLOATS, bool),
    L=(int32,),
)
def _attention(ctx: Inference) -> Shape:
    """Attributes is_causal and scale. The mask is bool, or of the query's type and added."""
    query, key, value = ctx.shape(0), ctx.shape(1), ctx.shape(2)
    if not len(query) == len(key) == len(value) == 4:
        raise ctx.fail("a rank is not 4.", expected="[batch, heads, length, dim] three times")
    for axis, name in ((0, "batches"), (3, "head sizes")):
        ctx.equal(query[axis], key[axis], f"query and key have different {name}.")
    for axis, name in ((0, "batches"), (1, "heads"), (2, "lengths")):
        ctx.equal(key[axis], value[axis], f"key and value have different {name}.")
    heads, groups = query[1], key[1]
    if isinstance(heads, int) and isinstance(groups, int) and (not groups or heads % groups):
        raise ctx.fail(
            "the query heads cannot be shared among the key heads.",
            expected="a number of query heads that is a multiple of the key/value heads",
        )
    if ctx.has(3):
        mask = ctx.values[3]
        if ctx.attrs["is_causal"]:
            raise ctx.fail("mask and is_causal are both given.", expected="one of them")
        if mask.dtype is not bool and mask.dtype is not ctx.values[0].dtype:  # type: ignore[union-attr]
            raise ctx.fail("the mask's data type does not fit.", expected="bool, or the query's")
        scores = (query[0], query[1], query[2], key[2])
        ctx.broadcast_to(
            mask.shape,  # type: ignore[union-attr]
            scores,
            "the mask cannot be broadcast to the scores.",
            expected=f"broadcastable to {scores}",
        )
    if ctx.has(4):
        if ctx.has(3):
            raise ctx.fail("mask and key_value_lengths are both given.", expected="one of them")
        if len(ctx.shape(4)) != 1:
            raise ctx.fail("key_value_lengths is not a vector.", expected=f"shape ({query[0]},)")
        ctx.equal(ctx.shape(4)[0], query[0], "there is not one key/value length a batch row.")
    return (*query[:3], value[3])


@operation("kv_cache_update", "cache: T, update: T, write_indices: I -> T", T=FLOATS, I=(int32,))
def _cache_update(ctx: Inference) -> Shape:
    cache, update, index = ctx.shape(0), ctx.shape(1), ctx.shape(2)
    if len(cache) != 4 or len(update) != 4:
        raise ctx.fail(
            "a rank is not 4.", expected="cache [b, h, capacity, d], update [b, h, n, d]"
        )
    for axis, name in ((0, "batches"), (1, "heads"), (3, "head sizes")):
        ctx.equal(cache[axis], update[axis], f"cache and update have different {name}.")
    if len(index) != 1:
        raise ctx.fail("write_indices is not a vector.", expected=f"shape ({cache[0]},)")
    ctx.equal(index[0], cache[0], "there is not one write index a batch row.")
    ctx.at_most(
        update[2], cache[2], "the update is longer than the cache.", f"at most {cache[2]} positions"
    )
    return cache


@operation("rotary_embedding", "input: T, cos: T, sin: T -> T", T=FLOATS)
def _rotary(ctx: Inference) -> Shape:
    """Attribute interleaved. cos and sin broadcast to the input with half its last dimension."""
    shape = ctx.shape()
    if not shape or (isinstance(shape[-1], int) and shape[-1] % 2):
        raise ctx.fail("the last dimension is not even.", expected="pairs of elements to rotate")
    half = (*shape[:-1], dims.floordiv(shape[-1], 2))
    for position, name in ((1, "cos"), (2, "sin")):
        ctx.broadcast_to(
            ctx.shape(position),
            half,
            f"the shape of {name} does not fit.",
            expected=f"broadcastable to {half}",
        )
    return shape
