"""Initializers: ranges, values that do not fit, sizes that are not known yet, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import ALL, F, check, raises, randn, tensor, types_of, where


@pytest.mark.parametrize(
    "bounds",
    [(5,), (2, 7), (7, 2, -1), (0, 7, 3), (7, 0, -3), (-5, -1), (0, 1), (3, 2, -1), (0, 10, 100)],
)
def test_ranges_of_integers(bounds):
    for dtype in (tp.int32, tp.int64, tp.int8, tp.float32, tp.float16):
        x = tp.arange(*bounds, dtype=dtype)
        assert x.dtype is dtype
        assert x.tolist() == np.arange(*bounds).tolist()


@pytest.mark.parametrize(
    "bounds", [(0, 1, 0.25), (0.5, 3.5), (1, 0, -0.3), (0.0, 1.0, 0.1), (2.5,), (-1.5, 1.5, 0.75)]
)
def test_ranges_of_floats(bounds):
    expected = np.arange(*bounds)
    np.testing.assert_allclose(tp.arange(*bounds).numpy(), expected.astype(np.float32), rtol=1e-7)


def test_ranges_of_64_bit_integers_are_exact():
    assert tp.arange(2**53, 2**53 + 3, dtype=tp.int64).tolist() == [2**53, 2**53 + 1, 2**53 + 2]


def test_ranges_take_numpy_numbers_and_sizes():
    assert tp.arange(np.int64(1), np.float32(4), np.int32(2)).tolist() == [1.0, 3.0]
    assert tp.arange(tp.DimensionSize(3), dtype=tp.int32).tolist() == [0, 1, 2]
    assert tp.arange(tp.DimensionSize(3), 6, dtype=tp.int32).tolist() == [3, 4, 5]


def test_ranges_refuse():
    for bounds in [(0,), (3, 3), (3, 1), (1, 3, -1), (-2,)]:
        with raises("arange: the range is empty"):
            tp.arange(*bounds)
    with raises("arange: the step is not usable"):
        tp.arange(0, 3, 0)
    with raises("arange: stop is not finite"):
        tp.arange(float("inf"))
    with raises("arange: start is not finite"):
        tp.arange(float("nan"), 3)
    with raises("arange: start is not a number"):
        tp.arange("a", 3)
    with raises("arange: stop is not a number"):
        tp.arange(tp.ones((1,)))
    with raises("arange: the data type is not supported"):
        tp.arange(3, dtype="int32")


@pytest.mark.parametrize(("dtype", "end"), [(tp.int4, 8), (tp.int8, 128), (tp.int32, 2**31)])
def test_numbers_of_a_range_fit_the_type(dtype, end):
    assert tp.arange(end - 2, end, dtype=dtype).tolist() == [end - 2, end - 1]
    with raises("arange: a number of the range does not fit the data type"):
        tp.arange(end - 2, end + 1, dtype=dtype)
    with raises("arange: a number of the range does not fit the data type"):
        tp.arange(-end, -end - 2, -1, dtype=dtype)


def test_ranges_of_a_dynamic_size():
    def positions(x):
        size = x.shape[0]
        return (
            tp.arange(size, dtype=tp.int32),
            tp.arange(1, size * 2, 2, dtype=tp.float16),
            tp.arange(size, 0, -1, dtype=tp.int64),
            tp.arange(size, size + 3, dtype=tp.int32),
        )

    compiled = tp.compile(positions, args=[tp.InputInfo([(1, 4, 9)], tp.float32)], device=where())
    for size in (1, 4, 9):
        got = [part.tolist() for part in compiled(tp.ones((size,)))]
        assert got[0] == list(range(size))
        assert got[1] == [float(i) for i in range(1, size * 2, 2)]
        assert got[2] == list(range(size, 0, -1))
        assert got[3] == [size, size + 1, size + 2]
    with raises("arange: a dynamic size is mixed with a float"):
        tp.compile(
            lambda x: tp.arange(0.5, x.shape[0]),
            args=[tp.InputInfo([(1, 4, 9)], tp.float32)],
            device=where(),
        )


def test_iota_refuses():
    with raises("iota: dim is out of range"):
        tp.iota((2, 3), dim=2)
    with raises("iota: dim is out of range"):
        tp.iota(())
    with raises("iota: a number of the range does not fit the data type"):
        tp.iota((200,), dtype=tp.int8)
    with raises("iota: a size is negative"):
        tp.iota((2, -1))


def test_iota_of_float8_and_bool():
    assert tp.iota((3, 2), dim=0, dtype=tp.float8).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert tp.iota((3,), dtype=tp.bool).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [t for t in ALL if t not in types_of("F i8 I b")], ids=str)
def test_types_that_cannot_be_filled_are_refused(dtype):
    for function in (tp.ones, tp.zeros):
        with raises("the data type is not supported"):
            function((2,), dtype)
    with raises("full: the data type is not supported"):
        tp.full((2,), 1, dtype)
    for function in (tp.ones_like, tp.zeros_like):
        with raises("the data type is not supported"):
            function(tp.ones((2,)), dtype)
    with raises("full_like: the data type is not supported"):
        tp.full_like(tp.ones((2,)), 1, dtype)


def test_values_that_do_not_fit_are_refused():
    for dtype, value in [
        (tp.int8, 128), (tp.int8, 1.5), (tp.int32, float("nan")), (tp.int32, -(2**31) - 1),
        (tp.float16, 1e6), (tp.float32, 1e39),
    ]:  # fmt: skip
        with raises("full: the value does not fit the data type"):
            tp.full((2,), value, dtype)
    for value in ("a", None, [1]):
        with raises("full: value is not a number"):
            tp.full((2,), value)
    with raises("full: the value is a tensor"):
        tp.full((2,), tp.Tensor(1.0))


def test_special_values():
    x = tp.full((2,), float("nan"), tp.float16).numpy()
    assert np.isnan(x).all()
    assert tp.full((1,), -float("inf"), tp.bfloat16).tolist() == [-float("inf")]
    assert tp.full((1,), np.float64(0.5)).tolist() == [0.5]
    assert tp.full((1,), 3.4028235e38).tolist() == [pytest.approx(3.4028235e38)]


def test_shapes_that_are_none_are_refused():
    for shape in (3, None, "ab"):
        with raises("ones: shape is not a sequence"):
            tp.ones(shape)
    with raises("zeros: a size is negative"):
        tp.zeros((2, -1))
    with raises("zeros: shape holds something that is not a size"):
        tp.zeros((2.0,))


def test_shapes_may_be_empty_and_hold_numpy_numbers():
    assert tp.ones(()).tolist() == 1.0
    assert tp.ones([]).shape == ()
    assert tp.zeros((0, 3)).tolist() == []
    assert tp.ones((np.int64(2), tp.DimensionSize(1))).shape == (2, 1)


def test_likes_follow_the_input(rng):
    for dtype in F:
        x = randn(rng, (2, 3), dtype)
        for function in (tp.ones_like, tp.zeros_like, tp.iota_like):
            assert function(x).dtype is dtype
            assert function(x, dtype=tp.int32).dtype is tp.int32
        assert tp.full_like(x, 2.5).tolist() == [[2.5] * 3] * 2
    for wrong in ([1.0], None):
        with raises("ones_like: input is not a tensor"):
            tp.ones_like(wrong)


def test_shapes_of_other_tensors_while_compiling(rng):
    x = randn(rng, (2, 3))
    check(lambda x: x + tp.ones(x.shape), x, reference=lambda a: a + 1)
    check(lambda x: x + tp.full((x.shape[1],), 2.0), x, reference=lambda a: a + 2)
    check(lambda x: x * tp.iota(x.shape, 1), x, reference=lambda a: a * np.arange(3))
    check(lambda x: x * tp.ones_like(x), x, reference=lambda a: a)


@pytest.mark.parametrize("function", [tp.tril, tp.triu])
def test_triangles_refuse(function):
    with raises("the tensor is not a matrix"):
        function(tp.ones((3,)))
    with raises("diagonal is not an integer"):
        function(tp.ones((3, 3)), 1.0)
    with raises("tensor is not a tensor"):
        function(np.ones((3, 3)))


def test_triangles_cut_infinities_away():
    x = tp.full((2, 2), float("-inf"))
    assert tp.triu(x, 1).tolist() == [[0.0, float("-inf")], [0.0, 0.0]]
    y = tensor(np.arange(9).reshape(3, 3), tp.int32)
    assert tp.tril(y, -1).tolist() == [[0, 0, 0], [3, 0, 0], [6, 7, 0]]


def test_both_forms_of_arange():
    for made in (tp.arange(3, tp.int32), tp.arange(stop=3, dtype=tp.int32)):
        assert made.dtype is tp.int32 and made.tolist() == [0, 1, 2]
    assert tp.arange(2, stop=4).tolist() == [2.0, 3.0]
    with pytest.raises(tp.TripyException, match="stop"):
        tp.arange()
