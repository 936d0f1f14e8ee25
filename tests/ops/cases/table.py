"""The table of test cases: for each public function, random samples of its use.

A case says which data types the API accepts, in the API's short form, and how to make a sample: a
function, tensors to call it with, and what numpy makes of them. One table serves the random tests
of values, the tests of refused data types, and the test that no operation lacks a test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from hypothesis import strategies as st

import tripy as tp
from tests import helpers


class Sample(NamedTuple):
    """One use of a function: ``check(function, *tensors, reference=reference, **options)``."""

    function: Callable
    tensors: Sequence[tp.Tensor]
    reference: Any
    options: dict[str, Any] = {}  # noqa: RUF012  (never changed)


class Case(NamedTuple):
    """How a public function is tested.

    Attributes:
        name: The public function, or ``Tensor.__add__`` and the like.
        op: The operation that it records.
        types: The data types that the API accepts, in its short form.
        build: ``build(draw, dtype)`` makes a Sample.
    """

    name: str
    op: str
    types: str
    build: Callable[[Draw, Any], Sample]


CASES: list[Case] = []


def case(name: str, types: str, op: Optional[str] = None) -> Callable:
    """Enter a sample builder into the table."""

    def register(build: Callable) -> Callable:
        CASES.append(Case(name, op or name, types, build))
        return build

    return register


class Draw:
    """Random choices, all of which hypothesis makes."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def integer(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def choice(self, items: Sequence[Any]) -> Any:
        return self.data.draw(st.sampled_from(items))

    def flag(self) -> bool:
        return self.data.draw(st.booleans())

    def shape(self, ranks: tuple[int, int] = (0, 3), sizes: tuple[int, int] = (0, 5)) -> tuple:
        """A shape; sizes of 0 and 1 are frequent enough."""
        low, high = ranks
        return tuple(self.integer(*sizes) for _ in range(self.integer(low, high)))

    def dim(self, rank: int) -> int:
        """A dimension, counted from either end."""
        return self.integer(-rank, rank - 1)

    def tensor(self, shape: Sequence[int], dtype: Any) -> tp.Tensor:
        return helpers.randn(self.rng, shape, dtype)

    def broadcastable(self, count: int) -> list[tuple[int, ...]]:
        """Shapes that broadcast with each other."""
        full = self.shape((0, 4), (0, 4))
        shapes = []
        for _ in range(count):
            kept = full[self.integer(0, len(full)) if self.flag() else 0 :]
            shapes.append(tuple(1 if self.integer(0, 4) == 0 else size for size in kept))
        return shapes


def positive(array: np.ndarray, low: float = 0.1) -> np.ndarray:
    """Values moved away from zero to the positive side."""
    return np.abs(array) + low


def is_float(dtype: Any) -> bool:
    return issubclass(dtype, tp.floating)
