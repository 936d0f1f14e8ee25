"""Layers of matrix products, normalization, attention and its cache."""

from __future__ import annotations

import math
from typing import Any

from tripy import dtypes
from tripy.backends.tensorrt.lowering.table import Unsupported, kind_of, lowering, operand
from tripy.backends.tensorrt.network import Network
from tripy.graph import Node, Value, dims


@lowering("matmul")
def _matmul(net: Network, node: Node, left: Any, right: Any) -> Any:
    """A vector is a matrix of one row on the left, of one column on the right."""
    if {_rounded_to(node, 0), _rounded_to(node, 1)} == {dtypes.int8, dtypes.int4}:
        raise Unsupported(
            "TensorRT has no product of int4 weights and inputs rounded to int8; leave input_scale "
            "out, or use int8 weights"
        )
    is_row, is_column = len(left.shape) == 1, len(right.shape) == 1
    if is_row:
        left = net.unsqueeze(left, (0,))
    if is_column:
        right = net.unsqueeze(right, (1,))
    left, right = net.aligned(left, right)
    plain = net.trt.MatrixOperation.NONE
    result = net.add(net.raw.add_matrix_multiply(left, plain, right, plain))
    rank = len(result.shape)
    gone = [rank - 2] * is_row + [rank - 1] * is_column
    return net.squeeze(result, gone)


def _rounded_to(node: Node, index: int) -> Any:
    """The small type that an operand comes from; None for one that was not quantized."""
    producer = operand(node, index).node
    if producer is None or producer.op != "dequantize":
        return None
    return operand(producer, 0).dtype


@lowering("linear")
def _linear(net: Network, node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    """A product with a weight [out, in], which is read as it lies."""
    is_row = len(x.shape) == 1
    x, weight = net.aligned(net.unsqueeze(x, (0,)) if is_row else x, weight)
    plain, turned = net.trt.MatrixOperation.NONE, net.trt.MatrixOperation.TRANSPOSE
    result = net.add(net.raw.add_matrix_multiply(x, plain, weight, turned))
    result = net.squeeze(result, [0] * is_row)
    return result if bias is None else net.binary("SUM", result, bias)


@lowering("layer_norm")
def _layer_norm(net: Network, node: Node, x: Any, weight: Any, bias: Any) -> Any:
    rank, own = len(x.shape), len(weight.shape)
    weight, bias = (net.unsqueeze(t, range(rank - own)) for t in (weight, bias))
    axes = net.mask(range(rank - own, rank))
    layer = net.raw.add_normalization_v2(x, weight, bias, axes)
    layer.epsilon = node.attrs["eps"]
    return net.add(layer)


@lowering("rms_norm")
def _rms_norm(net: Network, node: Node, x: Any, weight: Any) -> Any:
    """In float32, rounded once: TensorRT's normalization subtracts the mean."""
    rank, own, kind = len(x.shape), len(weight.shape), kind_of(node)
    wide = net.cast(x, dtypes.float32)
    square = net.reduce("AVG", net.binary("PROD", wide, wide), range(rank - own, rank), True)
    square = net.with_number("SUM", square, node.attrs["eps"], dtypes.float32)
    normal = net.binary("DIV", wide, net.unary("SQRT", square))
    scaled = net.binary("PROD", normal, net.cast(weight, dtypes.float32))
    return net.cast(scaled, kind)


@lowering("scaled_dot_product_attention")
def _attention(net: Network, node: Node, query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    """TensorRT's attention does not scale; the query is scaled before it."""
    query = _scaled_query(net, node, query)
    if (
        operand(node, 1).shape[3] != operand(node, 2).shape[3]
    ):  # It has no values of another size than the keys'.
        return _attention_by_products(net, node, query, key, value, mask)
    trt = net.trt
    causal = trt.CausalMaskKind.UPPER_LEFT if node.attrs["is_causal"] else trt.CausalMaskKind.NONE
    softmax = trt.AttentionNormalizationOp.SOFTMAX
    attention = net.finish(net.raw.add_attention_v2(query, key, value, softmax, causal))
    # Where it has no kernel for the types and sizes, TensorRT computes it from simpler layers.
    attention.decomposable = True
    if mask is not None:
        attention.mask = _full_mask(net, node, mask)
    return net.checked(attention.get_output(0))


def _scaled_query(net: Network, node: Node, query: Any) -> Any:
    source, scale = operand(node), node.attrs["scale"]
    kind = source.dtype
    if scale is not None:
        return net.with_number("PROD", query, scale, kind)
    if isinstance(source.shape[3], int):
        return net.with_number("PROD", query, 1 / math.sqrt(source.shape[3] or 1), kind)
    size = net.cast(net.sizes.vector((source.shape[3],)), dtypes.float32)
    factor = net.unary("RECIP", net.unary("SQRT", size))
    return net.binary("PROD", query, net.cast(factor, kind))


def _attention_by_products(
    net: Network, node: Node, query: Any, key: Any, value: Any, mask: Any
) -> Any:
    """By its definition, in float32."""
    asked, known = operand(node), operand(node, 1)
    kind, (batch, heads, rows, width) = asked.dtype, asked.shape
    groups, columns = known.shape[1:3]
    # Heads that share keys are rows of one product: [batch, groups, heads / groups * rows, width].
    query = net.reshape(query, (batch, groups, dims.floordiv(heads, groups) * rows, width))
    query, key, value = (net.cast(t, dtypes.float32) for t in (query, key, value))
    plain, turned = net.trt.MatrixOperation.NONE, net.trt.MatrixOperation.TRANSPOSE
    scores = net.add(net.raw.add_matrix_multiply(query, plain, key, turned))
    scores = net.reshape(scores, (batch, heads, rows, columns))
    if node.attrs["is_causal"]:
        later = net.binary("GREATER", net.along(columns, 3, 4), net.along(rows, 2, 4))
        scores = net.select(later, net.number(-math.inf, dtypes.float32, 4), scores)
    elif mask is not None and kind_of(node, 3) is dtypes.bool:
        scores = net.select(mask, scores, net.number(-math.inf, dtypes.float32, 4))
    elif mask is not None:
        scores = net.binary("SUM", scores, net.cast(mask, dtypes.float32))
    layer = net.raw.add_softmax(scores)
    layer.axes = net.mask((3,))
    weights = net.reshape(
        net.add(layer), (batch, groups, dims.floordiv(heads, groups) * rows, columns)
    )
    result = net.add(net.raw.add_matrix_multiply(weights, plain, value, plain))
    return net.cast(net.reshape(result, node.output.shape), kind)


def _full_mask(net: Network, node: Node, mask: Any) -> Any:
    """A mask of rank 4 for all queries and keys; batches and heads may be 1."""
    query, key, given = operand(node), operand(node, 1), operand(node, 3)
    rows, columns = query.shape[2], key.shape[2]
    own = [1] * (4 - given.rank) + list(given.shape)
    mask = net.unsqueeze(mask, range(4 - given.rank))
    return net.expand(mask, own, (*own[:2], rows, columns))


@lowering("kv_cache_update")
def _kv_cache_update(net: Network, node: Node, cache: Any, update: Any, position: Any) -> Any:
    """TensorRT's layer writes into a cache that is an input, and gives it back as an output."""
    if node in net.in_place:
        layer = net.raw.add_kv_cache_update(cache, update, position, net.trt.KVCacheMode.LINEAR)
        return net.add(layer)
    return _copied_cache(net, node, cache, update, position)


def _copied_cache(net: Network, node: Node, cache: Any, update: Any, position: Any) -> Any:
    """Each place of the cache takes the element of the update that falls on it, if one does."""
    whole, part = operand(node), operand(node, 1)
    batch, heads, capacity, width = whole.shape
    count = part.shape[2]
    first = net.reshape(position, (batch, 1, 1, 1))
    distance = net.binary("SUB", net.along(capacity, 2, 4), first)
    length = net.cast(net.reshape(net.sizes.vector((count,)), (1,) * 4), dtypes.int32)
    low = net.unary("NOT", net.with_number("LESS", distance, 0, dtypes.int32))
    inside = net.binary("AND", low, net.binary("LESS", distance, length))
    # One more row, so that there is something to take where the update is empty.
    zeros = net.expand(net.number(0.0, whole.dtype, 0), (), (batch, heads, 1, width))
    rows = net.concatenate([update, zeros], 2)
    index = net.binary("MIN", net.with_number("MAX", distance, 0, dtypes.int32), length)
    index = net.expand(index, (batch, 1, capacity, 1), whole.shape)
    layer = net.raw.add_gather_v2(rows, index, net.trt.GatherMode.ELEMENT)
    layer.axis = 2
    return net.select(inside, net.add(layer), cache)


@lowering("rotary_embedding")
def _rotary(net: Network, node: Node, x: Any, cos: Any, sin: Any) -> Any:
    source, angles = operand(node), [operand(node, 1), operand(node, 2)]
    if source.rank == 4 and all(_same_for_all_heads(a) for a in angles):
        batch, _, length, width = source.shape
        half = (batch, length, width // 2)
        tables = [_table(net, table, value, half) for table, value in zip((cos, sin), angles)]
        layer = net.raw.add_rotary_embedding(x, *tables, node.attrs["interleaved"], _even(width))
        return net.add(layer)
    return _rotated(net, node, x, cos, sin)


def _even(width: Any) -> int:
    """How many elements of the last dimension are rotated; 0 is all."""
    return width if isinstance(width, int) else 0


def _same_for_all_heads(value: Value) -> bool:
    return value.rank < 3 or value.shape[-3] == 1


def _table(net: Network, table: Any, value: Value, shape: Any) -> Any:
    """Cosines or sines as [batch, length, width / 2]."""
    own = list(value.shape)
    if value.rank >= 3:
        table = net.squeeze(table, (value.rank - 3,))
        del own[-3]
    return net.expand(table, own, shape)


def _rotated(net: Network, node: Node, x: Any, cos: Any, sin: Any) -> Any:
    """By its definition, for angles that differ between heads and inputs of other ranks."""
    source = operand(node)
    rank, shape = source.rank, source.shape
    half = shape[-1] // 2
    sizes = (*shape[:-1], half)
    zeros, ones = [0] * rank, [1] * rank
    if node.attrs["interleaved"]:
        steps = [*ones[:-1], 2]
        first = net.slice(x, zeros, sizes, steps)
        second = net.slice(x, [*zeros[:-1], 1], sizes, steps)
    else:
        first = net.slice(x, zeros, sizes, ones)
        second = net.slice(x, [*zeros[:-1], half], sizes, ones)

    def product(a: Any, b: Any) -> Any:
        return net.binary("PROD", a, b)

    parts = [
        net.binary("SUB", product(first, cos), product(second, sin)),
        net.binary("SUM", product(second, cos), product(first, sin)),
    ]
    if not node.attrs["interleaved"]:
        return net.concatenate(parts, rank - 1)
    pairs = net.concatenate([net.unsqueeze(part, (rank,)) for part in parts], rank)
    return net.reshape(pairs, shape)
