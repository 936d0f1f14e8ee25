"""int8 convolutions whose result an int8 residual is added to: the end of a residual block."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.backends.convolutions import (
    ONE_DNN,
    exact,
    kernels,
    layer,
    needs_onednn,
    random_layer,
    rows,
)
from tripy.backends.torch.kernels import residual_convolution

CPU = tp.device("cpu")


def residual_block(module, step, activation=True):
    """``quantize(relu(module(x) + residual))`` with an int8 residual, and int8 out of it."""

    def block(x, residual):
        total = module(x) + tp.dequantize(residual, step, tp.float32)
        return tp.quantize(tp.relu(total) if activation else total, 4.0 * step, tp.int8)

    return block


@needs_onednn
@pytest.mark.parametrize("activation", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_a_residual_is_added_in_the_convolution(seed, activation):
    rng = np.random.default_rng(300 + seed)
    module, x = random_layer(rng, False)
    wanted, _ = exact(module, x)
    # As large as what it is added to, and a power of two, so that nothing but the result rounds.
    step = float(2.0 ** np.ceil(np.log2(np.abs(wanted).max() / 100 + 1e-3)))
    residual = rng.integers(-128, 128, wanted.shape).astype(np.int8)
    batch = tp.NamedDimension("batch", 1, 2, 4)
    infos = [tp.InputInfo((batch, *x.shape[1:]), tp.float32)]
    infos += [tp.InputInfo((batch, *wanted.shape[1:]), tp.int8)]
    fast = tp.compile(residual_block(module, step, activation), args=infos)
    assert [node.op for node in fast.graph.nodes()] == ["quantize", "quantized_convolution"]
    (row,) = rows(fast)
    assert "+ residual" in row.kernel and row.kernel.endswith("→ int8")
    if x.ndim < 5 and "as tried" not in row.reason:
        assert row.kernel.startswith(f"{ONE_DNN} + residual") and "by itself" not in row.kernel
    total = wanted + residual * step
    total = np.maximum(total, 0) if activation else total
    given = tp.Tensor(residual)
    result = fast(tp.Tensor(x), given).numpy()
    assert (result == np.clip(np.rint(total / (4 * step)), -128, 127)).all()
    assert np.array_equal(given.numpy(), residual)  # It is not added into.


@needs_onednn
def test_a_residual_with_any_scales_is_off_by_one_step_at_most():
    rng = np.random.default_rng(11)
    module = layer(rng, 24, 12, (3, 3), padding=((1, 1), (1, 1)))
    x = tp.Tensor(rng.standard_normal((2, 24, 9, 9)).astype(np.float32))
    residual = tp.Tensor(rng.integers(-128, 128, (2, 12, 9, 9)).astype(np.int8))
    block = residual_block(module, 0.37)
    infos = [tp.InputInfo((2, 24, 9, 9), tp.float32), tp.InputInfo((2, 12, 9, 9), tp.int8)]
    result = tp.compile(block, args=infos)(x, residual).numpy().astype(int)
    difference = np.abs(result - block(x, residual).numpy().astype(int))
    assert difference.max() <= 1 and difference.mean() < 0.001


@needs_onednn
def test_a_residual_that_onednn_adds_wrongly_is_added_by_itself(monkeypatch):
    kind = residual_convolution.ResidualInt8Convolution
    right = kind.add
    monkeypatch.setattr(kind, "add", lambda self, x, r: right(self, x, r) + 1)
    rng = np.random.default_rng(12)
    module, x = layer(rng, 6, 6, (1,), powers=True), np.ones((1, 6, 5), np.float32)
    infos = [tp.InputInfo((1, 6, 5), tp.float32), tp.InputInfo((1, 6, 5), tp.int8)]
    fast = tp.compile(residual_block(module, 0.5), args=infos)
    assert kernels(fast) == [f"{ONE_DNN} + residual by itself relu → int8"]
    residual = tp.Tensor(rng.integers(-128, 128, (1, 6, 5)).astype(np.int8))
    block = residual_block(module, 0.5)
    assert fast(tp.Tensor(x), residual).tolist() == block(tp.Tensor(x), residual).tolist()


@needs_onednn
@pytest.mark.parametrize("blocks", [1, 2])
def test_residual_blocks_stay_int8(blocks, tmp_path):
    rng = np.random.default_rng(13)
    scale = tp.Parameter(0.05)
    layers = [layer(rng, 8, 8, (3, 3), padding=((1, 1), (1, 1))) for _ in range(2 * blocks)]
    for module in layers[::2]:
        module.input_scale = scale

    def network(x):
        q = tp.quantize(x, scale, tp.int8)
        for first, second in zip(layers[::2], layers[1::2]):
            h = tp.dequantize(q, scale, tp.float32)
            q = tp.quantize(tp.relu(second(tp.relu(first(h))) + h), scale, tp.int8)
        return tp.dequantize(q, scale, tp.float32)

    x = tp.Tensor(rng.standard_normal((1, 8, 6, 6)).astype(np.float32))
    fast = tp.compile(network, args=[tp.InputInfo((1, 8, 6, 6), tp.float32)])
    found = [node.op for node in fast.graph.nodes()]
    assert found == ["quantize", *["quantized_convolution"] * (2 * blocks), "dequantize"]
    assert kernels(fast) == [f"{ONE_DNN} relu → int8", f"{ONE_DNN} + residual relu → int8"] * blocks
    # Ties may fall the other way in each layer; few do, and layers carry them on.
    steps = np.abs(fast(x).numpy() - network(x).numpy()) / 0.05
    assert np.median(steps) < 1e-3 and np.mean(steps > 0.5) < 0.02 * blocks
    fast.save(tmp_path / "network.tripy")
    again = tp.Executable.load(tmp_path / "network.tripy", CPU)
    assert again(x).tolist() == fast(x).tolist() and kernels(again) == kernels(fast)


@pytest.mark.parametrize("kind", ["float residual", "two scales", "transposed", "read twice"])
def test_what_is_not_fused(kind):
    rng = np.random.default_rng(14)
    module = layer(rng, 4, 4, (3, 3), padding=((1, 1), (1, 1)), transposed=kind == "transposed")

    def block(x, r):
        dim = 1 if kind == "two scales" else None
        scale = [0.1, 0.2, 0.3, 0.4] if dim else 0.1
        h = tp.dequantize(r, scale, tp.float32, dim)
        total = module(x) + (h * 2 if kind == "float residual" else h)
        q = tp.quantize(total, 0.3, tp.int8)
        return (q, total) if kind == "read twice" else (q,)

    infos = [tp.InputInfo((1, 4, 5, 5), tp.float32), tp.InputInfo((1, 4, 5, 5), tp.int8)]
    fast = tp.compile(block, args=infos)
    assert "add" in [node.op for node in fast.graph.nodes()]
    x = tp.Tensor(rng.standard_normal((1, 4, 5, 5)).astype(np.float32))
    r = tp.Tensor(rng.integers(-128, 128, (1, 4, 5, 5)).astype(np.int8))
    got, wanted = fast(x, r), block(x, r)
    got = got if isinstance(got, (tuple, list)) else (got,)
    difference = got[0].numpy().astype(int) - wanted[0].numpy().astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("step", [0.05, 3e-20, 7.0, 1e-31])
def test_quantizing_again_with_the_same_scale_changes_nothing(step):
    def run(q):
        x = tp.dequantize(tp.relu(q), step, tp.float32)
        return tp.quantize(x, step, tp.int8), x

    q = tp.Tensor(np.arange(-128, 128, dtype=np.int8))
    fast = tp.compile(run, args=[tp.InputInfo((256,), tp.int8)])
    again = [node.op for node in fast.graph.nodes()].count("quantize")
    assert again == (step == 1e-31)
    for got, wanted in zip(fast(q), run(q)):
        assert got.tolist() == wanted.tolist()
    other = tp.compile(
        lambda q: tp.quantize(tp.dequantize(tp.relu(q), 0.5, tp.float32), 0.25, tp.int8),
        args=[tp.InputInfo((256,), tp.int8)],
    )
    assert other(q).tolist() == np.clip(np.maximum(np.arange(-128, 128), 0) * 2, 0, 127).tolist()
