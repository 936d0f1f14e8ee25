"""Cases of reductions and of functions along one dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tripy as tp
from tests.helpers import ROUNDING, tensor, values
from tests.ops.cases.table import Draw, Sample, case, is_float


def _axes(draw: Draw, rank: int) -> Any:
    """None, a dimension, or several, counted from either end."""
    if rank == 0 or draw.integer(0, 3) == 0:
        return None
    if draw.flag():
        return draw.dim(rank)
    count = draw.integer(1, rank)
    axes = [int(d) for d in draw.rng.permutation(rank)[:count]]
    return tuple(d - rank if draw.flag() else d for d in axes)


def _reduction(
    name: str, types: str, function: Callable, reference: Callable, sizes=(0, 5)
) -> None:
    @case(name, types)
    def build(draw: Draw, dtype: Any) -> Sample:
        shape = draw.shape((0, 4), sizes)
        axes, keepdim = _axes(draw, len(shape)), draw.flag()
        options: dict[str, Any] = {}
        if is_float(dtype):
            # Sums of cancelling numbers of about 3, and results rounded once more.
            options = {
                "rtol": 2 * ROUNDING[dtype] + 1e-5,
                "atol": 2e-3 * (dtype is not tp.float32) + 2e-5,
            }
        array = values(draw.rng, shape, dtype)
        if name == "prod" and is_float(dtype):
            array = np.sign(array) + array / 16
        return Sample(
            lambda x: function(x, axes, keepdim),
            [tensor(array, dtype)],
            lambda x: reference(x, axis=axes, keepdims=keepdim),
            options,
        )


def _wrapping(function: Callable) -> Callable:
    """numpy's function with the result in the input's type, as integer arithmetic wraps."""
    return lambda x, axis, keepdims: np.asarray(
        function(x, axis=axis, keepdims=keepdims, dtype=x.dtype)
    )


def _mean(x: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    mean = np.mean(x, axis=axis, keepdims=keepdims)
    return np.trunc(mean).astype(x.dtype) if x.dtype.kind == "i" else np.asarray(mean)


def _plain(function: Callable) -> Callable:
    return lambda x, axis, keepdims: np.asarray(function(x, axis=axis, keepdims=keepdims))


_reduction("sum", "F I", tp.sum, _wrapping(np.sum))
_reduction("prod", "F I", tp.prod, _wrapping(np.prod))
_reduction("max", "F I", tp.max, _plain(np.max), sizes=(1, 5))
_reduction("min", "F I", tp.min, _plain(np.min), sizes=(1, 5))
_reduction("mean", "F I", tp.mean, _mean, sizes=(1, 5))
_reduction("all", "b", tp.all, _plain(np.all))
_reduction("any", "b", tp.any, _plain(np.any))


@case("var", "F")
def _var(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((0, 4), (1, 5))
    axes, keepdim, correction = _axes(draw, len(shape)), draw.flag(), draw.integer(0, 2)

    def reference(x: np.ndarray) -> np.ndarray:
        count = x.size // np.sum(x, axis=axes).size
        if count <= correction:
            return np.full_like(np.sum(x, axis=axes, keepdims=keepdim), np.nan)
        return np.asarray(np.var(x, axis=axes, keepdims=keepdim, ddof=correction))

    return Sample(
        lambda x: tp.var(x, axes, keepdim, correction),
        [draw.tensor(shape, dtype)],
        reference,
        {"rtol": 2 * ROUNDING.get(dtype, 0) + 1e-5, "atol": 1e-5},
    )


def _index(name: str, function: Callable, reference: Callable) -> None:
    @case(name, "F I")
    def build(draw: Draw, dtype: Any) -> Sample:
        shape = draw.shape((0, 4), (1, 5))
        axis = draw.choice([None, *range(-len(shape), len(shape))])
        keepdim = draw.flag()
        array = np.round(values(draw.rng, shape, dtype) / 3)  # Many equal elements.
        return Sample(
            lambda x: function(x, axis, keepdim),
            [tensor(array, dtype)],
            lambda x: np.asarray(reference(x, axis=axis, keepdims=keepdim)),
            {"dtype": tp.int32},
        )


_index("argmax", tp.argmax, np.argmax)
_index("argmin", tp.argmin, np.argmin)


@case("topk", "F i8 I")
def _topk(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3), (1, 6))
    dim = draw.dim(len(shape))
    k = draw.integer(1, shape[dim])

    def reference(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Stable, so that of equal elements the first comes first.
        wide = x.astype(np.float64 if x.dtype.kind == "f" else np.int64)
        order = np.argsort(-wide, axis=dim, kind="stable")
        index = np.take(order, range(k), axis=dim)
        return np.take_along_axis(x, index, axis=dim), index

    return Sample(
        lambda x: tp.topk(x, k, dim),
        [draw.tensor(shape, dtype)],
        reference,
        {"dtype": [dtype, tp.int32]},
    )


@case("cumsum", "F")
def _cumsum(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3))
    dim = draw.dim(len(shape))
    return Sample(
        lambda x: tp.cumsum(x, dim),
        [draw.tensor(shape, dtype)],
        lambda x: np.cumsum(x, axis=dim),
        {"rtol": 4 * ROUNDING.get(dtype, 0) + 1e-5, "atol": 20 * ROUNDING.get(dtype, 0)},
    )


@case("softmax", "F")
def _softmax(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3))
    dim = draw.choice([None, draw.dim(len(shape))])

    def reference(x: np.ndarray) -> np.ndarray:
        if not x.size:
            return x
        exponential = np.exp(x - x.max(axis=dim, keepdims=True))
        return exponential / exponential.sum(axis=dim, keepdims=True)

    return Sample(
        lambda x: tp.softmax(x, dim), [draw.tensor(shape, dtype)], reference, {"rounds": 2}
    )
