"""Functions that choose between two elements."""

from __future__ import annotations

from numbers import Number
from typing import Any

from tripy import dtypes
from tripy.device import CPU
from tripy.errors import TripyException
from tripy.ops import arguments
from tripy.tensor import Tensor, apply, scalar, sizes_as
from tripy.types import TensorLike


def maximum(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """The larger of two elements, with broadcasting.

    Args:
        lhs: A tensor, or a number if ``rhs`` is a tensor.
        rhs: A tensor, or a number if ``lhs`` is a tensor.

    Returns:
        A tensor of the broadcast shape.

    Example:
        >>> import tripy as tp
        >>> tp.maximum(tp.Tensor([1.0, 5.0]), 3.0).tolist()
        [3.0, 5.0]
    """
    return apply("maximum", _operands("maximum", lhs=lhs, rhs=rhs))


def minimum(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """The smaller of two elements, with broadcasting.

    Args:
        lhs: A tensor, or a number if ``rhs`` is a tensor.
        rhs: A tensor, or a number if ``lhs`` is a tensor.

    Returns:
        A tensor of the broadcast shape.

    Example:
        >>> import tripy as tp
        >>> tp.minimum(tp.Tensor([1.0, 5.0]), 3.0).tolist()
        [1.0, 3.0]
    """
    return apply("minimum", _operands("minimum", lhs=lhs, rhs=rhs))


def where(condition: Tensor, input: TensorLike, other: TensorLike) -> Tensor:
    """Elements of one tensor where a condition holds, else of another, with broadcasting.

    Args:
        condition: A bool tensor.
        input: Values where it is True: a tensor or a number.
        other: Values where it is False: a tensor or a number. A number takes the other one's data
            type; of two numbers, bools make bool, ints int32 and floats float32.

    Returns:
        A tensor of the broadcast shape.

    Example:
        >>> import tripy as tp
        >>> tp.where(tp.Tensor([True, False]), tp.ones((2,)), 0.0).tolist()
        [1.0, 0.0]
    """
    arguments.tensor("where", condition, "condition")
    if isinstance(input, Number) and isinstance(other, Number):
        input = Tensor(input, Tensor([input, other], device=CPU).dtype, condition.device)
    return apply("where", [condition, *_operands("where", input=input, other=other)])


def masked_fill(input: Tensor, mask: Tensor, value: float) -> Tensor:
    """A tensor with one number where a mask is True.

    Args:
        input: A tensor.
        mask: A bool tensor that broadcasts with ``input``.
        value: The number.

    Returns:
        A tensor of the broadcast shape.

    Example:
        >>> import tripy as tp
        >>> tp.masked_fill(tp.ones((2,)), tp.Tensor([True, False]), -5.0).tolist()
        [-5.0, 1.0]
    """
    arguments.tensor_of("masked_fill", mask, (dtypes.bool,), "mask")
    arguments.tensor("masked_fill", input)
    if isinstance(value, Tensor):
        raise TripyException(
            "masked_fill: the value is a tensor.",
            got="a tensor",
            expected="a Python number",
            hint="tp.where(mask, value, input)",
        )
    return apply("where", [mask, _filler("masked_fill", value, input, "value"), input])


def _filler(op: str, value: Any, like: Tensor, name: str) -> Tensor:
    number = scalar(op, value, like)
    if number is NotImplemented:
        only_number = op == "masked_fill"
        what = "not a number" if only_number else "neither a tensor nor a number"
        raise TripyException(
            f"{op}: {name} is {what}.",
            got=f"{name}={value!r:.80} of type {type(value).__name__}",
            expected=("" if only_number else "a tripy.Tensor, or ") + "an int, a float or a bool",
            tensors=[("the tensor", like)],
        )
    return number


def _operands(op: str, **operands: Any) -> list[Tensor]:
    """Two operands, one of which may be a number that takes the other one's data type."""
    (left_name, left), (right_name, right) = operands.items()
    if not isinstance(left, Tensor) and not isinstance(right, Tensor):
        raise TripyException(
            f"{op}: neither {left_name} nor {right_name} is a tensor.",
            got=f"{left!r} and {right!r}",
            expected="a tensor for at least one of them",
        )
    if not isinstance(left, Tensor):
        left = _filler(op, left, right, left_name)
    elif not isinstance(right, Tensor):
        right = _filler(op, right, left, right_name)
    return [sizes_as(left, right), sizes_as(right, left)]
