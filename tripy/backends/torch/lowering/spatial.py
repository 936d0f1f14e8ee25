"""Lowerings of padding, resizing and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
import torch.nn.functional as F

from tripy.backends.torch.lowering.table import Attrs, T, lowering
from tripy.graph.operations.spatial import exact_scale

# The cubic convolution's parameter, as PyTorch, OpenCV and TensorRT have it.
_CUBIC = -0.75


@lowering("pad")
def _pad(attrs: Attrs, x: T) -> T:
    low, high = attrs["low"], attrs["high"]
    if attrs["mode"] == "constant":
        # torch counts from the last dimension.
        widths = [width for pair in reversed(list(zip(low, high))) for width in pair]
        return torch.constant_pad_nd(x, widths, attrs["value"])
    for dim, (before, after) in enumerate(zip(low, high)):
        if before or after:
            last = x.shape[dim] - 1
            index = torch.arange(-before, last + 1 + after, device=x.device).abs()
            x = x.index_select(dim, last - (last - index).abs())
    return x


@lowering("resize")
def _resize(attrs: Attrs, x: T) -> T:
    """One dimension after the other: the weights of a point are products of one factor each."""
    mode, scales = attrs["mode"], attrs["scales"]
    result = x if mode == "nearest" else x.float()
    for dim, size in enumerate(attrs["sizes"]):
        own = x.shape[dim]
        scale = exact_scale(scales[dim]) if scales else Fraction(size, own or 1)
        if size == own and scale == 1:
            continue
        if mode == "nearest":
            steps = torch.arange(size, device=x.device)
            index = steps * scale.denominator // scale.numerator
            result = result.index_select(dim, index.clamp(max=own - 1))
        else:
            result = _interpolated(result, dim, size, scale, mode, attrs["align_corners"])
    if x.dtype is torch.int8:
        result = result.clamp(-128, 127)  # Cubic weights overshoot. Then towards zero.
    return result.to(x.dtype)


def _interpolated(x: T, dim: int, size: int, scale: Fraction, mode: str, align: bool) -> T:
    own = x.shape[dim]
    steps = torch.arange(size, dtype=torch.float64, device=x.device)
    if align:  # The first and the last elements' centres stay where they are.
        source = steps * ((own - 1) / (size - 1)) if size > 1 else steps
    else:
        source = (steps + 0.5) / float(scale) - 0.5
    if mode == "linear":
        source = source.clamp(0, own - 1)
        first = source.floor()
        distance = source - first
        taps = [(0, 1 - distance), (1, distance)]
    else:
        first = source.floor()
        distance = source - first
        taps = [(offset, _cubic_weight(distance - offset)) for offset in (-1, 0, 1, 2)]
    view = [1] * x.dim()
    view[dim] = size
    parts = [
        x.index_select(dim, (first.long() + offset).clamp(0, own - 1)) * weight.float().view(view)
        for offset, weight in taps
    ]
    return sum(parts[1:], start=parts[0])


def _cubic_weight(distance: T) -> T:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981, equation 4."""
    d = distance.abs()
    near = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * _CUBIC - 4 * _CUBIC
    return torch.where(d <= 1, near, far)


def _padded(attrs: Attrs, x: T, value: float) -> T:
    widths = [width for pair in reversed(attrs["padding"]) for width in pair]
    return torch.constant_pad_nd(x, widths, value) if any(widths) else x


def _in_float32(function: Callable[[Attrs, T], T]) -> Callable[[Attrs, T], T]:
    """16-bit numbers are rounded once; integers are cut off towards zero, as casts do it."""

    def run(attrs: Attrs, x: T) -> T:
        return function(attrs, x.float()).to(x.dtype)

    return run


@lowering("maxpool")
@_in_float32
def _maxpool(attrs: Attrs, x: T) -> T:
    pool = F.max_pool2d if len(attrs["kernel"]) == 2 else F.max_pool3d
    return pool(_padded(attrs, x, -math.inf), attrs["kernel"], attrs["stride"])


@lowering("avgpool")
@_in_float32
def _avgpool(attrs: Attrs, x: T) -> T:
    pool = F.avg_pool2d if len(attrs["kernel"]) == 2 else F.avg_pool3d
    kernel, stride = attrs["kernel"], attrs["stride"]
    if attrs["count_include_pad"]:
        return pool(_padded(attrs, x, 0), kernel, stride)
    total = pool(_padded(attrs, x, 0), kernel, stride, divisor_override=1)
    ones = torch.ones((1, 1, *x.shape[2:]), device=x.device)
    return total / pool(_padded(attrs, ones, 0), kernel, stride, divisor_override=1)
