"""Lowerings of operations that move elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tripy.backends.torch.lowering.table import EAGER_CHECKS, LOWERINGS, Attrs, RefusedValues, T


def _moved(function: Callable) -> Callable:
    """Moving float8 elements: torch moves bytes where it does not move float8."""

    def run(attrs: Attrs, x: T, *rest: T) -> Any:
        if x.dtype is not torch.float8_e4m3fn:
            return function(attrs, x, *rest)
        result = function(attrs, *(t.view(torch.int8) if t.dtype == x.dtype else t
                                   for t in (x, *rest)))  # fmt: skip
        if isinstance(result, tuple):
            return tuple(t.view(x.dtype) for t in result)
        return result.view(x.dtype)

    return run


def _slice(attrs: Attrs, x: T) -> T:
    for dim, (start, size, step) in enumerate(zip(attrs["starts"], attrs["sizes"], attrs["steps"])):
        if size == 0:
            x = x.narrow(dim, 0, 0)
        elif step > 0:
            if start or step != 1 or size != x.shape[dim]:
                x = x[(slice(None),) * dim + (slice(start, start + (size - 1) * step + 1, step),)]
        else:  # torch has no negative strides: cut forwards, then turn round.
            last = start + (size - 1) * step
            x = x[(slice(None),) * dim + (slice(last, start + 1, -step),)].flip(dim)
    return x


def _gather(attrs: Attrs, x: T, index: T) -> T:
    dim = attrs["dim"] % x.dim()
    flat = torch.index_select(x, dim, _wrapped(index.reshape(-1), x.shape[dim]))
    return flat.reshape((*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]))


def _wrapped(index: T, size: int) -> T:
    """Negative indices count from the end, as numpy.take has it."""
    if index.device.type != "cpu" or _lowest(index, size) < 0:
        return torch.where(index < 0, index + size, index)
    return index


def _lowest(index: T, size: int) -> int:
    """The smallest index, after checking that all are in range."""
    if index.numel() == 0:
        return 0
    low, high = (int(v) for v in index.aminmax())
    if low < -size or high >= size:
        raise RefusedValues(
            "an index is out of range.",
            f"index {low if low < -size else high}",
            f"an index from {-size} to {size - 1}" if size else "a dimension that is not empty",
        )
    return low


def _check_gather(attrs: Attrs, x: T, index: T) -> None:
    if index.device.type != "cpu":
        _lowest(index, x.shape[attrs["dim"]])


EAGER_CHECKS["gather"] = _check_gather


LOWERINGS |= {
    "reshape": _moved(lambda attrs, x: x.reshape(attrs["shape"])),
    "permute": _moved(lambda attrs, x: x.permute(attrs["perm"])),
    "expand": lambda attrs, x: x.expand(attrs["sizes"]),
    "concatenate": _moved(lambda attrs, *tensors: torch.cat(tensors, attrs["dim"])),
    "slice": _slice,
    "split": _moved(lambda attrs, x: tuple(x.split(list(attrs["sizes"]), attrs["dim"]))),
    "gather": _moved(_gather),
}
