"""Constant folding: what is known is computed once, and nothing becomes larger by it."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.compiler.support import same
from tests.helpers import raises
from tests.passes.support import info, linear, node, operations, random
from tripy.passes import folding

X = info((1, 3, 8), 6)


def constant_types(fast):
    return sorted(value.type_text for value in fast.graph.constants())


def test_what_is_known_is_computed_once():
    table = tp.Tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    def use(x):
        angles = tp.exp(tp.iota((6,)) * 0.5) + table
        return x * tp.cos(angles)

    fast = tp.compile(use, args=[X])
    assert operations(fast) == ["mul"]
    same(fast(tp.ones((2, 6))), use(tp.ones((2, 6))))


def test_everything_known():
    fast = tp.compile(lambda: (tp.ones((2, 3)) + 1.0, tp.topk(tp.arange(5), 2, 0)))
    assert operations(fast) == []
    same(fast(), (tp.ones((2, 3)) + 1.0, tp.topk(tp.arange(5), 2, 0)))


@pytest.mark.parametrize("kind", [tp.int8, tp.int4, tp.float8])
def test_weights_become_small_once(rng, kind):
    layer = linear(rng, quant_dtype=kind, bias=False)
    fast = tp.compile(layer, args=[X])
    assert f"{kind}[4, 6]" in constant_types(fast)
    assert "float32[4, 6]" not in constant_types(fast)


def test_int4_is_packed_two_to_a_byte(rng):
    layer = linear(rng, quant_dtype=tp.int4, input_scale=None)
    report = tp.compile(layer, args=[X]).report()
    assert report.weight_bytes == 12


def test_weights_that_are_small_already_stay_as_they_are(rng):
    layer = linear(rng)
    layer.weight = tp.quantize(random(rng, 4, 6), layer.weight_scale, tp.int8, 0)
    fast = tp.compile(layer, args=[X])
    assert "int8[4, 6]" in constant_types(fast)
    x = random(rng, 3, 6)
    same(fast(x), layer(x), atol=1e-5)


def test_dequantize_is_never_folded(rng):
    q = tp.quantize(random(rng, 4, 6), 0.1, tp.int8).eval()

    def use(x):
        return x + tp.sum(tp.dequantize(q, 0.1, tp.float32), 0)

    fast = tp.compile(use, args=[X])
    assert operations(fast) == ["dequantize", "sum", "add"]
    assert constant_types(fast) == ["float32[]", "int8[4, 6]"]
    x = random(rng, 3, 6)
    same(fast(x), use(x))


def test_what_would_grow_much_is_not_folded(monkeypatch):
    def use(x):
        return x + tp.sum(tp.expand(tp.ones((1, 6)), (500, 6)), 0)

    assert operations(tp.compile(use, args=[X])) == ["add"]
    monkeypatch.setattr(folding, "MAXIMUM_GROWTH_BYTES", 1000)
    fast = tp.compile(use, args=[X])
    assert operations(fast) == ["expand", "sum", "add"]
    same(fast(tp.ones((1, 6))), use(tp.ones((1, 6))))


def test_what_depends_on_a_dynamic_size_is_not_folded():
    def use(x):
        return tp.ones((x.shape[0], 6)) * 2.0 + x

    fast = tp.compile(use, args=[X])
    assert operations(fast) == ["full", "mul", "add"]
    same(fast(tp.ones((3, 6))), tp.ones((3, 6)) * 3)


def test_a_known_size_of_a_dynamic_tensor_is_folded():
    fast = tp.compile(lambda x: x * tp.ones((x.shape[1],)), args=[X])
    assert operations(fast) == ["mul"]


def test_a_constant_with_two_readers_is_computed_once(rng):
    weight = random(rng, 6, 6)

    def use(x):
        small = tp.tanh(weight)
        return x @ small, x + tp.sum(small, 0)

    fast = tp.compile(use, args=[X])
    assert sorted(operations(fast)) == ["add", "linear"]
    x = random(rng, 3, 6)
    same(fast(x), use(x), atol=1e-5)


def test_the_users_own_tensors_are_left_alone(rng):
    layer = linear(rng)
    weight = layer.weight.tolist()
    lazy = tp.ones((6,)) * 3.0
    for _ in range(2):
        tp.compile(lambda x: layer(x * lazy), args=[X])
    assert layer.weight.tolist() == weight
    assert lazy._value.data is None
    assert layer.weight.dtype is tp.float32


def test_a_failure_while_folding_shows_the_users_line():
    table = tp.Tensor([1.0, 2.0])

    def use(x):
        return x + tp.gather(table, 0, tp.Tensor([7]))

    with raises("gather: an index is out of range", "tp.gather(table, 0"):
        tp.compile(use, args=[X])


BAD = [0.0, -0.5, float("nan"), float("inf")]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("operation", ["quantize", "dequantize"])
def test_scales_that_are_known_only_after_folding(value, operation):
    scales = tp.where(tp.iota((6,)) == 2.0, tp.full((6,), value), tp.ones((6,)))

    def use_quantize(x):
        return tp.cast(tp.quantize(x, scales, tp.int8, dim=1), tp.float32)

    def use_dequantize(x):
        return tp.dequantize(tp.quantize(x, 1.0, tp.int8), scales, tp.float32, dim=1)

    function = use_quantize if operation == "quantize" else use_dequantize
    with raises(f"{operation}: a scale is not usable[\\s\\S]*finite numbers above 0", "scales"):
        tp.compile(function, args=[X])


def test_scales_that_are_computed_at_run_time_are_accepted(rng):
    def use(x):
        scale = tp.max(abs(x)) / 127.0
        q = tp.quantize(x, scale, tp.int8)
        return tp.dequantize(q, scale, tp.float32)

    fast = tp.compile(use, args=[X])
    x = random(rng, 3, 6)
    same(fast(x), use(x))


def test_names_survive_folding(rng):
    model = tp.Sequential({"first": linear(rng), "second": linear(rng, bias=False)})
    model.second = linear(rng)
    layer = linear(rng)
    fast = tp.compile(tp.Sequential({"block": layer}), args=[X])
    fused = node(fast, "quantized_linear")
    assert fused.inputs[1].name == "block.weight"
    assert fused.output.name == "block"
    # The user's tensor has been given no name.
    assert layer.weight.name is None


def test_folding_counts_what_it_has_computed():
    graph = tp.compile(lambda x: x + 1.0, 0, args=[X]).graph.copy()
    assert folding.fold_constants(graph, lambda node, data: ()) == 0


def test_a_large_mask_is_made_once():
    def use(x):
        mask = tp.tril(tp.ones((1000, 1000)))
        return x + tp.sum(mask)

    fast = tp.compile(use, args=[X])
    assert operations(fast) == ["add"]
    assert fast(tp.zeros((1, 6))).numpy()[0, 0] == np.float32(500500)


@pytest.mark.parametrize("static", [True, False])
def test_a_layer_of_a_constant_is_computed_once(rng, static):
    layer, x = linear(rng, input_scale=0.05 if static else None), random(rng, 3, 6)

    def use(y):
        return y + tp.relu(layer(x))

    fast = tp.compile(use, args=[info(3, 4)])
    assert operations(fast) == ["add"]
    same(fast(tp.zeros((3, 4))), use(tp.zeros((3, 4))), atol=1e-5)
