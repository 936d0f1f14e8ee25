"""Lowerings of reductions and of operations along one dimension."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tripy.backends.torch.lowering.table import LOWERINGS, Attrs, RefusedValues, T, lowering


def _reduction(function: Callable, accumulate: bool = False) -> Callable:
    def run(attrs: Attrs, x: T) -> T:
        dim, keepdim = attrs["dim"], attrs["keepdim"]
        axes = tuple(range(x.dim())) if dim is None else dim if isinstance(dim, tuple) else (dim,)
        if not axes:  # A scalar is its own sum.
            return function(x.reshape(1), (0,), False).to(x.dtype)
        result = function(x, axes, keepdim)
        return result.to(x.dtype) if accumulate else result

    return run


def _prod(x: T, axes: tuple[int, ...], keepdim: bool) -> T:
    # One dimension at a time, and not rounded to 16 bits in between.
    wide = torch.float32 if x.dtype.is_floating_point else torch.int64
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keepdim, dtype=wide)
    return x


def _mean(x: T, axes: tuple[int, ...], keepdim: bool) -> T:
    if x.dtype.is_floating_point:
        return torch.mean(x, axes, keepdim=keepdim)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    if count == 0:  # Floating-point numbers have NaN for it.
        raise RefusedValues(
            "there is nothing to reduce, and no integer that says so.",
            "no elements",
            "one element or more",
            "floating point, which has NaN",
        )
    return torch.div(torch.sum(x, axes, keepdim=keepdim), count, rounding_mode="trunc")


def _logical(function: Callable) -> Callable:
    def run(x: T, axes: tuple[int, ...], keepdim: bool) -> T:
        return function(x, axes, keepdim=keepdim)

    return run


LOWERINGS |= {
    "sum": _reduction(lambda x, axes, keep: torch.sum(x, axes, keepdim=keep), accumulate=True),
    "prod": _reduction(_prod, accumulate=True),
    "max": _reduction(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
    "min": _reduction(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
    "mean": _reduction(_mean, accumulate=True),
    "all": _reduction(_logical(torch.all)),
    "any": _reduction(_logical(torch.any)),
    "softmax": lambda attrs, x: torch.softmax(x, attrs["dim"]),
    "cumsum": lambda attrs, x: torch.cumsum(x, attrs["dim"]),
}


@lowering("var")
def _var(attrs: Attrs, x: T) -> T:
    dim, correction = attrs["dim"], attrs["correction"]
    axes = range(x.dim()) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    if not x.numel() or math.prod(x.shape[axis] for axis in axes) <= correction:
        # Not defined. torch gives NaN too where the two are equal, with a warning.
        return torch.full_like(torch.sum(x, dim, keepdim=attrs["keepdim"]), math.nan)
    return torch.var(x, dim, correction=correction, keepdim=attrs["keepdim"])


def _arg(function: Callable) -> Callable:
    """torch promises the first of equal elements, and the first NaN before all else."""

    def run(attrs: Attrs, x: T) -> T:
        return function(x, attrs["dim"], attrs["keepdim"]).to(torch.int32)

    return run


LOWERINGS |= {"argmax": _arg(torch.argmax), "argmin": _arg(torch.argmin)}


@lowering("topk")
def _topk(attrs: Attrs, x: T) -> tuple[T, T]:
    # A stable sort, so that equal elements keep their order.
    values, indices = torch.sort(x, dim=attrs["dim"], descending=True, stable=True)
    k = attrs["k"]
    return (
        values.narrow(attrs["dim"], 0, k),
        indices.narrow(attrs["dim"], 0, k).to(torch.int32),
    )
