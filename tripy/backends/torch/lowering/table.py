"""The lowering table: operation name → function on torch tensors.

Each row, unfused, is the definition of its operation. Functions take the node's attributes and
its inputs (None for an optional one left out). One family a file, as in tripy.graph.operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Attrs = dict[str, Any]
T = torch.Tensor

LOWERINGS: dict[str, Callable[..., Any]] = {}


def lowering(*names: str) -> Callable:
    """Register a function as the lowering of the named operations."""

    def register(function: Callable) -> Callable:
        for name in names:
            LOWERINGS[name] = function
        return function

    return register


def row(name: str, function: Callable) -> None:
    """A row for an operation that is a torch function of its inputs alone."""
    LOWERINGS[name] = lambda attrs, *inputs: function(*inputs)
