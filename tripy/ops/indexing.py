"""``tensor[index]``: ints, slices, ``...``, ``None``, DimensionSizes, or one Tensor."""

from __future__ import annotations

from typing import Any

from tripy.errors import TripyException
from tripy.graph import dims
from tripy.graph.dims import Dim
from tripy.graph.operations.movement import NOT_F8
from tripy.ops import arguments
from tripy.ops.movement import gather
from tripy.tensor import DimensionSize, Tensor, apply, method, size_of


@method
def __getitem__(input: Tensor, index: Any) -> Tensor:  # noqa: N807  (becomes the method)
    """Part of a tensor, by numpy's rules for ints, slices, ``...`` and ``None``.

    A Tensor as the only index gathers along dimension 0.

    Args:
        input: A tensor of any data type but float8.
        index: An index or a tuple of them.

    Returns:
        The selected part.

    Raises:
        TripyException: For an index out of range, too many indices, or one of another kind.

    Example:
        >>> import tripy as tp
        >>> tp.arange(6)[4:1:-2].tolist()
        [4.0, 2.0]
    """
    if isinstance(index, Tensor) and not isinstance(index, DimensionSize):
        return gather(arguments.tensor_of("slice", input, NOT_F8), 0, index)
    parts = list(index) if isinstance(index, tuple) else [index]
    consumed = sum(part is not None and part is not Ellipsis for part in parts)
    ellipses = sum(part is Ellipsis for part in parts)
    shape = input._value.shape
    if ellipses > 1 or consumed > len(shape):
        raise _refused(input, index, f"at most {len(shape)} indices and one ...")
    position = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    rest = [slice(None)] * (len(shape) - consumed)
    parts[position : position + ellipses] = rest
    starts: list[Dim] = []
    sizes: list[Dim] = []
    steps: list[int] = []
    result: list[Dim] = []
    for part in parts:
        if part is None:
            result.append(1)
            continue
        size = shape[len(starts)]
        if isinstance(part, slice):
            start, count, step = _range(input, index, part, size)
            result.append(count)
        else:
            start, count, step = _position(input, index, part, size), 1, 1
        starts.append(start)
        sizes.append(count)
        steps.append(step)
    attrs = {"starts": tuple(starts), "sizes": tuple(sizes), "steps": tuple(steps)}
    cut = apply("slice", [input], attrs)
    if result == sizes:
        return cut
    return apply("reshape", [cut], {"shape": tuple(result)})


def _refused(input: Tensor, index: Any, expected: str) -> TripyException:
    return TripyException(
        "The index does not fit the tensor.",
        got=f"[{index}] of {input._value.type_text}",
        expected=expected,
        tensors=[("the tensor", input)],
    )


def _position(input: Tensor, index: Any, part: Any, size: Dim) -> Dim:
    position = size_of(part)
    if position is None:
        raise _refused(input, index, "ints, slices, ..., None, DimensionSizes, or one Tensor alone")
    if isinstance(position, int) and position < 0:
        position = position + size
    if dims.bounds(position)[1] < 0 or not dims.at_least(
        dims.bounds(size)[1] - 1, dims.bounds(position)[0]
    ):
        raise _refused(input, index, f"an index from -{size} to {size} - 1")
    return position


def _range(input: Tensor, index: Any, part: slice, size: Dim) -> tuple[Dim, Dim, int]:
    """First index, number of elements and step of a slice."""
    step = 1 if part.step is None else size_of(part.step)
    if not isinstance(step, int) or step == 0:
        raise _refused(input, index, "a step that is an int other than 0")
    bounds = []
    for given, default in ((part.start, 0), (part.stop, size)):
        if step < 0:
            default = size - 1 if default == 0 else -1
        if given is None:
            bounds.append(default)
            continue
        bound = size_of(given)
        if bound is None:
            raise _refused(input, index, "slices of ints and DimensionSizes")
        if isinstance(bound, int) and bound < 0:
            bound = bound + size
        low, high = (0, size) if step > 0 else (-1, size - 1)
        bounds.append(dims.minimum(dims.maximum(bound, low), high))
    start, stop = bounds
    length = stop - start if step > 0 else start - stop
    return start, dims.maximum(-dims.floordiv(-length, abs(step)), 0), step
