"""Layers that move elements."""

from __future__ import annotations

from typing import Any

from tripy.backends.tensorrt.lowering.table import (
    LOWERINGS,
    kind_of,
    lowering,
    moving,
    operand,
)
from tripy.backends.tensorrt.network import Network
from tripy.graph import Node, dims


@lowering("reshape")
def _reshape(net: Network, node: Node, tensor: Any) -> Any:
    return net.reshape(tensor, node.output.shape)


@lowering("permute")
def _permute(net: Network, node: Node, tensor: Any) -> Any:
    return net.permute(tensor, node.attrs["perm"])


@lowering("expand")
def _expand(net: Network, node: Node, tensor: Any) -> Any:
    return net.expand(tensor, operand(node).shape, node.output.shape)


@lowering("concatenate")
def _concatenate(net: Network, node: Node, *tensors: Any) -> Any:
    return net.concatenate(tensors, node.attrs["dim"] % len(node.output.shape))


@moving
def _slice(net: Network, node: Node, tensor: Any) -> Any:
    # Where nothing is taken, a slice backwards would start at -1, which TensorRT refuses.
    starts = [dims.maximum(start, 0) for start in node.attrs["starts"]]
    return net.slice(tensor, starts, node.attrs["sizes"], node.attrs["steps"])


@moving
def _split(net: Network, node: Node, tensor: Any) -> list[Any]:
    shape = operand(node).shape
    axis, parts = node.attrs["dim"] % len(shape), []
    start: Any = 0
    for size in node.attrs["sizes"]:
        starts: list[Any] = [0] * len(shape)
        starts[axis] = start
        parts.append(
            net.slice(tensor, starts, [*shape[:axis], size, *shape[axis + 1 :]], [1] * len(shape))
        )
        start = start + size
    return parts


@moving
def _gather(net: Network, node: Node, tensor: Any, index: Any) -> Any:
    source = operand(node)
    axis, kind = node.attrs["dim"] % source.rank, kind_of(node, 1)
    # Negative indices count from the end.
    size = net.cast(net.sizes.vector((source.shape[axis],)), kind)
    if not len(index.shape):
        size = net.reshape(size, ())
    before = net.with_number("LESS", index, 0, kind)
    index = net.select(before, net.binary("SUM", index, size), index)
    return net.add(net.raw.add_gather(tensor, index, axis))


LOWERINGS |= {"slice": _slice, "split": _split, "gather": _gather}
