"""Symbolic sizes: integers that are known only when a compiled function is called.

A dimension is a Python ``int`` or an :class:`Expr`, a polynomial over named symbols with integer
coefficients. Polynomials are kept in normal form, so that sizes which are always equal are equal
objects: ``2*N + N == 3*N``. What is not a polynomial (floor division, remainder, maximum, minimum
and the size of a broadcast) is an opaque factor of a term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union

Dim = Union[int, "Expr"]


class Symbol:
    """A named size with the bounds that the user gave for it."""

    __slots__ = ("maximum", "minimum", "name", "optimum")

    def __init__(self, name: str, minimum: int, optimum: int, maximum: int) -> None:
        self.name, self.minimum, self.optimum, self.maximum = name, minimum, optimum, maximum

    def _key(self) -> tuple:
        return ("symbol", self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbol) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        return sizes[self.name]

    def bounds(self) -> tuple[int, int]:
        return self.minimum, self.maximum


class Call:
    """A function of dimensions that is not a polynomial."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: str, arguments: tuple[Dim, ...]) -> None:
        self.function, self.arguments = function, arguments

    def _key(self) -> tuple:
        return ("call", self.function, tuple(map(str, self.arguments)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        return FUNCTIONS[self.function](*(evaluate(a, sizes) for a in self.arguments))

    def bounds(self) -> tuple[int, int]:
        lows, highs = zip(*(bounds(a) for a in self.arguments))
        if self.function == "floordiv" and lows[1] > 0:
            corners = [a // b for a in (lows[0], highs[0]) for b in (lows[1], highs[1])]
            return min(corners), max(corners)
        if self.function == "mod" and lows[1] > 0:
            return 0, highs[1] - 1
        if self.function == "min":
            return min(lows), min(highs)
        if self.function == "max":
            return max(lows), max(highs)
        if self.function == "broadcast":  # The other size where one is 1, and both may be 0.
            return min(lows) if 0 in lows else max(lows), max(highs)
        return -(2**62), 2**62


Factor = Union[Symbol, Call]


def _broadcast_size(left: int, right: int) -> int:
    return right if left == 1 else left


FUNCTIONS: dict[str, Callable[..., int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": max,
    "min": min,
    "broadcast": _broadcast_size,
}


class Expr:
    """A polynomial over symbols: ``{(factor, …): coefficient}``, never a plain number."""

    __slots__ = ("_text", "terms")

    def __init__(self, terms: dict[tuple[Factor, ...], int]) -> None:
        self.terms = terms
        self._text: str | None = None

    @staticmethod
    def of(factor: Factor) -> Expr:
        return Expr({(factor,): 1})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __str__(self) -> str:
        if self._text is None:
            parts = []
            for factors, coefficient in sorted(
                self.terms.items(), key=lambda t: (-len(t[0]), [f._key() for f in t[0]])
            ):
                names = [str(f) for f in factors]
                if coefficient != 1 or not names:
                    names.insert(0, str(coefficient))
                parts.append("*".join(names))
            self._text = " + ".join(parts).replace("+ -", "- ")
        return self._text

    __repr__ = __str__

    def __add__(self, other: Dim) -> Dim:
        terms = dict(self.terms)
        for factors, coefficient in _terms(other).items():
            terms[factors] = terms.get(factors, 0) + coefficient
        return _normal(terms)

    __radd__ = __add__

    def __mul__(self, other: Dim) -> Dim:
        terms: dict[tuple[Factor, ...], int] = {}
        for left, a in self.terms.items():
            for right, b in _terms(other).items():
                factors = tuple(sorted(left + right, key=lambda f: f._key()))
                terms[factors] = terms.get(factors, 0) + a * b
        return _normal(terms)

    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + (-other)

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return mod(other, self)


def _terms(dim: Dim) -> dict[tuple[Factor, ...], int]:
    return dim.terms if isinstance(dim, Expr) else ({(): dim} if dim else {})


def _normal(terms: dict[tuple[Factor, ...], int]) -> Dim:
    terms = {factors: c for factors, c in terms.items() if c}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return Expr(terms)


def symbol(name: str, minimum: int, optimum: int, maximum: int) -> Dim:
    """A new named size; a plain number where the bounds leave one value only."""
    if minimum == maximum:
        return minimum
    return Expr.of(Symbol(name, minimum, optimum, maximum))


def _divide_exactly(a: Expr, b: Dim) -> Dim | None:
    """a / b where every term of a holds b's single term, else None."""
    divisor = _terms(b)
    if len(divisor) != 1:
        return 1 if a == b else None
    ((factors, coefficient),) = divisor.items()
    quotient = {}
    for term, c in a.terms.items():
        rest = list(term)
        for factor in factors:
            if factor not in rest:
                return None
            rest.remove(factor)
        if c % coefficient:
            return None
        quotient[tuple(rest)] = c // coefficient
    return _normal(quotient)


def floordiv(a: Dim, b: Dim) -> Dim:
    """a // b, rounded towards minus infinity."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if isinstance(a, Expr):
        exact = _divide_exactly(a, b)
        if exact is not None:
            return exact
    return Expr.of(Call("floordiv", (a, b)))


def mod(a: Dim, b: Dim) -> Dim:
    """a % b, with the sign of b."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if isinstance(a, Expr) and _divide_exactly(a, b) is not None:
        return 0
    return Expr.of(Call("mod", (a, b)))


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two sizes."""
    if a == b or at_least(a, b):
        return a
    return b if at_least(b, a) else Expr.of(Call("max", (a, b)))


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes."""
    if a == b or at_least(a, b):
        return b
    return a if at_least(b, a) else Expr.of(Call("min", (a, b)))


def broadcast(a: Dim, b: Dim) -> Dim:
    """The size of two broadcast dimensions that are known to be compatible."""
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    for known in (a, b):
        # A size that is never 1 is the result, whether the other one is 1 or equal to it.
        if bounds(known)[0] > 1:
            return known
    return Expr.of(Call("broadcast", (a, b)))


def product(dims: Iterable[Dim]) -> Dim:
    """The number of elements of a shape."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


def bounds(dim: Dim) -> tuple[int, int]:
    """The smallest and the largest value that a dimension can take (interval arithmetic)."""
    if isinstance(dim, int):
        return dim, dim
    low = high = 0
    for factors, coefficient in dim.terms.items():
        term = (1, 1)
        for factor in factors:
            corners = [x * y for x in term for y in factor.bounds()]
            term = (min(corners), max(corners))
        corners = [coefficient * x for x in term]
        low, high = low + min(corners), high + max(corners)
    return low, high


def at_least(a: Dim, b: Dim) -> bool:
    """Whether a >= b for all sizes within the bounds."""
    if isinstance(a, int) and isinstance(b, int):
        return a >= b
    return bounds(a - b)[0] >= 0


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The value of a dimension for given sizes of the symbols."""
    if isinstance(dim, int):
        return dim
    total = 0
    for factors, coefficient in dim.terms.items():
        for factor in factors:
            coefficient *= factor.evaluate(sizes)
        total += coefficient
    return total


def symbols(dim: Dim) -> set[Symbol]:
    """All symbols that occur in a dimension."""
    found: set[Symbol] = set()
    for factors in _terms(dim):
        for factor in factors:
            if isinstance(factor, Symbol):
                found.add(factor)
            else:
                for argument in factor.arguments:
                    found |= symbols(argument)
    return found


def to_json(dim: Dim) -> Any:
    """A dimension as JSON: a number, or a list of ``[coefficient, [factor, …]]``."""
    if isinstance(dim, int):
        return dim
    return [
        [c, [f.name if isinstance(f, Symbol) else [f.function, *map(to_json, f.arguments)]
             for f in factors]]
        for factors, c in dim.terms.items()
    ]  # fmt: skip


def from_json(data: Any, table: Mapping[str, Symbol]) -> Dim:
    """The reverse of :func:`to_json`; ``table`` holds the symbols by name."""
    if isinstance(data, int):
        return data
    terms = {}
    for coefficient, factors in data:
        parsed = [
            table[f]
            if isinstance(f, str)
            else Call(f[0], tuple(from_json(a, table) for a in f[1:]))
            for f in factors
        ]
        terms[tuple(sorted(parsed, key=lambda f: f._key()))] = coefficient
    return _normal(terms)
