"""Data types: classes that can be compared, printed and tested with ``issubclass``.

A type is a class, so that ``issubclass(tensor.dtype, tp.floating)`` reads like a sentence. No data
type is ever instantiated. int4 takes half a byte where it is stored packed, in files and in
compiled programs.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, NoReturn

from tripy.errors import TripyException


class dtype(type):  # noqa: N801  (the public name is lower case, as in numpy and torch)
    """The metaclass of all data types.

    Attributes:
        name: The type's name, such as ``"float32"``.
        itemsize: Bytes an element takes (0.5 for int4).

    Example:
        >>> import tripy as tp
        >>> str(tp.float32), tp.int4.itemsize, isinstance(tp.int8, tp.dtype)
        ('float32', 0.5, True)
    """

    name: str
    itemsize: float

    def __new__(mcs, name: str, bases: tuple, namespace: dict, itemsize: float = 0) -> dtype:
        cls = super().__new__(mcs, name, bases, namespace)
        cls.name = name
        cls.itemsize = itemsize
        return cls

    def __init__(cls, name: str, bases: tuple, namespace: dict, itemsize: float = 0) -> None:
        super().__init__(name, bases, namespace)

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise TripyException(
            f"{cls.name} is a data type and cannot be called.",
            got=f"{cls.name}(...)",
            expected="a data type used as an argument",
            hint=f"tp.Tensor(data, dtype=tp.{cls.name}) or tp.cast(tensor, tp.{cls.name})",
        )

    def __str__(cls) -> str:
        return cls.name

    def __repr__(cls) -> str:
        return cls.name


class floating(metaclass=dtype):  # noqa: N801
    """The base class of floating-point types: float32, float16, bfloat16, float8."""


class integer(metaclass=dtype):  # noqa: N801
    """The base class of integer types: int4, int8, int32, int64. bool is not one."""


class float32(floating, itemsize=4):  # noqa: N801
    """32-bit IEEE floating point."""


class float16(floating, itemsize=2):  # noqa: N801
    """16-bit IEEE floating point: 5 bits of exponent, largest value 65504."""


class bfloat16(floating, itemsize=2):  # noqa: N801
    """16-bit brain floating point: float32's range with 8 bits of precision."""


class float8(floating, itemsize=1):  # noqa: N801
    """8-bit floating point, E4M3, finite only: largest value 448, no infinity."""


class int4(integer, itemsize=0.5):  # noqa: N801
    """4-bit signed integer, -8 to 7. A storage type: quantize to it, dequantize from it."""


class int8(integer, itemsize=1):  # noqa: N801
    """8-bit signed integer, -128 to 127."""


class int32(integer, itemsize=4):  # noqa: N801
    """32-bit signed integer."""


class int64(integer, itemsize=8):  # noqa: N801
    """64-bit signed integer."""


class bool(metaclass=dtype, itemsize=1):  # noqa: N801
    """True or False, one byte each. Neither ``floating`` nor ``integer``."""


FLOATS: tuple[dtype, ...] = (float32, float16, bfloat16)
INTS: tuple[dtype, ...] = (int32, int64)
ALL: tuple[dtype, ...] = (float32, float16, bfloat16, float8, int4, int8, int32, int64, bool)
QUANTIZED: tuple[dtype, ...] = (int4, int8, float8)

BY_NAME: dict[str, dtype] = {t.name: t for t in ALL}

# The smallest and the largest value that quantization to a type produces.
QUANTIZED_RANGE: dict[dtype, tuple[int, int]] = {
    int8: (-128, 127),
    int4: (-8, 7),
    float8: (-448, 448),
}
INTEGER_RANGE: dict[dtype, tuple[int, int]] = {
    int4: (-8, 7),
    int8: (-128, 127),
    int32: (-(2**31), 2**31 - 1),
    int64: (-(2**63), 2**63 - 1),
}
# Numbers of this size and more would be rounded to infinity.
FLOAT_END: dict[dtype, int] = {float32: 2**128 - 2**103, float16: 65520, bfloat16: 2**128 - 2**119}


def holds(kind: dtype, number: float) -> builtins.bool:
    """Whether a number is in a type's range; infinities and NaN are in a floating-point type's."""
    if kind in INTEGER_RANGE:
        low, high = INTEGER_RANGE[kind]
        return low <= number <= high
    end = FLOAT_END.get(kind)
    return end is None or not end <= abs(number) < float("inf")


def listed(kinds: Sequence[dtype]) -> str:
    """The types that are accepted, for messages."""
    return ("one of " if len(kinds) > 1 else "") + ", ".join(map(str, kinds))


def range_text(kind: dtype) -> str:
    """A type's range for messages."""
    if kind in INTEGER_RANGE:
        low, high = INTEGER_RANGE[kind]
        return f"an int from {low} to {high}"
    return f"a number between -{FLOAT_END[kind]:.6g} and {FLOAT_END[kind]:.6g}, or an infinity"
