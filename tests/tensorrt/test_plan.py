"""Engines written to a temporary file as they are made, and weights that need no second copy."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
import torch

import tripy as tp
from tests.helpers import raises
from tests.saving.support import info
from tests.tensorrt.support import compile_for, interpreted, needs_rtx
from tripy.backends.tensorrt import plan

pytestmark = needs_rtx
ROWS = tp.NamedDimension("rows", 1, 2, 8)


def built():
    return tp.compile(lambda x: tp.exp(x), args=[info(ROWS, 4)], backend="tensorrt", target="sm_89")


def test_the_plan_is_a_tensor_like_any_other():
    engine = built()._program._engine.plan
    assert engine.dtype is torch.uint8
    before = engine.clone()
    engine[0] += 1  # Its own from here on.
    engine[0] -= 1
    assert torch.equal(engine, before)


def test_no_room_for_the_temporary_file(monkeypatch):
    class Full:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            raise OSError(28, "No space left on device")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full(real(**options)))
    with raises("cannot be written to a temporary file[\\s\\S]*No space left[\\s\\S]*TMPDIR"):
        built()
    monkeypatch.undo()
    assert built().serialized_tensorrt_engine[1:4] == b"trt"


def test_no_folder_for_temporary_files(monkeypatch):
    def missing(**options):
        raise FileNotFoundError("no usable temporary directory")

    said = []
    monkeypatch.setattr(tempfile, "TemporaryFile", missing)
    monkeypatch.setattr(plan.logger, "warning", said.append)
    assert built().serialized_tensorrt_engine[1:4] == b"trt"
    assert "built in memory" in said[0]


@pytest.mark.parametrize("dtype", [tp.int8, tp.float8], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_of_quantized_layers_stay_as_they_lie(dtype, per_channel, rng):
    small = tp.cast(tp.Tensor(rng.integers(-9, 9, (6, 8)).astype(np.float32)), dtype).eval()
    scale = tp.Tensor(rng.random(6).astype(np.float32) + 0.1) if per_channel else 0.2
    dim = 0 if per_channel else None

    def function(x):
        weight = tp.transpose(tp.dequantize(small, scale, tp.float32, dim=dim), 0, 1)
        x = tp.dequantize(tp.quantize(x, 0.1, dtype), 0.1, tp.float32)
        return x @ weight + tp.dequantize(small, scale, tp.float32, dim=dim)[0, 0]

    x = tp.Tensor(rng.normal(size=(3, 8)).astype(np.float32))
    fast = compile_for(function, [x], True)
    kept = [v for v in fast.graph.constants() if v.dtype is dtype]
    assert [v.data.data_ptr() for v in kept] == [small._value.data.data_ptr()]
    (result,) = interpreted(fast, [x])
    np.testing.assert_allclose(result.numpy(), function(x).numpy(), rtol=1e-4, atol=1e-4)


def test_other_weights_are_turned(rng):
    small = tp.Tensor(rng.integers(-9, 9, (6, 8)), dtype=tp.int8)

    def function(x):
        return x @ tp.transpose(tp.dequantize(small, 0.2, tp.float32), 0, 1)

    x = tp.Tensor(rng.normal(size=(3, 8)).astype(np.float32))
    fast = compile_for(function, [x], True)
    assert [v.shape for v in fast.graph.constants() if v.dtype is tp.int8] == [(8, 6)]
    (result,) = interpreted(fast, [x])
    np.testing.assert_allclose(result.numpy(), function(x).numpy(), rtol=1e-4, atol=1e-4)
