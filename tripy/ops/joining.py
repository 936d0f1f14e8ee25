"""Functions that join tensors and cut them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from tripy.errors import TripyException
from tripy.graph import dims
from tripy.ops import arguments
from tripy.ops.movement import unsqueeze
from tripy.tensor import Tensor, apply
from tripy.types import ShapeLike


def _tensors(op: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(tensors, (list, tuple)) or not tensors:
        raise TripyException(
            f"{op}: there is nothing to join.",
            got=repr(tensors) if not isinstance(tensors, Tensor) else "a tensor",
            expected="a list or tuple of one or more tensors",
        )
    return [arguments.tensor(op, t, f"tensors[{i}]") for i, t in enumerate(tensors)]


def concatenate(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Tensors joined along a dimension that they have.

    Args:
        tensors: One or more tensors whose other sizes are equal.
        dim: The dimension.

    Returns:
        A tensor whose size along ``dim`` is the sum.

    Example:
        >>> import tripy as tp
        >>> tp.concatenate([tp.zeros((1,)), tp.ones((2,))], dim=0).tolist()
        [0.0, 1.0, 1.0]
    """
    attrs = {"dim": arguments.integer("concatenate", dim, "dim")}
    return apply("concatenate", _tensors("concatenate", tensors), attrs)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension.

    Args:
        tensors: One or more tensors.
        dim: Where the new dimension stands in the result.

    Returns:
        A tensor of rank one higher.

    Example:
        >>> import tripy as tp
        >>> tp.stack([tp.zeros((2,)), tp.ones((2,))]).tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    many = _tensors("stack", tensors)
    dim = arguments.dim("stack", dim, many[0].rank + 1)
    return concatenate([unsqueeze(t, dim) for t in many], dim)


def split(
    input: Tensor, num_split_or_sizes: Union[int, ShapeLike], dim: int = 0
) -> tuple[Tensor, ...]:
    """A tensor cut along a dimension.

    Args:
        input: A tensor.
        num_split_or_sizes: The number of chunks of equal size, the last of which may be smaller;
            or the size of each.
        dim: The dimension.

    Returns:
        A tuple of tensors.

    Raises:
        TripyException: For sizes that do not add up, or more chunks than there can be.

    Example:
        >>> import tripy as tp
        >>> [part.tolist() for part in tp.split(tp.arange(5), 2)]
        [[0.0, 1.0, 2.0], [3.0, 4.0]]
    """
    rank = arguments.tensor("split", input).rank
    dim = arguments.dim("split", dim, rank)
    size = input._value.shape[dim]
    if isinstance(num_split_or_sizes, (list, tuple)):
        sizes = arguments.new_shape("split", num_split_or_sizes, "num_split_or_sizes")
    else:
        count = arguments.integer("split", num_split_or_sizes, "num_split_or_sizes")
        chunk = dims.floordiv(size + count - 1, count) if count > 0 else 0
        last = size - chunk * (count - 1)
        if count < 1 or (dims.bounds(last)[1] <= 0 and size != 0):
            raise TripyException(
                "split: the dimension cannot be cut into so many chunks.",
                got=f"{count} chunks of {input._value.type_text} along {dim}: all but the last "
                f"have {chunk}",
                expected="a number of chunks of which the last is not empty",
                hint="a list of sizes",
                tensors=[("input", input)],
            )
        sizes = (chunk,) * (count - 1) + (last,)
    parts = apply("split", [input], {"sizes": sizes, "dim": dim})
    return parts if isinstance(parts, tuple) else (parts,)
