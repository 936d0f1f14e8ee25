"""Graphs as JSON. Constants are kept by their number; whoever saves the graph keeps their data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from tripy import dtypes
from tripy.device import device
from tripy.errors import SavedLocation
from tripy.graph import dims
from tripy.graph.dims import Symbol
from tripy.graph.ir import Constraint, Graph, Node, Value


def _attribute(value: Any) -> Any:
    if isinstance(value, dtypes.dtype):
        return {"dtype": value.name}
    if isinstance(value, device):
        return {"device": str(value)}
    if isinstance(value, dims.Expr):
        return {"size": dims.to_json(value)}
    if isinstance(value, (tuple, list)):
        return {"list": [_attribute(item) for item in value]}
    if isinstance(value, float):
        return {"float": value.hex()}  # Exact, and JSON has neither infinity nor NaN.
    return value


def _location(place: Any) -> Optional[list[str]]:
    return None if place is None else [place.place(), place.describe()]


def graph_to_json(graph: Graph) -> tuple[dict[str, Any], list[Value]]:
    """A graph as JSON data, and its constants in the order of their numbers."""
    numbers: dict[Value, int] = {}
    constants: list[Value] = []
    symbols: dict[str, Symbol] = {}

    def number(value: Optional[Value]) -> Optional[int]:
        if value is None:
            return None
        if value not in numbers:
            numbers[value] = len(numbers)
            if value.data is not None:
                constants.append(value)
        return numbers[value]

    def size(dim: dims.Dim) -> Any:
        for each in dims.symbols(dim):
            symbols[each.name] = each
        return dims.to_json(dim)

    def declared(value: Value) -> dict[str, Any]:
        return {
            "id": number(value),
            "dtype": value.dtype.name,
            "shape": [size(s) for s in value.shape],
            "name": value.name,
            "location": _location(value.location),
        }

    def collect(attribute: Any) -> None:
        if isinstance(attribute, (tuple, list)):
            for item in attribute:
                collect(item)
        elif isinstance(attribute, dims.Expr):
            size(attribute)

    inputs = [declared(value) for value in graph.inputs]
    nodes = []
    for node in graph.nodes():
        collect(tuple(node.attrs.values()))
        nodes.append(
            {
                "op": node.op,
                "inputs": [number(value) for value in node.inputs],
                "attrs": {name: _attribute(value) for name, value in node.attrs.items()},
                "outputs": [declared(value) for value in node.outputs],
                "location": _location(node.location),
            }
        )
    outputs = [number(value) for value in graph.outputs]
    constraints = [
        [c.relation, size(c.left), size(c.right), c.message, _location(c.location)]
        for c in graph.constraints
    ]
    data = {
        "symbols": [[s.name, s.minimum, s.optimum, s.maximum] for s in symbols.values()],
        "inputs": inputs,
        "constants": [declared(value) for value in constants],
        "nodes": nodes,
        "outputs": outputs,
        "constraints": constraints,
    }
    return data, constants


def graph_from_json(
    data: dict[str, Any], where: device, constant: Callable[[int, dtypes.dtype], Any]
) -> Graph:
    """The reverse; ``constant(number, dtype)`` gives each constant's data.

    Raises:
        KeyError, TypeError, ValueError: For data that is not what graph_to_json makes.
    """
    table = {s[0]: Symbol(*s) for s in data["symbols"]}
    values: dict[int, Value] = {}

    def place(saved: Any) -> Any:
        return None if saved is None else SavedLocation(*saved)

    def attribute(saved: Any) -> Any:
        if not isinstance(saved, dict):
            return saved
        ((kind, content),) = saved.items()
        if kind == "dtype":
            return dtypes.BY_NAME[content]
        if kind == "device":
            # A program belongs to a kind of device; which one of them is told at loading.
            return where if device(content).kind == where.kind else device(content)
        if kind == "size":
            return dims.from_json(content, table)
        if kind == "float":
            return float.fromhex(content)
        return tuple(attribute(item) for item in content)

    def restore(saved: dict[str, Any], node: Optional[Node] = None, index: int = 0) -> Value:
        value = Value(
            dtypes.BY_NAME[saved["dtype"]],
            tuple(dims.from_json(s, table) for s in saved["shape"]),
            where, node, index, name=saved["name"], location=place(saved["location"]),
        )  # fmt: skip
        values[saved["id"]] = value
        return value

    inputs = [restore(saved) for saved in data["inputs"]]
    for value in inputs:
        value.is_input = True
    for position, saved in enumerate(data["constants"]):
        value = restore(saved)
        value.data = constant(position, value.dtype)
    for saved in data["nodes"]:
        node = Node(
            saved["op"],
            [None if number is None else values[number] for number in saved["inputs"]],
            {name: attribute(value) for name, value in saved["attrs"].items()},
            place(saved["location"]),
        )
        node.outputs = [restore(o, node, i) for i, o in enumerate(saved["outputs"])]
    constraints = [
        Constraint(r, dims.from_json(left, table), dims.from_json(right, table), m, place(at))
        for r, left, right, m, at in data["constraints"]
    ]
    return Graph(inputs, [values[number] for number in data["outputs"]], constraints)
