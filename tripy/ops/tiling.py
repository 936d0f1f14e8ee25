"""Functions that mirror, repeat or add elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from tripy import dtypes
from tripy.errors import TripyException
from tripy.graph.dims import Dim
from tripy.ops import arguments
from tripy.tensor import Tensor, apply, size_of
from tripy.types import IntLike, ShapeLike

ACCEPTED = (*dtypes.FLOATS, *dtypes.INTS, dtypes.bool)


def flip(input: Tensor, dim: Union[int, Sequence[int], None] = None) -> Tensor:
    """The elements in reverse order along one or more dimensions.

    Args:
        input: A tensor of float32, float16, bfloat16, int32, int64 or bool.
        dim: The dimension or dimensions; None for all.

    Returns:
        A tensor of the same shape.

    Raises:
        TripyException: For a dimension that the tensor does not have, or one named twice.

    Example:
        >>> import tripy as tp
        >>> tp.flip(tp.Tensor([[1, 2], [3, 4]]), dim=1).tolist()
        [[2, 1], [4, 3]]
    """
    arguments.tensor_of("flip", input, ACCEPTED)
    shape = input._value.shape
    axes = range(len(shape)) if dim is None else arguments.axes("flip", dim)
    many = [arguments.dim("flip", d, len(shape)) for d in _each(axes)]
    if len(set(many)) != len(many):
        raise TripyException(
            "flip: a dimension is named twice.",
            got=f"dim={dim} with {input._value.type_text}",
            expected="each once",
        )
    attrs = {
        "starts": tuple(size - 1 if d in many else 0 for d, size in enumerate(shape)),
        "sizes": shape,
        "steps": tuple(-1 if d in many else 1 for d in range(len(shape))),
    }
    return apply("slice", [input], attrs)


def _each(axes: Any) -> Sequence[int]:
    return (axes,) if isinstance(axes, int) else axes


def repeat(input: Tensor, repeats: IntLike, dim: int) -> Tensor:
    """Each element several times in a row along a dimension, as ``numpy.repeat`` does.

    Args:
        input: A tensor of float32, float16, bfloat16, int32, int64 or bool.
        repeats: How often; 0 or more.
        dim: The dimension.

    Returns:
        A tensor whose size along ``dim`` is ``repeats`` times the input's.

    Raises:
        TripyException: For a negative number of repeats.

    Example:
        >>> import tripy as tp
        >>> tp.repeat(tp.Tensor([1, 2]), 2, dim=0).tolist()
        [1, 1, 2, 2]
    """
    arguments.tensor_of("repeat", input, ACCEPTED)
    (count,) = arguments.new_shape("repeat", [repeats], "repeats")
    shape = input._value.shape
    dim = arguments.dim("repeat", dim, len(shape))
    before, own, after = shape[:dim], shape[dim], shape[dim + 1 :]
    apart = apply("reshape", [input], {"shape": (*before, own, 1, *after)})
    wide = apply("expand", [apart], {"sizes": (*before, own, count, *after)})
    return apply("reshape", [wide], {"shape": (*before, own * count, *after)})


def pad(
    input: Tensor,
    pad: Sequence[ShapeLike],
    mode: str = "constant",
    value: Union[int, float, bool] = 0,
) -> Tensor:
    """Elements added before and after those of a tensor.

    Args:
        input: A tensor of float32, float16, bfloat16, int32, int64 or bool.
        pad: For each dimension a pair (low, high): how many elements come before and after.
        mode: ``"constant"``: they have one value. ``"reflect"``: they mirror the tensor about its
            first and last elements, which are not repeated, as ``numpy.pad`` does.
        value: The constant.

    Returns:
        A tensor whose sizes are larger by ``low + high``.

    Raises:
        TripyException: For a negative padding, a reflected one that is not smaller than the
            dimension, or a value that does not fit the data type.

    Example:
        >>> import tripy as tp
        >>> tp.pad(tp.Tensor([1, 2, 3]), [(1, 2)]).tolist()
        [0, 1, 2, 3, 0, 0]
        >>> tp.pad(tp.Tensor([1, 2, 3]), [(1, 2)], mode="reflect").tolist()
        [2, 1, 2, 3, 2, 1]
    """
    arguments.tensor("pad", input)
    low, high = _widths(pad)
    attrs = {
        "low": low,
        "high": high,
        "mode": arguments.choice("pad", mode, "mode", ("constant", "reflect")),
        "value": arguments.fitting("pad", value, input.dtype) if input.dtype in ACCEPTED else 0,
    }
    return apply("pad", [input], attrs)


def _widths(pairs: Any) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """All lower and all higher widths."""
    if isinstance(pairs, (list, tuple)):
        widths = [
            tuple(size_of(width) for width in pair) if isinstance(pair, (list, tuple)) else ()
            for pair in pairs
        ]
        if all(len(pair) == 2 and None not in pair for pair in widths):
            return tuple(pair[0] for pair in widths), tuple(pair[1] for pair in widths)  # type: ignore[misc]
    raise TripyException(
        "pad: pad is not a sequence of pairs.",
        got=f"pad={pairs!r}",
        expected="one pair (low, high) of ints or tp.DimensionSizes for each dimension",
    )
