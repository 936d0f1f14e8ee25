"""Cases of functions that mirror, repeat or add elements."""

from __future__ import annotations

from typing import Any

import numpy as np

import tripy as tp
from tests.ops.cases.table import Draw, Sample, case, is_float

TYPES = "F I b"


@case("flip", TYPES, "slice")
def _flip(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape()
    dim: Any = None
    if shape and draw.flag():
        dim = draw.dim(len(shape))
        if draw.flag():
            count = draw.integer(0, len(shape))
            dim = tuple(int(d) for d in draw.rng.permutation(len(shape))[:count])
    return Sample(
        lambda x: tp.flip(x, dim), [draw.tensor(shape, dtype)], lambda x: np.flip(x, dim).copy()
    )


@case("repeat", TYPES, "expand")
def _repeat(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3))
    dim, repeats = draw.dim(len(shape)), draw.integer(0, 3)
    return Sample(
        lambda x: tp.repeat(x, repeats, dim),
        [draw.tensor(shape, dtype)],
        lambda x: np.repeat(x, repeats, dim),
    )


@case("pad", TYPES)
def _pad(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape()
    widths = [(draw.integer(0, 3), draw.integer(0, 3)) for _ in shape]
    value = draw.flag() if dtype is tp.bool else draw.choice([0, -2] + [0.5] * is_float(dtype))
    return Sample(
        lambda x: tp.pad(x, widths, value=value),
        [draw.tensor(shape, dtype)],
        lambda x: np.pad(x, widths, constant_values=value) if x.ndim else x,
    )


@case("pad", TYPES)
def _reflect(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3), (1, 5))
    widths = [(draw.integer(0, size - 1), draw.integer(0, size - 1)) for size in shape]
    return Sample(
        lambda x: tp.pad(x, widths, "reflect"),
        [draw.tensor(shape, dtype)],
        lambda x: np.pad(x, widths, "reflect"),
    )
