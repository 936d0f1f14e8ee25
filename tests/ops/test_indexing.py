"""``tensor[index]``: numpy's rules, with sizes known and not known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tripy as tp
from tests.helpers import check, compile_for, raises, randn, tensor, where

BOUNDS = [None, 0, 1, 3, 4, 5, 9, -1, -4, -5, -9]


@pytest.mark.parametrize("step", [None, 1, 2, 5, -1, -2, -5])
def test_slices(step):
    """All starts and stops, also beyond the ends and past each other."""
    x = tensor(np.arange(5), tp.int32)
    array = np.arange(5)
    for start, stop in itertools.product(BOUNDS, BOUNDS):
        which = slice(start, stop, step)
        assert x[which].tolist() == array[which].tolist(), which


def test_slices_of_a_dynamic_size():
    """The same compiled slice for several sizes, one of which lies on each side of its bounds."""
    for start, stop, step in itertools.product([None, 2, -3], [None, 4, -1], [1, 2, -1, -2]):
        which = slice(start, stop, step)
        compiled = tp.compile(
            lambda x, w=which: x[w], args=[tp.InputInfo([(1, 5, 8)], tp.int32)], device=where()
        )
        for size in (1, 3, 8):
            got = compiled(tensor(np.arange(size), tp.int32))
            assert got.tolist() == np.arange(size)[which].tolist(), (which, size)


def test_slices_of_nothing():
    x = tensor(np.zeros((0, 3)), tp.float32)
    for which in (slice(None), slice(None, None, -1), slice(1, 5), (slice(None), 1)):
        check(lambda x, w=which: x[w], x, reference=lambda a, w=which: a[w])


@pytest.mark.parametrize(
    "which",
    [0, -1, (1, 2), (slice(None), 1), (0, slice(None, None, -1)), None, (None, 0), (0, None),
     Ellipsis, (Ellipsis, 1), (1, Ellipsis), (None, Ellipsis, None), (slice(1, 3), None, 2),
     (slice(3, 0, -2), slice(0, 3, 2)), (), (1, 2, Ellipsis), (np.int64(1), np.int32(2))],
    ids=str,
)  # fmt: skip
def test_mixed_indices(rng, which):
    x = randn(rng, (4, 3))
    check(lambda x: x[which], x, reference=lambda a: a[which], dynamic=False)


def test_indices_beyond_a_dynamic_size_are_an_error_when_it_is_known(rng):
    compiled = tp.compile(
        lambda x: x[2], args=[tp.InputInfo([(1, 3, 5)], tp.float32)], device=where()
    )
    x = randn(rng, (3,))
    assert compiled(x).tolist() == x.tolist()[2]
    with raises("slice: an index is out of range", line="x[2]"):
        compiled(tp.ones((2,)))


def test_dimension_sizes_as_indices(rng):
    x = randn(rng, (4, 3))
    last = tp.DimensionSize(2)
    check(lambda x: x[:, last], x, reference=lambda a: a[:, 2])
    check(lambda x: x[: x.shape[0] - 1], x, reference=lambda a: a[:-1])
    check(lambda x: x[x.shape[0] - 1], x, reference=lambda a: a[-1])
    check(lambda x: x[x.shape[0] // 2 :], x, reference=lambda a: a[2:])


def test_a_tensor_gathers_on_dimension_0(rng):
    x = randn(rng, (4, 3))
    for index in ([0, -1], [[1, 2], [3, 0]], 2):
        which = tensor(index, tp.int32)
        check(lambda x, i: x[i], x, which, reference=lambda a, i: a[i])


@pytest.mark.parametrize(
    "index", [4, -5, (0, 3), (0, 0, 0), (Ellipsis, Ellipsis), (0, 4, Ellipsis)]
)
def test_indices_out_of_range_are_refused(index):
    x = tp.ones((4, 3))
    with raises("The index does not fit the tensor"):
        x[index]


@pytest.mark.parametrize(
    "index",
    [True, 1.0, "a", [0, 1], np.array([0]), slice(0, 2, 0), slice(0.0, 2), (0, [1])],
    ids=str,
)
def test_other_indices_are_refused(index):
    x = tp.ones((4, 3))
    with raises("The index does not fit the tensor"):
        x[index]


def test_tensors_beside_other_indices_are_refused():
    x = tp.ones((4, 3))
    with raises("one Tensor alone"):
        x[tp.Tensor([0]), 1]
    with raises("index has an unsupported data type"):
        x[tp.Tensor([True, False, True, False])]


def test_a_compiled_slice_of_another_tensors_size(rng):
    x, y = randn(rng, (6,)), randn(rng, (4,))
    function = compile_for(lambda x, y: x[: y.shape[0]] + y, [x, y], dynamic=True)
    np.testing.assert_allclose(function(x, y).numpy(), x.numpy()[:4] + y.numpy())
