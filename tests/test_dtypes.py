"""Data types: names, sizes, relations, and what cannot be done with them."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

import tripy as tp
from tests.helpers import ALL, TORCH, raises
from tripy import dtypes

SIZES = {
    "float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "int4": 0.5, "int8": 1, "int32": 4,
    "int64": 8, "bool": 1,
}  # fmt: skip


def test_names_and_sizes():
    assert [str(t) for t in ALL] == list(SIZES)
    for dtype in ALL:
        assert isinstance(dtype, tp.dtype)
        assert dtype.name == str(dtype) == repr(dtype)
        assert dtype.itemsize == SIZES[dtype.name]
        assert getattr(tp, dtype.name) is dtype
        assert inspect.getdoc(dtype)


def test_families():
    floats = {tp.float32, tp.float16, tp.bfloat16, tp.float8}
    integers = {tp.int4, tp.int8, tp.int32, tp.int64}
    for dtype in ALL:
        assert issubclass(dtype, tp.floating) == (dtype in floats)
        assert issubclass(dtype, tp.integer) == (dtype in integers)
    assert len(set(ALL)) == 9
    assert not isinstance(float, tp.dtype)


def test_types_are_not_called():
    for dtype in (tp.float32, tp.bool, tp.floating):
        with raises("is a data type and cannot be called"):
            dtype(1)


@pytest.mark.parametrize("dtype", [tp.float32, tp.float16, tp.bfloat16], ids=str)
def test_the_end_of_a_floating_point_type(dtype):
    """The first number that torch rounds to infinity, and the last that it does not."""
    end = float(dtypes.FLOAT_END[dtype])
    assert torch.tensor(end, dtype=torch.float64).to(TORCH[dtype]).isinf()
    # To 16 bits, torch goes by way of float32 and rounds twice.
    wide = np.float64 if dtype is tp.float32 else np.float32
    below = torch.tensor(float(np.nextafter(wide(end), wide(0))), dtype=torch.float64)
    assert not below.to(TORCH[dtype]).isinf()
    assert not dtypes.holds(dtype, end)
    assert dtypes.holds(dtype, float(below))
    for special in (math.inf, -math.inf, math.nan, 0):
        assert dtypes.holds(dtype, special)


@pytest.mark.parametrize("dtype", [tp.int4, tp.int8, tp.int32, tp.int64], ids=str)
def test_the_range_of_an_integer_type(dtype):
    low, high = dtypes.INTEGER_RANGE[dtype]
    assert dtypes.holds(dtype, low) and dtypes.holds(dtype, high)
    assert not dtypes.holds(dtype, low - 1) and not dtypes.holds(dtype, high + 1)
    assert str(high) in dtypes.range_text(dtype)
