"""Graphs as text, one line a node in static single assignment form, and as drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tripy.graph.ir import Graph, Node, Value


class _Names:
    """A name for each value: its own where it has one, else a number; no two alike."""

    def __init__(self) -> None:
        self._names: dict[Value, str] = {}
        self._taken: set[str] = set()

    def __call__(self, value: Any) -> str:
        if value is None:
            return "-"
        if value not in self._names:
            own = value.name or ("const" if value.data is not None else "") + str(len(self._names))
            name, count = f"%{own}", 1
            while name in self._taken:
                name, count = f"%{own}.{count}", count + 1
            self._names[value] = name
            self._taken.add(name)
        return self._names[value]


def graph_text(graph: Graph, title: str = "graph") -> str:
    """A graph that a person can read: names, types, attributes and the lines that made them."""
    name = _Names()
    lines = [f"{title}({', '.join(f'{name(v)}: {v.type_text}' for v in graph.inputs)})"]
    for value in graph.constants():
        lines.append(f"  {name(value)} = constant : {value.type_text}")
    for node in graph.nodes():
        left = ", ".join(map(name, node.outputs))
        right = ", ".join(map(name, node.inputs))
        attrs = _attributes(node)
        types = ", ".join(v.type_text for v in node.outputs)
        where = f"  # {node.location.place()}" if node.location is not None else ""
        braces = f" {{{attrs}}}" if attrs else ""
        lines.append(f"  {left} = {node.op}({right}){braces} : {types}{where}")
    lines.append(f"  return {', '.join(map(name, graph.outputs))}")
    return "\n".join(lines)


def graph_dot(graph: Graph) -> str:
    """A graph in the language of Graphviz: ``dot -Tsvg`` draws it."""
    name = _Names()
    lines = ["digraph tripy {", '  node [shape=box, fontname="monospace"];']
    makers: dict[Value, str] = {}
    for value in [*graph.inputs, *graph.constants()]:
        makers[value] = f"value{len(makers)}"
        shape = "ellipse" if value.data is None else "note"
        label = _quoted(f"{name(value)}\n{value.type_text}")
        lines.append(f"  {makers[value]} [shape={shape}, label={label}];")
    for position, node in enumerate(graph.nodes()):
        lines.append(f"  node{position} [label={_quoted(_node_label(node))}];")
        for read in node.inputs:
            if read is not None:
                lines.append(f"  {makers[read]} -> node{position} {_edge(read)};")
        makers.update((value, f"node{position}") for value in node.outputs)
    for position, value in enumerate(graph.outputs):
        lines.append(f'  result{position} [shape=ellipse, label="result {position}"];')
        lines.append(f"  {makers[value]} -> result{position} {_edge(value)};")
    return "\n".join([*lines, "}"])


def _node_label(node: Node) -> str:
    return "\n".join(filter(None, [node.op, _attributes(node)]))


def _edge(value: Value) -> str:
    return f"[label={_quoted(value.type_text)}]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _attributes(node: Node) -> str:
    return ", ".join(f"{k}={_short(v)}" for k, v in node.attrs.items() if v is not None)


def _short(value: Any) -> str:
    return f"({', '.join(map(str, value))})" if isinstance(value, tuple) else str(value)
