"""Cases of initializers. Those that take a data type are tested for it, not for an input's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tripy as tp
from tests.helpers import I
from tests.ops.cases.table import Draw, Sample, case, is_float

FILL = "F i8 I b"


def _number(draw: Draw, dtype: Any) -> Any:
    if dtype is tp.bool:
        return draw.flag()
    return draw.choice([0.5, -3, float("-inf")]) if is_float(dtype) else draw.integer(-8, 7)


@case("full", FILL)
def _full(draw: Draw, dtype: Any) -> Sample:
    shape, number = draw.shape(), _number(draw, dtype)
    return Sample(
        lambda: tp.full(shape, number, dtype), [], np.full(shape, number), {"dtype": dtype}
    )


@case("full_like", FILL, "full")
def _full_like(draw: Draw, dtype: Any) -> Sample:
    number = _number(draw, dtype)
    return Sample(
        lambda x: tp.full_like(x, number),
        [draw.tensor(draw.shape(), dtype)],
        lambda x: np.full(x.shape, number),
    )


@case("ones", FILL, "full")
def _ones(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape()
    return Sample(lambda: tp.ones(shape, dtype), [], np.ones(shape), {"dtype": dtype})


@case("zeros", FILL, "full")
def _zeros(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape()
    return Sample(lambda: tp.zeros(shape, dtype), [], np.zeros(shape), {"dtype": dtype})


@case("ones_like", FILL, "full")
def _ones_like(draw: Draw, dtype: Any) -> Sample:
    x = draw.tensor(draw.shape(), draw.choice([dtype, *I]))
    return Sample(
        lambda x: tp.ones_like(x, dtype), [x], lambda x: np.ones(x.shape), {"dtype": dtype}
    )


@case("zeros_like", FILL, "full")
def _zeros_like(draw: Draw, dtype: Any) -> Sample:
    x = draw.tensor(draw.shape(), dtype)
    return Sample(tp.zeros_like, [x], lambda x: np.zeros(x.shape))


def _counted(shape: tuple, dim: int, dtype: Any) -> np.ndarray:
    line = np.arange(shape[dim])
    if dtype is tp.bool:
        line = line != 0
    view = [1] * len(shape)
    view[dim] = shape[dim]
    return np.broadcast_to(line.reshape(view), shape)


@case("iota", "any")
def _iota(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3))
    dim = draw.dim(len(shape))
    expected = _counted(shape, dim, dtype)
    return Sample(lambda: tp.iota(shape, dim, dtype), [], expected, {"dtype": dtype})


@case("iota_like", "any", "iota")
def _iota_like(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3), (0, 4))
    dim = draw.dim(len(shape))
    x = draw.tensor(shape, dtype)
    return Sample(
        lambda x: tp.iota_like(x, dim),
        [x],
        lambda x: _counted(x.shape, dim, dtype),
        # In the range of sizes there are numbers that int4 does not hold.
        {"dynamic": dtype is not tp.int4},
    )


@case("arange", "any", "iota")
def _arange(draw: Draw, dtype: Any) -> Sample:
    step = draw.choice([1, 2, -1, -3] + [0.5, -0.25] * is_float(dtype))
    start = draw.integer(-3, 3)
    count = draw.integer(1, 3)
    stop = start + step * count - (step / 2 if is_float(dtype) and draw.flag() else 0)
    numbers = start + step * np.arange(math.ceil((stop - start) / step))
    expected = numbers != 0 if dtype is tp.bool else numbers
    if dtype is tp.int4:  # -3 - 3 * 2 is not in the type's range.
        start, stop, step, expected = 2, -8, -3, np.array([2, -1, -4, -7])
    return Sample(lambda: tp.arange(start, stop, step, dtype), [], expected, {"dtype": dtype})


@case("tril", FILL)
def _tril(draw: Draw, dtype: Any) -> Sample:
    diagonal = draw.integer(-5, 5)
    return Sample(
        lambda x: tp.tril(x, diagonal),
        [draw.tensor(draw.shape((2, 4)), dtype)],
        lambda x: np.tril(x, diagonal),
    )


@case("triu", FILL)
def _triu(draw: Draw, dtype: Any) -> Sample:
    diagonal = draw.integer(-5, 5)
    return Sample(
        lambda x: tp.triu(x, diagonal),
        [draw.tensor(draw.shape((2, 4)), dtype)],
        lambda x: np.triu(x, diagonal),
    )


@case("Tensor.shape", "F i8 I", "dimension")
def _size(draw: Draw, dtype: Any) -> Sample:
    x = draw.tensor(draw.shape((1, 3)), dtype)
    # Eagerly the size is an int, while compiling a DimensionSize: both follow the tensor's type.
    return Sample(lambda x: x.shape[0] * x, [x], lambda x: x * np.asarray(x.shape[0], x.dtype))
