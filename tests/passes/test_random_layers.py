"""Fused layers against their eager meaning: random shapes, types and scales, with bounds.

A product of K terms that is rounded to 24 bits at most K times, and a result that is rounded to
its own type, may differ by ``(K * 2**-23 + c * unit) * sum |x| |w|``; a rounded result by one step,
where a tie falls the other way.
"""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import plain
from tests.passes.support import RANGE, UNIT, operations, random

ACTIVATIONS = {
    None: lambda y: y,
    "relu": tp.relu,
    "silu": tp.silu,
    "gelu": tp.gelu,
    "gelu_tanh": lambda y: tp.gelu(y, approximate="tanh"),
}
FLOATS = [tp.float32, tp.float16, tp.bfloat16]


def scale_for(rng, weight, kind, grain):
    """A random scale of some grain under which part of the weight saturates."""
    out, inner = weight.shape
    shape = {
        "tensor": (), "out": (out,), "in": (inner,), "rows": (out // 2, inner), "row": (1, inner),
        "columns": (out, inner // 2), "column": (out, 1),
    }[grain]  # fmt: skip
    sizes = rng.uniform(0.4, 1.2, shape) * 2.5 / RANGE[kind]
    return tp.cast(tp.Tensor(sizes.astype(np.float32)), weight.dtype).eval()


def layer(rng, dtype, kind, grain, static, bias, activation, requantize):
    inner, out = 2 * int(rng.integers(1, 40)), 2 * int(rng.integers(1, 30))
    weight = random(rng, out, inner, dtype=dtype)
    scale = scale_for(rng, weight, kind, grain)
    dim = {"out": 0, "in": 1}.get(grain)
    added = random(rng, out, dtype=dtype) if bias else None
    x_kind = tp.int8 if kind is tp.int4 else kind
    x_scale = tp.cast(tp.Tensor(float(rng.uniform(0.3, 1.2)) * 3 / RANGE[x_kind]), dtype).eval()
    y_scale = tp.cast(tp.Tensor(float(rng.uniform(1, 3)) * inner**0.5 / 64), dtype).eval()

    def quantized(x):
        return tp.dequantize(tp.quantize(x, x_scale, x_kind), x_scale, dtype) if static else x

    def expanded():
        return tp.dequantize(tp.quantize(weight, scale, kind, dim), scale, dtype, dim)

    def forward(x):
        y = quantized(x) @ tp.transpose(expanded(), 0, 1)
        y = ACTIVATIONS[activation](y if added is None else y + added)
        return tp.quantize(y, y_scale, x_kind) if requantize else y

    def magnitude(x):
        size = np.abs(plain(quantized(x))) @ np.abs(plain(expanded())).T
        return size + (np.abs(plain(added)) if bias else 0)

    return forward, magnitude, inner, float(plain(y_scale)), x_kind


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", [tp.int8, tp.int4, tp.float8], ids=str)
@pytest.mark.parametrize("static", [True, False], ids=["static", "weight-only"])
@pytest.mark.parametrize("grain", ["tensor", "out", "in", "rows", "columns"])
def test_fused_against_eager(dtype, kind, static, grain):
    rng = np.random.default_rng(list(f"{dtype} {kind} {static} {grain}".encode()))
    for _ in range(4):
        activation = rng.choice(list(ACTIVATIONS))
        bias, requantize = rng.random() < 0.7, static and rng.random() < 0.5
        forward, magnitude, inner, step, x_kind = layer(
            rng, dtype, kind, grain, static, bias, activation, requantize
        )
        rows = int(rng.integers(1, 20))
        x = random(rng, rows, inner, dtype=dtype)
        fast = tp.compile(forward, args=[tp.InputInfo(((1, 4, 20), inner), dtype)])
        assert "quantized_linear" in operations(fast)
        got, expected = fast(x), forward(x)
        assert got.dtype is expected.dtype
        bound = magnitude(x) * (inner * 2.0**-23 + 8 * UNIT[dtype]) + 2.0**-20
        if not requantize:
            error = np.abs(plain(got) - plain(expected))
            assert (error <= 1.2 * bound).all(), (error / bound).max()
        elif x_kind is tp.int8:
            steps = np.abs(plain(got) - plain(expected))
            assert (steps <= 1 + np.floor(1.2 * bound / step)).all()
            if dtype is tp.float32:
                assert steps.mean() < 0.01
        else:
            # Neighbours of float8 are at most 1/8 of the value apart, near zero 2**-9.
            error = np.abs(plain(got) - plain(expected))
            assert (error <= np.abs(plain(expected)) / 8 + 2.0**-9 + 1.2 * bound / step).all()


@pytest.mark.parametrize("value", [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 200.0, -128.5, -300.0])
def test_rounding_and_saturation_between_layers(value):
    """Exact numbers: sums are integers and scales powers of two, so nothing may differ."""
    first, second = tp.Linear(2, 2, quant_dtype=tp.int8), tp.Linear(2, 2, quant_dtype=tp.int8)
    first.weight, first.bias = tp.Tensor([[1.0, 0.0], [0.0, 1.0]]), tp.Tensor([value, -value])
    second.weight, second.bias = tp.Tensor([[1.0, 0.0], [0.0, 1.0]]), tp.zeros((2,))
    for each in (first, second):
        each.weight_scale, each.input_scale = 1.0, 1.0
    fast = tp.compile(tp.Sequential(first, second), args=[tp.InputInfo((1, 2), tp.float32)])
    assert fast.graph.nodes()[1].output.dtype is tp.int8
    expected = [float(np.clip(np.round(v), -128, 127)) for v in (value, -value)]
    assert fast(tp.zeros((1, 2))).tolist() == [expected]


def weight_only(rng, dtype, out, inner, static=False):
    weight = random(rng, out, inner, dtype=dtype)
    scale = tp.cast(tp.Tensor(0.03), dtype).eval()

    def forward(x):
        small = tp.dequantize(tp.quantize(weight, scale, tp.int8), scale, dtype)
        if static:
            x = tp.dequantize(tp.quantize(x, scale, tp.int8), scale, dtype)
        return x @ tp.transpose(small, 0, 1)

    return forward


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("inner", [1, 3, 5, 15, 16, 17, 33, 48])
def test_widths_that_no_instruction_likes(rng, dtype, inner):
    """torch's int8 kernel for bfloat16 reads beyond the end of rows of other widths than 16 n."""
    for out, rows in ((1, 1), (3, 2), (17, 5)):
        forward, x = weight_only(rng, dtype, out, inner), random(rng, rows, inner, dtype=dtype)
        got = plain(tp.compile(forward, args=[tp.InputInfo((rows, inner), dtype)])(x))
        bound = (np.abs(plain(x)).sum(-1, keepdims=True) * 4) * 8 * UNIT[dtype] + 1e-6
        assert (np.abs(got - plain(forward(x))) <= bound).all()


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("shape", [(0, 6), (3, 0, 6), (0, 3, 6), (2, 0), (0,), (2, 2, 0)])
def test_nothing_to_multiply(rng, static, shape):
    """oneDNN divides by zero where there are no columns."""
    for dtype in FLOATS:
        forward, x = weight_only(rng, dtype, 4, shape[-1], static), random(rng, *shape, dtype=dtype)
        got = tp.compile(forward, args=[tp.InputInfo(shape, dtype)])(x)
        assert got.shape == (*shape[:-1], 4)
        assert (plain(got) == 0).all()


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("shape", [(32, 5), (32, 1), (1, 7), (1, 1), (2, 32, 5), (2, 1, 3)])
def test_a_transposed_input(rng, static, shape):
    for dtype in FLOATS:
        forward = weight_only(rng, dtype, 4, shape[-2], static)
        x = random(rng, *shape, dtype=dtype)
        fast = tp.compile(
            lambda x, forward=forward: forward(tp.transpose(x, -1, -2)),
            args=[tp.InputInfo(shape, dtype)],
        )
        turned = tp.transpose(x, -1, -2)
        bound = 60 * 8 * UNIT[dtype] * np.abs(plain(x)).max()
        assert (np.abs(plain(fast(x)) - plain(forward(turned))) <= bound).all()
