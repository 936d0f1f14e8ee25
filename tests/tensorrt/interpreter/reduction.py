"""Layers that reduce along axes: pages Cumulative, Normalization, Reduce, SoftMax and TopK of
TensorRT's operator documentation."""

from __future__ import annotations

import math

import numpy as np
import torch

from tests.tensorrt.interpreter.elementwise import constant_free_of_nan
from tests.tensorrt.interpreter.values import FLOATS, NUMBERS, Step, exact


def reduce_floats(x: torch.Tensor, op: str, axes: list[int], keep: bool) -> torch.Tensor:
    """The table at ReduceOperation says what an empty volume gives."""
    if op in ("MAX", "MIN"):
        empty = math.prod(x.shape[axis] for axis in axes) == 0
        if empty:
            shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
            x = torch.full(shape, -torch.inf if op == "MAX" else torch.inf)
        return x.amax(axes, keep) if op == "MAX" else x.amin(axes, keep)
    if op == "PROD":
        for axis in reversed(axes):
            x = x.prod(axis, keepdim=keep)
        return x
    return x.sum(axes, keep) if op == "SUM" else x.mean(axes, keep)


def reduce(step: Step) -> list[torch.Tensor]:
    """Page Reduce."""
    step.demand(NUMBERS, 0)
    layer, x, kind = step.layer, step.value(), step.type()
    op, keep = layer.op.name, layer.keep_dims
    axes = step.axes(layer.axes, x.dim())
    if op not in ("SUM", "PROD", "MAX", "MIN", "AVG"):
        raise step.missing(f"the operation {op}")
    if kind in FLOATS:
        if op in ("MAX", "MIN"):
            constant_free_of_nan(step, x)
        return [step.rounded(reduce_floats(x.float(), op, axes, keep))]
    if kind == "INT8":
        raise step.undocumented("how INT8 is reduced: 'usually via kFLOAT or kHALF'")
    count = math.prod(x.shape[axis] for axis in axes)
    if not count and op in ("MAX", "MIN", "AVG"):
        raise step.undocumented(f"{op} of no integers of every type")
    biggest = float(x.double().abs().max()) if x.numel() else 0.0
    wide = op == "PROD" or biggest * max(count, 1) >= 2.0**62
    array = exact(x, wide)
    functions = {"SUM": np.sum, "AVG": np.sum, "PROD": np.prod, "MAX": np.max, "MIN": np.min}
    result = np.asarray(functions[op](array, axis=tuple(axes), keepdims=keep))
    if op == "AVG":
        if np.any(result % count != 0):
            raise step.undocumented("how AVG of integers rounds")
        result = result // count
    return [step.fitting(result, kind)]


def softmax(step: Step) -> list[torch.Tensor]:
    """Page SoftMax: along exactly one axis."""
    x = step.real()
    axes = step.axes(step.layer.axes, x.dim())
    if len(axes) != 1:
        raise step.refuse("softmax takes one axis")
    return [step.rounded(torch.softmax(x, axes[0]))]


def top_k(step: Step) -> list[torch.Tensor]:
    """Page TopK: sorted values and their indices, at most 3840, along one of the last four axes.

    No page says which of equal values comes first: here it's the one of the smallest index, and
    the layer's name goes to `ties`.
    """
    step.demand(NUMBERS, 0)
    layer, x = step.layer, step.value()
    axes = step.axes(layer.axes, x.dim())
    if len(axes) != 1 or axes[0] < x.dim() - 4:
        raise step.refuse("TopK takes one axis of the last four")
    axis = axes[0]
    if step.has(1):
        step.demand(("INT32",), 1)
        if step.value(1).dim():
            raise step.refuse("k must be a scalar")
        k = int(step.value(1))
    else:
        k = layer.k
    if not 1 <= k <= min(3840, x.shape[axis]):
        raise step.refuse(f"k is {k}, the axis has {x.shape[axis]} elements")
    constant_free_of_nan(step, x)
    descending = layer.op.name == "MAX"
    values, indices = torch.sort(x, dim=axis, descending=descending, stable=True)
    seen = values.narrow(axis, 0, min(k + 1, x.shape[axis]))
    if bool((seen.diff(dim=axis) == 0).any()):
        step.ties.append(layer.name)
    indices = indices.narrow(axis, 0, k)
    names = {"INT32": torch.int32, "INT64": torch.int64}
    return [values.narrow(axis, 0, k), indices.to(names[step.out_type(1)])]


def cumulative(step: Step) -> list[torch.Tensor]:
    """Page Cumulative: the axis is a constant scalar; exclusive leaves out the element itself."""
    step.demand((*FLOATS, "INT32", "INT64"), 0)
    layer, x, kind = step.layer, step.value(), step.type()
    if step.tensor(1).name not in step.constants or step.value(1).dim():
        raise step.refuse("the axis must be a constant scalar")
    (axis,) = step.integers(1)
    if not -x.dim() <= axis < x.dim():
        raise step.refuse(f"axis {axis} of {x.dim()} dimensions")
    if layer.op.name != "SUM":
        raise step.missing(f"the operation {layer.op.name}")
    array = x.double().numpy() if kind in FLOATS else x.numpy().astype(object)
    if layer.reverse:
        array = np.flip(array, axis)
    total = np.cumsum(array, axis)
    if layer.exclusive:
        # Not total - array: infinities would leave NaN behind.
        total = np.roll(total, 1, axis)
        np.moveaxis(total, axis, 0)[:1] = 0
    if layer.reverse:
        total = np.flip(total, axis)
    if kind in FLOATS:
        return [step.rounded(torch.from_numpy(np.array(total)).float())]
    return [step.fitting(total, kind)]


def normalization(step: Step) -> list[torch.Tensor]:
    """Page Normalization: (x - mean) / sqrt(variance + epsilon) * scale + bias, in float32.

    The scale and the bias have the input's type and rank and broadcast to it. With groups, the
    channels (dimension 1) are split into that many groups, and mean and variance are taken over a
    group's channels together with the axes, which then mustn't hold the channels. The first
    version of the layer with groups takes one scale a group, [1, G, 1, 1]; the second one a
    channel.
    """
    layer = step.layer
    step.demand_same(0, 1, 2)
    if layer.num_groups == 1:
        step.broadcast(0, 1, 2)
    x, scale, bias = step.real(0), step.real(1), step.real(2)
    axes, groups = step.axes(layer.axes, x.dim()), layer.num_groups
    if scale.shape != bias.shape:
        raise step.refuse("the shapes of the scale and the bias differ")
    if groups == 1:
        if torch.broadcast_shapes(x.shape, scale.shape) != x.shape:
            raise step.refuse("the scale doesn't broadcast to the input")
        mean = x.mean(axes, keepdim=True)
        variance = ((x - mean) ** 2).mean(axes, keepdim=True)
        normal = (x - mean) / torch.sqrt(variance + layer.epsilon)
        return [step.rounded(normal * scale + bias)]
    if x.dim() < 3 or axes != list(range(2, x.dim())):
        raise step.refuse("groups need the axes of all spatial dimensions, and no other")
    channels = x.shape[1]
    if channels % groups:
        raise step.refuse(f"{channels} channels in {groups} groups")
    one = [1] * (x.dim() - 2)
    per = channels if layer.is_v2 else groups
    if list(scale.shape) != [1, per, *one]:
        raise step.refuse(f"the scale has the shape {tuple(scale.shape)}, not [1, {per}, 1...]")
    if per == groups:
        scale, bias = (t.repeat_interleave(channels // groups, 1) for t in (scale, bias))
    grouped = x.reshape(x.shape[0], groups, -1)
    mean = grouped.mean(2, keepdim=True)
    variance = ((grouped - mean) ** 2).mean(2, keepdim=True)
    normal = ((grouped - mean) / torch.sqrt(variance + layer.epsilon)).reshape(x.shape)
    return [step.rounded(normal * scale + bias)]
