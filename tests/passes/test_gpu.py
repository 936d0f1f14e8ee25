"""Fusions for GPUs: when they are made and when not. Their values: tests/backends/cuda."""

from __future__ import annotations

import pytest

import tripy as tp
from tests.passes.support import info, linear, random
from tripy.graph.verifier import verify
from tripy.passes import GPU_RULES, fuse_decode_attention
from tripy.passes.rewrite import apply_rules


def fused(function, *infos):
    """The operations after the GPU's passes; the graph is as the CPU's have left it."""
    graph = tp.compile(function, args=list(infos), backend="torch").graph
    rules = [name for name, _ in apply_rules(graph, GPU_RULES)]
    count = fuse_decode_attention(graph)
    verify(graph, "the GPU passes")
    operations = [node.op for node in graph.nodes()]
    assert count == operations.count("append_and_attend")
    return operations, rules, graph


def new_norm(kind, dtype=tp.float32, width=6):
    norm = {"layer": tp.LayerNorm, "rms": tp.RMSNorm}[kind](width, dtype=dtype)
    norm.initialize_dummy_parameters()
    return norm


NORMS = pytest.mark.parametrize("kind", ["layer", "rms"])
X = info(3, 6)


@NORMS
@pytest.mark.parametrize("input_scale", [None, 0.05], ids=["weight only", "static"])
def test_a_norm_goes_into_the_layer_behind_it(rng, kind, input_scale):
    layer, norm = linear(rng, input_scale=input_scale), new_norm(kind)
    operations, rules, graph = fused(lambda x: layer(norm(x)), X)
    assert operations == ["normalized_linear"]
    assert rules[-1] == "norm before a linear layer"
    (node,) = graph.nodes()
    assert node.attrs["kind"] == kind and node.attrs["eps"] == norm.eps
    assert (node.inputs[2] is None) == (kind == "rms")
    assert (node.inputs[3] is None) == (input_scale is None)
    assert node.output.dtype is tp.float32 and graph.outputs == [node.output]


@NORMS
def test_a_rounded_norm_alone(rng, kind):
    norm = new_norm(kind)
    for dtype in (tp.int8, tp.float8):
        operations, rules, graph = fused(lambda x: tp.quantize(norm(x), 0.1, dtype), X)  # noqa: B023
        assert operations == ["normalize_quantize"] and rules == ["norm, rounded"]
        assert graph.outputs[0].dtype is dtype


def test_norms_that_stay(rng):
    """Read elsewhere too, with a scale for each channel, in int4, or over two dimensions."""
    layer, norm = linear(rng), new_norm("layer")

    def shared(x):
        y = norm(x)
        return layer(y) + tp.sum(y)

    assert "layer_norm" in fused(shared, X)[0]
    scales = [0.1, 0.2, 0.1, 0.2, 0.1, 0.2]
    assert fused(lambda x: tp.quantize(norm(x), scales, tp.int8, dim=1), X)[0] == [
        "layer_norm", "quantize",
    ]  # fmt: skip
    assert fused(lambda x: tp.quantize(norm(x), 0.1, tp.int4), X)[0] == ["layer_norm", "quantize"]
    both = tp.LayerNorm((3, 6))
    both.initialize_dummy_parameters()
    weight_only = linear(rng, input_scale=None)
    for other in (layer, weight_only):
        operations = fused(lambda x: other(both(x)), X)[0]  # noqa: B023
        assert "layer_norm" in operations and "quantized_linear" in operations


def test_a_rounded_norm_with_two_readers(rng):
    """As of three layers for query, key and value: rounded once, with one scale."""
    first, second, norm = linear(rng), linear(rng), new_norm("layer")

    def both(x):
        y = norm(x)
        return first(y), second(y)

    operations = fused(both, X)[0]
    assert operations.count("normalized_linear") + operations.count("quantized_linear") == 2
    assert operations.count("layer_norm") + operations.count("normalize_quantize") == 1


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("with_norm", [False, True])
def test_a_residual_is_added_in_the_layer(rng, turned, with_norm):
    layer, norm = linear(rng), new_norm("layer")

    def block(x, y):
        out = layer(norm(x) if with_norm else x)
        return y + out if turned else out + y

    operations, rules, graph = fused(block, X, info(3, 4))
    name = "normalized_linear" if with_norm else "quantized_linear"
    assert operations == (["normalized_linear"] if with_norm else ["quantize", name])
    assert "residual" in rules
    node = graph.nodes()[-1]
    assert node.op == name and node.inputs[-1] is graph.inputs[1]
    assert fused(layer, X)[2].nodes()[-1].inputs[-1] is None


def test_a_whole_block(rng):
    """x + layer(norm(x)): the input of the norm is what is added."""
    layer = tp.Linear(6, 6, quant_dtype=tp.int8, weight_quant_dim=0)
    layer.weight, layer.bias = random(rng, 6, 6), random(rng, 6)
    layer.weight_scale, layer.input_scale = [0.03] * 6, 0.05
    norm = new_norm("rms")
    operations, _, graph = fused(lambda x: x + layer(norm(x)), X)
    assert operations == ["normalized_linear"]
    (node,) = graph.nodes()
    assert node.inputs[0] is node.inputs[-1] is graph.inputs[0]


def test_residuals_that_stay(rng):
    """Of another shape or a second one, behind another reader or an activation, or rounded."""
    layer, relu = linear(rng), tp.relu
    row, other = info(4), info(3, 4)

    def adds(function, *infos):
        return fused(function, X, *infos)[0].count("add")

    assert adds(lambda x, y: layer(x) + y, row) == 1
    assert adds(lambda x, y: layer(x) + y, info(1, 4)) == 1
    assert adds(lambda x, y: layer(x) + y, info(2, 3, 4)) == 1
    assert adds(lambda x, y: layer(x) + y + y, other) == 1
    assert adds(lambda x, y: (lambda out: (out + y, out))(layer(x)), other) == 1
    # The activation comes before the residual.
    assert adds(lambda x, y: relu(layer(x) + y), other) == 0
    assert fused(lambda x, y: relu(layer(x) + y), X, other)[0][-1] == "relu"
    assert adds(lambda x, y: relu(layer(x)) + y, other) == 0
    # Rounded for the layer behind it, or not: the sum is what that layer reads.
    wide = tp.Linear(4, 4, quant_dtype=tp.int8, weight_quant_dim=0)
    wide.weight, wide.bias = random(rng, 4, 4), random(rng, 4)
    wide.weight_scale, wide.input_scale = [0.03] * 4, 0.05
    operations = fused(lambda x, y: wide(layer(x) + y), X, other)[0]
    assert operations.count("quantized_linear") == 2 and "add" not in operations


# ------------------------------------------------------------------------------------------------
# One token's attention.

BATCH, HEADS, GROUPS, CAPACITY, WIDTH = 2, 4, 2, 16, 8
CACHE = info(BATCH, 2 * GROUPS, CAPACITY, WIDTH)
QKV = info(BATCH, HEADS + 2 * GROUPS, 1, WIDTH)
ROW = info(BATCH, dtype=tp.int32)


def attend(cache, qkv, position, *, turned=False, end=None, **options):
    """One step as models write it."""
    query, pair = tp.split(qkv, [HEADS, 2 * GROUPS], dim=1)
    cache = tp.kv_cache_update(cache, pair, position)
    key, value = tp.split(cache, 2, dim=1)
    if turned:
        key, value = value, key
    lengths = position + 1 if end is None else end
    options = {"key_value_lengths": lengths, **options}
    return tp.scaled_dot_product_attention(query, key, value, **options), cache


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_over_a_cache_is_one_node(scale):
    operations, _, graph = fused(lambda c, x, p: attend(c, x, p, scale=scale), CACHE, QKV, ROW)
    assert operations.count("append_and_attend") == 1
    for gone in ("split", "kv_cache_update", "scaled_dot_product_attention"):
        assert gone not in operations
    (node,) = [n for n in graph.nodes() if n.op == "append_and_attend"]
    assert node.attrs["scale"] == (WIDTH**-0.5 if scale is None else scale)
    assert node.outputs == [graph.outputs[1], graph.outputs[0]]
    assert node.inputs[:3] == graph.inputs


def test_several_layers():
    def twice(first, second, x, position):
        y, first = attend(first, x, position)
        z = tp.concatenate([y, x[:, HEADS:] + y[:, :1]], dim=1)
        y, second = attend(second, z, position)
        return y, first, second

    operations, _, _ = fused(twice, CACHE, CACHE, QKV, ROW)
    assert operations.count("append_and_attend") == 2 and "kv_cache_update" not in operations


def test_the_updated_cache_may_be_read_elsewhere():
    def function(cache, x, position):
        y, cache = attend(cache, x, position)
        return y, tp.sum(cache)

    operations, _, graph = fused(function, CACHE, QKV, ROW)
    assert operations.count("append_and_attend") == 1
    (total,) = [n for n in graph.nodes() if n.op == "sum"]
    assert total.inputs[0].node.op == "append_and_attend"


def another_reader(part):
    """A step that returns one of the inner values too."""

    def function(cache, qkv, position):
        query, pair = tp.split(qkv, [HEADS, 2 * GROUPS], dim=1)
        cache = tp.kv_cache_update(cache, pair, position)
        key, value = tp.split(cache, 2, dim=1)
        y = tp.scaled_dot_product_attention(query, key, value, key_value_lengths=position + 1)
        return y, cache, {"query": query, "pair": pair, "key": key, "value": value}[part] + 1.0

    return function


def stacked(cache, query, pair, position):
    """Query and keys that are not parts of one tensor."""
    cache = tp.kv_cache_update(cache, pair, position)
    key, value = tp.split(cache, 2, dim=1)
    y = tp.scaled_dot_product_attention(query, key, value, key_value_lengths=position + 1)
    return y, cache


def by_hand(cache, qkv, position):
    """Heads cut along another dimension first."""
    query, pair = tp.split(qkv, [HEADS, 2 * GROUPS], dim=1)
    cache = tp.kv_cache_update(cache, pair, position)
    key, value = cache[:, :GROUPS], cache[:, GROUPS:]
    y = tp.scaled_dot_product_attention(query, key, value, key_value_lengths=position + 1)
    return y, cache


MASK = info(1, 1, 1, CAPACITY, dtype=tp.bool)
TWO = info(BATCH, HEADS + 2 * GROUPS, 2, WIDTH)
LARGE = (info(BATCH, 2 * GROUPS, CAPACITY, 264), info(BATCH, HEADS + 2 * GROUPS, 1, 264))
STAYS = {
    "keys and values change places": (lambda *a: attend(*a, turned=True), CACHE, QKV, ROW),
    "two tokens": (attend, CACHE, TWO, ROW),
    "wide heads": (attend, *LARGE, ROW),
    "a mask": (
        lambda c, x, p, m: attend(c, x, p, key_value_lengths=None, mask=m),
        CACHE, QKV, ROW, MASK),
    "no lengths": (lambda *a: attend(*a, key_value_lengths=None), CACHE, QKV, ROW),
    "parts of no tensor": (
        stacked, CACHE, info(BATCH, HEADS, 1, WIDTH), info(BATCH, 2 * GROUPS, 1, WIDTH), ROW),
    "slices": (by_hand, CACHE, QKV, ROW),
    **{f"{part} is read": (another_reader(part), CACHE, QKV, ROW)
       for part in ("query", "pair", "key", "value")},
}  # fmt: skip


@pytest.mark.parametrize("case", STAYS)
def test_attention_that_stays(case):
    function, *infos = STAYS[case]
    operations, _, _ = fused(function, *infos)
    assert "append_and_attend" not in operations
    assert "kv_cache_update" in operations and "scaled_dot_product_attention" in operations


def test_a_dynamic_batch():
    batch = tp.NamedDimension("batch", 1, 2, 4)
    cache, qkv = info(batch, 4, CAPACITY, WIDTH), info(batch, HEADS + 4, 1, WIDTH)
    operations = fused(attend, cache, qkv, info(batch, dtype=tp.int32))[0]
    assert operations.count("append_and_attend") == 1


def test_rows_of_tables(rng):
    """Rows of floating-point matrices are picked by one kernel, and two such are added in it."""
    tables = [random(rng, n, 6) for n in (5, 4, 3)]
    index, wide = info(2, dtype=tp.int32), info(2, 3, dtype=tp.int32)

    def rows(function, *infos):
        return fused(function, *infos)[0]

    assert rows(lambda i: tp.gather(tables[0], 0, i), wide) == ["gather_rows"]
    assert rows(lambda i: tp.gather(tables[0], 1, i), wide) == ["gather"]
    assert rows(lambda i: tp.gather(tp.cast(tables[0], tp.int32), 0, i), wide) == ["gather"]
    assert rows(lambda i: tp.gather(tables[0][0], 0, i), wide) == ["gather"]

    def both(i, j):
        return tp.gather(tables[0], 0, i) + tp.gather(tables[1], 0, j)

    assert rows(both, index, index) == ["gather_rows"]
    assert rows(lambda i, j: both(i, j) + tp.gather(tables[2], 0, i), index, index) == [
        "gather_rows", "gather_rows", "add",
    ]  # fmt: skip
    # Other shapes are added as always.
    one = info(1, dtype=tp.int32)
    assert rows(both, index, one) == ["gather_rows", "gather_rows", "add"]
