"""Sizes of dimensions: integers held on the host, known or not while a function is compiled."""

from __future__ import annotations

import operator
from typing import Any, Optional

from tripy import dtypes
from tripy.backends.torch import storage
from tripy.device import CPU, device
from tripy.errors import TripyException, user_location
from tripy.graph import Value, dims, make_node
from tripy.tensor.base import Tensor


class DimensionSize(Tensor):
    """The size of a dimension: a 0-D int32 held on the host.

    Arithmetic between DimensionSizes and ints gives a DimensionSize; mixed with a Tensor it gives
    a Tensor. Inside a function that is being compiled, it may be a size that is known only when
    the compiled function is called.

    Args:
        data: The size, an int.
        name: A name for messages and prints.

    Example:
        >>> import tripy as tp
        >>> int(tp.DimensionSize(3) * 2 + 1)
        7
    """

    __slots__ = ("_dim", "_name", "_place", "_values")

    def __init__(self, data: int, name: Optional[str] = None) -> None:
        size = size_of(data)
        if not isinstance(size, int):
            raise TripyException(
                "DimensionSize: the size is not an integer.",
                got=f"{data!r:.80}",
                expected="an int whose value is known",
            )
        if not dtypes.holds(dtypes.int32, size):
            raise TripyException(
                "DimensionSize: the size does not fit int32.",
                got=f"{size}",
                expected=dtypes.range_text(dtypes.int32),
            )
        self._set(size, name)

    def _set(self, dim: dims.Dim, name: Optional[str] = None) -> None:
        self._dim, self._name, self._place = dim, name, user_location()
        self._values: dict[device, Value] = {}

    @classmethod
    def _of(cls, dim: dims.Dim) -> DimensionSize:
        size = object.__new__(cls)
        size._set(dim)
        return size

    def _value_on(self, where: Optional[device]) -> Value:
        where = where or CPU
        if where not in self._values:
            if isinstance(self._dim, int):
                array, kind = storage.from_data(self._dim, dtypes.int32, where, where)
                value = Value(kind, (), where, data=array, name=self._name, location=self._place)
            else:
                attrs = {"size": self._dim, "where": where}
                value = make_node("dimension", [], attrs, self._place, where).output
            self._values[where] = value
        return self._values[where]

    @property
    def _value(self) -> Value:  # type: ignore[override]
        return self._value_on(CPU)

    @property
    def name(self) -> Optional[str]:
        return self._name

    @name.setter
    def name(self, name: Optional[str]) -> None:
        self._name = name

    def __int__(self) -> int:
        if isinstance(self._dim, int):
            return self._dim
        raise TripyException(
            "The size of a dynamic dimension is not known while a function is compiled.",
            got=f"int() of the size {self._dim}",
            expected="a size that is the same for all inputs",
            hint="keep the DimensionSize: reshape, slices, arange, full and expand take it",
            tensors=[("the size", self)],
        )

    __index__ = __int__

    def __float__(self) -> float:
        return float(int(self))

    def _combine(self, other: Any, function: Any, operation: Any, reverse: bool) -> Any:
        if isinstance(other, Tensor) and not isinstance(other, DimensionSize):
            return operation(self, other)
        size = size_of(other) if not isinstance(other, float) else None
        if size is None:
            return operation(self, other)
        left, right = (size, self._dim) if reverse else (self._dim, size)
        if function in (dims.floordiv, dims.mod) and right == 0:
            raise TripyException(
                "A size was divided by zero.",
                got=f"{left} {'//' if function is dims.floordiv else '%'} {right}",
                expected="a divisor other than 0",
                tensors=[("size", self)],
            )
        return DimensionSize._of(function(left, right))

    def __add__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a + b, Tensor.__add__, False)

    def __radd__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a + b, Tensor.__radd__, True)

    def __sub__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a - b, Tensor.__sub__, False)

    def __rsub__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a - b, Tensor.__rsub__, True)

    def __mul__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a * b, Tensor.__mul__, False)

    def __rmul__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a * b, Tensor.__rmul__, True)

    def __floordiv__(self, other: Any) -> Any:
        return self._combine(other, dims.floordiv, Tensor.__floordiv__, False)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._combine(other, dims.floordiv, Tensor.__rfloordiv__, True)

    def __mod__(self, other: Any) -> Any:
        return self._combine(other, dims.mod, Tensor.__mod__, False)

    def __rmod__(self, other: Any) -> Any:
        return self._combine(other, dims.mod, Tensor.__rmod__, True)

    def __neg__(self) -> DimensionSize:
        return DimensionSize._of(-self._dim)

    def __abs__(self) -> DimensionSize:
        return DimensionSize._of(dims.maximum(self._dim, -self._dim))

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"DimensionSize({self._dim})"

    __str__ = __repr__


def size_of(size: Any) -> Optional[dims.Dim]:
    """A size given as an int or DimensionSize, as the graph's dimension; None for all else."""
    if isinstance(size, DimensionSize):
        return size._dim
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    if hasattr(size, "__index__") and not isinstance(size, (Tensor, bool)):
        try:
            return operator.index(size)
        except TypeError:  # An array of several elements, or of floats.
            return None
    return None


Tensor._size = staticmethod(DimensionSize._of)
