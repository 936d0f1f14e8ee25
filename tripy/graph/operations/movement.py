"""Schemas of operations that move elements without changing them."""

from __future__ import annotations

from tripy.dtypes import ALL, FLOATS, INTS, bool, float8
from tripy.graph import dims
from tripy.graph.schema import Inference, Shape, operation

NOT_F8 = tuple(t for t in ALL if t is not float8)


@operation("reshape", "input: T -> T", T=ALL)
def _reshape(ctx: Inference) -> Shape:
    """Attribute shape: sizes, at most one of them -1."""
    wanted = list(ctx.attrs["shape"])
    total = dims.product(ctx.shape())
    if wanted.count(-1) > 1 or any(isinstance(s, int) and s < -1 for s in wanted):
        raise ctx.fail(
            "the shape is not valid.",
            got=f"shape {tuple(wanted)}",
            expected="sizes of 0 or more, one of which may be -1",
        )
    summary = "the number of elements changes."
    if -1 in wanted:
        known = dims.product(s for s in wanted if s != -1)
        if known == 0 or (isinstance(total, int) and isinstance(known, int) and total % known):
            raise ctx.fail(
                summary,
                got=f"{ctx.describe_inputs()} to shape {tuple(wanted)}",
                expected=f"sizes that divide {total} elements",
            )
        wanted[wanted.index(-1)] = dims.floordiv(total, known)
    ctx.equal(
        total,
        dims.product(wanted),
        summary,
        expected=f"{total} elements; shape {tuple(ctx.attrs['shape'])} has {dims.product(wanted)}",
    )
    return tuple(wanted)


@operation("permute", "input: T -> T", T=ALL)
def _permute(ctx: Inference) -> Shape:
    """Attribute perm: where each dimension of the result comes from."""
    perm = ctx.attrs["perm"]
    if sorted(perm) != list(range(ctx.rank())):
        raise ctx.fail(
            "perm is not a permutation of the dimensions.",
            got=f"perm={tuple(perm)} with {ctx.describe_inputs()}",
            expected=f"each of {tuple(range(ctx.rank()))} once",
        )
    return tuple(ctx.shape()[p] for p in perm)


@operation("expand", "input: T -> T", T=(*FLOATS, *INTS, bool))
def _expand(ctx: Inference) -> Shape:
    """Attribute sizes: -1 keeps a size."""
    sizes, shape = ctx.attrs["sizes"], ctx.shape()
    extra = len(sizes) - len(shape)
    if extra < 0:
        raise ctx.fail(
            "there are fewer sizes than dimensions.",
            got=f"sizes {tuple(sizes)} with {ctx.describe_inputs()}",
            expected=f"{len(shape)} sizes or more",
        )
    result = []
    for position, size in enumerate(sizes):
        if isinstance(size, int) and (size < -1 or (size == -1 and position < extra)):
            raise ctx.fail(
                "a size is not valid.",
                got=f"sizes {tuple(sizes)} with {ctx.describe_inputs()}",
                expected="sizes of 0 or more, and -1 only for dimensions that the input has",
            )
        own = shape[position - extra] if position >= extra else 1
        if size == -1 or size == own:
            result.append(own)
            continue
        ctx.broadcast_to(
            (own,),
            (size,),
            "a size cannot be broadcast.",
            expected=f"{own} or -1 in place of {size}, or an input whose size there is 1",
        )
        result.append(size)
    return tuple(result)


@operation("concatenate", "tensors: T* -> T", T=ALL)
def _concatenate(ctx: Inference) -> Shape:
    """Attribute dim."""
    axis = ctx.axis(ctx.attrs["dim"])
    result = list(ctx.shape())
    for position in range(1, len(ctx.values)):
        other = ctx.shape(position)
        if len(other) != len(result):
            raise ctx.fail("the tensors have different ranks.", expected="one rank for all")
        for d, size in enumerate(other):
            if d == axis:
                result[d] = result[d] + size
            else:
                result[d] = ctx.equal(
                    result[d],
                    size,
                    "the shapes differ.",
                    f"equal sizes in all but dimension {axis}",
                )
    return tuple(result)


@operation("slice", "input: T -> T", T=NOT_F8)
def _slice(ctx: Inference) -> Shape:
    """Attributes starts, sizes, steps: one a dimension; element i is starts + i * steps."""
    for start, count, size in zip(ctx.attrs["starts"], ctx.attrs["sizes"], ctx.shape()):
        if count == 1:  # An index; slices are cut to the size where they are recorded.
            what = "an index is out of range."
            ctx.at_most(start + 1, size, what, f"an index from -{size} to {size} - 1")
            ctx.at_most(0, start, what, f"an index from -{size} to {size} - 1")
    return ctx.attrs["sizes"]


@operation("split", "input: T -> T", T=ALL)
def _split(ctx: Inference) -> list[Shape]:
    """Attributes sizes and dim."""
    axis, sizes, shape = ctx.axis(ctx.attrs["dim"]), ctx.attrs["sizes"], ctx.shape()
    ctx.equal(
        sum(sizes, start=0), shape[axis], "the sizes do not add up.", f"a sum of {shape[axis]}"
    )
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


@operation("gather", "input: T, index: I -> T", T=ALL, I=INTS)
def _gather(ctx: Inference) -> Shape:
    """Attribute dim: numpy.take along it."""
    axis = ctx.axis(ctx.attrs["dim"])
    shape = ctx.shape()
    return (*shape[:axis], *ctx.shape(1), *shape[axis + 1 :])


# Attribute: where (a device).
operation("copy", "input: T -> T", T=ALL)(lambda ctx: ctx.shape())
