"""Layers of padding, resizing and pooling."""

from __future__ import annotations

from typing import Any

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
from tripy.graph import Node
from tripy.graph.operations.spatial import exact_scale

# The cubic convolution's parameter, as in the torch backend.
_CUBIC = -0.75
# How many of the last dimensions TensorRT resizes at once.
_RESIZED_AT_ONCE = {"nearest": 3, "linear": 3, "cubic": 2}


@lowering("pad")
def _pad(net: Network, node: Node, tensor: Any) -> Any:
    if not node.output.shape:
        return tensor
    starts = [-low for low in node.attrs["low"]]
    steps = [1] * len(starts)
    if node.attrs["mode"] == "reflect":
        return net.slice(tensor, starts, node.output.shape, steps, "REFLECT")
    fill = net.number(node.attrs["value"], kind_of(node), 0)
    return net.slice(tensor, starts, node.output.shape, steps, "FILL", fill)


@lowering("resize")
def _resize(net: Network, node: Node, tensor: Any) -> Any:
    """A point's weights are products of one factor a dimension: dimensions come in turn."""
    source, attrs = operand(node), node.attrs
    kind, mode, rank = source.dtype, attrs["mode"], source.rank
    scales = attrs["scales"] or (1.0,) * rank
    for axis, scale in enumerate(map(exact_scale, scales)):
        size = source.shape[axis]
        whole = isinstance(size, int) and (size * scale).denominator == 1
        if not whole and scale.denominator != 1:
            raise Unsupported(
                f"it does not say what it makes of a scale of {scales[axis]} that gives a size of "
                f"{size} no whole length",
                "sizes instead of scales",
            )
    changed = [a for a in range(rank) if source.shape[a] != attrs["sizes"][a] or scales[a] != 1.0]
    if mode != "nearest" or kind is dtypes.int8:
        tensor = net.cast(tensor, dtypes.float32)
    shape, group = list(source.shape), _RESIZED_AT_ONCE[mode]
    for position in range(0, len(changed), group):
        axes = changed[position : position + group]
        tensor = _resize_some(net, node, tensor, axes, shape)
        for axis in axes:
            shape[axis] = attrs["sizes"][axis]
    if kind is dtypes.int8 and mode != "nearest":
        low = net.with_number("MAX", tensor, -128.0, dtypes.float32)
        tensor = net.with_number("MIN", low, 127.0, dtypes.float32)
    return net.cast(tensor, kind)


def _resize_some(net: Network, node: Node, tensor: Any, axes: list[int], shape: list) -> Any:
    attrs, rank, trt = node.attrs, len(shape), net.trt
    count = max(len(axes), 2)  # TensorRT's cubic form wants two dimensions.
    still = [a for a in range(rank) if a not in axes]
    perm = still + axes
    tensor = net.permute(tensor, perm)
    extra = max(0, count - rank)
    tensor = net.unsqueeze(tensor, range(extra))
    layer = net.raw.add_resize(tensor)
    layer.resize_mode = getattr(trt.InterpolationMode, attrs["mode"].upper())
    if attrs["mode"] == "nearest":
        layer.coordinate_transformation = trt.ResizeCoordinateTransformation.ASYMMETRIC
        layer.nearest_rounding = trt.ResizeRoundMode.FLOOR
    elif attrs["align_corners"]:
        layer.coordinate_transformation = trt.ResizeCoordinateTransformation.ALIGN_CORNERS
    else:
        layer.coordinate_transformation = trt.ResizeCoordinateTransformation.HALF_PIXEL
    if attrs["mode"] == "cubic":
        layer.cubic_coeff = _CUBIC
    if attrs["scales"]:
        layer.scales = [1.0] * (extra + len(still)) + [attrs["scales"][a] for a in axes]
    else:
        sizes = [1] * extra + [shape[a] for a in still] + [attrs["sizes"][a] for a in axes]
        if all(isinstance(s, int) for s in sizes):
            layer.shape = tuple(sizes)
        else:
            layer.set_input(1, net.sizes.vector(sizes))
    tensor = net.squeeze(net.add(layer), range(extra))
    return net.permute(tensor, [perm.index(a) for a in range(rank)])


def _pool(kind: str) -> Lowering:
    def run(net: Network, node: Node, tensor: Any) -> Any:
        attrs, source = node.attrs, kind_of(node)
        if source is dtypes.int8:
            tensor = net.cast(tensor, dtypes.float32)
        layer = net.raw.add_pooling_nd(
            tensor, getattr(net.trt.PoolingType, kind), tuple(attrs["kernel"])
        )
        if layer is not None:
            layer.stride_nd = tuple(attrs["stride"])
            layer.pre_padding = tuple(before for before, _ in attrs["padding"])
            layer.post_padding = tuple(after for _, after in attrs["padding"])
            if kind == "AVERAGE":
                layer.average_count_excludes_padding = not attrs["count_include_pad"]
        return net.cast(net.add(layer), source)

    return run


def _check_padding(function: Lowering) -> Lowering:
    def run(net: Network, node: Node, tensor: Any) -> Any:
        for extent, pair in zip(node.attrs["kernel"], node.attrs["padding"]):
            if max(pair) >= extent:
                raise Unsupported(
                    f"TensorRT pads less than the kernel's size of {extent}, not {max(pair)}",
                    "tp.pad before the pooling",
                )
        return function(net, node, tensor)

    return run


LOWERINGS |= {
    "maxpool": _check_padding(_pool("MAX")),
    "avgpool": _check_padding(_pool("AVERAGE")),
}
