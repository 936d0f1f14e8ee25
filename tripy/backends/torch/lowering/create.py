"""Lowerings of operations that make tensors."""

from __future__ import annotations

import torch

from tripy import dtypes
from tripy.backends.torch.lowering.elementwise import cast
from tripy.backends.torch.lowering.table import LOWERINGS, Attrs, T, lowering
from tripy.backends.torch.storage import filled, torch_device


@lowering("full")
def _full(attrs: Attrs) -> T:
    return filled(attrs["shape"], attrs["value"], attrs["dtype"], attrs["where"])


@lowering("iota")
def _iota(attrs: Attrs) -> T:
    shape, dim, dtype = attrs["shape"], attrs["dim"], attrs["dtype"]
    dim %= len(shape)
    # float64 holds every int32, and every number that a smaller type can tell apart, exactly.
    wide = torch.int64 if isinstance(attrs["start"] * attrs["step"], int) else torch.float64
    line = torch.arange(shape[dim], dtype=wide, device=torch_device(attrs["where"]))
    line = line * attrs["step"] + attrs["start"]
    if dtype is dtypes.bool:
        line = line != 0
    else:
        line = cast({"dtype": dtype}, line)
    view = [1] * len(shape)
    view[dim] = shape[dim]
    return line.view(view).expand(shape)


LOWERINGS["tril"] = lambda attrs, x: torch.tril(x, attrs["diagonal"])
LOWERINGS["triu"] = lambda attrs, x: torch.triu(x, attrs["diagonal"])


@lowering("dimension")
def _dimension(attrs: Attrs) -> T:
    """Only in compiled programs, where the size is known by now.

    Filled, not copied: a copy would wait for the GPU, and could not be part of a CUDA graph.
    """
    return torch.full((), attrs["size"], dtype=torch.int32, device=torch_device(attrs["where"]))
