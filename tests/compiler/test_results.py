"""What a compiled function returns: nests, inputs, constants, its own memory."""

from __future__ import annotations

import pytest
import torch

import tripy as tp
from tests.compiler.support import numbers, same
from tests.helpers import raises

INFO = tp.InputInfo((2,), tp.float32)
ONES = tp.ones((2,)).eval()


def test_nested_results_keep_their_form():
    fast = tp.compile(lambda x: {"sum": x + x, "parts": [x, (x * 3,)], 5: x - 1}, args=[INFO])
    result = fast(ONES)
    assert list(result) == ["sum", "parts", 5]
    assert type(result["parts"]) is list
    assert type(result["parts"][1]) is tuple
    same(result, {"sum": ONES * 2, "parts": [ONES, (ONES * 3,)], 5: ONES * 0})


def test_several_results_and_one_of_many_outputs():
    same(tp.compile(lambda x: tp.topk(x, 1, 0), args=[INFO])(numbers(2)), tp.topk(numbers(2), 1, 0))
    same(tp.compile(lambda x: tp.topk(x, 1, 0)[1], args=[INFO])(numbers(2)), tp.Tensor([1]))
    same(tp.compile(lambda x: tp.split(x, 2)[0], args=[INFO])(numbers(2)), tp.Tensor([0.0]))


def test_results_that_are_inputs():
    fast = tp.compile(lambda a, b: (b, a, a), args=[INFO, INFO])
    same(fast(ONES, ONES * 2), (ONES * 2, ONES, ONES))


def test_one_result_twice():
    def twice(x):
        y = x + 1
        return y, y

    first, second = tp.compile(twice, args=[INFO])(ONES)
    same((first, second), (ONES * 2, ONES * 2))


def test_results_that_are_constants():
    table = tp.Tensor([5.0, 6.0])
    fast = tp.compile(lambda x: (table, x, tp.ones((3,))), args=[INFO])
    same(fast(ONES), (table, ONES, tp.ones((3,))))


@pytest.mark.parametrize(
    "constant",
    [
        lambda n, table: table,
        lambda n, table: tp.reshape(table, (3, 1)),
        lambda n, table: table[:n],
        lambda n, table: tp.expand(table[:1], (n,)),
        lambda n, table: tp.zeros((3,)),
    ],
)
def test_results_do_not_show_the_memory_of_the_program(constant):
    table = tp.Tensor([1.0, 2.0, 3.0])
    fast = tp.compile(lambda n: constant(n, table), args=[tp.DimensionInputInfo((1, 2, 3))])
    first = fast(3)
    before = first.tolist()
    first.torch().fill_(9.0)
    assert fast(3).tolist() == before
    assert table.tolist() == [1.0, 2.0, 3.0]


def test_a_size_is_a_result():
    fast = tp.compile(
        lambda x: (x.shape[0], x.shape[0] * 2), args=[tp.InputInfo(((1, 2, 4),), tp.int8)]
    )
    first, second = fast(tp.zeros((3,), dtype=tp.int8))
    assert (first.tolist(), second.tolist()) == (3, 6)
    assert first.dtype is tp.int32


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (None, "result is None"),
        (3.0, "result is 3.0 of type float"),
        ("text", "result is 'text' of type str"),
        ([], "result is an empty list"),
        ((ONES, 3), r"result\[1\] is 3 of type int"),
        ({"a": [ONES, None]}, r"result\.a\[1\] is None"),
        ({"a": {}}, r"result\.a is an empty dict"),
        (torch.ones(2), "of type Tensor"),
    ],
)
def test_results_that_are_no_tensors_are_refused(result, got):
    with raises(rf"does not return Tensors[\s\S]*{got}"):
        tp.compile(lambda x: result, args=[INFO])


def test_a_parameter_without_a_value_is_no_result():
    linear = tp.Linear(2, 2)
    with raises("result is a parameter that has no value yet"):
        tp.compile(lambda x: linear.weight, args=[INFO])


def test_results_say_which_line_made_them():
    def double(x):
        return x * 2

    result = tp.compile(double, args=[INFO])(ONES)
    with raises("different data types", "return x * 2"):
        result + tp.ones((2,), dtype=tp.int32)


def test_results_are_ordinary_tensors():
    y = tp.compile(lambda x: x * 2, args=[INFO])(ONES)
    assert (y + 1).tolist() == [3.0, 3.0]
    assert y.shape == (2,)
    assert "2., 2." in str(y)
