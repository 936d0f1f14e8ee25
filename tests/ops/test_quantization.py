"""quantize, dequantize and dynamic_quantize against bounds and lists of all values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tripy as tp
from tests.helpers import E4M3, ROUNDING, F, check, plain, raises, randn, tensor
from tests.ops.cases.quantization import RANGES, nearest_e4m3

INFINITY, NAN = float("inf"), float("nan")


def test_all_e4m3_values_are_torchs():
    """The list that the tests go by, against the decoding of all 256 codes."""
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    assert sorted({float(v) for v in codes if not v.isnan()}) == E4M3.tolist()
    assert E4M3[-1] == 448 and len(E4M3) == 253  # One zero: -0 is equal to it.


def test_halves_go_to_even():
    x = tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5], tp.float32)
    even = np.array([-2, -2, 0, 0, 2, 2, 4])
    for dtype in (tp.int8, tp.int4):
        check(lambda x, t=dtype: tp.quantize(x, 1.0, t), x, reference=[even], dtype=dtype)
    check(lambda x: tp.quantize(x * 0.25, 0.25, tp.int8), x, reference=[even], dtype=tp.int8)


@pytest.mark.parametrize("dtype", F, ids=str)
def test_saturation(dtype):
    x = tensor([1e4, -1e4, INFINITY, -INFINITY], dtype)
    for target, (low, high) in RANGES.items():
        check(
            lambda x, t=target: tp.quantize(x, 1.0, t), x,
            reference=[np.array([high, low, high, low])], dtype=target,
        )  # fmt: skip


def test_nan():
    """NaN stays NaN in float8; integers have none."""
    x = tensor([NAN], tp.float32)
    assert np.isnan(plain(tp.quantize(x, 1.0, tp.float8))).all()


@pytest.mark.parametrize("dtype", F, ids=str)
@pytest.mark.parametrize("target", [tp.int8, tp.int4], ids=str)
@given(data=st.data())
def test_the_error_is_at_most_half_a_step(dtype, target, data):
    """|x - dq(q(x))| <= scale / 2 inside the range, and what the result itself is rounded."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    scale = 2.0 ** data.draw(st.integers(-6, 4)) * data.draw(st.sampled_from([1.0, 0.7, 1.9]))
    scale = float(torch.tensor(scale).to(getattr(torch, str(dtype))))
    low, high = RANGES[target]
    x = tensor(rng.uniform(low * scale, high * scale, (4, 50)), dtype)
    restored = tp.dequantize(tp.quantize(x, scale, target), scale, dtype)
    error = np.abs(plain(x) - plain(restored))
    rounded = np.abs(plain(restored)) * ROUNDING[dtype] + high * scale * 2.0**-20
    assert (error <= scale / 2 + rounded).all()


@pytest.mark.parametrize("dtype", F, ids=str)
def test_float8_is_the_nearest_of_all_values(rng, dtype):
    middles = (E4M3[1:] + E4M3[:-1]) / 2
    for array in (E4M3, middles, middles * (1 + 2.0**-7), rng.normal(size=500) * 100):
        x = tensor(array, dtype)
        check(
            lambda x: tp.quantize(x, 1.0, tp.float8), x,
            reference=nearest_e4m3(plain(x)), dtype=tp.float8, rtol=0,
        )  # fmt: skip
        check(lambda x: tp.cast(x, tp.float8), x, reference=nearest_e4m3, dtype=tp.float8, rtol=0)


def test_float8_ties_and_tiny_values():
    x = tensor([17.0, 19.0, 2.0**-10, 3 * 2.0**-10, 1e-30, 464.0, 1e30], tp.float32)
    # 17 is between 16 and 18; 2**-9 is the smallest value, half of it goes to the even 0.
    expected = np.array([16.0, 20.0, 0.0, 2.0**-8, 0.0, 448.0, 448.0])
    check(
        lambda x: tp.quantize(x, 1.0, tp.float8), x, reference=[expected], dtype=tp.float8, rtol=0
    )


def test_quotients_are_not_rounded_to_16_bits_first():
    """In bfloat16, 100.2 / 1 would be 100, but 0.7109375 / 0.0123291015625 rounds onto a half."""
    x = tensor(np.linspace(0.1, 1.5, 200), tp.bfloat16)
    scale = tensor(0.0123, tp.bfloat16)
    exact = np.round(plain(x) / plain(scale))
    check(
        lambda x, s: tp.quantize(x, s, tp.int8), x, scale,
        reference=[np.clip(exact, -128, 127)], dtype=tp.int8,
    )  # fmt: skip


@pytest.mark.parametrize("target", [tp.int8, tp.int4, tp.float8], ids=str)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_scales_by_channel_differ(rng, target, dim):
    x = randn(rng, (3, 4))
    scale = np.array([0.5, 2.0, 0.25, 1.0][: x.shape[dim]])
    view = scale[:, None] if dim == 0 else scale
    numbers = plain(x) / view
    quantized = (
        nearest_e4m3(numbers)
        if target is tp.float8
        else np.clip(np.round(numbers), *RANGES[target])
    )
    s = tensor(scale, tp.float32)
    check(lambda x, s: tp.quantize(x, s, target, dim), x, s, reference=[quantized], dtype=target)
    check(
        lambda x, s: tp.dequantize(tp.quantize(x, s, target, dim), s, tp.float32, dim), x, s,
        reference=[quantized * view],
    )  # fmt: skip


def test_blocks_in_both_directions():
    """Row r of blocks along dimension 0 uses scale row r // (rows / A); columns likewise."""
    x = tensor(np.full((4, 6), 8.0), tp.float32)
    rows = tensor([[1.0] * 6, [2.0] * 6], tp.float32)
    expected = np.array([[8] * 6] * 2 + [[4] * 6] * 2)
    check(
        lambda x, s: tp.quantize(x, s, tp.int8), x, rows, reference=[expected], dtype=tp.int8,
        dynamic=False,
    )  # fmt: skip
    columns = tensor([[1.0, 2.0, 4.0]] * 4, tp.float32)
    expected = np.array([[8, 8, 4, 4, 2, 2]] * 4)
    check(
        lambda x, s: tp.quantize(x, s, tp.int8), x, columns, reference=[expected], dtype=tp.int8,
        dynamic=False,
    )  # fmt: skip


def test_one_scale_a_row_of_any_rank(rng):
    """What dynamic_quantize gives is what dequantize takes."""
    for shape in [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 5)]:
        x = randn(rng, shape)

        def there_and_back(x):
            q, scale = tp.dynamic_quantize(x, tp.int8, dim=-1)
            return tp.dequantize(q, scale, tp.float32)

        amax = np.abs(plain(x)).max(-1, keepdims=True)
        error = np.abs(plain(there_and_back(x)) - plain(x))
        assert (error <= amax / 127 / 2 * 1.0001).all()
        check(there_and_back, x, reference=plain(there_and_back(x)))


@pytest.mark.parametrize("dtype", F, ids=str)
@pytest.mark.parametrize("target", [tp.int8, tp.int4, tp.float8], ids=str)
def test_dynamic_scales_of_zeros_and_of_nothing(dtype, target):
    x = tensor([[0.0, 0.0], [3.0, -1.0]], dtype)
    q, scale = tp.dynamic_quantize(x, target, dim=-1)
    assert (plain(scale) > 0).all()
    assert plain(q)[0].tolist() == [0, 0]
    restored = plain(tp.dequantize(q, scale, dtype))
    assert restored[0].tolist() == [0, 0]
    assert restored[1][0] == pytest.approx(3, rel=0.01)
    for dim, shape in [(None, ()), (-1, (0, 1))]:
        q, scale = tp.dynamic_quantize(tensor(np.zeros((0, 3)), dtype), target, dim)
        assert q.numpy().shape == (0, 3)
        assert scale.numpy().shape == shape
    assert tp.dynamic_quantize(tensor(np.zeros((2, 0)), dtype), target, -1)[1].numpy().all()


def test_dynamic_scales_use_the_whole_range(rng):
    x = randn(rng, (6, 20))
    for target, (_, high) in RANGES.items():
        q, scale = tp.dynamic_quantize(x, target)
        assert scale.shape == ()
        assert np.abs(plain(q)).max() == high
        q, _ = tp.dynamic_quantize(x, target, dim=1)
        assert (np.abs(plain(q)).max(1) == high).all()


def test_dynamic_quantization_refuses():
    x = tp.ones((2, 3))
    with raises("dim is not the last dimension"):
        tp.dynamic_quantize(x, tp.int8, dim=0)
    with raises("dim is out of range"):
        tp.dynamic_quantize(x, tp.int8, dim=2)
    with raises("the data type is not supported"):
        tp.dynamic_quantize(x, tp.int32)
    with raises("input has an unsupported data type"):
        tp.dynamic_quantize(tp.ones((2,), dtype=tp.int32), tp.int8)


def test_int4_of_odd_length(rng):
    x = randn(rng, (7,))
    q = tp.quantize(x, 1.0, tp.int4)
    assert q.dtype is tp.int4
    assert str(q.dtype) == "int4"
    expected = np.clip(np.round(plain(x)), -8, 7)
    assert q.tolist() == expected.tolist()
    check(
        lambda x: tp.dequantize(tp.quantize(x, 1.0, tp.int4), 0.5, tp.float32), x,
        reference=[expected * 0.5],
    )  # fmt: skip


def test_scales_as_numbers_and_lists():
    x = tensor([[1.0, 2.0], [3.0, 4.0]], tp.float16)
    assert tp.quantize(x, 1, tp.int8).tolist() == [[1, 2], [3, 4]]
    assert tp.quantize(x, [0.5, 1.0], tp.int8, dim=0).tolist() == [[2, 4], [3, 4]]
    assert tp.quantize(x, [[1.0, 2.0]], tp.int8).tolist() == [[1, 1], [3, 2]]
    assert tp.dequantize(tp.quantize(x, 1, tp.int8), 2, tp.float16).tolist() == [[2, 4], [6, 8]]


def test_computed_scales(rng):
    x = randn(rng, (3, 4))

    def function(x):
        scale = tp.max(abs(x)) / 127
        return tp.dequantize(tp.quantize(x, scale, tp.int8), scale, tp.float32)

    step = np.abs(plain(x)).max() / 127
    check(function, x, reference=plain(x), atol=step / 2 * 1.001)


@pytest.mark.parametrize("wrong", [0.0, -1.0, NAN, INFINITY, 1e-60])
def test_scales_that_divide_nothing_are_refused(wrong):
    x = tp.ones((2,))
    q = tp.quantize(x, 1.0, tp.int8)
    with raises("quantize: a scale is not usable"):
        tp.quantize(x, wrong, tp.int8)
    with raises("quantize: a scale is not usable"):
        tp.quantize(x, [1.0, wrong], tp.int8, dim=0)
    with raises("dequantize: a scale is not usable"):
        tp.dequantize(q, wrong, tp.float32)
    if wrong != 1e-60:
        with raises("quantize: a scale is not usable"):
            tp.quantize(x, tp.Tensor(wrong), tp.int8)


def test_scales_that_do_not_fit_are_refused():
    x = tp.ones((4, 6))
    for shape, dim, message in [
        ((3,), 0, "there is not one scale for each channel"),
        ((4,), 1, "there is not one scale for each channel"),
        ((), 0, "a scale along a dimension has one dimension"),
        ((4, 1), 0, "a scale along a dimension has one dimension"),
        ((4,), None, "the scale's shape does not fit"),
        ((3, 6), None, "the scale does not cut the input into blocks"),
        ((4, 4), None, "the scale does not cut the input into blocks"),
        ((2, 3), None, "the scale does not cut the input into blocks"),
        ((1, 4, 6), None, "the scale's shape does not fit"),
        ((4,), 2, "dim is out of range"),
        ((4,), -3, "dim is out of range"),
    ]:
        scale = tp.ones(shape)
        with raises(f"quantize: {message}"):
            tp.quantize(x, scale, tp.int8, dim)
        q = tp.quantize(x, 1.0, tp.int8)
        with raises(f"dequantize: {message}"):
            tp.dequantize(q, scale, tp.float32, dim)
    with raises("there is not one scale for each row"):
        tp.quantize(tp.ones((2, 3, 4)), tp.ones((2, 1, 1)), tp.int8)


def test_types_that_do_not_fit_are_refused():
    x = tp.ones((2,))
    with raises("quantize: the scale has another data type"):
        tp.quantize(x, tp.ones((), dtype=tp.float16), tp.int8)
    with raises("quantize: the data type is not supported"):
        tp.quantize(x, 1.0, tp.int32)
    with raises("quantize: input has an unsupported data type"):
        tp.quantize(tp.ones((2,), dtype=tp.int32), 1.0, tp.int8)
    q = tp.quantize(x, 1.0, tp.int8)
    with raises("dequantize: the scale has another data type"):
        tp.dequantize(q, tp.Tensor(1.0), tp.float16)
    with raises("dequantize: the data type is not supported"):
        tp.dequantize(q, 1.0, tp.int8)
    with raises("dequantize: input has an unsupported data type"):
        tp.dequantize(x, 1.0, tp.float32)
    with raises("Tensor: data is not an array"):
        tp.quantize(x, "a", tp.int8)


def test_printing_in_the_middle_changes_nothing(rng):
    x = randn(rng, (3, 5))

    def run(look):
        q = tp.quantize(x, 0.1, tp.int8)
        if look:
            assert "int8" in str(q)
        y = tp.dequantize(q, 0.1, tp.float32)
        if look:
            assert "float32" in str(y)
        return (y * 3).tolist()

    assert run(True) == run(False)
