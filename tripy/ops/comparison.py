"""Comparisons of whole tensors, computed at once."""

from __future__ import annotations

from tripy.dtypes import FLOATS, float32
from tripy.errors import TripyException
from tripy.graph.operations.elementwise import ARITHMETIC
from tripy.ops import arguments
from tripy.tensor import Tensor


def _checked(op: str, input: Tensor, other: Tensor, accepted: tuple) -> None:
    arguments.tensor(op, input)
    arguments.tensor(op, other, "other")
    for tensor, name in ((input, "input"), (other, "other")):
        arguments.tensor_of(op, tensor, accepted, name)
    if input.dtype is not other.dtype or input.device != other.device:
        raise TripyException(
            f"{op}: the tensors differ in data type or device.",
            got=f"{input._value.type_text} on {input.device}, "
            f"{other._value.type_text} on {other.device}",
            expected="one data type and one device",
            hint="tp.cast or tp.copy",
            tensors=[("input", input), ("other", other)],
        )


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08) -> bool:
    """Whether ``|input - other| <= atol + rtol * |other|`` everywhere.

    Args:
        input: A tensor of float32, float16 or bfloat16.
        other: A tensor of the same data type that broadcasts with it.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Returns:
        True or False.

    Example:
        >>> import tripy as tp
        >>> tp.allclose(tp.Tensor([1.0]), tp.Tensor([1.0000001]))
        True
    """
    _checked("allclose", input, other, FLOATS)
    rtol = arguments.number("allclose", rtol, "rtol")
    atol = arguments.number("allclose", atol, "atol")
    left, right = input.cast(float32), other.cast(float32)
    near = (abs(left - right) <= abs(right) * rtol + atol) & (abs(right) != float("inf"))
    # An infinity is close to itself, though the difference is NaN, and to nothing else.
    return bool((near | (left == right)).torch().all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and the same elements.

    Args:
        input: A tensor of any data type but float8 and int4.
        other: A tensor of the same data type.

    Returns:
        True or False; False for different shapes.

    Example:
        >>> import tripy as tp
        >>> tp.equal(tp.ones((2,)), tp.ones((3,)))
        False
    """
    _checked("equal", input, other, ARITHMETIC)
    if input._value.shape != other._value.shape:
        return False
    return bool((input == other).torch().all())
