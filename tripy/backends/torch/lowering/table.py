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

# What an eager operation checks of its inputs' values before it runs on a GPU, at the price of
# waiting for them: a kernel that fails there takes the whole process's GPU with it. Compiled
# programs do not wait.
EAGER_CHECKS: dict[str, Callable[..., None]] = {}


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
