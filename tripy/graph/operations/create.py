"""Schemas of operations that make tensors from nothing, or from another tensor's shape."""

from __future__ import annotations

from tripy.dtypes import ALL, FLOATS, INTS, bool, int8
from tripy.graph.schema import Inference, Shape, operation

FILL = (*FLOATS, int8, *INTS, bool)


def _given(ctx: Inference) -> Shape:
    return ctx.attrs["shape"]


# Attributes: shape, value (a Python number), dtype.
operation("full", "-> @dtype", dtype=FILL)(_given)


@operation("iota", "-> @dtype", dtype=ALL)
def _iota(ctx: Inference) -> Shape:
    """Attributes: shape, dim, dtype; and start and step, as a range has them."""
    shape = ctx.attrs["shape"]
    ctx.axis(ctx.attrs["dim"], len(shape))
    return shape


# A dynamic size as a 0-D tensor. Attribute: size.
operation("dimension", "-> int32")(lambda ctx: ())


def _triangle(ctx: Inference) -> Shape:
    if ctx.rank() < 2:
        raise ctx.fail("the tensor is not a matrix.", expected="a tensor of rank 2 or more")
    return ctx.shape()


for _name in ("tril", "triu"):
    operation(_name, "input: T -> T", T=FILL)(_triangle)  # Attribute: diagonal.
