"""Schemas of reductions and of operations along one dimension."""

from __future__ import annotations

from tripy.dtypes import FLOATS, INTS, bool, int8
from tripy.graph.schema import Inference, Shape, operation


def reduced_axes(ctx: Inference) -> tuple[int, ...]:
    """The dimensions that go, counted from 0; all of them for None."""
    dim = ctx.attrs["dim"]
    if dim is None:
        return tuple(range(ctx.rank()))
    axes = tuple(ctx.axis(d) for d in (dim if isinstance(dim, tuple) else (dim,)))
    if not axes:
        raise ctx.fail("no dimension is named.", got="dim=()", expected="one or more, or None")
    if len(set(axes)) != len(axes):
        raise ctx.fail("a dimension is named twice.", got=f"dim={dim}", expected="each once")
    return axes


def _reduce(ctx: Inference) -> Shape:
    axes = reduced_axes(ctx)
    if ctx.attrs["keepdim"]:
        return tuple(1 if d in axes else s for d, s in enumerate(ctx.shape()))
    return tuple(s for d, s in enumerate(ctx.shape()) if d not in axes)


def _reduce_nonempty(ctx: Inference) -> Shape:
    for axis in reduced_axes(ctx):
        if ctx.shape()[axis] == 0:
            raise ctx.fail("there is nothing to reduce.", expected="one element or more")
    return _reduce(ctx)


for _name in ("sum", "prod", "mean"):
    operation(_name, "input: T -> T", T=(*FLOATS, *INTS))(_reduce)
for _name in ("max", "min"):
    operation(_name, "input: T -> T", T=(*FLOATS, *INTS))(_reduce_nonempty)
operation("var", "input: T -> T", T=FLOATS)(_reduce)  # Also: correction.
for _name in ("all", "any"):
    operation(_name, "input: T -> bool", T=(bool,))(_reduce)
for _name in ("argmax", "argmin"):
    operation(_name, "input: T -> int32", T=(*FLOATS, *INTS))(_reduce_nonempty)


@operation("topk", "input: T -> T, int32", T=(*FLOATS, int8, *INTS))
def _topk(ctx: Inference) -> list[Shape]:
    """Attributes k and dim: the k largest, in descending order."""
    axis, k, shape = ctx.axis(ctx.attrs["dim"]), ctx.attrs["k"], ctx.shape()
    if k < 0:
        raise ctx.fail("k is negative.", got=f"k={k}", expected=f"0 <= k <= {shape[axis]}")
    ctx.at_most(k, shape[axis], "k is larger than the dimension.", f"k <= {shape[axis]}, not {k}")
    result = (*shape[:axis], k, *shape[axis + 1 :])
    return [result, result]


def _along(ctx: Inference) -> Shape:
    ctx.axis(ctx.attrs["dim"])
    return ctx.shape()


operation("cumsum", "input: T -> T", T=FLOATS)(_along)
operation("softmax", "input: T -> T", T=FLOATS)(_along)
