"""Functions that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from tripy.device import device, require_device
from tripy.errors import TripyException
from tripy.graph import dims
from tripy.graph.operations.movement import NOT_F8
from tripy.ops import arguments
from tripy.tensor import Tensor, apply, method
from tripy.types import ShapeLike


@method
def reshape(input: Tensor, shape: ShapeLike) -> Tensor:
    """The same elements in another shape.

    Args:
        input: A tensor.
        shape: The new sizes; at most one may be -1 and is worked out.

    Returns:
        A tensor of the new shape.

    Raises:
        TripyException: Where the number of elements would change.

    Example:
        >>> import tripy as tp
        >>> tp.reshape(tp.arange(4), (2, -1)).tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    attrs = {"shape": arguments.shape("reshape", shape)}
    if -1 in attrs["shape"]:
        attrs["shape"] = _resolved(input, attrs["shape"])
    return apply("reshape", [arguments.tensor("reshape", input)], attrs)


def _resolved(input: Tensor, shape: tuple) -> tuple:
    """The shape with -1 worked out, where that is possible; the schema refuses the rest."""
    total = dims.product(arguments.tensor("reshape", input)._value.shape)
    known = dims.product(size for size in shape if size != -1)
    if shape.count(-1) != 1 or known == 0:
        return shape
    if isinstance(total, int) and isinstance(known, int) and (known < 0 or total % known):
        return shape
    return tuple(dims.floordiv(total, known) if size == -1 else size for size in shape)


@method
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Several neighbouring dimensions as one.

    Args:
        input: A tensor of any data type but float8.
        start_dim: The first of them.
        end_dim: The last of them.

    Returns:
        A tensor of a lower rank; a scalar becomes a vector of one element.

    Example:
        >>> import tripy as tp
        >>> tp.flatten(tp.ones((2, 3, 4)), 1).shape
        (2, 12)
    """
    rank = arguments.tensor_of("flatten", input, NOT_F8).rank
    shape = input._value.shape
    if rank == 0:
        return reshape(input, (1,))
    start = arguments.dim("flatten", start_dim, rank, "start_dim")
    end = arguments.dim("flatten", end_dim, rank, "end_dim")
    if start > end:
        raise TripyException(
            "flatten: start_dim comes after end_dim.",
            got=f"start_dim={start_dim}, end_dim={end_dim} with {input._value.type_text}",
            expected="start_dim <= end_dim",
        )
    middle = dims.product(shape[start : end + 1])
    return apply("reshape", [input], {"shape": (*shape[:start], middle, *shape[end + 1 :])})


@method
def permute(input: Tensor, perm: Sequence[int]) -> Tensor:
    """The dimensions in another order.

    Args:
        input: A tensor.
        perm: For each dimension of the result, the input's dimension that it is.

    Returns:
        A tensor whose shape is permuted.

    Example:
        >>> import tripy as tp
        >>> tp.permute(tp.ones((2, 3, 4)), (2, 0, 1)).shape
        (4, 2, 3)
    """
    rank = arguments.tensor("permute", input).rank
    perm = arguments.integers("permute", perm, "perm")
    return apply("permute", [input], {"perm": tuple(p + rank if p < 0 else p for p in perm)})


@method
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged.

    Args:
        input: A tensor.
        dim0: One dimension.
        dim1: The other.

    Returns:
        A tensor whose shape has the two sizes exchanged.

    Example:
        >>> import tripy as tp
        >>> tp.transpose(tp.ones((2, 3)), 0, 1).shape
        (3, 2)
    """
    rank = arguments.tensor("transpose", input).rank
    perm = list(range(rank))
    first, second = (
        arguments.dim("transpose", dim0, rank, "dim0"),
        arguments.dim("transpose", dim1, rank, "dim1"),
    )
    perm[first], perm[second] = second, first
    return apply("permute", [input], {"perm": tuple(perm)})


@method
def squeeze(input: Tensor, dims: Union[int, Sequence[int]]) -> Tensor:
    """Without dimensions of size 1.

    Args:
        input: A tensor.
        dims: The dimension or dimensions to remove; each has to have size 1.

    Returns:
        A tensor of a lower rank.

    Raises:
        TripyException: For a dimension whose size is not 1.

    Example:
        >>> import tripy as tp
        >>> tp.squeeze(tp.ones((2, 1, 3)), 1).shape
        (2, 3)
    """
    rank, shape = arguments.tensor("squeeze", input).rank, input._value.shape
    many = dims if isinstance(dims, (list, tuple)) else (dims,)
    gone = {arguments.dim("squeeze", d, rank, "dims") for d in many}
    for d in sorted(gone):
        if isinstance(shape[d], int) and shape[d] != 1:
            raise TripyException(
                "squeeze: a dimension to remove does not have size 1.",
                got=f"dims={dims} with {input._value.type_text}",
                expected="dimensions of size 1",
                hint="tp.reshape",
                tensors=[("input", input)],
            )
    kept = tuple(size for d, size in enumerate(shape) if d not in gone)
    return apply("reshape", [input], {"shape": kept})


@method
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1.

    Args:
        input: A tensor.
        dim: Where it stands in the result.

    Returns:
        A tensor of rank one higher.

    Example:
        >>> import tripy as tp
        >>> tp.unsqueeze(tp.ones((2, 3)), 1).shape
        (2, 1, 3)
    """
    rank, shape = arguments.tensor("unsqueeze", input).rank, input._value.shape
    dim = arguments.dim("unsqueeze", dim, rank + 1)
    return apply("reshape", [input], {"shape": (*shape[:dim], 1, *shape[dim:])})


def expand(input: Tensor, sizes: ShapeLike) -> Tensor:
    """Dimensions of size 1 repeated, without a copy.

    Args:
        input: A tensor of float32, float16, bfloat16, int32, int64 or bool.
        sizes: The new sizes, with new dimensions in front if wanted; -1 keeps a size.

    Returns:
        A tensor of the new shape.

    Raises:
        TripyException: For a size that the input's cannot be broadcast to.

    Example:
        >>> import tripy as tp
        >>> tp.expand(tp.Tensor([[1.0], [2.0]]), (-1, 2)).tolist()
        [[1.0, 1.0], [2.0, 2.0]]
    """
    attrs = {"sizes": arguments.shape("expand", sizes, "sizes")}
    return apply("expand", [arguments.tensor("expand", input)], attrs)


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Slices of a tensor picked by index, as ``numpy.take`` does.

    Args:
        input: A tensor.
        dim: The dimension that the indices count along.
        index: An int32 or int64 tensor of any shape; negative indices count from the end.

    Returns:
        A tensor in whose shape ``index.shape`` stands in place of dimension ``dim``.

    Raises:
        TripyException: For an index out of range, where the indices are on the host. On a GPU a
            compiled program's result is NaN there, of rows of a floating-point matrix; else CUDA
            ends the process's work with an error.

    Example:
        >>> import tripy as tp
        >>> tp.gather(tp.Tensor([10.0, 20.0, 30.0]), 0, tp.Tensor([2, 0])).tolist()
        [30.0, 10.0]
    """
    arguments.tensor("gather", index, "index")
    attrs = {"dim": arguments.integer("gather", dim, "dim")}
    return apply("gather", [arguments.tensor("gather", input), index], attrs)


@method
def copy(input: Tensor, device: device) -> Tensor:
    """A copy of a tensor on a device.

    Args:
        input: A tensor.
        device: Where the copy lives.

    Returns:
        A tensor with memory of its own.

    Example:
        >>> import tripy as tp
        >>> tp.copy(tp.ones((2,)), tp.device("cpu")).tolist()
        [1.0, 1.0]
    """
    arguments.tensor("copy", input)
    require_device("copy", device)
    return apply("copy", [input], {"where": device}, device)
