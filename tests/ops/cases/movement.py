"""Cases of functions that move elements, and of indexing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tripy as tp
from tests.helpers import tensor
from tests.ops.cases.table import Draw, Sample, case

NOT_F8 = "F i4 i8 I b"


def _factors(draw: Draw, total: int) -> list[int]:
    """A shape of so many elements."""
    sizes = []
    while total > 1:
        size = draw.choice([d for d in range(1, total + 1) if total % d == 0])
        sizes.append(size)
        total //= size
        if size == 1:
            sizes.append(total)
            break
    return sizes


@case("reshape", "any")
def _reshape(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape()
    total = math.prod(shape)
    wanted = _factors(draw, total) if total else [0, draw.integer(0, 3)]
    if wanted and total and draw.flag():
        wanted[draw.integer(0, len(wanted) - 1)] = -1
    # Sizes fixed at compile time fit the dynamic ones at run time, or are refused there.
    return Sample(
        lambda x: tp.reshape(x, wanted), [draw.tensor(shape, dtype)], lambda x: x.reshape(wanted)
    )


@case("flatten", NOT_F8, "reshape")
def _flatten(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 4))
    start = draw.dim(len(shape))
    end = draw.integer(start % len(shape), len(shape) - 1)
    end -= len(shape) * draw.flag()

    def reference(x: np.ndarray) -> np.ndarray:
        first, last = start % x.ndim, end % x.ndim
        return x.reshape(
            *x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]
        )

    return Sample(lambda x: tp.flatten(x, start, end), [draw.tensor(shape, dtype)], reference)


@case("permute", "any")
def _permute(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((0, 4))
    perm = [int(p) for p in draw.rng.permutation(len(shape))]
    if shape and draw.flag():
        perm = [p - len(shape) for p in perm]
    return Sample(
        lambda x: tp.permute(x, perm), [draw.tensor(shape, dtype)], lambda x: x.transpose(perm)
    )


@case("transpose", "any", "permute")
def _transpose(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 4))
    first, second = draw.dim(len(shape)), draw.dim(len(shape))
    return Sample(
        lambda x: tp.transpose(x, first, second),
        [draw.tensor(shape, dtype)],
        lambda x: np.swapaxes(x, first, second),
    )


@case("squeeze", "any", "reshape")
def _squeeze(draw: Draw, dtype: Any) -> Sample:
    shape = list(draw.shape((1, 4)))
    gone = tuple({draw.dim(len(shape)) % len(shape) for _ in range(draw.integer(1, 2))})
    for d in gone:
        shape[d] = 1
    which = gone[0] - len(shape) if len(gone) == 1 and draw.flag() else gone
    return Sample(
        lambda x: tp.squeeze(x, which),
        [draw.tensor(shape, dtype)],
        lambda x: np.squeeze(x, which),
    )


@case("unsqueeze", "any", "reshape")
def _unsqueeze(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape()
    dim = draw.dim(len(shape) + 1)
    return Sample(
        lambda x: tp.unsqueeze(x, dim),
        [draw.tensor(shape, dtype)],
        lambda x: np.expand_dims(x, dim),
    )


@case("expand", "F I b")
def _expand(draw: Draw, dtype: Any) -> Sample:
    shape = [1 if draw.flag() else size for size in draw.shape()]
    front = list(draw.shape((0, 2), (0, 3)))
    sizes = [draw.choice([-1, size if size != 1 else draw.integer(0, 4)]) for size in shape]
    full = front + [own if size == -1 else size for own, size in zip(shape, sizes)]
    return Sample(
        lambda x: tp.expand(x, front + sizes),
        [draw.tensor(shape, dtype)],
        lambda x: np.broadcast_to(x, full),
    )


@case("concatenate", "any")
def _concatenate(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3))
    dim = draw.dim(len(shape))
    tensors = []
    for _ in range(draw.integer(1, 3)):
        own = list(shape)
        own[dim] = draw.integer(0, 4)
        tensors.append(draw.tensor(own, dtype))
    return Sample(
        lambda *many: tp.concatenate(many, dim), tensors, lambda *many: np.concatenate(many, dim)
    )


@case("stack", "any", "concatenate")
def _stack(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape()
    dim = draw.dim(len(shape) + 1)
    tensors = [draw.tensor(shape, dtype) for _ in range(draw.integer(1, 3))]
    return Sample(lambda *many: tp.stack(many, dim), tensors, lambda *many: np.stack(many, dim))


@case("split", "any")
def _split(draw: Draw, dtype: Any) -> Sample:
    shape = list(draw.shape((1, 3)))
    dim = draw.dim(len(shape))
    sizes = [draw.integer(0, 3) for _ in range(draw.integer(1, 3))]
    how: Any = sizes
    if draw.flag():
        count, chunk = draw.integer(1, 3), draw.integer(1, 3)
        last = draw.integer(1, chunk) if chunk * count > count else chunk
        sizes = [chunk] * (count - 1) + [last]
        # Numpy's way to cut comes to other sizes: the last chunk alone is smaller here.
        how = count if -(-sum(sizes) // count) == chunk else sizes
    shape[dim] = sum(sizes)
    ends = np.cumsum(sizes)[:-1]
    return Sample(
        lambda x: tp.split(x, how, dim),
        [draw.tensor(shape, dtype)],
        lambda x: tuple(np.split(x, ends, dim)),
        {"dtype": [dtype] * len(sizes)},
    )


@case("gather", "any")
def _gather(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3), (1, 4))
    dim = draw.dim(len(shape))
    index = draw.rng.integers(-shape[dim], shape[dim], draw.shape((0, 2)))
    kind = draw.choice([tp.int32, tp.int64])
    return Sample(
        lambda x, i: tp.gather(x, dim, i),
        [draw.tensor(shape, dtype), tensor(index, kind)],
        lambda x, i: np.take(x, i, dim),
    )


@case("Tensor.__getitem__", NOT_F8, "slice")
def _getitem(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3))

    def bound(size: int) -> Any:
        return draw.choice([None, draw.integer(-size - 2, size + 2)])

    def part(size: int) -> Any:
        if size and draw.integer(0, 2) == 0:
            return draw.integer(-size, size - 1)
        step = draw.choice([None, 1, 2, 3, -1, -2])
        return slice(bound(size), bound(size), step)

    index: list[Any] = [part(size) for size in shape[: draw.integer(0, len(shape))]]
    if draw.flag():
        index.insert(draw.integer(0, len(index)), None)
    if len(index) <= len(shape) and draw.flag():
        index.append(Ellipsis)
    which = tuple(index) if len(index) != 1 else index[0]
    # An index beyond the smallest size of a range is refused when it is compiled or called.
    return Sample(lambda x: x[which], [draw.tensor(shape, dtype)], lambda x: x[which])


@case("Tensor.__getitem__", NOT_F8, "gather")
def _getitem_tensor(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3), (1, 4))
    index = draw.rng.integers(-shape[0], shape[0], draw.shape((0, 2)))
    return Sample(
        lambda x, i: x[i],
        [draw.tensor(shape, dtype), tensor(index, tp.int32)],
        lambda x, i: x[i],
    )


@case("copy", "any")
def _copy(draw: Draw, dtype: Any) -> Sample:
    place = tp.device("cpu")
    return Sample(
        lambda x: tp.copy(x, place),
        [tp.copy(draw.tensor(draw.shape(), dtype), place)],
        lambda x: x,
        {"compiled": False},  # Inside a compiled function there is one device.
    )
