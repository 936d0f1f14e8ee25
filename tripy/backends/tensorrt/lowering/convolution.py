"""Convolution layers. TensorRT has two and three dimensions; one is two, the second of them 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tripy.backends.tensorrt.lowering.table import Unsupported, lowering, operand
from tripy.backends.tensorrt.network import Network
from tripy.graph import Node


@lowering("convolution")
def _convolution(net: Network, node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    return _convolve(net, node, x, weight, bias, net.raw.add_convolution_nd)


@lowering("conv_transpose")
def _conv_transpose(net: Network, node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    return _convolve(net, node, x, weight, bias, net.raw.add_deconvolution_nd)


def _convolve(
    net: Network, node: Node, x: Any, weight: Any, bias: Any, make: Callable[..., Any]
) -> Any:
    attrs, spatial = node.attrs, len(node.output.shape) - 2
    channels = node.output.shape[1]
    kernel = operand(node, 1).shape[2:]
    if not all(isinstance(size, int) for size in (channels, *kernel)):
        raise Unsupported("TensorRT has no convolution whose kernel has a dynamic size")
    stride, dilation, padding = attrs["stride"], attrs["dilation"], attrs["padding"]
    if spatial == 1:
        x, weight = (net.unsqueeze(t, (3,)) for t in (x, weight))
        kernel, stride, dilation = (*kernel, 1), (*stride, 1), (*dilation, 1)
        padding = (*padding, (0, 0))
    layer = make(x, channels, tuple(kernel), net.trt.Weights())
    if layer is not None:
        layer.set_input(1, weight)
        layer.stride_nd, layer.dilation_nd = tuple(stride), tuple(dilation)
        layer.pre_padding = tuple(before for before, _ in padding)
        layer.post_padding = tuple(after for _, after in padding)
        layer.num_groups = attrs["groups"]
    result = net.add(layer)
    if bias is not None:
        shape = (1, channels, *(1,) * (len(result.shape) - 2))
        result = net.binary("SUM", result, net.reshape(bias, shape))
    return net.squeeze(result, (3,)) if spatial == 1 else result
