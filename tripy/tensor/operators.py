"""The operators of tensors: ``+``, ``@``, ``<`` and the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Union

from tripy.errors import TripyException

if TYPE_CHECKING:
    from tripy.tensor.base import Tensor

Operand = Union["Tensor", int, float, bool]


class Operators:
    """What Python's operators record."""

    __slots__ = ()

    # Set by tripy.tensor.recording, which needs the class that these operators are part of.
    _apply: ClassVar[Any]
    _binary: ClassVar[Any]

    def __add__(self, other: Operand) -> Tensor:
        """The sum, with broadcasting."""
        return self._binary("add", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return self._binary("add", other, self)

    def __sub__(self, other: Operand) -> Tensor:
        """The difference, with broadcasting."""
        return self._binary("sub", self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return self._binary("sub", other, self)

    def __mul__(self, other: Operand) -> Tensor:
        """The product, with broadcasting."""
        return self._binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return self._binary("mul", other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        """The quotient, with broadcasting; of integers rounded towards zero."""
        return self._binary("div", self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self._binary("div", other, self)

    def __floordiv__(self, other: Operand) -> Tensor:
        """The quotient rounded down, with broadcasting."""
        return self._binary("floordiv", self, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return self._binary("floordiv", other, self)

    def __mod__(self, other: Operand) -> Tensor:
        """The remainder of ``//``, which has the divisor's sign."""
        return self._binary("mod", self, other)

    def __rmod__(self, other: Operand) -> Tensor:
        return self._binary("mod", other, self)

    def __pow__(self, other: Operand) -> Tensor:
        """The left operand to the power of the right one, with broadcasting."""
        return self._binary("pow", self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return self._binary("pow", other, self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        """Whether elements are equal, with broadcasting."""
        return self._binary("equal", self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        """Whether elements differ, with broadcasting."""
        return self._binary("not_equal", self, other)  # type: ignore[arg-type]

    def __lt__(self, other: Operand) -> Tensor:
        """Whether elements are less than others, with broadcasting."""
        return self._binary("less", self, other)

    def __le__(self, other: Operand) -> Tensor:
        """Whether elements are less than others or equal, with broadcasting."""
        return self._binary("less_equal", self, other)

    def __gt__(self, other: Operand) -> Tensor:
        """Whether elements are greater than others, with broadcasting."""
        return self._binary("greater", self, other)

    def __ge__(self, other: Operand) -> Tensor:
        """Whether elements are greater than others or equal, with broadcasting."""
        return self._binary("greater_equal", self, other)

    def __or__(self, other: Operand) -> Tensor:
        """Whether either of two elements is True, with broadcasting."""
        return self._binary("or", self, other)

    __ror__ = __or__

    def __and__(self, other: Operand) -> Tensor:
        """Whether both of two elements are True, with broadcasting."""
        return self._binary("and", self, other)

    __rand__ = __and__

    def __xor__(self, other: Operand) -> Tensor:
        """Whether one of two elements is True and the other is not, with broadcasting."""
        return self._binary("xor", self, other)

    __rxor__ = __xor__

    def __invert__(self) -> Tensor:
        """True for False, and False for True."""
        return self._apply("not", [self])

    def __neg__(self) -> Tensor:
        """The elements with the opposite sign."""
        return self._apply("neg", [self])

    def __abs__(self) -> Tensor:
        """The elements without their sign."""
        return self._apply("abs", [self])

    def __matmul__(self, other: Tensor) -> Tensor:
        """The matrix product; the dimensions before the last two broadcast.

        A vector stands for one row on the left, one column on the right, which the result lacks.
        """
        if not isinstance(other, Operators):
            raise TripyException(
                "matmul: an operand is not a tensor.",
                got=f"an object of type {type(other).__name__}",
                expected="a tripy.Tensor",
                hint="tp.Tensor(operand), or * for a product with a number",
                tensors=[("the other operand", self)],
            )
        return self._apply("matmul", [self, other])
