"""Sizes that are known only at run time: bounds, names, arithmetic, broadcasting."""

from __future__ import annotations

import pytest

import tripy as tp
from tests.compiler.support import agree, numbers, same
from tests.helpers import raises

N = (1, 4, 8)


def info(*shape, dtype=tp.float32):
    return tp.InputInfo(shape, dtype)


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_every_size_within_the_bounds(rows):
    agree(lambda x: tp.softmax(x @ tp.ones((3, 5)), 1), [info(N, 3)], [[numbers(rows, 3)]])


@pytest.mark.parametrize("rows", [0, 9])
def test_a_size_outside_the_bounds_names_the_argument(rows):
    def double(data):
        return data * 2

    fast = tp.compile(double, args=[info(N, 3)])
    with raises(rf"data\.shape\[0\] is out of bounds[\s\S]*{rows}[\s\S]*1 to 8"):
        fast(tp.zeros((rows, 3)))


def test_zero_is_a_size():
    agree(lambda x: (x + 1, tp.sum(x, 0)), [info((0, 2, 4), 3)], [[tp.zeros((0, 3))]])


def test_a_named_dimension_is_one_size_in_all_inputs():
    rows = tp.NamedDimension("rows", *N)
    fast = agree(
        lambda a, b: a @ tp.transpose(b, 0, 1),
        [info(rows, 2), info(rows, 2)],
        [[numbers(3, 2), numbers(3, 2)]],
    )
    with raises(r"b: the dimension 'rows' has two different sizes[\s\S]*3 in a, 4 in b"):
        fast(numbers(3, 2), numbers(4, 2))


def test_a_name_with_two_bounds_is_refused():
    a, b = tp.NamedDimension("n", 1, 2, 3), tp.NamedDimension("n", 1, 2, 4)
    with raises(r"'n' has two different bounds[\s\S]*\(1, 2, 3\) and \(1, 2, 4\)"):
        tp.compile(lambda x, y: x, args=[info(a), info(b)])


def test_sizes_that_have_to_be_equal_are_compared_at_run_time():
    def add(first, second):
        return first @ second

    fast = agree(add, [info(2, N), info(N, 2)], [[numbers(2, 5), numbers(5, 2)]])
    with raises(r"summed dimensions differ[\s\S]*first\.shape\[1\] = 5", "return first @ second"):
        fast(numbers(2, 5), numbers(4, 2))


def test_a_rewrite_loses_no_requirement():
    layer = tp.Linear(3, 2)
    layer.initialize_dummy_parameters()
    fast = tp.compile(lambda x: tp.relu(x @ tp.transpose(layer.weight, 0, 1)), args=[info(2, N)])
    assert fast.report().rows[0].operation == "linear"
    with raises("summed dimensions differ", "layer.weight"):
        fast(numbers(2, 4))


def test_broadcasting_of_sizes_that_may_be_one():
    fast = agree(
        lambda a, b: a + b,
        [info(N, 3), info(N, 3)],
        [
            [numbers(4, 3), numbers(4, 3)],
            [numbers(1, 3), numbers(4, 3)],
            [numbers(4, 3), numbers(1, 3)],
            [numbers(1, 3), numbers(1, 3)],
        ],
    )
    with raises(r"add: the shapes cannot be broadcast[\s\S]*a\.shape\[0\] = 2"):
        fast(numbers(2, 3), numbers(3, 3))


def test_the_size_of_a_broadcast_is_used_further():
    def rows(a, b):
        total = a + b
        return tp.reshape(total, [total.shape[0] * 3]), tp.ones([total.shape[0], 2])

    agree(
        rows,
        [info(N, 3), info(N, 3)],
        [[numbers(1, 3), numbers(5, 3)], [numbers(5, 3), numbers(1, 3)], [numbers(2, 3)] * 2],
    )


def test_a_dynamic_size_meets_a_known_one():
    fast = agree(lambda a: a * tp.ones((4, 1)), [info(N, 2)], [[numbers(4, 2)], [numbers(1, 2)]])
    with raises("cannot be broadcast"):
        fast(numbers(3, 2))


def test_a_known_size_that_can_never_fit_is_refused_while_compiling():
    with raises("cannot be broadcast", "tp.ones((9, 1))"):
        tp.compile(lambda a: a * tp.ones((9, 1)), args=[info((2, 4, 8), 2)])


SHAPE_ARITHMETIC = {
    "reshape": lambda x: tp.reshape(x, [x.shape[0] * x.shape[1]]),
    "reshape to a product of three": lambda x: tp.reshape(x, (1, x.shape[1] * x.shape[0], -1)),
    "reshape with -1": lambda x: tp.reshape(x, (x.shape[1], -1)),
    "flatten": lambda x: tp.flatten(x),
    "slice to a size": lambda x: x[: x.shape[0] - 1],
    "slice from a size": lambda x: x[x.shape[0] // 2 :],
    "slice with a step": lambda x: x[::2],
    "slice backwards": lambda x: x[::-1],
    "slice backwards from a size": lambda x: x[x.shape[0] - 2 :: -2],
    "slice beyond the end": lambda x: x[: x.shape[0] + 3],
    "slice from the end": lambda x: x[-1:],
    "slice to nothing": lambda x: x[x.shape[0] :],
    "last row": lambda x: x[x.shape[0] - 1],
    "last row by -1": lambda x: x[-1],
    "arange": lambda x: tp.arange(x.shape[0]),
    "arange between sizes": lambda x: tp.arange(x.shape[0], x.shape[0] * 2, dtype=tp.int32),
    "arange with a step": lambda x: tp.arange(0, x.shape[0] + 4, 2),
    "full": lambda x: tp.full((x.shape[0], 2), 3.0),
    "full of an expression": lambda x: tp.zeros(((x.shape[0] + 3) // 2,)),
    "remainder": lambda x: tp.ones((x.shape[0] % 3 + 1,)),
    "iota": lambda x: tp.iota((x.shape[0], x.shape[0]), dim=1),
    "ones_like": lambda x: tp.ones_like(x) + 1,
    "expand": lambda x: tp.expand(x[:1], (x.shape[0], x.shape[1])),
    "expand to new dimensions": lambda x: tp.expand(x, (2, x.shape[0], -1)),
    "split in two": lambda x: tp.split(tp.concatenate([x, x], 0), [x.shape[0], x.shape[0]]),
    "split in unequal parts": lambda x: tp.split(x, [1, x.shape[0] - 1]),
    "concatenate": lambda x: tp.concatenate([x, x + 1, x], 0),
    "concatenate twice": lambda x: tp.concatenate([tp.concatenate([x, x], 0), x], 0),
    "stack": lambda x: tp.stack([x, x * 2], 1),
    "a size as a tensor": lambda x: x / x.shape[0],
    "a size alone": lambda x: x.shape[0] * 2 + 1,
    "mean by hand": lambda x: tp.sum(x, 0) / x.shape[0],
    "a size with integers": lambda x: tp.cast(x, tp.int64) + x.shape[0] * x.shape[1],
    "a size minus a tensor": lambda x: x.shape[0] - x,
    "mask": lambda x: tp.where(tp.iota((x.shape[0], 1)) < 2.0, x, 0.0 * x),
    "attention mask": lambda x: tp.tril(tp.ones((x.shape[0], x.shape[0])), 1),
    "transpose": lambda x: tp.transpose(x, 0, 1) @ x,
    "unsqueeze": lambda x: tp.squeeze(tp.unsqueeze(x, 1), 1),
    "topk": lambda x: tp.topk(x, 1, 0),
    "outer sum": lambda x: tp.unsqueeze(x[:, 0], 0) + tp.unsqueeze(x[:, 1], 1),
}


@pytest.mark.parametrize("name", SHAPE_ARITHMETIC)
def test_shape_arithmetic(name):
    function = SHAPE_ARITHMETIC[name]
    compiled = tp.compile(function, args=[info((2, 4, 9), 3)])
    for rows in (2, 3, 4, 9):
        x = numbers(rows, 3)
        expected = function(x)
        if not isinstance(expected, (tp.Tensor, list, tuple)):
            expected = tp.Tensor(expected, dtype=tp.int32)
        same(compiled(x), expected)


def test_two_dynamic_dimensions():
    def cut(x, y):
        total = tp.concatenate([x, y], 1)
        return total[:, : y.shape[1]], tp.reshape(total, [total.shape[0] * total.shape[1]])

    rows = tp.NamedDimension("rows", 1, 2, 4)
    agree(
        cut,
        [info(rows, N), info(rows, (2, 3, 5))],
        [[numbers(2, 1), numbers(2, 5)], [numbers(4, 8), numbers(4, 2)]],
    )


def test_a_slice_longer_than_what_is_there():
    fast = tp.compile(lambda x, y: x[: y.shape[0]], args=[info(N), info((1, 4, 20))])
    assert fast(numbers(3), numbers(2)).tolist() == [0, 1]
    assert fast(numbers(3), numbers(20)).tolist() == [0, 1, 2]


def test_elements_that_do_not_match_at_run_time():
    fast = tp.compile(lambda x: tp.reshape(x, (2, -1)), args=[info(N)])
    same(fast(numbers(6)), tp.reshape(numbers(6), (2, 3)))
    with raises("reshape: the number of elements changes", "tp.reshape(x, (2, -1))"):
        fast(numbers(5))


def test_split_sizes_that_do_not_add_up_at_run_time():
    fast = tp.compile(lambda x: tp.split(x, [2, 3]), args=[info(N)])
    same(fast(numbers(5)), tp.split(numbers(5), [2, 3]))
    with raises("split: the sizes do not add up"):
        fast(numbers(6))


def test_topk_larger_than_the_dimension_at_run_time():
    fast = tp.compile(lambda x: tp.topk(x, 3, 0), args=[info(N)])
    assert fast(numbers(3))[1].tolist() == [2, 1, 0]  # All there are.
    with raises("topk: k is larger than the dimension"):
        fast(numbers(2))


def test_a_size_given_at_run_time():
    def rows(x, count):
        return x[:count], tp.zeros((count, 2)), tp.arange(count)

    fast = tp.compile(rows, args=[info(5), tp.DimensionInputInfo((0, 2, 5))])
    for count in (0, 2, 5):
        same(fast(numbers(5), count), [numbers(5)[:count], tp.zeros((count, 2)),
                                       numbers(count)])  # fmt: skip
        same(fast(numbers(5), tp.DimensionSize(count))[0], numbers(5)[:count])
    with raises(r"count is out of bounds[\s\S]*6[\s\S]*0 to 5"):
        fast(numbers(5), 6)
    with raises("count: the argument is not a size"):
        fast(numbers(5), 2.0)
    with raises("count: the argument is not a size"):
        fast(numbers(5), True)


def test_a_size_and_a_dimension_of_one_name_are_two_things():
    n = tp.NamedDimension("n", 1, 2, 8)
    fast = tp.compile(
        lambda x, n: tp.reshape(x, (-1,))[:n], args=[info(n), tp.DimensionInputInfo((1, 2, 8))]
    )
    assert fast(numbers(5), 3).tolist() == [0, 1, 2]


def test_a_size_in_a_nest():
    def pick(data):
        return data["x"][: data["sizes"][0]]

    fast = tp.compile(pick, args=[{"x": info(5), "sizes": [tp.DimensionInputInfo((1, 2, 5))]}])
    assert fast({"x": numbers(5), "sizes": [2]}).tolist() == [0, 1]
    with raises(r"data\.sizes\[0\] is out of bounds"):
        fast({"x": numbers(5), "sizes": [7]})


def test_shape_elements_are_sizes_while_compiling():
    seen = []

    def look(x):
        seen.extend(x.shape)
        return x

    tp.compile(look, args=[info(2, N)])
    assert all(isinstance(size, tp.DimensionSize) for size in seen)
    assert int(seen[0]) == 2


def test_a_python_int_of_a_dynamic_size_is_refused():
    def use(x):
        return x * int(x.shape[0])

    with raises("size of a dynamic dimension is not known", "x * int(x.shape[0])"):
        tp.compile(use, args=[info(N)])


def test_a_decision_on_a_dynamic_size_is_refused():
    def decide(x):
        return x if x.shape[0] > 2 else x * 2

    with raises("was computed", "x.shape[0] > 2"):
        tp.compile(decide, args=[info(N)])


def test_a_decision_on_a_known_size_is_a_plain_decision():
    fast = tp.compile(lambda x: x if x.shape[0] == 3 else x * 2, args=[info(3)])
    assert fast(numbers(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_dynamic_and_static_give_the_same(rows):
    layer = tp.Linear(4, 3, quant_dtype=tp.int8, weight_quant_dim=0)
    layer.weight = numbers(3, 4) / 7.0
    layer.bias = numbers(3)
    layer.weight_scale = [0.01, 0.05, 0.1]
    layer.input_scale = 0.1
    x = numbers(rows, 4) / 3.0
    static = tp.compile(layer, args=[info(rows, 4)])
    dynamic = tp.compile(layer, args=[info(N, 4)])
    same(dynamic(x), static(x))


def test_many_shapes_of_one_function():
    fast = tp.compile(
        lambda x, y: (x + 1)[: y.shape[0]], args=[info((1, 9, 100)), info((1, 9, 100))]
    )
    for a in range(1, 60):
        for b in range(1, 101, 25):
            assert fast(numbers(a), numbers(b)).shape == (min(a, b),)
