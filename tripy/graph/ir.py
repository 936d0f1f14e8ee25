"""The graph: values, the nodes that make them, and functions over whole graphs.

A :class:`Value` is data that is there (``data``), an input of a function being compiled, or an
output of a :class:`Node`. What ``data`` is, only a backend knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Optional

from tripy import dtypes
from tripy.device import device
from tripy.errors import Location
from tripy.graph.dims import Dim
from tripy.graph.printer import graph_dot, graph_text

_serial = count()


class Value:
    """One tensor of a graph.

    Attributes:
        node: The node that computes it; None for constants and inputs, and once it is computed.
        index: Which of the node's outputs it is.
        dtype: Data type.
        shape: Sizes, each an int or a symbolic expression.
        device: Where it lives.
        data: The backend's storage, once there.
        name: A name for people; may be None.
        location: The user's line that made it.
        owner: A weak reference to the user's tensor, so that evaluation knows which
            intermediate results somebody can still ask for.
        is_input: Whether it is an argument of a function that is being compiled.
    """

    __slots__ = (
        "__weakref__", "data", "device", "dtype", "index", "is_input", "location", "name", "node",
        "owner", "serial", "shape",
    )  # fmt: skip

    def __init__(
        self,
        dtype: dtypes.dtype,
        shape: tuple[Dim, ...],
        device: device,
        node: Optional[Node] = None,
        index: int = 0,
        data: Any = None,
        name: Optional[str] = None,
        location: Optional[Location] = None,
    ) -> None:
        self.dtype, self.shape, self.device = dtype, shape, device
        self.node, self.index, self.data = node, index, data
        self.name, self.location = name, location
        self.owner: Any = None
        self.is_input = False
        self.serial = next(_serial)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def type_text(self) -> str:
        """``float32[2, N]``, for messages and prints."""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    def __repr__(self) -> str:
        return f"Value({self.name or self.serial}: {self.type_text})"


class Constraint:
    """A relation between sizes that can be checked only when the sizes are known."""

    __slots__ = ("left", "location", "message", "relation", "right")

    def __init__(
        self, relation: str, left: Dim, right: Dim, message: str, location: Optional[Location]
    ) -> None:
        self.relation, self.left, self.right = relation, left, right
        self.message, self.location = message, location

    def holds(self, left: int, right: int) -> bool:
        if self.relation == "==":
            return left == right
        if self.relation == "<=":
            return left <= right
        return left == right or left == 1 or right == 1  # "broadcast"


class Node:
    """One operation: its name, its inputs (None for an optional one left out), its attributes."""

    __slots__ = ("attrs", "constraints", "inputs", "location", "op", "outputs")

    def __init__(
        self,
        op: str,
        inputs: Iterable[Optional[Value]],
        attrs: dict[str, Any],
        location: Optional[Location] = None,
        constraints: tuple[Constraint, ...] = (),
    ) -> None:
        self.op, self.inputs, self.attrs = op, list(inputs), attrs
        self.location, self.constraints = location, constraints
        self.outputs: list[Value] = []

    @property
    def output(self) -> Value:
        """The output of a node that has one."""
        return self.outputs[0]

    def __repr__(self) -> str:
        return f"Node({self.op})"


def topological_order(outputs: Iterable[Optional[Value]]) -> list[Node]:
    """All nodes that the outputs need, each after the nodes that it needs itself."""
    order: list[Node] = []
    done: set[Node] = set()
    # Depth first without recursion: a chain of operations may be longer than Python's stack.
    for output in outputs:
        if output is None or output.data is not None or output.node is None:
            continue
        stack: list[tuple[Node, int]] = [(output.node, 0)]
        while stack:
            node, position = stack.pop()
            if node in done:
                continue
            for index in range(position, len(node.inputs)):
                value = node.inputs[index]
                if value is None or value.data is not None:
                    continue
                producer = value.node
                if producer is not None and producer not in done:
                    stack += [(node, index + 1), (producer, 0)]
                    break
            else:
                done.add(node)
                order.append(node)
    return order


class Graph:
    """A function as a graph: inputs, outputs and, through them, nodes.

    Attributes:
        inputs: Values given at run time, in order.
        outputs: Values returned, in order.
        constraints: What the sizes have to obey at run time for the function as it was recorded,
            whatever nodes rewrites have put in place of others.
    """

    def __init__(
        self,
        inputs: list[Value],
        outputs: list[Value],
        constraints: Iterable[Constraint] = (),
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.constraints = list(constraints)

    def __str__(self) -> str:
        return graph_text(self)

    def to_dot(self) -> str:
        """The graph in the language of Graphviz: ``dot -Tsvg`` draws it."""
        return graph_dot(self)

    def nodes(self) -> list[Node]:
        """All nodes in an order in which they can run."""
        return topological_order(self.outputs)

    def constants(self) -> list[Value]:
        """All values that are known already, each once."""
        found = {
            value: None for node in self.nodes() for value in node.inputs if value is not None
        } | dict.fromkeys(self.outputs)
        return [value for value in found if value.data is not None]

    def uses(self) -> dict[Value, list[Node]]:
        """The nodes that read each value; a graph output counts as a use by no node."""
        table: dict[Value, list[Node]] = {}
        for node in self.nodes():
            for value in node.inputs:
                if value is not None:
                    table.setdefault(value, []).append(node)
        return table

    def copy(self, names: Optional[Mapping[Value, str]] = None) -> Graph:
        """The recorded graph with nodes and constants of its own; inputs and data are shared.

        Args:
            names: Names to give to values that have none.
        """
        mapping: dict[Value, Value] = {value: value for value in self.inputs}
        constraints: dict[tuple, Constraint] = {}

        def twin(value: Value, node: Optional[Node] = None) -> Value:
            if value in mapping:
                return mapping[value]
            name = value.name or (names or {}).get(value)
            new = Value(
                value.dtype, value.shape, value.device, node, value.index,
                data=value.data, name=name, location=value.location,
            )  # fmt: skip
            new.is_input = value.is_input
            mapping[value] = new
            return new

        for node in self.nodes():
            inputs = [twin(v) if v is not None else None for v in node.inputs]
            for each in node.constraints:
                constraints.setdefault((each.relation, each.left, each.right), each)
            copied = Node(node.op, inputs, node.attrs, node.location)
            copied.outputs = [twin(value, copied) for value in node.outputs]
        outputs = [twin(value) for value in self.outputs]
        return Graph(self.inputs, outputs, constraints.values())
