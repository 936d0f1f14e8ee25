"""Layers of matrix products, normalization, attention and its cache."""

from __future__ import annotations

import math
from typing import Any

from tripy import dtypes
from tripy.backends.tensorrt.lowering.table import Unsupported, kind_of, lowering, operand
from tripy.backends.tensorrt.network import Network
from tripy.backends.tensorrt.sizes import is_static
from tripy.graph import Node, Value, dims


@lowering("matmul")
def _matmul(net: Network, node: Node, left: Any, right: Any) -> Any:
    small = small_types(node)
    if len(small - {None}) > 1 and dtypes.float8 in small:
        names = " and ".join(sorted(map(str, small)))
        raise Unsupported(f"it has no product of numbers that were quantized to {names}")
    if dtypes.int4 in small and None not in small:
        return _product_with_int4(net, node, left, right)
    return _product(net, left, right)


def small_types(node: Node) -> set[Any]:
    """The types that the operands of a product were quantized to; None is one that was not."""
    return {_rounded_to(node, 0), _rounded_to(node, 1)}


def _product_with_int4(net: Network, node: Node, left: Any, right: Any) -> Any:
    """Both sides were quantized, one of them to int4: a product in floating point.

    TensorRT-RTX 1.7 fails over blocks of int4 that are reshaped between their dequantize layer and
    the product, as a weight is for an input of more dimensions. So the input is flattened.
    """
    x, weight = operand(node), operand(node, 1)
    producer = weight.node
    if producer is not None and producer.op == "dequantize" and weight.rank > 1:
        dim = producer.attrs["dim"]
        if dim is not None and dim % weight.rank == weight.rank - 2:
            raise Unsupported(
                "it has no product of numbers that were quantized to int4, with a scale for each "
                "element of the summed dimension",
                "a scale for each column, or blocks",
            )
    if x.rank < 3 or weight.rank != 2:
        return _product(net, left, right)
    flat = net.reshape(left, (dims.product(x.shape[:-1]), x.shape[-1]))
    return net.reshape(_product(net, flat, right), node.output.shape)


def _product(net: Network, left: Any, right: Any) -> Any:
    """A vector is a matrix of one row on the left, of one column on the right."""
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
def _attention(
    net: Network,
    node: Node,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    lengths: Any = None,
) -> Any:
    """TensorRT's attention does not scale; the query is scaled before it."""
    part = _part_of_scale(net, node)
    query = _scaled_query(net, node, query, part)
    if part != 1:
        key = net.with_number("PROD", key, 1 / part, kind_of(node))
    # A softmax over nothing is NaN: such a row looks at something, and is zeroed afterwards.
    empty = None
    if lengths is not None and not _is_positive(operand(node, 4)):
        empty = net.unsqueeze(net.with_number("LESS", lengths, 1, dtypes.int32), (1, 2, 3))
        lengths = net.with_number("MAX", lengths, 1, dtypes.int32)
    if mask is not None:
        mask = net.unsqueeze(mask, range(4 - operand(node, 3).rank))
        mask, empty = _seeing_mask(net, operand(node, 3), mask)
    if operand(node, 1).shape[3] == operand(node, 2).shape[3]:
        result = _attention_layer(net, node, query, key, value, mask, lengths)
    else:  # The layer has no values of another size than the keys'.
        result = _attention_by_products(net, node, query, key, value, mask, lengths)
    if empty is None:
        return result
    return net.select(empty, net.number(0.0, kind_of(node), 4), result)


def _is_positive(lengths: Value) -> bool:
    """Whether no batch row can have a length of 0."""
    return lengths.data is not None and bool((lengths.data > 0).all())


def _seeing_mask(net: Network, value: Value, mask: Any) -> tuple[Any, Any]:
    """A mask that hides no row's keys all; and which rows it did, None where there are none."""
    if value.data is not None:
        hidden = ~value.data if value.dtype is dtypes.bool else value.data == -math.inf
        if not bool((hidden.all(-1) if value.rank else hidden).any()):
            return mask, None
    if value.dtype is dtypes.bool:
        most = net.reduce("MAX", net.flags(mask), (3,), True)
        empty = net.with_number("LESS", most, 1, dtypes.int32)
        return net.binary("OR", mask, empty), empty
    most = net.reduce("MAX", mask, (3,), True)
    empty = net.with_number("EQUAL", most, -math.inf, value.dtype)
    return net.select(empty, net.number(0.0, value.dtype, 4), mask), empty


def _attention_layer(
    net: Network, node: Node, query: Any, key: Any, value: Any, mask: Any, lengths: Any
) -> Any:
    trt = net.trt
    causal = trt.CausalMaskKind.UPPER_LEFT if node.attrs["is_causal"] else trt.CausalMaskKind.NONE
    softmax = trt.AttentionNormalizationOp.SOFTMAX
    attention = net.finish(net.raw.add_attention_v2(query, key, value, softmax, causal))
    # Where it has no kernel for the types and sizes, TensorRT computes it from simpler layers.
    attention.decomposable = True
    if mask is not None:
        attention.mask = _full_mask(net, node, mask)
    if lengths is not None:
        attention.key_value_lengths = lengths
    return net.checked(attention.get_output(0))


def _part_of_scale(net: Network, node: Node) -> float:
    """How much of the scale the query takes: 1, or a power of two, which changes no rounding.

    TensorRT-RTX 1.7 crashes over several attentions of one scaled query. So each has another scale,
    and the rest of it is taken by the key.
    """
    scale, width = node.attrs["scale"], operand(node).shape[3]
    if scale is None:
        scale = 1 / math.sqrt(width or 1) if isinstance(width, int) else 1.0
    part, used = 1.0, net.query_scales.setdefault(operand(node), set())
    for _ in range(len(used)):  # No more often: a scale of 0 stays what it is.
        part /= 2 if scale * part in used else 1
    used.add(scale * part)
    return part


def _scaled_query(net: Network, node: Node, query: Any, part: float) -> Any:
    source, scale = operand(node), node.attrs["scale"]
    kind = source.dtype
    if scale is not None:
        return net.with_number("PROD", query, scale * part, kind)
    if isinstance(source.shape[3], int):
        return net.with_number("PROD", query, part / math.sqrt(source.shape[3] or 1), kind)
    size = net.cast(net.sizes.vector((source.shape[3],)), dtypes.float32)
    factor = net.unary("RECIP", net.unary("SQRT", size))
    scaled = net.binary("PROD", query, net.cast(factor, kind))
    return scaled if part == 1 else net.with_number("PROD", scaled, part, kind)


def _attention_by_products(
    net: Network, node: Node, query: Any, key: Any, value: Any, mask: Any, lengths: Any
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
    if lengths is not None:
        length = net.unsqueeze(lengths, (1, 2, 3))
        visible = net.binary("LESS", net.along(columns, 3, 4), length)
        scores = net.select(visible, scores, net.number(-math.inf, dtypes.float32, 4))
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
    own = [1] * (4 - given.rank) + list(given.shape)
    return net.expand(mask, own, (*own[:2], query.shape[2], key.shape[2]))


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
    width = source.shape[-1]
    if source.rank != 4 or not isinstance(width, int) or not all(map(_same_for_all_heads, angles)):
        return _rotated(net, node, x, cos, sin)
    # TensorRT-RTX 1.7 fails over its layer for pairs of neighbours where a size is dynamic and
    # tensors are concatenated along it anywhere in the network, as a growing cache is.
    if node.attrs["interleaved"] and not is_static(source.shape):
        return _rotated(net, node, x, cos, sin)
    half = (source.shape[0], source.shape[2], width // 2)
    tables = [_table(net, table, value, half) for table, value in zip((cos, sin), angles)]
    layer = net.raw.add_rotary_embedding(x, *tables, node.attrs["interleaved"], width)
    return net.add(layer)


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
    """By its definition: angles that differ between heads, other ranks, a width not yet known."""
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
