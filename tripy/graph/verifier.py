"""The verifier: whether a graph, after a rewrite, still obeys its operations' schemas."""

from __future__ import annotations

from tripy.graph.ir import Graph, Node, Value
from tripy.graph.schema import SCHEMAS, infer_node


class InvalidGraph(Exception):
    """A rewrite has made a graph that means nothing: an error of tripy, not of its user."""


def verify(graph: Graph, stage: str) -> None:
    """Check every node's inputs, types and shapes.

    Args:
        graph: The graph.
        stage: What has just happened to it, for the message.

    Raises:
        InvalidGraph: Naming the first node that is wrong.
    """
    known: set[Value] = set(graph.inputs)
    for node in graph.nodes():
        if node.op not in SCHEMAS:
            raise InvalidGraph(f"after {stage}: unknown operation {node.op}")
        for value in node.inputs:
            if value is not None and value.data is None and value not in known:
                raise InvalidGraph(f"after {stage}: {node.op} reads {value}, which nothing makes")
        _verify_outputs(node, stage)
        known.update(node.outputs)
    for value in graph.outputs:
        if value.data is None and value not in known:
            raise InvalidGraph(f"after {stage}: the output {value} is made by nothing")


def _verify_outputs(node: Node, stage: str) -> None:
    try:
        types, shapes, _ = infer_node(node.op, node.inputs, node.attrs, node.location)
    except Exception as error:  # Shape functions trust the number of inputs and the attributes.
        raise InvalidGraph(f"after {stage}: {node.op}: {error!r}") from error
    if len(types) != len(node.outputs):
        raise InvalidGraph(
            f"after {stage}: {node.op} has {len(types)} outputs, {len(node.outputs)} are declared"
        )
    for value, dtype, shape in zip(node.outputs, types, shapes):
        if value.dtype is not dtype or tuple(value.shape) != tuple(shape):
            raise InvalidGraph(
                f"after {stage}: {node.op} makes {dtype}[{', '.join(map(str, shape))}], "
                f"but its output is declared {value.type_text}"
            )
