"""Layers that make tensors."""

from __future__ import annotations

from typing import Any

from tripy import dtypes
from tripy.backends.tensorrt.lowering.elementwise import converted
from tripy.backends.tensorrt.lowering.table import kind_of, lowering
from tripy.backends.tensorrt.network import OPAQUE, Network
from tripy.graph import Node


@lowering("full")
def _full(net: Network, node: Node) -> Any:
    shape, kind = node.attrs["shape"], node.attrs["dtype"]
    made = dtypes.float16 if kind in OPAQUE else kind
    one = net.number(node.attrs["value"], made, 0)
    return converted(net, net.expand(one, (), shape), made, kind)


@lowering("iota")
def _iota(net: Network, node: Node) -> Any:
    shape, kind = node.attrs["shape"], node.attrs["dtype"]
    start, step = node.attrs["start"], node.attrs["step"]
    axis = node.attrs["dim"] % len(shape)
    line = net.range(shape[axis])
    # Numbers with a fraction are worked out in float32; eager does it in float64 and rounds.
    wide = dtypes.int64 if isinstance(start * step, int) else dtypes.float32
    line = net.cast(line, wide)
    line = net.with_number("SUM", net.with_number("PROD", line, step, wide), start, wide)
    line = net.unsqueeze(line, [a for a in range(len(shape)) if a != axis])
    own = [size if a == axis else 1 for a, size in enumerate(shape)]
    made = converted(net, line, wide, kind if kind not in OPAQUE else dtypes.float16)
    made = net.expand(made, own, shape)
    return converted(net, made, dtypes.float16, kind) if kind in OPAQUE else made


@lowering("dimension")
def _dimension(net: Network, node: Node) -> Any:
    size = net.reshape(net.sizes.vector((node.attrs["size"],)), ())
    return net.cast(size, dtypes.int32)


@lowering("tril")
def _tril(net: Network, node: Node, tensor: Any) -> Any:
    return _triangle(net, node, tensor, "GREATER")


@lowering("triu")
def _triu(net: Network, node: Node, tensor: Any) -> Any:
    return _triangle(net, node, tensor, "LESS")


def _triangle(net: Network, node: Node, tensor: Any, outside: str) -> Any:
    """Zeros where column - row is on the other side of the diagonal."""
    rows, columns = node.output.shape[-2:]
    distance = net.binary("SUB", net.along(columns, 1, 2), net.along(rows, 0, 2))
    beyond = net.with_number(outside, distance, node.attrs["diagonal"], dtypes.int32)
    kind = kind_of(node)
    return net.select(beyond, net.number(0, kind, 2), tensor)
