"""Q/DQ layers: TensorRT fuses them with the products and convolutions next to them."""

from __future__ import annotations

from typing import Any, Optional

import torch

from tripy import dtypes
from tripy.backends.tensorrt.lowering.table import kind_of, lowering, operand
from tripy.backends.tensorrt.network import Network
from tripy.backends.tensorrt.sizes import is_static
from tripy.graph import Node, dims
from tripy.graph.operations.quantization import block_axis


@lowering("quantize")
def _quantize(net: Network, node: Node, tensor: Any, scale: Any) -> Any:
    target = node.attrs["dtype"]
    apart = _changes_type_by_channel(node)
    if _has_layer(node) and target is not dtypes.int4 and not apart:
        return _layer(net, "add_quantize", tensor, scale, target, node.attrs["dim"])
    return _by_division(net, tensor, _aligned(net, node, scale), target, apart)


def _changes_type_by_channel(node: Node) -> bool:
    """Whether channels of another small type are quantized anew.

    TensorRT-RTX 1.7 takes the two layers for one, of a wrong type, and fails.
    """
    producer = operand(node).node
    if producer is None or producer.op != "dequantize" or producer.attrs["dim"] is None:
        return False
    return node.attrs["dim"] is not None and kind_of(producer) is not node.attrs["dtype"]


@lowering("dequantize")
def _dequantize(net: Network, node: Node, tensor: Any, scale: Any) -> Any:
    kind = kind_of(node, 1)
    if _has_layer(node):
        dim = node.attrs["dim"]
        weight, own = operand(node), operand(node, 1)
        if weight.dtype is dtypes.int4 and not own.rank and weight.rank and is_static(weight.shape):
            # TensorRT-RTX 1.7 fails over a single scale where int4 meets int8 in a product.
            scale, dim = net.constant(own.data.expand(weight.shape[-1]), kind), weight.rank - 1
        return _layer(net, "add_dequantize", tensor, scale, kind, dim)
    return net.binary("PROD", net.dequantize(tensor, kind), _aligned(net, node, scale))


def _aligned(net: Network, node: Node, scale: Any) -> Any:
    """A scale that broadcasts with the tensor."""
    tensor, own, dim = operand(node), operand(node, 1), node.attrs["dim"]
    if dim is None:
        if not own.rank == tensor.rank == 2:
            return scale
        axis = block_axis(tensor.shape, own.shape)
        if axis is None or own.shape[axis] in (1, tensor.shape[axis]):
            return scale
        # Each scale, repeated for the elements of its block.
        blocks = list(own.shape)
        blocks.insert(axis + 1, 1)
        repeated = list(blocks)
        repeated[axis + 1] = dims.floordiv(tensor.shape[axis], own.shape[axis])
        wide = net.expand(net.unsqueeze(scale, (axis + 1,)), blocks, repeated)
        return net.reshape(wide, tensor.shape)
    return net.unsqueeze(scale, [a for a in range(tensor.rank) if a != dim % tensor.rank])


def _has_layer(node: Node) -> bool:
    """Whether TensorRT's layers take the scale: one, one a channel, or blocks of a matrix."""
    tensor, scale = operand(node), operand(node, 1)
    if scale.data is None:  # TensorRT wants its scales to be known when it builds.
        return False
    if not scale.rank or node.attrs["dim"] is not None:
        return True
    sizes = (*tensor.shape, *scale.shape)
    if not tensor.rank == scale.rank == 2 or not all(isinstance(s, int) for s in sizes):
        return False
    return sum(own != blocks for own, blocks in zip(tensor.shape, scale.shape)) == 1


def _layer(
    net: Network, method: str, tensor: Any, scale: Any, target: dtypes.dtype, dim: Optional[int]
) -> Any:
    rank = len(tensor.shape)
    if not rank:
        tensor = net.reshape(tensor, (1,))
    layer = net.finish(getattr(net.raw, method)(tensor, scale, net.types[target]))
    if dim is not None:
        layer.axis = dim % rank
    result = net.checked(layer.get_output(0))
    return result if rank else net.reshape(result, ())


def _by_division(
    net: Network, tensor: Any, scale: Any, target: dtypes.dtype, apart: bool = False
) -> Any:
    """Quantized by a scale that no layer takes: divided by it, in float32 as eager does it."""
    wide = [net.cast(t, dtypes.float32) for t in (tensor, scale)]
    return net.quantize(net.binary("DIV", *wide), dtypes.float32, target, apart)


@lowering("dynamic_quantize")
def _dynamic_quantize(net: Network, node: Node, tensor: Any) -> list[Any]:
    """The scale is computed, so any TensorRT does it; its own layer makes MX formats only."""
    source, target = operand(node), node.attrs["dtype"]
    kind, rows = source.dtype, node.attrs["dim"] is not None
    high = dtypes.QUANTIZED_RANGE[target][1]
    axes = (source.rank - 1,) if rows else tuple(range(source.rank))
    # A zero beside the elements: of none, and of NaN-free ones, the maximum is not below it.
    amax = net.unary("ABS", net.cast(tensor, dtypes.float32))
    if dims.bounds(dims.product(source.shape[a] for a in axes))[0] == 0:
        amax = _with_zero(net, amax, source.shape, rows)
        axes = (len(amax.shape) - 1,) if rows else (0,)
    amax = net.reduce("MAX", amax, axes, rows)
    scale = net.with_number("DIV", amax, float(high), dtypes.float32)
    smallest = torch.finfo(getattr(torch, kind.name)).tiny
    scale = net.cast(net.with_number("MAX", scale, smallest, dtypes.float32), kind)
    return [_by_division(net, tensor, scale, target), scale]


def _with_zero(net: Network, amax: Any, shape: Any, rows: bool) -> Any:
    if not rows:
        flat = net.reshape(amax, (dims.product(shape),))
        return net.concatenate([flat, net.number(0.0, dtypes.float32, 1)], 0)
    zero = net.expand(net.number(0.0, dtypes.float32, 0), (), (*shape[:-1], 1))
    return net.concatenate([amax, zero], len(shape) - 1)
