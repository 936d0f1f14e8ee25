"""Reductions: nothing to reduce, ties, NaN, rounding of integers, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import F, I, check, raises, randn, tensor

INFINITY, NAN = float("inf"), float("nan")
REDUCTIONS = [tp.sum, tp.prod, tp.max, tp.min, tp.mean, tp.var, tp.argmax, tp.argmin]


def test_reductions_over_nothing():
    x = tensor(np.zeros((2, 0, 3)), tp.float32)
    check(lambda x: tp.sum(x, 1), x, reference=[np.zeros((2, 3))])
    check(lambda x: tp.prod(x, 1), x, reference=[np.ones((2, 3))])
    check(lambda x: tp.mean(x, 1), x, reference=[np.full((2, 3), NAN)])
    check(lambda x: tp.sum(x), x, reference=[np.zeros(())])
    check(lambda x: tp.sum(x, 0), x, reference=[np.zeros((0, 3))])
    check(lambda x: tp.max(x, 0), x, reference=[np.zeros((0, 3))])
    check(lambda x: tp.all(x == x), x, reference=[np.array(True)], dtype=tp.bool)
    check(lambda x: tp.any(x == x), x, reference=[np.array(False)], dtype=tp.bool)
    for function in (tp.max, tp.min, tp.argmax, tp.argmin):
        with raises("there is nothing to reduce"):
            function(x, 1)
        with raises("there is nothing to reduce"):
            function(x)


def test_the_mean_of_no_integers_is_an_error():
    mean = tp.mean(tensor(np.zeros((0,)), tp.int32))
    with raises("mean: there is nothing to reduce", line="mean = tp.mean("):
        mean.eval()


def test_reductions_of_scalars():
    x = tensor(3.0, tp.float32)
    for function in (tp.sum, tp.prod, tp.max, tp.min, tp.mean):
        check(function, x, reference=[np.array(3.0)])
        check(lambda x, f=function: f(x, keepdim=True), x, reference=[np.array(3.0)])
    check(tp.var, x, reference=[np.array(NAN)])
    check(lambda x: tp.var(x, correction=0), x, reference=[np.array(0.0)])
    check(tp.argmax, x, reference=[np.array(0)], dtype=tp.int32)
    check(tp.softmax, x, reference=[np.array(1.0)])


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
def test_dimensions_are_checked(function):
    x = tp.ones((2, 3))
    with raises("dim is out of range"):
        function(x, 2)
    with raises("dim is out of range"):
        function(x, -3)
    with raises("dim is out of range"):
        function(tp.Tensor(1.0), 0)
    for wrong in (1.0, "a", True):
        with raises("dim is not an integer"):
            function(x, wrong)
    with raises("keepdim is not one of its values"):
        function(x, 0, keepdim=1)
    if function in (tp.argmax, tp.argmin):
        with raises("dim is not an integer"):
            function(x, (0, 1))
        return
    with raises("a dimension is named twice"):
        function(x, (0, -2))
    with raises("no dimension is named"):
        function(x, ())


@pytest.mark.parametrize("dtype", [*F, *I], ids=str)
def test_the_first_of_equal_elements(dtype):
    array = np.tile([1, 3, 3, 0, 0], 200)
    x = tensor(array, dtype)
    check(tp.argmax, x, reference=[np.array(1)], dtype=tp.int32)
    check(tp.argmin, x, reference=[np.array(3)], dtype=tp.int32)
    matrix = tensor(np.zeros((70, 90)), dtype)
    for dim in (0, 1):
        check(
            lambda x, d=dim: tp.argmax(x, d), matrix,
            reference=[np.zeros(90 if dim == 0 else 70)], dtype=tp.int32,
        )  # fmt: skip


def test_argmax_of_the_flattened_tensor_keeps_the_rank(rng):
    x = randn(rng, (3, 4, 2))
    check(
        lambda x: tp.argmax(x, keepdim=True), x,
        reference=lambda a: np.argmax(a, keepdims=True), dtype=tp.int32,
    )  # fmt: skip


def test_nan_wins():
    x = tensor([1.0, NAN, INFINITY, NAN], tp.float32)
    for function in (tp.max, tp.min, tp.sum, tp.mean):
        check(function, x, reference=[np.array(NAN)])
    for function in (tp.argmax, tp.argmin):
        check(function, x, reference=[np.array(1)], dtype=tp.int32)


@pytest.mark.parametrize("dtype", I, ids=str)
def test_means_of_integers_round_towards_zero(dtype):
    check(tp.mean, tensor([1, 2], dtype), reference=[np.array(1)])
    check(tp.mean, tensor([-1, -2], dtype), reference=[np.array(-1)])
    check(tp.mean, tensor([-1, -2, -2], dtype), reference=[np.array(-1)])


def test_sums_of_16_bit_numbers_are_summed_in_32_bits():
    """In float16 itself the sum would stop at 2048, where adding 1 is lost."""
    ones = tensor(np.ones(4096), tp.float16)
    check(tp.sum, ones, reference=[np.array(4096.0)])
    check(tp.mean, ones, reference=[np.array(1.0)])
    check(tp.sum, tensor(np.ones(1024), tp.bfloat16), reference=[np.array(1024.0)])


def test_products_of_16_bit_numbers_are_rounded_once():
    """Each row's product leaves float16's range, the product of both does not."""
    x = tensor([[300.0, 300.0], [2.0**-8, 2.0**-8]], tp.float16)
    check(tp.prod, x, reference=[np.array(90000 / 65536)])


def test_sums_of_integers_wrap():
    x = tensor([2**31 - 1, 1], tp.int32)
    check(tp.sum, x, reference=[np.array(-(2**31))])
    check(tp.prod, tensor([2**16, 2**16, 3], tp.int32), reference=[np.array(0)])


def test_the_variance_of_too_few_elements_is_nan():
    """torch warns there, which in a library's user's program is an error that cannot be traced."""
    x = tensor([[1.0, 2.0]], tp.float32)
    check(lambda x: tp.var(x, 0), x, reference=[np.full(2, NAN)])
    check(lambda x: tp.var(x, 1, correction=5), x, reference=[np.full(1, NAN)])
    with raises("correction is not an integer"):
        tp.var(x, correction=0.5)


def test_topk():
    x = tensor([3, 1, 3, 2, 1], tp.int32)
    values, indices = tp.topk(x, 5, 0)
    assert values.tolist() == [3, 3, 2, 1, 1]
    assert indices.tolist() == [0, 2, 3, 1, 4]
    assert indices.dtype is tp.int32
    nothing = tp.topk(x, 0, 0)
    assert nothing[0].tolist() == nothing[1].tolist() == []
    with raises("topk: k is larger than the dimension"):
        tp.topk(x, 6, 0)
    with raises("topk: k is negative"):
        tp.topk(x, -1, 0)
    with raises("topk: k is not an integer"):
        tp.topk(x, 1.0, 0)
    with raises("topk: dim is out of range"):
        tp.topk(x, 1, 1)


def test_softmax_of_large_numbers_does_not_overflow():
    x = tensor([1000.0, 1000.0, -INFINITY], tp.float32)
    check(tp.softmax, x, reference=[np.array([0.5, 0.5, 0.0])])
    check(lambda x: tp.softmax(x, 0), x, reference=[np.array([0.5, 0.5, 0.0])])
    with raises("softmax: dim is not an integer"):
        tp.softmax(x, (0,))
    with raises("cumsum: dim is out of range"):
        tp.cumsum(tp.Tensor(1.0), 0)


def test_all_and_any_of_other_types_are_refused():
    with raises("all: input has an unsupported data type"):
        tp.all(tp.ones((2,)))
