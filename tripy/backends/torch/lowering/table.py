"""The lowering table: operation name → function on torch tensors.

Each row, unfused, is the definition of its operation. Functions take the node's attributes and
its inputs (None for an optional one left out). One family a file, as in tripy.graph.operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.graph import Node

Attrs = dict[str, Any]
T = torch.Tensor

LOWERINGS: dict[str, Callable[..., Any]] = {}

# What an eager operation checks of its inputs' values before it runs on a GPU, at the price of
# waiting for them: a kernel that fails there takes the whole process's GPU with it. Compiled
# programs do not wait.
EAGER_CHECKS: dict[str, Callable[..., None]] = {}


class RefusedValues(ValueError):
    """What a lowering raises for values that it cannot take; see :func:`failure`."""

    def __init__(self, summary: str, got: str, expected: str, hint: Optional[str] = None) -> None:
        super().__init__(summary)
        self.got, self.expected, self.hint = got, expected, hint


# What torch and RefusedValues raise.
FAILURES = (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError, MemoryError)


def failure(node: Node, error: Exception) -> TripyException:
    """The error for a node that failed, with the line that recorded it and the one that ran it."""
    types = ", ".join(v.type_text for v in node.inputs if v is not None)
    summary = f"{node.op}: {(str(error) or type(error).__name__).splitlines()[0]}"
    recorded = [("the operation", node)]
    if isinstance(error, RefusedValues):
        got = f"{error.got}, with {types}"
        return TripyException(
            summary, got=got, expected=error.expected, hint=error.hint, tensors=recorded
        )
    return TripyException(
        summary, got=types, expected="values and sizes that PyTorch can compute", tensors=recorded
    )


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
