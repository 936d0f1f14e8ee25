"""The lowering table: operation name → function that adds an operation's layers to a network.

Functions take the network, the node and the tensors of its inputs (None for an optional one left
out), and give the tensor of its output, or a list for several. What TensorRT leaves undefined, such
as integers that overflow, is computed another way, so that the network means what eager does; what
cannot be said is a :class:`Unsupported`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tripy.backends.tensorrt.network import OPAQUE, Network
from tripy.dtypes import dtype, float16
from tripy.graph import Node, Value

Lowering = Callable[..., Any]

LOWERINGS: dict[str, Lowering] = {}


class Unsupported(Exception):
    """TensorRT cannot do what a node asks for; the message says what, and what to try."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


def lowering(*names: str) -> Callable[[Lowering], Lowering]:
    """Register a function as the lowering of the named operations."""

    def register(function: Lowering) -> Lowering:
        for name in names:
            LOWERINGS[name] = function
        return function

    return register


def moving(function: Lowering) -> Lowering:
    """For operations that move elements: float8 and int4 are moved as float16, which holds both.

    TensorRT's layers for moving parts of a tensor do not take them.
    """

    def run(net: Network, node: Node, tensor: Any, *rest: Any) -> Any:
        kind = kind_of(node)
        if kind not in OPAQUE:
            return function(net, node, tensor, *rest)
        result = function(net, node, *(_plain(net, t, kind) for t in (tensor, *rest)))
        if isinstance(result, list):
            return [_small(net, part, kind) for part in result]
        return _small(net, result, kind)

    return run


def _plain(net: Network, tensor: Any, kind: Any) -> Any:
    return net.dequantize(tensor, float16) if tensor.dtype == net.types[kind] else tensor


def _small(net: Network, tensor: Any, kind: Any) -> Any:
    return net.quantize(tensor, float16, kind)


def operand(node: Node, index: int = 0) -> Value:
    """An input that the node has."""
    value = node.inputs[index]
    if value is None:
        raise LookupError(f"{node.op} has no input {index}")
    return value


def kind_of(node: Node, index: int = 0) -> dtype:
    """The data type of an input that the node has."""
    return operand(node, index).dtype
