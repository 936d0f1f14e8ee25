"""What calibration has seen: the same however the data was cut; saved, merged, masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import inputs, mlp


def seen(*batches, config=tq.INT8_SMOOTHQUANT_CFG) -> tq.Statistics:
    model = mlp()[:1]
    return tq.collect(model, config, lambda: [model(batch) for batch in batches])


def assert_same(a: tq.Statistics, b: tq.Statistics) -> None:
    assert list(a) == list(b)
    for name in a:
        one, other = a[name], b[name]
        assert torch.equal(one.histogram.counts, other.histogram.counts)
        assert torch.equal(one.histogram.amax, other.histogram.amax)
        assert torch.equal(one.channels, other.channels)
        order, others = one.sample.sum(1).argsort(), other.sample.sum(1).argsort()
        assert torch.equal(one.sample[order], other.sample[others])


@pytest.mark.parametrize("cut", [1, 7, 128, 255])
def test_any_way_of_cutting_the_data_gives_the_same(cut):
    x = inputs(512)
    assert_same(seen(x), seen(*x.split(cut)))
    assert_same(seen(x), seen(x.flip(0)))


def test_merging_two_runs_is_one_run():
    x = inputs(512)
    assert_same(seen(x), seen(x[:100]).merge(seen(x[100:])))


def test_saved_and_loaded(tmp_path):
    x = inputs(512)
    first = seen(x[:100])
    first.save(tmp_path / "seen.npz")
    loaded = tq.Statistics.load(tmp_path / "seen.npz")
    assert_same(first, loaded)
    assert_same(seen(x), loaded.merge(seen(x[100:])))
    model, other = mlp()[:1], mlp()[:1]
    tq.quantize(model, tq.INT8_SMOOTHQUANT_CFG, statistics=loaded)
    tq.quantize(other, tq.INT8_SMOOTHQUANT_CFG, lambda: other(x))
    assert torch.equal(model(x), other(x))


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"text"])
def test_damaged_files(tmp_path, damage):
    path = tmp_path / "seen.npz"
    seen(inputs()).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(tp.TripyException, match="cannot be read"):
        tq.Statistics.load(path)


def test_files_that_are_other_arrays(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    for path in (tmp_path / "other.npz", tmp_path / "missing.npz"):
        with pytest.raises(tp.TripyException, match="cannot be read"):
            tq.Statistics.load(path)


def test_runs_of_different_models_are_not_merged():
    other = mlp()
    two = tq.collect(other, tq.INT8_SMOOTHQUANT_CFG, lambda: other(inputs()))
    with pytest.raises(tp.TripyException, match="different layers"):
        seen(inputs()).merge(two)


def test_padding_is_masked_out():
    x = inputs(12).view(3, 4, 128)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    padded = torch.where(mask.bool()[..., None], x, 1e6)
    model = mlp()[:1]

    def loop():
        with tq.mask_tokens(mask):
            model(padded)

    found = tq.collect(model, tq.INT8_SMOOTHQUANT_CFG, loop)
    assert_same(found, seen(x[mask.bool()]))


def test_a_mask_that_does_not_fit():
    model = mlp()[:1]

    def loop():
        with tq.mask_tokens([[1, 0]]):
            model(inputs(12))

    with pytest.raises(tp.TripyException, match="0: the mask"):
        tq.collect(model, tq.INT8_DEFAULT_CFG, loop)
