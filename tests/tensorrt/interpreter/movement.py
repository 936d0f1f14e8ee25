"""Layers that move elements: pages Concatenation, Padding, Shape, Shuffle, Slice, Squeeze and
Unsqueeze of TensorRT's operator documentation, with Assertion, Constant and Fill."""

from __future__ import annotations

import math

import torch

from tests.tensorrt.interpreter.values import (
    FLOATS,
    INDICES,
    NUMBERS,
    TORCH,
    Step,
    Violated,
    from_weights,
)

# Shuffle and Concatenation list the quantized types too.
STORED = (*NUMBERS, "BOOL", "FP8", "INT4")


def constant(step: Step) -> list[torch.Tensor]:
    """Page Constant."""
    return [from_weights(step.layer.weights, step.layer.shape)]


def shape(step: Step) -> list[torch.Tensor]:
    """Page Shape: the lengths, in int64."""
    return [torch.tensor(step.value().shape, dtype=torch.int64)]


def assertion(step: Step) -> list[torch.Tensor]:
    """Page Assertion: an error if any element is false."""
    step.demand(("BOOL",), 0)
    if not bool(step.value().all()):
        raise Violated(f"{step}: {step.layer.message}")
    return []


def concatenation(step: Step) -> list[torch.Tensor]:
    """Page Concatenation: one type, and equal lengths on the other axes."""
    count, axis = step.layer.num_inputs, step.layer.axis
    step.demand(STORED, *range(count))
    step.demand_same(*range(count))
    parts = [step.value(index) for index in range(count)]
    if not 0 <= axis < parts[0].dim():
        raise step.refuse(f"axis {axis} of {parts[0].dim()} dimensions")
    kept = {tuple(n for a, n in enumerate(p.shape) if a != axis) for p in parts}
    if len(kept) > 1 or len({p.dim() for p in parts}) > 1:
        raise step.refuse(f"shapes {[tuple(p.shape) for p in parts]} along axis {axis}")
    if parts[0].dtype == torch.float8_e4m3fn:
        return [torch.cat([p.view(torch.int8) for p in parts], axis).view(torch.float8_e4m3fn)]
    return [torch.cat(parts, axis)]


def resolved(step: Step, dims: list[int], source: torch.Size) -> list[int]:
    """Reshape dimensions: 0 copies the input's (unless told otherwise), one -1 is inferred."""
    if step.layer.zero_is_placeholder:
        if any(d == 0 and i >= len(source) for i, d in enumerate(dims)):
            raise step.refuse(f"dimensions {dims} copy one that {tuple(source)} doesn't have")
        dims = [source[i] if d == 0 else d for i, d in enumerate(dims)]
    if min(dims, default=0) < -1 or dims.count(-1) > 1:
        raise step.refuse(f"reshape dimensions {dims}")
    total, known = math.prod(source), math.prod(d for d in dims if d != -1)
    if -1 in dims:
        if not known or total % known:
            raise step.refuse(f"-1 in {dims} can't be inferred from {tuple(source)}")
        dims = [total // known if d == -1 else d for d in dims]
    if math.prod(dims) != total:
        raise step.refuse(f"a reshape of {tuple(source)} to {dims}")
    return dims


def permuted(step: Step, x: torch.Tensor, permutation: object) -> torch.Tensor:
    order = list(permutation)[: x.dim()]
    if sorted(order) != list(range(x.dim())):
        raise step.refuse(f"{order} is no permutation of {x.dim()} dimensions")
    return x.permute(order)


def shuffle(step: Step) -> list[torch.Tensor]:
    """Page Shuffle: a transpose, a reshape, a transpose."""
    step.demand(STORED, 0)
    layer, x = step.layer, permuted(step, step.value(), step.layer.first_transpose)
    dims = step.integers(1) if step.has(1) else layer.reshape_dims
    if dims is not None:
        x = x.reshape(resolved(step, list(dims), x.shape))
    return [permuted(step, x, layer.second_transpose).contiguous()]


def constant_axes(step: Step, index: int, rank: int) -> list[int]:
    """Axes that must be build-time constants, unique and in range, counted from 0."""
    if step.tensor(index).name not in step.constants:
        raise step.refuse("the axes must be a build-time constant")
    axes = step.integers(index)
    if any(not -rank <= axis < rank for axis in axes):
        raise step.refuse(f"axes {axes} of {rank} dimensions")
    axes = [axis % rank for axis in axes]
    if len(set(axes)) < len(axes):
        raise step.refuse(f"axes {axes} repeat")
    return axes


def squeeze(step: Step) -> list[torch.Tensor]:
    """Page Squeeze."""
    step.demand((*NUMBERS, "BOOL"), 0)
    x = step.value()
    if not step.has(1):
        raise step.missing("Squeeze without axes")
    axes = constant_axes(step, 1, x.dim())
    if any(x.shape[axis] != 1 for axis in axes):
        raise step.refuse(f"axes {axes} of {tuple(x.shape)} aren't all of length one")
    return [x.reshape([n for axis, n in enumerate(x.shape) if axis not in axes])]


def unsqueeze(step: Step) -> list[torch.Tensor]:
    """Page Unsqueeze: the axes count in the output."""
    step.demand((*NUMBERS, "BOOL"), 0)
    x = step.value()
    rank = x.dim() + step.value(1).numel()
    axes = constant_axes(step, 1, rank)
    rest = iter(x.shape)
    return [x.reshape([1 if axis in axes else next(rest) for axis in range(rank)])]


def coordinates(step: Step, wanted: torch.Tensor, length: int) -> torch.Tensor:
    """Where a slice reads along one axis, by its sample mode."""
    mode = step.layer.mode.name
    inside = (wanted >= 0) & (wanted < length)
    if mode == "FILL" or bool(inside.all()):
        return wanted
    if mode == "STRICT_BOUNDS":
        raise step.refuse(f"the slice reads {wanted.tolist()} of {length} elements")
    if not length:
        raise step.refuse(f"{mode} has nothing to read along an axis of no elements")
    if mode == "WRAP":
        return wanted % length
    if mode == "CLAMP":
        return wanted.clamp(0, length - 1)
    if mode == "REFLECT":
        # The mirror is the middle of the last element, which isn't repeated.
        period = max(2 * (length - 1), 1)
        folded = wanted % period
        return torch.where(folded < length, folded, period - folded)
    raise step.missing(f"the mode {mode}")


def slice_(step: Step) -> list[torch.Tensor]:
    """Page Slice: start, shape and stride by attribute or input; outside by the sample mode."""
    step.demand((*NUMBERS, "BOOL"), 0)
    layer, x = step.layer, step.value()
    static = (layer.start, layer.shape, layer.stride)
    parts = [
        step.integers(i + 1) if step.has(i + 1) else list(dims) if dims is not None else None
        for i, dims in enumerate(static)
    ]
    if step.has(5):
        axes = step.integers(5)
    else:
        axes = list(layer.axes) if layer.axes is not None and len(layer.axes) else None
    axes = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
    if any(part is None or len(part) != len(axes) for part in parts):
        raise step.refuse(f"start, shape and stride are {parts} for {len(axes)} axes")
    fill = layer.mode.name == "FILL"
    if step.has(4) and not fill:
        raise step.refuse("a value to fill with, in another mode than FILL")
    outside = None
    for axis, start, size, stride in zip(axes, *parts):
        if size < 0:
            raise step.refuse(f"a size of {size}")
        wanted = start + stride * torch.arange(size)
        length = x.shape[axis]
        read = coordinates(step, wanted, length)
        if fill:
            view = [-1 if a == axis else 1 for a in range(x.dim())]
            beyond = ((read < 0) | (read >= length)).reshape(view)
            outside = beyond if outside is None else outside | beyond
            read = read.clamp(0, max(length - 1, 0))
            if not length and size:
                x = torch.zeros([1 if a == axis else n for a, n in enumerate(x.shape)]).to(x)
        x = x.index_select(axis, read)
    if outside is not None and bool(outside.any()):
        if not step.has(4):
            raise step.missing("FILL without a value")
        step.demand_same(0, 4)
        if step.value(4).numel() != 1:
            raise step.refuse("the value to fill with must be a scalar")
        x = torch.where(outside, step.value(4).reshape(()), x)
    return [x]


def padding(step: Step) -> list[torch.Tensor]:
    """Page Padding: the last two of four dimensions; negative padding trims."""
    step.demand(FLOATS, 0)
    x = step.value()
    pre, post = list(step.layer.pre_padding_nd), list(step.layer.post_padding_nd)
    if x.dim() < 4 or len(pre) != 2 or len(post) != 2:
        raise step.refuse("padding is of the last two dimensions of four or more")
    return [torch.nn.functional.pad(x, (pre[1], post[1], pre[0], post[0]))]


def fill(step: Step) -> list[torch.Tensor]:
    """Page Fill: LINSPACE is start + index . delta, with one delta for each dimension.

    The attributes hold one delta, so they are enough for one dimension alone.
    """
    layer, name = step.layer, step.out_type()
    if layer.operation.name != "LINSPACE":
        raise step.missing(f"the operation {layer.operation.name}: its results are random")
    if layer.to_type.name not in ("FLOAT", *INDICES):
        raise step.refuse(f"LINSPACE makes no {layer.to_type.name}")
    dims = step.integers(0) if step.has(0) else list(layer.shape)
    if min(dims, default=0) < 0:
        raise step.refuse(f"the shape {dims}")
    if step.has(1) != step.has(2):
        raise step.refuse("LINSPACE takes a start and a delta, or neither")
    if step.has(1):
        start, delta = step.value(1), step.value(2)
        if start.dim() or list(delta.shape) != [len(dims)]:
            raise step.refuse("the start must be a scalar, the delta hold one number a dimension")
        if {step.type(1), step.type(2)} != {name}:
            raise step.refuse("the types of start, delta and output differ")
    else:
        if len(dims) != 1:
            raise step.undocumented("a LINSPACE of several dimensions with one delta")
        start, delta = torch.tensor(layer.alpha), torch.tensor([layer.beta])
    wide = torch.float64 if name == "FLOAT" else torch.int64
    result = start.to(wide).expand(dims).clone()
    for axis, length in enumerate(dims):
        view = [-1 if a == axis else 1 for a in range(len(dims))]
        result += (torch.arange(length) * delta[axis].to(wide)).reshape(view)
    if name == "FLOAT":
        return [result.to(TORCH[name])]
    return [step.fitting(result.numpy(), name)]
