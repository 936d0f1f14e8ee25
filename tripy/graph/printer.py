"""Graphs as text: one line a node, in static single assignment form."""

from __future__ import annotations

from typing import Any

from tripy.graph.ir import Graph, Value


def graph_text(graph: Graph, title: str = "graph") -> str:
    """A graph that a person can read: names, types, attributes and the lines that made them."""
    names: dict[Value, str] = {}

    def name(value: Any) -> str:
        if value is None:
            return "-"
        if value not in names:
            prefix = "const" if value.data is not None else ""
            names[value] = f"%{value.name or f'{prefix}{len(names)}'}"
        return names[value]

    lines = [f"{title}({', '.join(f'{name(v)}: {v.type_text}' for v in graph.inputs)})"]
    for value in graph.constants():
        lines.append(f"  {name(value)} = constant : {value.type_text}")
    for node in graph.nodes():
        left = ", ".join(map(name, node.outputs))
        attrs = ", ".join(f"{k}={_short(v)}" for k, v in node.attrs.items() if v is not None)
        right = ", ".join(map(name, node.inputs))
        types = ", ".join(v.type_text for v in node.outputs)
        where = ""
        if node.location is not None:
            where = f"  # {node.location.place()}"
        lines.append(f"  {left} = {node.op}({right}) {{{attrs}}} : {types}{where}")
    lines.append(f"  return {', '.join(map(name, graph.outputs))}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"({', '.join(map(str, value))})" if isinstance(value, tuple) else str(value)
