"""Eager execution: the graph as recorded, node by node, with no rewrites."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from tripy.backends.torch.lowering import EAGER_CHECKS, LOWERINGS
from tripy.backends.torch.lowering.table import FAILURES, failure
from tripy.errors import TripyException
from tripy.graph import Node, Value, topological_order

# Values of one lazy graph may be asked for by several threads at once; computing a node clears
# its link to the graph, so one thread does it at a time.
_lock = threading.RLock()


class NoValueYet(Exception):
    """A value depends on an argument of a function that is being compiled."""


def evaluate(values: Sequence[Value]) -> None:
    """Compute values and keep them, with every intermediate result that a user still holds."""
    with _lock:
        order = topological_order(values)
        remaining: dict[Value, int] = {}
        for node in order:
            for value in node.inputs:
                if value is None or value.data is not None:
                    continue
                if value.node is None:
                    raise NoValueYet
                remaining[value] = remaining.get(value, 0) + 1
        wanted = set(values)
        for value in values:
            if value.data is None and value.node is None:
                raise NoValueYet
        computed: dict[Value, Any] = {}
        for node in order:
            arguments: list[Any] = []
            for value in node.inputs:
                if value is None:
                    arguments.append(None)
                elif value.data is not None:
                    arguments.append(value.data)
                else:
                    arguments.append(computed[value])
                    remaining[value] -= 1
                    if not remaining[value]:
                        del computed[value]
            results = run_node(node, arguments)
            for value, result in zip(node.outputs, results):
                if value in wanted or (value.owner is not None and value.owner() is not None):
                    value.data = result
                    value.node = None  # Lets go of everything that was needed to compute it.
                if value in remaining:
                    computed[value] = result


def run_node(node: Node, arguments: list[Any]) -> tuple:
    """The torch tensors that a node computes; a failure names the user's line."""
    if node.op == "dimension":
        raise NoValueYet
    try:
        if node.op in EAGER_CHECKS:
            EAGER_CHECKS[node.op](node.attrs, *arguments)
        result = LOWERINGS[node.op](node.attrs, *arguments)
    except TripyException:
        raise
    except FAILURES as error:
        raise failure(node, error) from error
    return result if isinstance(result, tuple) else (result,)
