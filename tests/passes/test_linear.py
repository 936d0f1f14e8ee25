"""Fusion of floating-point linear layers."""

from __future__ import annotations

import pytest

import tripy as tp
from tests.compiler.support import same
from tests.passes.support import info, node, operations, random

X = info((1, 3, 8), 6)


def agree(function, x, expected, infos=(X,)):
    fast = tp.compile(function, args=list(infos))
    assert operations(fast) == expected
    same(fast(x), function(x), atol=1e-5)
    return fast


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_one_node(rng, bias):
    layer = tp.Linear(6, 4, bias=bias)
    layer.weight = random(rng, 4, 6)
    if bias:
        layer.bias = random(rng, 4)
    fast = agree(layer, random(rng, 3, 6), ["linear"])
    assert node(fast, "linear").inputs[1].shape == (4, 6)
    agree(layer, random(rng, 6), ["linear"], [info(6)])
    agree(layer, random(rng, 2, 3, 6), ["linear"], [info(2, 3, 6)])


def test_a_weight_stored_in_out_or_computed(rng):
    weight = random(rng, 6, 4)
    agree(lambda x: x @ weight, random(rng, 3, 6), ["linear"])
    agree(lambda x: x @ (weight * 2.0), random(rng, 3, 6), ["linear"])


def test_a_transposed_input_as_weight(rng):
    fast = tp.compile(lambda x, w: x @ tp.transpose(w, 0, 1), args=[X, info((1, 2, 4), 6)])
    assert operations(fast) == ["linear"]
    x, w = random(rng, 3, 6), random(rng, 2, 6)
    same(fast(x, w), x @ tp.transpose(w, 0, 1), atol=1e-5)


def test_a_transposed_weight_with_other_readers_is_still_computed(rng):
    fast = tp.compile(
        lambda x, w: (x @ tp.transpose(w, 0, 1), w + 1.0, tp.transpose(w, 0, 1) * 2.0),
        args=[X, info(4, 6)],
    )
    assert sorted(operations(fast)) == ["add", "linear", "mul", "permute"]
    x, w = random(rng, 3, 6), random(rng, 4, 6)
    same(fast(x, w), (x @ tp.transpose(w, 0, 1), w + 1.0, tp.transpose(w, 0, 1) * 2.0), atol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (1, 4), (2, 3, 4)])
def test_what_is_added_is_a_bias_only_if_it_has_its_shape(rng, shape):
    weight, added = random(rng, 4, 6), random(rng, *shape)
    agree(lambda x: x @ tp.transpose(weight, 0, 1) + added, random(rng, 3, 6), ["linear", "add"])


def test_a_residual_is_no_bias(rng):
    weight = random(rng, 6, 6)
    agree(lambda x: x + x @ weight, random(rng, 3, 6), ["linear", "add"])
    # A vector is, by its shape alone, and the result is the same.
    agree(lambda x: x + x @ weight, random(rng, 6), ["linear"], [info(6)])


def test_two_biases(rng):
    layer = tp.Linear(6, 4)
    layer.weight, layer.bias = random(rng, 4, 6), random(rng, 4)
    agree(lambda x: layer(x) + layer.bias, random(rng, 3, 6), ["linear", "add"])


def test_a_product_with_other_readers_keeps_its_value(rng):
    weight, bias = random(rng, 6, 4), random(rng, 4)

    def use(x):
        y = x @ weight
        return y + bias, y

    agree(use, random(rng, 3, 6), ["linear", "add"])


def test_products_that_are_no_layers(rng):
    batch, vector = random(rng, 2, 6, 4), random(rng, 6)
    agree(lambda x: x @ batch, random(rng, 2, 3, 6), ["matmul"], [info(2, 3, 6)])
    agree(lambda x: x @ vector, random(rng, 3, 6), ["matmul"])
    agree(lambda x: vector @ x, random(rng, 6, 3), ["matmul"], [info(6, 3)])
    agree(
        lambda x: x @ tp.permute(x, (0, 2, 1)), random(rng, 2, 3, 6), ["permute", "matmul"],
        [info(2, 3, 6)],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [tp.float16, tp.bfloat16])
def test_smaller_types(rng, dtype):
    layer = tp.Linear(6, 4, dtype=dtype)
    layer.weight, layer.bias = random(rng, 4, 6, dtype=dtype), random(rng, 4, dtype=dtype)
    fast = tp.compile(layer, args=[info(3, 6, dtype=dtype)])
    assert operations(fast) == ["linear"]
    x = random(rng, 3, 6, dtype=dtype)
    same(fast(x), layer(x), atol=0.1 if dtype is tp.bfloat16 else 0.01)
