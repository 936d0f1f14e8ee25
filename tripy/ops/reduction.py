"""Reductions, and functions along one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Union

from tripy.ops import arguments
from tripy.tensor import Tensor, apply

Axes = Union[int, Sequence[int], None]


def _reduce(op: str, input: Tensor, dim: Axes, keepdim: bool, **attrs: int) -> Tensor:
    arguments.tensor(op, input)
    attrs = {
        "dim": arguments.axes(op, dim),
        "keepdim": arguments.choice(op, keepdim, "keepdim", (True, False)),
        **attrs,
    }
    return apply(op, [input], attrs)


def _one_axis(op: str, dim: Optional[int]) -> Optional[int]:
    return None if dim is None else arguments.integer(op, dim, "dim")


def sum(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The sum of elements.

    Args:
        input: A tensor of float32, float16, bfloat16, int32 or int64.
        dim: What to reduce over: one dimension, several, or None for all.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        A tensor of the same data type without the reduced dimensions.

    Example:
        >>> import tripy as tp
        >>> tp.sum(tp.Tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0).tolist()
        [4.0, 6.0]
    """
    return _reduce("sum", input, dim, keepdim)


def prod(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The product of elements.

    Args:
        input: A tensor of float32, float16, bfloat16, int32 or int64.
        dim: What to reduce over: one dimension, several, or None for all.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        A tensor of the same data type without the reduced dimensions.

    Example:
        >>> import tripy as tp
        >>> tp.prod(tp.Tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0).tolist()
        [3.0, 8.0]
    """
    return _reduce("prod", input, dim, keepdim)


def max(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The largest element; NaN if there is one.

    Args:
        input: A tensor of float32, float16, bfloat16, int32 or int64.
        dim: What to reduce over: one dimension, several, or None for all.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        A tensor of the same data type without the reduced dimensions.

    Example:
        >>> import tripy as tp
        >>> tp.max(tp.Tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0).tolist()
        [3.0, 4.0]
    """
    return _reduce("max", input, dim, keepdim)


def min(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The smallest element; NaN if there is one.

    Args:
        input: A tensor of float32, float16, bfloat16, int32 or int64.
        dim: What to reduce over: one dimension, several, or None for all.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        A tensor of the same data type without the reduced dimensions.

    Example:
        >>> import tripy as tp
        >>> tp.min(tp.Tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0).tolist()
        [1.0, 2.0]
    """
    return _reduce("min", input, dim, keepdim)


def mean(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """The mean of elements; for integers rounded towards zero.

    Args:
        input: A tensor of float32, float16, bfloat16, int32 or int64.
        dim: What to reduce over: one dimension, several, or None for all.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        A tensor of the same data type without the reduced dimensions.

    Example:
        >>> import tripy as tp
        >>> tp.mean(tp.Tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0).tolist()
        [2.0, 3.0]
    """
    return _reduce("mean", input, dim, keepdim)


def all(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are True.

    Args:
        input: A tensor of bool.
        dim: What to reduce over: one dimension, several, or None for all.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        A tensor of the same data type without the reduced dimensions.

    Example:
        >>> import tripy as tp
        >>> tp.all(tp.Tensor([[True, False], [True, True]]), dim=0).tolist()
        [True, False]
    """
    return _reduce("all", input, dim, keepdim)


def any(input: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    """Whether any element is True.

    Args:
        input: A tensor of bool.
        dim: What to reduce over: one dimension, several, or None for all.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        A tensor of the same data type without the reduced dimensions.

    Example:
        >>> import tripy as tp
        >>> tp.any(tp.Tensor([[True, False], [True, True]]), dim=0).tolist()
        [True, True]
    """
    return _reduce("any", input, dim, keepdim)


def var(input: Tensor, dim: Axes = None, keepdim: bool = False, correction: int = 1) -> Tensor:
    """The variance of elements: squared distances from the mean over ``n - correction``.

    Args:
        input: A tensor of float32, float16 or bfloat16.
        dim: What to reduce over: one dimension, several, or None for all.
        keepdim: Whether reduced dimensions stay, with size 1.
        correction: 1 for the unbiased estimate (Bessel's correction), 0 for the population's.

    Returns:
        A tensor of the same data type without the reduced dimensions.

    Example:
        >>> import tripy as tp
        >>> tp.var(tp.Tensor([1.0, 2.0, 3.0])).tolist()
        1.0
    """
    correction = arguments.integer("var", correction, "correction")
    return _reduce("var", input, dim, keepdim, correction=correction)


def argmax(input: Tensor, dim: Optional[int] = None, keepdim: bool = False) -> Tensor:
    """The index of the largest element.

    Args:
        input: A tensor of float32, float16, bfloat16, int32 or int64.
        dim: What to reduce over: a dimension, or None for the flattened tensor.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        An int32 tensor without the reduced dimension; of equal elements the first.

    Example:
        >>> import tripy as tp
        >>> tp.argmax(tp.Tensor([[1.0, 9.0], [3.0, 4.0]]), dim=0).tolist()
        [1, 0]
    """
    return _reduce("argmax", input, _one_axis("argmax", dim), keepdim)


def argmin(input: Tensor, dim: Optional[int] = None, keepdim: bool = False) -> Tensor:
    """The index of the smallest element.

    Args:
        input: A tensor of float32, float16, bfloat16, int32 or int64.
        dim: What to reduce over: a dimension, or None for the flattened tensor.
        keepdim: Whether reduced dimensions stay, with size 1.

    Returns:
        An int32 tensor without the reduced dimension; of equal elements the first.

    Example:
        >>> import tripy as tp
        >>> tp.argmin(tp.Tensor([[1.0, 9.0], [3.0, 4.0]]), dim=0).tolist()
        [0, 1]
    """
    return _reduce("argmin", input, _one_axis("argmin", dim), keepdim)


def topk(input: Tensor, k: int, dim: int) -> tuple[Tensor, Tensor]:
    """The k largest elements along a dimension, in descending order.

    Args:
        input: A tensor of rank 1 or more.
        k: How many.
        dim: The dimension.

    Returns:
        The values, and their int32 indices; ``dim`` has size ``k`` in both.

    Raises:
        TripyException: For a ``k`` that is larger than the dimension.

    Example:
        >>> import tripy as tp
        >>> values, indices = tp.topk(tp.Tensor([1.0, 5.0, 3.0]), 2, dim=0)
        >>> values.tolist(), indices.tolist()
        ([5.0, 3.0], [1, 2])
    """
    attrs = {"k": arguments.integer("topk", k, "k"), "dim": arguments.integer("topk", dim, "dim")}
    return apply("topk", [arguments.tensor("topk", input)], attrs)


def cumsum(input: Tensor, dim: int) -> Tensor:
    """Running sums along a dimension.

    Args:
        input: A tensor of float32, float16 or bfloat16.
        dim: The dimension.

    Returns:
        A tensor of the same shape.

    Example:
        >>> import tripy as tp
        >>> tp.cumsum(tp.Tensor([1.0, 2.0, 3.0]), dim=0).tolist()
        [1.0, 3.0, 6.0]
    """
    attrs = {"dim": arguments.integer("cumsum", dim, "dim")}
    return apply("cumsum", [arguments.tensor("cumsum", input)], attrs)


def softmax(input: Tensor, dim: Optional[int] = None) -> Tensor:
    """Exponentials divided by their sum.

    Args:
        input: A tensor of float32, float16 or bfloat16.
        dim: The dimension whose elements sum to 1; None for all elements together.

    Returns:
        A tensor of the same shape.

    Example:
        >>> import tripy as tp
        >>> tp.softmax(tp.zeros((2, 2)), dim=1).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    arguments.tensor("softmax", input)
    if dim is None:
        shape = input._value.shape
        flat = apply("softmax", [apply("reshape", [input], {"shape": (-1,)})], {"dim": 0})
        return apply("reshape", [flat], {"shape": shape})
    return apply("softmax", [input], {"dim": arguments.integer("softmax", dim, "dim")})
