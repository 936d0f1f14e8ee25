"""Lowerings of reductions and of operations along one dimension."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tripy.backends.torch.lowering.table import LOWERINGS, Attrs, T, lowering


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
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keepdim)
    return x


def _mean(x: T, axes: tuple[int, ...], keepdim: bool) -> T:
    if x.dtype.is_floating_point:
        return torch.mean(x, axes, keepdim=keepdim)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
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
    return torch.var(
        x, attrs["dim"], correction=attrs["correction"], keepdim=attrs["keepdim"]
    )


def _arg(function: Callable) -> Callable:
    def run(attrs: Attrs, x: T) -> T:
        dim, keepdim = attrs["dim"], attrs["keepdim"]
        flat = x.reshape(-1) if dim is None else x
        # torch promises no order among equal elements: numpy's first is found explicitly.
        axis = 0 if dim is None else dim
        best = function(flat, axis, keepdim=True)
        hit = flat == best
        if flat.dtype.is_floating_point:
            hit |= flat.isnan()
        index = hit.to(torch.int8).argmax(axis, keepdim=keepdim).to(torch.int32)
        return index.reshape([1] * x.dim()) if dim is None and keepdim else index.reshape(
            [] if dim is None else index.shape
        )

    return run


LOWERINGS |= {"argmax": _arg(torch.amax), "argmin": _arg(torch.amin)}


@lowering("topk")
def _topk(attrs: Attrs, x: T) -> tuple[T, T]:
    # A stable sort, so that equal elements keep their order.
    values, indices = torch.sort(x, dim=attrs["dim"], descending=True, stable=True)
    k = attrs["k"]
    return (
        values.narrow(attrs["dim"], 0, k),
        indices.narrow(attrs["dim"], 0, k).to(torch.int32),
    )
