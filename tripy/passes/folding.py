"""Constant folding: what does not depend on inputs is computed once, at compile time.

Weights become small here: ``quantize`` of a parameter is folded. ``dequantize`` never is, since it
would make them large again, and neither is anything that would grow the program much; nor are
plugins, whose results may be other ones each time.
"""

from __future__ import annotations

from collections.abc import Callable

from tripy.errors import TripyException
from tripy.graph import Graph, Node, Value, dims

NEVER_FOLDED = {"dequantize", "dimension", "plugin"}
# A result may be this much larger than what it is computed from: room for masks and tables.
MAXIMUM_GROWTH_BYTES = 16 * 2**20

Evaluate = Callable[[Node, list], tuple]


def _bytes(value: Value) -> float:
    return dims.product(value.shape) * value.dtype.itemsize  # type: ignore[operator]


def _foldable(node: Node) -> bool:
    if node.op in NEVER_FOLDED or any(v is not None and v.data is None for v in node.inputs):
        return False
    if any(not isinstance(s, int) for v in node.outputs for s in v.shape):
        return False
    if any(isinstance(s, dims.Expr) for a in node.attrs.values() for s in _flat(a)):
        return False
    before = sum(_bytes(v) for v in node.inputs if v is not None)
    return sum(map(_bytes, node.outputs)) <= before + MAXIMUM_GROWTH_BYTES


def _flat(attribute: object) -> tuple:
    return attribute if isinstance(attribute, tuple) else (attribute,)


def fold_constants(graph: Graph, evaluate: Evaluate) -> int:
    """Replace nodes that depend on constants only by their values.

    Args:
        graph: Rewritten in place. Its nodes have to be its own (see ``Graph.copy``).
        evaluate: Computes a node from its inputs' data.

    Returns:
        The number of nodes folded.
    """
    count = 0
    for node in graph.nodes():
        if not _foldable(node):
            continue
        results = evaluate(node, [None if v is None else v.data for v in node.inputs])
        source = node.inputs[0] if node.inputs else None
        for value, result in zip(node.outputs, results):
            value.data, value.node = result, None
            if source is not None and len(node.outputs) == 1:
                value.name = value.name or source.name  # A quantized weight is still that weight.
        count += 1
    return count


def check_scales(graph: Graph, usable: Callable[[object], bool]) -> None:
    """Refuse scales of zero, below zero, NaN or infinity once their values are known.

    Args:
        graph: The graph, after folding.
        usable: Whether a scale's data holds finite numbers above zero only.

    Raises:
        TripyException: Naming the operation's line.
    """
    for node in graph.nodes():
        if node.op not in ("quantize", "dequantize"):
            continue
        scale = node.inputs[1]
        if scale is not None and scale.data is not None and not usable(scale.data):
            raise TripyException(
                f"{node.op}: a scale is not usable.",
                got=f"zero, a negative number, NaN or infinity in {scale.name or 'the scale'}",
                expected="finite numbers above 0",
                hint="check the calibration: a tensor that is all zeros has amax 0",
                tensors=[("the scale", scale)],
                location=node.location,
            )
