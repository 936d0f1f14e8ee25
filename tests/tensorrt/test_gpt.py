"""nanoGPT in every mode: engines with the bytes they should have, networks that mean the model."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.demo import demo
from tests.tensorrt.support import interpreted, needs_rtx

from model import QUANT_MODES  # isort: skip  (tests.demo makes it known.)

pytestmark = needs_rtx
# What the weights of an engine may take of those of the float32 engine, by the builder's account.
SHARES = dict.fromkeys(("int8-weight-only", "int8", "smoothquant", "float8"), 0.29)
SHARES |= {"int4-weight-only": 0.17, "int4-awq": 0.17}
# Two roundings of one sum can fall on either side of a half: a step of the layer's type.
NEAR = {"int4-weight-only": 0.2, "int4-awq": 0.2, "smoothquant": 0.25}
# TensorRT has no product of int4 weights and int8 inputs.
MODES = [mode for mode in QUANT_MODES if mode != "w4a8"]
BATCH = tp.NamedDimension("batch", 1, 2, 4)
LENGTHS = (1, 16, 256)


def build(function, args, target="sm_89"):
    return tp.compile(function, args=args, backend="tensorrt", target=target)


def caches(model, batch):
    shape = model.new_caches(1)[0].shape
    return [tp.InputInfo((batch, *shape[1:]), tp.float32)] * len(model.h)


def tokens(*shape):
    values = np.random.default_rng(0).integers(0, 256, shape)
    return tp.Tensor(values, dtype=tp.int32)


def assert_near(got, expected, mode):
    got, expected = got.double().numpy(), np.asarray(expected.numpy(), dtype=np.float64)
    assert got.shape == expected.shape
    limit, error = NEAR.get(mode, 1e-3), np.abs(got - expected)
    # Few elements are a step away, and most are not.
    assert error.max() <= limit and error.mean() <= limit / 10


@pytest.mark.parametrize("target", ["sm_89", "sm_120"])
def test_bytes_of_weights(target):
    info = tp.InputInfo((BATCH, LENGTHS), tp.int32)
    taken = {m: build(demo(m).forward, [info], target).report().engine_bytes for m in MODES}
    for mode, share in SHARES.items():
        assert 0 < taken[mode] <= share * taken["none"], (mode, taken)


@pytest.mark.parametrize("mode", MODES)
def test_forward(mode):
    model, given = demo(mode), tokens(2, 12)
    engine = build(model.forward, [tp.InputInfo((BATCH, LENGTHS), tp.int32)])
    assert_near(interpreted(engine, [given])[0], model.forward(given), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [2, BATCH], ids=["batch 2", "any batch"])
def test_with_a_cache(mode, batch):
    model, given = demo(mode), tokens(2, 9)
    prefill = build(model.prefill, [tp.InputInfo((batch, LENGTHS), tp.int32), caches(model, batch)])
    expected, written = model.prefill(given, model.new_caches(2))
    logits, *filled = interpreted(prefill, [given, *model.new_caches(2)])
    assert_near(logits, expected, mode)
    for got, cache in zip(filled, written, strict=True):
        assert_near(got, cache, mode)
    row = tp.InputInfo((batch,), tp.int32)
    decode = build(model.decode, [row, row, tp.DimensionInputInfo(LENGTHS), caches(model, batch)])
    following, position = tokens(2), tp.Tensor([9, 9], dtype=tp.int32)
    expected, written = model.decode(following, position, 10, written)
    state = [tp.Tensor(cache) for cache in filled]
    logits, *filled = interpreted(decode, [following, position, *state], **{"int(length)": 10})
    assert_near(logits, expected, mode)
    for got, cache in zip(filled, written, strict=True):
        assert_near(got, cache, mode)


def test_int4_weights_with_int8_inputs_are_refused():
    with pytest.raises(tp.TripyException, match="no product of int4 weights and inputs"):
        build(demo("w4a8").forward, [tp.InputInfo((2, 16), tp.int32)])


def test_caches_are_written_in_place():
    model = demo("int8")
    row = tp.InputInfo((2,), tp.int32)
    decode = build(model.decode, [row, row, tp.DimensionInputInfo(LENGTHS), caches(model, 2)])
    kinds = [layer.kind for layer in decode.layers()]
    assert kinds.count("KV_CACHE_UPDATE") == len(model.h)
    assert kinds.count("ATTENTION_INPUT") == len(model.h)
