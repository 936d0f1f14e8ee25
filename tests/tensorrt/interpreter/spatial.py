"""Pages Convolution, Deconvolution and Pooling of TensorRT's operator documentation."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from tests.tensorrt.interpreter.values import FLOATS, TORCH, Step, from_weights


def explicit_padding(step: Step) -> tuple[list[int], list[int]]:
    """Padding before and after; a size that doesn't divide is rounded down."""
    if step.layer.padding_mode.name != "EXPLICIT_ROUND_DOWN":
        raise step.missing(f"the padding mode {step.layer.padding_mode.name}")
    return list(step.layer.pre_padding), list(step.layer.post_padding)


def padded(x: torch.Tensor, pre: list[int], post: list[int], value: float) -> torch.Tensor:
    pairs = [amount for pair in zip(reversed(pre), reversed(post)) for amount in pair]
    return functional.pad(x, pairs, value=value)


def parameter(step: Step, index: int, weights: Any, shape: list[int]) -> torch.Tensor | None:
    """A kernel or a bias: an input of the layer, or an attribute, of the input's type."""
    if step.has(index):
        if weights.size:
            raise step.refuse(f"input {index} and an attribute give the same thing")
        step.demand_same(0, index)
        value = step.value(index)
    elif weights.size:
        value = from_weights(weights, (weights.size,))
        if value.dtype != TORCH[step.type()]:
            raise step.refuse(f"weights of {value.dtype} for an input of {step.type()}")
        value = value.reshape(shape)
    else:
        return None
    if list(value.shape) != shape:
        raise step.refuse(f"weights of the shape {tuple(value.shape)}, not {shape}")
    return value.float()


def prepared(step: Step) -> tuple[torch.Tensor, int, int]:
    """What both convolutions check: the input in float32, its number of axes in space, groups."""
    step.demand(FLOATS, 0)
    x, layer = step.real(), step.layer
    space, groups = len(layer.kernel_size_nd), layer.num_groups
    if space not in (2, 3) or x.dim() != space + 2:
        raise step.refuse(f"a kernel of {space} dimensions for an input of {x.dim()}")
    if x.shape[1] % groups or layer.num_output_maps % groups:
        raise step.refuse(f"{x.shape[1]} and {layer.num_output_maps} channels, {groups} groups")
    return x, space, groups


def convolution(step: Step) -> list[torch.Tensor]:
    """Page Convolution: a correlation in two or three dimensions, kernels in the order KCRS."""
    layer = step.layer
    x, space, groups = prepared(step)
    maps, size = layer.num_output_maps, list(layer.kernel_size_nd)
    kernel = parameter(step, 1, layer.kernel, [maps, x.shape[1] // groups, *size])
    bias = parameter(step, 2, layer.bias, [maps])
    if kernel is None:
        raise step.refuse("there's no kernel")
    x = padded(x, *explicit_padding(step), 0.0)
    function = functional.conv2d if space == 2 else functional.conv3d
    stride, dilation = list(layer.stride_nd), list(layer.dilation_nd)
    result = function(x, kernel, bias, stride=stride, dilation=dilation, groups=groups)
    return [step.rounded(result)]


def deconvolution(step: Step) -> list[torch.Tensor]:
    """Page Deconvolution: the inverse of a convolution; padding trims the result; order CKRS."""
    layer = step.layer
    x, space, groups = prepared(step)
    maps, size = layer.num_output_maps, list(layer.kernel_size_nd)
    kernel = parameter(step, 1, layer.kernel, [x.shape[1], maps // groups, *size])
    bias = parameter(step, 2, layer.bias, [maps])
    if kernel is None:
        raise step.refuse("there's no kernel")
    function = functional.conv_transpose2d if space == 2 else functional.conv_transpose3d
    stride, dilation = list(layer.stride_nd), list(layer.dilation_nd)
    result = function(x, kernel, bias, stride=stride, dilation=dilation, groups=groups)
    for axis, (pre, post) in enumerate(zip(*explicit_padding(step))):
        if pre < 0 or post < 0:
            raise step.refuse("negative padding isn't supported")
        length = result.shape[axis + 2] - pre - post
        result = result.narrow(axis + 2, pre, length)
    return [step.rounded(result)]


def pooling(step: Step) -> list[torch.Tensor]:
    """Page Pooling, and NvInfer.h: -inf pads for MAX, zero for AVERAGE.

    The denominator of an average counts the padding only where the layer says so.
    """
    x, layer = step.real(), step.layer
    window, stride = list(layer.window_size_nd), list(layer.stride_nd)
    kind, space = layer.type.name, len(window)
    if space not in (2, 3) or x.dim() not in (space + 1, space + 2):
        raise step.refuse(f"a window of {space} dimensions for an input of {x.dim()}")
    if x.dim() == space + 1:
        raise step.missing("pooling without a batch dimension")
    pre, post = explicit_padding(step)
    if kind == "MAX":
        if bool(x.isnan().any()):
            raise step.undocumented("what NaN does here")
        if any(p >= w for p, w in zip([*pre, *post], window * 2)):
            raise step.undocumented("the maximum of padding alone")
        function = functional.max_pool2d if space == 2 else functional.max_pool3d
        return [step.rounded(function(padded(x, pre, post, -torch.inf), window, stride))]
    if kind != "AVERAGE":
        raise step.missing(f"the pooling {kind}")
    function = functional.avg_pool2d if space == 2 else functional.avg_pool3d
    result = function(padded(x, pre, post, 0.0), window, stride)
    if layer.average_count_excludes_padding:
        counted = function(padded(torch.ones_like(x), pre, post, 0.0), window, stride)
        if bool((counted == 0).any()):
            raise step.undocumented("the average of padding alone")
        result = result / counted
    return [step.rounded(result)]
