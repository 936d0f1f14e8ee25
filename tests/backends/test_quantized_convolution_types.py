"""Quantized convolutions that oneDNN's int8 kernel does not run, and saved ones of every type."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tripy as tp
from tests.backends.convolutions import (
    compiled,
    exact,
    kernels,
    layer,
    rows,
)
from tripy.backends.torch.kernels import cpu_int8_convolution, quantized_convolution
from tripy.tensor import apply

CPU = tp.device("cpu")
EPSILON = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("dtype", [tp.float16, tp.bfloat16])
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
def test_sixteen_bit_types(transposed, static, dtype):
    rng = np.random.default_rng(1)
    module = layer(rng, 8, 8, (3, 3), (2, 2), dtype=dtype, static=static, transposed=transposed)
    x = tp.Tensor(rng.standard_normal((2, 8, 7, 7)).astype(np.float32), dtype=dtype)
    result, wanted = compiled(module, x, dtype)(x), module(x)
    assert result.dtype is dtype
    wanted = wanted.numpy().astype(np.float64)
    tolerance = {tp.float16: 3e-3, tp.bfloat16: 2e-2}[dtype] * np.abs(wanted).max()
    assert np.abs(result.numpy().astype(np.float64) - wanted).max() <= tolerance


@pytest.mark.parametrize("kind", [tp.int8, tp.int4, tp.float8])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dim", [None, 0, 1])
def test_weight_only_is_what_eager_computes(kind, transposed, dim):
    rng = np.random.default_rng(2)
    module = layer(
        rng, 5, 3, (3, 3), padding=((1, 1),) * 2, kind=kind, static=False, transposed=transposed,
        weight_quant_dim=dim,
    )  # fmt: skip
    x = tp.Tensor(rng.standard_normal((2, 5, 6, 6)).astype(np.float32))
    fast = compiled(lambda x: tp.relu(module(x)), x)
    (row,) = rows(fast)
    assert row.kernel == f"{kind} weight expanded, float convolution relu"
    assert "expanded at each call" in row.reason
    weights = 5 * 3 * 9
    first = module.weight.shape[0]
    assert row.weight_bytes == (first * -(-weights // first // 2) if kind is tp.int4 else weights)
    assert np.array_equal(fast(x).numpy(), tp.relu(module(x)).numpy())


@pytest.mark.parametrize("kind", [tp.int4, tp.float8])
@pytest.mark.parametrize("transposed", [False, True])
def test_static_types_without_instructions(kind, transposed):
    rng = np.random.default_rng(4)
    module = layer(rng, 6, 4, (3,), (2,), kind=kind, transposed=transposed)
    x = tp.Tensor(rng.standard_normal((2, 6, 9)).astype(np.float32))
    fast, wanted = compiled(module, x), module(x).numpy()
    (row,) = rows(fast)
    assert f"the CPU has no {kind} instructions" in row.reason
    assert np.abs(fast(x).numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("channels, name", [(4, "float32"), (130, "float64")])
@pytest.mark.parametrize("transposed", [False, True])
def test_processors_without_exact_int8_products(monkeypatch, transposed, channels, name):
    reason = "this processor's int8 products saturate (no VNNI or AMX instructions)"
    monkeypatch.setattr(quantized_convolution, "why_not_int8", lambda: reason)
    rng = np.random.default_rng(5)
    module = layer(rng, channels, 6, (3, 3), (2, 1), powers=True, transposed=transposed)
    x = (rng.integers(-128, 128, (1, channels, 7, 7)) * 0.5).astype(np.float32)
    fast = compiled(lambda x: tp.relu(module(x)), x)
    (row,) = rows(fast)
    assert row.kernel == f"{name} convolution of the integers relu" and row.reason == reason
    assert row.weight_bytes == channels * 6 * 9
    assert (fast(tp.Tensor(x)).numpy() == np.maximum(exact(module, x)[0], 0)).all()


def test_the_reason_is_found_by_trying(monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise AttributeError(name)

    probe = cpu_int8_convolution.why_not_int8.__wrapped__
    with monkeypatch.context() as patch:
        patch.setattr(cpu_int8_convolution.torch.ops, "onednn", Broken(), raising=False)
        assert probe() == "this torch has no int8 convolution of oneDNN's"
    with monkeypatch.context() as patch:
        call = cpu_int8_convolution.StaticInt8Convolution.__call__
        wrong = lambda self, x, sizes: call(self, x, sizes).clamp(max=1e6)  # noqa: E731
        patch.setattr(cpu_int8_convolution.StaticInt8Convolution, "__call__", wrong)
        assert "VNNI" in probe() or cpu_int8_convolution.why_not_int8()


def test_packed_int4_gives_back_what_went_in():
    for shape in ((1, 1, 1), (3, 5, 3, 3), (2, 2, 2, 2, 2)):
        weight = torch.randint(-8, 8, shape, dtype=torch.int8)
        assert torch.equal(quantized_convolution.Int4Kernel(weight).unpack(), weight)


@pytest.mark.parametrize("kind, static, transposed", [
    (tp.int8, True, False), (tp.int8, True, True), (tp.int8, False, False),
    (tp.int4, True, False), (tp.int4, False, True), (tp.float8, True, False),
])  # fmt: skip
def test_saved_programs_hold_the_small_weights(tmp_path, kind, static, transposed):
    rng = np.random.default_rng(6)
    module = layer(rng, 32, 48, (3, 3), (2, 2), kind=kind, static=static, transposed=transposed)
    x = tp.Tensor(rng.standard_normal((1, 32, 9, 9)).astype(np.float32))
    fast = compiled(module, x)
    fast.save(tmp_path / "layer.tripy")
    again = tp.Executable.load(tmp_path / "layer.tripy", CPU)
    assert tp.equal(fast(x), again(x))
    assert kernels(again) == kernels(fast)
    weights = 32 * 48 * 9 * kind.itemsize
    assert (tmp_path / "layer.tripy").stat().st_size < weights + 16_000


def test_a_weight_computed_at_run_time_is_reported():
    attrs = {"stride": (1,), "padding": ((1, 0),), "dilation": (1,), "groups": 1}

    def run(x, w):
        x, w = (tp.dequantize(tp.quantize(t, 0.5, tp.int8), 0.5, tp.float32) for t in (x, w))
        return tp.relu(apply("convolution", [x, w, None], attrs))

    infos = [tp.InputInfo((1, 3, 8), tp.float32), tp.InputInfo((4, 3, 3), tp.float32)]
    fast = tp.compile(run, args=infos)
    (row,) = rows(fast)
    assert "run time" in row.reason and row.kernel == "torch, operation by operation relu"
    x, w = tp.Tensor(torch.randn(1, 3, 8)), tp.Tensor(torch.randn(4, 3, 3))
    assert np.array_equal(fast(x, w).numpy(), run(x, w).numpy())
