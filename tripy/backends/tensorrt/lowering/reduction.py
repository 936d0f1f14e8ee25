"""Layers of reductions and of operations along one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tripy import dtypes
from tripy.backends.tensorrt.lowering.table import (
    LOWERINGS,
    Lowering,
    Unsupported,
    kind_of,
    lowering,
    operand,
)
from tripy.backends.tensorrt.network import Network
from tripy.graph import Node, dims

# TensorRT's top-k layer gives no more elements.
_LARGEST_K = 3840


def _axes(node: Node) -> tuple[int, ...]:
    source, dim = operand(node), node.attrs["dim"]
    if dim is None:
        return tuple(range(source.rank))
    chosen = dim if isinstance(dim, tuple) else (dim,)
    return tuple(axis % source.rank for axis in chosen)


def _reduce(operation: str, wide: bool = False) -> Lowering:
    """``wide``: 16-bit numbers are summed in float32 and rounded once."""

    def run(net: Network, node: Node, tensor: Any) -> Any:
        kind = kind_of(node)
        if wide and kind in (dtypes.float16, dtypes.bfloat16):
            tensor = net.cast(tensor, dtypes.float32)
        result = net.reduce(operation, tensor, _axes(node), node.attrs["keepdim"])
        return net.cast(result, kind)

    return run


LOWERINGS |= {
    "sum": _reduce("SUM", wide=True),
    "prod": _reduce("PROD", wide=True),
    "max": _reduce("MAX"),
    "min": _reduce("MIN"),
}


def _count(net: Network, node: Node, axes: Sequence[int], kind: dtypes.dtype) -> Any:
    """How many elements are reduced to one, as a tensor of one element and no dimension."""
    count = dims.product(operand(node).shape[axis] for axis in axes)
    return net.cast(net.reshape(net.sizes.vector((count,)), ()), kind)


@lowering("mean")
def _mean(net: Network, node: Node, tensor: Any) -> Any:
    axes, keep, kind = _axes(node), node.attrs["keepdim"], kind_of(node)
    if kind in dtypes.FLOATS:
        result = net.reduce("AVG", net.cast(tensor, dtypes.float32), axes, keep)
        return net.cast(result, kind)
    total = net.reduce("SUM", tensor, axes, keep)
    # Towards zero: divided without its sign, which it gets back afterwards.
    size = net.binary("FLOOR_DIV", net.unary("ABS", total), _count(net, node, axes, kind))
    negative = net.with_number("LESS", total, 0, kind)
    return net.select(negative, net.unary("NEG", size), size)


@lowering("var")
def _var(net: Network, node: Node, tensor: Any) -> Any:
    axes, keep, kind = _axes(node), node.attrs["keepdim"], kind_of(node)
    wide = net.cast(tensor, dtypes.float32)
    if not axes:  # Of one element: its distance from itself, not defined with a correction.
        distance = net.binary("SUB", wide, wide)
        factor = float("nan") if node.attrs["correction"] >= 1 else 1.0
        return net.cast(net.with_number("PROD", distance, factor, dtypes.float32), kind)
    distance = net.binary("SUB", wide, net.reduce("AVG", wide, axes, True))
    total = net.reduce("SUM", net.binary("PROD", distance, distance), axes, keep)
    count = _count(net, node, axes, dtypes.float32)
    less = net.with_number("SUB", count, float(node.attrs["correction"]), dtypes.float32)
    # Not defined for as few elements as the correction, or fewer.
    few = net.unary("NOT", net.with_number("GREATER", less, 0.0, dtypes.float32))
    less = net.select(few, net.number(float("nan"), dtypes.float32, 0), less)
    return net.cast(net.binary("DIV", total, less), kind)


@lowering("all")
def _all(net: Network, node: Node, tensor: Any) -> Any:
    """No element is false; of none that is true."""
    return net.unary("NOT", _found(net, node, net.unary("NOT", tensor)))


@lowering("any")
def _any(net: Network, node: Node, tensor: Any) -> Any:
    return _found(net, node, tensor)


def _found(net: Network, node: Node, tensor: Any) -> Any:
    """Whether there is a true element: how many there are is not 0."""
    count = net.reduce("SUM", net.flags(tensor), _axes(node), node.attrs["keepdim"])
    return net.with_number("GREATER", count, 0, dtypes.int32)


@lowering("argmax")
def _argmax(net: Network, node: Node, tensor: Any) -> Any:
    return _position(net, node, tensor, "MAX")


@lowering("argmin")
def _argmin(net: Network, node: Node, tensor: Any) -> Any:
    return _position(net, node, tensor, "MIN")


def _position(net: Network, node: Node, tensor: Any, operation: str) -> Any:
    """The smallest index of an extreme: TensorRT does not say which of equals its top-k takes."""
    source, keep = operand(node), node.attrs["keepdim"]
    shape = source.shape
    if not shape:
        zero = torch.zeros((), dtype=torch.int32)
        return net.constant(zero, dtypes.int32)
    axis = 0 if node.attrs["dim"] is None else node.attrs["dim"] % len(shape)
    if node.attrs["dim"] is None:
        shape = (dims.product(shape),)
        tensor = net.reshape(tensor, shape)
    extreme = net.binary("EQUAL", tensor, net.reduce(operation, tensor, (axis,), True))
    place = net.along(shape[axis], axis, len(shape))
    size = net.cast(net.sizes.vector((shape[axis],)), dtypes.int32)
    size = net.unsqueeze(size, range(1, len(shape)))
    index = net.reduce("MIN", net.select(extreme, place, size), (axis,), keep)
    if keep and node.attrs["dim"] is None:
        return net.reshape(index, node.output.shape)
    return index


@lowering("topk")
def _topk(net: Network, node: Node, tensor: Any) -> list[Any]:
    source, k = operand(node), node.attrs["k"]
    if isinstance(k, dims.Expr) or k > _LARGEST_K:
        raise Unsupported(
            f"TensorRT finds the {_LARGEST_K} largest elements at most, not {k}",
            'backend="torch" has no such limit',
        )
    rank, axis = source.rank, node.attrs["dim"] % source.rank
    if k == 0:
        nothing = net.slice(tensor, [0] * rank, node.outputs[0].shape, [1] * rank)
        return [nothing, net.cast(nothing, dtypes.int32)]
    if rank == 1:  # TensorRT wants two dimensions.
        layer = net.raw.add_topk(
            net.unsqueeze(tensor, (0,)), net.trt.TopKOperation.MAX, k, net.mask((1,))
        )
        layer = net.finish(layer)
        return [net.squeeze(net.checked(layer.get_output(i)), (0,)) for i in range(2)]
    # It works along one of the last four dimensions.
    perm = [a for a in range(rank) if a != axis] + [axis]
    last = net.permute(tensor, perm)
    layer = net.finish(net.raw.add_topk(last, net.trt.TopKOperation.MAX, k, net.mask((rank - 1,))))
    back = [perm.index(a) for a in range(rank)]
    return [net.permute(net.checked(layer.get_output(i)), back) for i in range(2)]


@lowering("cumsum")
def _cumsum(net: Network, node: Node, tensor: Any) -> Any:
    source = operand(node)
    at = torch.tensor(node.attrs["dim"] % source.rank, dtype=torch.int32)
    layer = net.raw.add_cumulative(
        net.cast(tensor, dtypes.float32),
        net.constant(at, dtypes.int32),
        net.trt.CumulativeOperation.SUM,
        False,
        False,
    )
    return net.cast(net.add(layer), source.dtype)


@lowering("softmax")
def _softmax(net: Network, node: Node, tensor: Any) -> Any:
    rank = len(node.output.shape)
    if rank == 1:  # TensorRT wants two dimensions.
        tensor = net.unsqueeze(tensor, (0,))
    layer = net.raw.add_softmax(tensor)
    layer.axes = net.mask((node.attrs["dim"] % rank if rank > 1 else 1,))
    result = net.add(layer)
    return result if rank > 1 else net.squeeze(result, (0,))
