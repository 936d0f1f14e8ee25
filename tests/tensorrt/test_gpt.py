"""nanoGPT in every mode: engines with the bytes they should have, networks that mean the model.

Where layers round their inputs, two ways to sum the same numbers can fall on either side of a half,
and the step between follows through the layers: which tokens that happens to depends on the
processor. So a token either meets no such tie, and is equal, or is off by at most what quantization
itself costs. A network that means something else has no equal token. (Layers in bfloat16 round each
value that they pass on: hardly a token is equal there, but all are near.)
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

import tripy as tp
from tests.demo import DEMO, GPT, demo, read_config
from tests.helpers import raises
from tests.tensorrt.support import interpreted, needs_rtx

from model import QUANT_MODES  # isort: skip  (tests.demo makes it known.)

pytestmark = needs_rtx
# What the weights of an engine may take of those of the float32 engine, by the builder's account.
SHARES = dict.fromkeys(("int8-weight-only", "int8", "smoothquant", "float8"), 0.29)
SHARES |= dict.fromkeys(("int4-weight-only", "int4-awq", "w4a8"), 0.17)
# Modes that round nothing at run time, or everything to bfloat16 or more only.
SMOOTH = ("none", "int8-weight-only")
BFLOAT16 = ("int4-weight-only", "int4-awq")
MODES = list(QUANT_MODES)
BATCH = tp.NamedDimension("batch", 1, 2, 4)
LENGTHS = (1, 16, 256)
# How long four prompts are, and so where the next token of each is.
FILLED = tp.Tensor([9, 6, 3, 1], dtype=tp.int32)
BOTH = ["sm_89", "sm_120"]
# Types that Turing lacks, by what TensorRT-RTX says of sm_75.
NOT_TURING = {"int4-weight-only": "int4", "int4-awq": "int4", "w4a8": "int4", "float8": "fp8_e4m3"}


def build(function, args, target=BOTH):
    return tp.compile(function, args=args, backend="tensorrt", target=target)


@functools.cache
def half(mode):
    """The demo with float16 wherever it had another type of floating point."""
    model = GPT(dataclasses.replace(read_config(DEMO, mode), dtype=tp.float16))
    wide = (tp.float32, tp.bfloat16)
    state = demo(mode).state_dict()
    model.load_state_dict(
        {k: tp.cast(v, tp.float16).eval() if v.dtype in wide else v for k, v in state.items()}
    )
    return model


def caches(model, batch):
    cache = model.new_caches(1)[0]
    return [tp.InputInfo((batch, *cache.shape[1:]), cache.dtype)] * len(model.h)


def tokens(*shape):
    values = np.random.default_rng(0).integers(0, 256, shape)
    return tp.Tensor(values, dtype=tp.int32)


def numbers(tensor):
    array = tensor.torch() if isinstance(tensor, tp.Tensor) else tensor
    return array.double().numpy()


def rms(array):
    return np.sqrt(np.mean(np.square(array)))


def assert_near(got, expected, plain, mode, rounding=1e-3):
    """A result beside eager's, and beside that of the model without quantization."""
    got, expected, plain = numbers(got), numbers(expected), numbers(plain)
    assert got.shape == expected.shape
    error = np.abs(got - expected)
    if mode in SMOOTH:
        assert error.max() <= rounding
    else:
        # No further off than quantization is; float8 comes near, since one step of an early layer
        # is followed by many.
        assert rms(error) <= rms(expected - plain) + rounding, mode


@functools.cache
def unquantized():
    """What the float32 model gives for what the tests below ask."""
    model = demo("none")
    logits, written = model.prefill(tokens(4, 9), FILLED, model.new_caches(4))
    following = model.decode(tokens(4), FILLED, [tp.copy(c, c.device) for c in written])
    return [logits, *written], [following[0], *following[1]]


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
    (got,), expected = interpreted(engine, [given]), model.forward(given)
    plain = demo("none").forward(given)
    assert_near(got, expected, plain, mode)
    error = np.abs(numbers(got) - numbers(expected))
    if mode in BFLOAT16:  # Steps of 2^-8, beside 2^-4 of int4 and better.
        assert error.mean() <= np.abs(numbers(expected) - numbers(plain)).mean() / 16
    else:
        assert (error.max(-1) <= 1e-3).sum() >= error[..., 0].size // 8


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kind", "batch"),
    [("float32", 4), ("float32", BATCH), ("float16", BATCH)],
    ids=["batch 4", "any batch", "float16"],
)
def test_with_a_cache(mode, kind, batch):
    model, targets, rounding = demo(mode), BOTH, 1e-3
    if kind == "float16":
        model, rounding = half(mode), 0.05
        targets = BOTH if mode in NOT_TURING else ["sm_75", *BOTH]
    plain, plain_following = unquantized()
    row, given = tp.InputInfo((batch,), tp.int32), tokens(4, 9)
    args = [tp.InputInfo((batch, LENGTHS), tp.int32), row, caches(model, batch)]
    prefill = build(model.prefill, args, targets)
    logits, written = model.prefill(given, FILLED, model.new_caches(4))
    results = interpreted(prefill, [given, FILLED, *model.new_caches(4)])
    for got, expected, other in zip(results, [logits, *written], plain, strict=True):
        assert_near(got, expected, other, mode, rounding)
    # Before the first layer's cache, one product has rounded inputs, and no step of another layer.
    first = np.abs(numbers(results[1]) - numbers(written[0]))[:, :, :9]
    assert (first <= rounding).mean() >= 0.9

    decode = build(model.decode, [row, row, caches(model, batch)], targets)
    # From eager's caches, so that only the roundings of one step can differ.
    results = interpreted(decode, [tokens(4), FILLED, *(tp.copy(c, c.device) for c in written)])
    logits, written = model.decode(tokens(4), FILLED, written)
    for got, expected, other in zip(results, [logits, *written], plain_following, strict=True):
        assert_near(got, expected, other, mode, rounding)


@pytest.mark.parametrize("mode", NOT_TURING)
def test_types_that_turing_lacks(mode):
    model = half(mode)
    row = tp.InputInfo((BATCH,), tp.int32)
    with raises(f"engine cannot be built[\\s\\S]*for target\\(s\\) sm75.*: {NOT_TURING[mode]}"):
        build(model.decode, [row, row, caches(model, BATCH)], ["sm_75", *BOTH])


def test_int4_weights_with_int8_inputs_are_reported():
    engine = build(demo("w4a8").forward, [tp.InputInfo((2, 4), tp.int32)])
    rows = [row for row in engine.report().rows if row.kernel == "TensorRT DQ, int4 weight"]
    assert len(rows) == 4 * len(demo("w4a8").h)
    assert all("floating point, of dequantized values" in row.reason for row in rows)


def test_caches_are_written_in_place():
    model = demo("int8")
    row = tp.InputInfo((2,), tp.int32)
    decode = build(model.decode, [row, row, caches(model, 2)])
    kinds = [layer.kind for layer in decode.layers()]
    assert kinds.count("KV_CACHE_UPDATE") == len(model.h)
    assert kinds.count("ATTENTION_INPUT") == len(model.h)
