"""Layers that index: pages Gather, NonZero, OneHot and Scatter of TensorRT's operator
documentation."""

from __future__ import annotations

import itertools

import torch

from tests.tensorrt.interpreter.values import FLOATS, INDICES, NUMBERS, TORCH, Step

GATHERED = (*NUMBERS, "BOOL")


def checked(step: Step, indices: torch.Tensor, length: int) -> torch.Tensor:
    """Indices in [0, length): the page demands it, a negative one doesn't count from the end."""
    if indices.numel() and (indices.min() < 0 or indices.max() >= length):
        raise IndexError(f"{step}: indices outside [0, {length})")
    return indices.to(torch.int64)


def gather(step: Step) -> list[torch.Tensor]:
    """Page Gather, with ONNX's Gather, GatherElements and GatherND to which it refers."""
    step.demand(GATHERED, 0)
    step.demand(INDICES, 1)
    layer, data, indices = step.layer, step.value(0), step.value(1)
    axis, shared, mode = layer.axis, layer.num_elementwise_dims, layer.mode.name
    if mode == "ND":
        return [gather_nd(step, data, indices, shared)]
    if not 0 <= axis < data.dim():
        raise step.refuse(f"axis {axis} of {data.dim()} dimensions")
    indices = checked(step, indices, data.shape[axis])
    if mode == "ELEMENT":
        if shared or indices.dim() != data.dim():
            raise step.refuse("indices of another rank than the data, or elementwise dimensions")
        for a, (n, m) in enumerate(zip(indices.shape, data.shape)):
            if a != axis and n != m:
                raise step.undocumented("ELEMENT where indices and data differ beside the axis")
        return [torch.gather(data, axis, indices)]
    if mode != "DEFAULT":
        raise step.missing(f"the mode {mode}")
    if shared == 0:
        flat = data.index_select(axis, indices.reshape(-1))
        return [flat.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])]
    if shared != 1 or axis < 1 or not indices.dim():
        raise step.refuse(f"{shared} elementwise dimensions with axis {axis}")
    if indices.shape[0] != data.shape[0]:
        raise step.undocumented("elementwise dimensions of unequal length")
    rows = [d.index_select(axis - 1, i.reshape(-1)) for d, i in zip(data, indices)]
    after = [*data.shape[:axis], *indices.shape[1:], *data.shape[axis + 1 :]]
    return [torch.stack(rows).reshape(after) if rows else data.new_empty(after)]


def gather_nd(step: Step, data: torch.Tensor, indices: torch.Tensor, shared: int) -> torch.Tensor:
    """ONNX's GatherND: the last dimension of the indices is a position behind the shared ones."""
    if not indices.dim() or not 0 <= shared < min(data.dim(), indices.dim()):
        raise step.refuse(f"{shared} elementwise dimensions")
    depth = indices.shape[-1]
    if data.shape[:shared] != indices.shape[:shared]:
        raise step.refuse("the elementwise dimensions of data and indices differ")
    if not 1 <= depth <= data.dim() - shared:
        raise step.refuse(f"positions of {depth} coordinates in {data.dim() - shared} dimensions")
    grids = torch.meshgrid(*(torch.arange(n) for n in indices.shape[:-1]), indexing="ij")
    parts = [checked(step, indices[..., i], data.shape[shared + i]) for i in range(depth)]
    return data[(*grids[:shared], *parts)]


def scatter(step: Step) -> list[torch.Tensor]:
    """Page Scatter, with ONNX's ScatterElements and ScatterND to which it refers.

    What happens to an element that two updates hit is documented nowhere.
    """
    step.demand(GATHERED, 0)
    step.demand(INDICES, 1)
    step.demand_same(0, 2)
    layer = step.layer
    data, indices, updates = step.value(0).clone(), step.value(1), step.value(2)
    mode = layer.mode.name
    if mode == "ELEMENT":
        axis = layer.axis
        if not data.dim() == indices.dim() == updates.dim() or indices.shape != updates.shape:
            raise step.refuse("data, indices and updates have different ranks or shapes")
        if not 0 <= axis < data.dim():
            raise step.refuse(f"axis {axis} of {data.dim()} dimensions")
        if any(i > n for i, n in zip(indices.shape, data.shape)):
            raise step.refuse("the indices are longer than the data")
        indices = checked(step, indices, data.shape[axis])
        grid = list(torch.meshgrid(*(torch.arange(n) for n in indices.shape), indexing="ij"))
        grid[axis] = indices
        where = tuple(g.reshape(-1) for g in grid)
        values = updates.reshape(-1)
    elif mode == "ND":
        depth = indices.shape[-1]
        if not 1 <= depth <= data.dim():
            raise step.refuse(f"positions of {depth} coordinates in {data.dim()} dimensions")
        if updates.shape != indices.shape[:-1] + data.shape[depth:]:
            raise step.refuse(f"updates of the shape {tuple(updates.shape)}")
        where = tuple(
            checked(step, indices[..., i], data.shape[i]).reshape(-1) for i in range(depth)
        )
        values = updates.reshape(-1, *data.shape[depth:])
    else:
        raise step.missing(f"the mode {mode}")
    if where[0].numel():
        positions = torch.stack(where, 1)
        if len(torch.unique(positions, dim=0)) < len(positions):
            raise step.undocumented("which of two updates of an element stays")
        data[where] = values
    return [data]


def one_hot(step: Step) -> list[torch.Tensor]:
    """Page OneHot: values are [off, on]; the axis counts in the output."""
    step.demand(INDICES, 0)
    step.demand((*FLOATS, "INT8", *INDICES, "BOOL"), 1)
    step.demand(INDICES, 2)
    indices, values, depth = step.value(0), step.value(1), step.value(2)
    if values.shape != (2,) or depth.dim() or step.tensor(2).name not in step.constants:
        raise step.refuse("values must hold two numbers, the depth be a constant scalar")
    axis = step.layer.axis
    if not -indices.dim() - 1 <= axis <= indices.dim():
        raise step.refuse(f"axis {axis} for indices of {indices.dim()} dimensions")
    indices = checked(step, indices, int(depth))
    hot = torch.arange(int(depth)) == indices.unsqueeze(-1)
    return [torch.where(hot, values[1], values[0]).movedim(-1, axis)]


def non_zero(step: Step) -> list[torch.Tensor]:
    """Page NonZero: an output of [rank, count], in row-major order."""
    step.demand((*FLOATS, *INDICES, "BOOL"), 0)
    x = step.value()
    found = [p for p in itertools.product(*map(range, x.shape)) if bool(x[p] != 0)]
    result = torch.tensor(found, dtype=torch.int64).reshape(len(found), x.dim())
    return [result.T.contiguous().to(TORCH[step.out_type()])]
