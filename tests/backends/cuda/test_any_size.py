"""Quantized layers of any size, compiled for a GPU: none is refused, rows do not mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tripy as tp
from tests.passes.support import info, operations

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.usefixtures("emulated"),
    # The interpreter's numpy warns where a GPU gives infinity or NaN.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
HALF = tp.float16
KINDS = {"int8": (tp.int8, True), "int8 weight": (tp.int8, False), "float8": (tp.float8, True)}
# (inputs, outputs): rows of no multiple of 16 bytes, in the input, the output, or both.
SIZES = [(17, 1), (40, 33), (37, 64), (64, 29)]


def placed(values):
    """On the device of this test: values of numpy are on the CPU."""
    there = tp.copy(tp.Tensor(values.astype(np.float32)), tp.config.default_device)
    return tp.cast(there, HALF).eval()


def random(rng, *shape):
    return placed(rng.normal(size=shape))


def new_layer(rng, kind, inputs, outputs):
    quantized, static = KINDS[kind]
    layer = tp.Linear(inputs, outputs, dtype=HALF, quant_dtype=quantized, weight_quant_dim=0)
    layer.weight = random(rng, outputs, inputs)
    layer.bias = random(rng, outputs)
    high = 448 if quantized is tp.float8 else 127
    scale = 3.0 / high * rng.uniform(0.8, 1.2, outputs)
    layer.weight_scale = placed(scale)
    if static:
        layer.input_scale = placed(np.array(4.0 / high))
    return layer


def new_program(rng, kind, rows, inputs, outputs):
    """A layer and an activation, compiled, and the same as it is defined."""
    layer = new_layer(rng, kind, inputs, outputs)

    def block(x):
        return tp.gelu(layer(x))

    fast = tp.compile(block, args=[info(rows, inputs, dtype=HALF)], backend="torch")
    assert operations(fast)[-1] == "quantized_linear"
    kernels = [row.kernel for row in fast.report().rows if row.operation == "quantized_linear"]
    assert "GEMM" in kernels[-1]
    return fast, block


def values(tensor):
    return tp.copy(tp.cast(tensor, tp.float32), tp.device("cpu")).numpy()


@pytest.mark.parametrize("rows", [1, 9, 70])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_size(rng, device, kind, inputs, outputs, rows):
    if kind == "float8" and device.type == "cpu":
        pytest.skip("Triton's interpreter does not round to float8")
    fast, block = new_program(rng, kind, rows, inputs, outputs)
    x = random(rng, rows, inputs)
    got, wanted = values(fast(x)), values(block(x))
    assert got.shape == wanted.shape == (rows, outputs)
    # A rounding of the input on the other side of a half is a step of its type.
    most = np.abs(wanted).max()
    assert np.abs(got - wanted).max() <= (0.1 if kind == "float8" else 0.02) * most


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_mix(rng, device, kind):
    """To the last bit, also beside rows of NaN; which stay NaN but where int8 has none."""
    if kind == "float8" and device.type == "cpu":
        pytest.skip("Triton's interpreter does not round to float8")
    for rows in (5, 70):
        fast, _ = new_program(rng, kind, rows, 40, 33)
        x = random(rng, rows, 40)
        first = values(fast(x))
        others = values(random(rng, rows, 40))
        others[1] = values(x)[1]
        others[2, 7] = np.nan
        second = values(fast(placed(others)))
        assert np.array_equal(first[1], second[1])
        assert not np.array_equal(first[0], second[0])
        if kind != "int8":
            assert np.isnan(second[2]).all() and not np.isnan(np.delete(second, 2, 0)).any()


@pytest.mark.gpu
def test_many_rows(rng, gpu):
    """A vocabulary's 50,257 columns: rows of the result that the copy engine cannot write."""
    fast, block = new_program(rng, "int8", 300, 64, 50257)
    x = random(rng, 300, 64)
    got, wanted = values(fast(x)), values(block(x))
    assert np.abs(got - wanted).max() <= 0.02 * np.abs(wanted).max()
    assert torch.from_numpy(got).isfinite().all()
