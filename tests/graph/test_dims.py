"""Symbolic sizes: arithmetic in normal form, bounds, evaluation, and as JSON."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripy.graph import dims

N = dims.symbol("N", 1, 4, 9)
M = dims.symbol("M", 0, 2, 5)
SYMBOLS = {"N": N, "M": M}

FUNCTIONS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": dims.floordiv,
    "mod": dims.mod, "max": dims.maximum, "min": dims.minimum,
}  # fmt: skip
NUMBERS = {**FUNCTIONS, "floordiv": operator.floordiv, "mod": operator.mod, "max": max, "min": min}

_leaves = st.one_of(st.integers(-4, 6), st.sampled_from(["N", "M"]))
expressions = st.recursive(
    _leaves, lambda inner: st.tuples(st.sampled_from(sorted(FUNCTIONS)), inner, inner), max_leaves=5
)


def _build(tree, leaves, functions):
    """A tree as a dimension, or as a number; None where it divides by zero."""
    if isinstance(tree, tuple):
        name, left, right = tree
        left, right = _build(left, leaves, functions), _build(right, leaves, functions)
        if left is None or right is None or (name in ("floordiv", "mod") and right == 0):
            return None
        return functions[name](left, right)
    return leaves.get(tree, tree)


def test_sizes_that_are_always_equal_are_equal():
    assert N + N == 2 * N == N * 2
    assert N * (M + 1) == N * M + N
    assert N - N == 0
    assert hash(N * M + 3) == hash(3 + M * N)
    assert (N * 6) // 3 == 2 * N
    assert (N * M) // N == M
    assert (N * 6) % 3 == 0
    assert N // 1 == N
    assert N != M and N != 4
    assert 0 - (0 - N) == N
    assert dims.symbol("K", 3, 3, 3) == 3


def test_text():
    assert str(2 * N + M - 3) == "M + 2*N - 3"
    assert str(N // 2) == "floordiv(N, 2)"
    assert str(dims.maximum(N, M + 3)) == "max(N, M + 3)"


@given(tree=expressions, n=st.integers(1, 9), m=st.integers(0, 5))
@pytest.mark.parametrize("repeat", range(40))
def test_arithmetic_is_that_of_numbers(repeat, tree, n, m):
    """Evaluated for any sizes, an expression is what the same numbers give, within its bounds."""
    sizes = {"N": n, "M": m}
    number = _build(tree, sizes, NUMBERS)
    symbolic = _build(tree, SYMBOLS, FUNCTIONS)
    if number is None or symbolic is None:
        return
    try:
        value = dims.evaluate(symbolic, sizes)
    except ZeroDivisionError:
        return
    assert value == number
    low, high = dims.bounds(symbolic)
    assert low <= number <= high
    table = {"N": next(iter(dims.symbols(N))), "M": next(iter(dims.symbols(M)))}
    again = dims.from_json(dims.to_json(symbolic), table)
    assert again == symbolic
    assert hash(again) == hash(symbolic)


def test_comparisons_that_hold_for_all_sizes():
    assert dims.at_least(N, 1)
    assert dims.at_least(N + M, N)
    assert not dims.at_least(N, M)
    assert dims.maximum(N, 0) == N
    assert dims.minimum(N, 9) == N
    assert dims.minimum(N + 1, N) == N


@pytest.mark.parametrize("left", [1, N, M, 4, N * 2])
@pytest.mark.parametrize("right", [1, N, M, 4, M + 2])
def test_broadcast_sizes(left, right):
    result = dims.broadcast(left, right)
    for n in range(1, 10):
        for m in range(6):
            sizes = {"N": n, "M": m}
            a, b = dims.evaluate(left, sizes), dims.evaluate(right, sizes)
            if a == b or 1 in (a, b):
                expected = b if a == 1 else a
                assert dims.evaluate(result, sizes) == expected
                low, high = dims.bounds(result)
                assert low <= expected <= high


def test_symbols_of_an_expression():
    names = {s.name for s in dims.symbols(dims.maximum(N // 2, M) * 3 + 1)}
    assert names == {"N", "M"}
