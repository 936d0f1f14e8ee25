"""What tests of the compiler share: a function, compiled, gives what it gives eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import tripy as tp
from tests.helpers import plain


def flat(result: Any) -> list[tp.Tensor]:
    """The tensors of a nested result, in order."""
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (list, tuple)):
        return [tensor for part in result for tensor in flat(part)]
    return [result]


def same(got: Any, expected: Any, atol: float = 0.0, rtol: float = 0.0) -> None:
    """Equal data types, shapes and values of all tensors of two results."""
    left, right = flat(got), flat(expected)
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert a.dtype is b.dtype
        assert tuple(map(int, a.shape)) == tuple(map(int, b.shape))
        if atol or rtol:
            np.testing.assert_allclose(plain(a), plain(b), rtol, atol)
        else:
            np.testing.assert_array_equal(plain(a), plain(b))


def agree(
    function: Callable, infos: Sequence[Any], calls: Iterable[Sequence[Any]], **tolerance: float
) -> tp.Executable:
    """Compile once; for each list of arguments compare with the eager result."""
    compiled = tp.compile(function, args=list(infos))
    for arguments in calls:
        same(compiled(*arguments), function(*arguments), **tolerance)
    return compiled


def numbers(*shape: int, dtype: Any = tp.float32) -> tp.Tensor:
    """0, 1, 2, … in a shape."""
    count = int(np.prod(shape))
    return tp.cast(tp.Tensor(np.arange(count, dtype=np.float32).reshape(shape)), dtype).eval()
