"""allclose and equal: Python's True and False, at once."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import ALL, F, raises, tensor, types_of

INFINITY, NAN = float("inf"), float("nan")
NUMBERS = [0.0, 1.0, 1.00001, 1.1, -1.0, 1e8, INFINITY, -INFINITY, NAN]


@pytest.mark.parametrize("left", NUMBERS)
@pytest.mark.parametrize("right", NUMBERS)
def test_allclose_is_numpys(left, right):
    got = tp.allclose(tensor([left], tp.float32), tensor([right], tp.float32), rtol=1e-4)
    assert got is bool(np.allclose(np.float32(left), np.float32(right), rtol=1e-4))


def test_allclose_tolerances():
    x, y = tensor([1.0, 100.0], tp.float32), tensor([1.5, 100.0], tp.float32)
    assert not tp.allclose(x, y)
    assert tp.allclose(x, y, atol=0.5)
    assert tp.allclose(x, y, rtol=0.0, atol=0.5)  # The tolerance itself is close.
    assert not tp.allclose(x, y, rtol=0.0, atol=0.4999)
    assert tp.allclose(x, y, rtol=0.34)
    assert not tp.allclose(x, y, rtol=0.3)


def test_allclose_broadcasts_and_takes_all_floats():
    for dtype in F:
        assert tp.allclose(tp.ones((2, 3), dtype=dtype), tp.ones((3,), dtype=dtype)) is True
    assert tp.allclose(tp.ones((0,)), tp.ones((0,)))
    with raises("the shapes cannot be broadcast"):
        tp.allclose(tp.ones((2,)), tp.ones((3,)))


@pytest.mark.parametrize("dtype", types_of("F i8 I b"), ids=str)
def test_equal(dtype):
    x = tensor([[0, 1], [1, 1]], dtype)
    assert tp.equal(x, tensor([[0, 1], [1, 1]], dtype)) is True
    assert tp.equal(x, tensor([[0, 1], [1, 0]], dtype)) is False
    assert tp.equal(x, tensor([0, 1], dtype)) is False
    assert tp.equal(x, tensor([[[0, 1], [1, 1]]], dtype)) is False
    assert tp.equal(tensor([], dtype), tensor([], dtype)) is True
    assert tp.equal(tensor([], dtype), tensor([[]], dtype)) is False


def test_nan_is_not_equal_to_itself():
    x = tensor([NAN], tp.float32)
    assert not tp.equal(x, x)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_other_types_are_refused(dtype):
    x = tensor([0, 1], dtype)
    if dtype not in types_of("F"):
        with raises("allclose: input has an unsupported data type"):
            tp.allclose(x, x)
    if dtype not in types_of("F i8 I b"):
        with raises("equal: input has an unsupported data type"):
            tp.equal(x, x)


def test_two_types_are_refused():
    with raises("equal: the tensors differ in data type or device"):
        tp.equal(tp.ones((2,)), tp.ones((2,), dtype=tp.int32))
    with raises("allclose: other is not a tensor"):
        tp.allclose(tp.ones((2,)), 1.0)
    with raises("allclose: the number does not fit|is not a number"):
        tp.allclose(tp.ones((2,)), tp.ones((2,)), rtol="a")
