"""Operators and element-wise functions: numbers as operands, special values, overflow, refusals."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch

import tripy as tp
from tests.helpers import ALL, F, I, check, is_accepted_cast, raises, randn, tensor

INFINITY, NAN = float("inf"), float("nan")
BINARY = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.pow, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip


@pytest.mark.parametrize("function", BINARY)
@pytest.mark.parametrize("dtype", [*F, tp.int8, *I], ids=str)
def test_numbers_on_either_side(function, dtype):
    if function is operator.pow and dtype is tp.int32:
        return  # Not in the API.
    x = tensor([1, 2, 3], dtype)
    kind = tp.bool if function in BINARY[7:] else dtype
    two = np.asarray(2, np.float64 if issubclass(dtype, tp.floating) else str(dtype))
    if function is operator.truediv and not issubclass(dtype, tp.floating):
        check(lambda x: x / 2, x, reference=[np.array([0, 1, 1])], dtype=kind)
        check(lambda x: 2 / x, x, reference=[np.array([2, 1, 0])], dtype=kind)
        return
    check(lambda x: function(x, 2), x, reference=lambda a: function(a, two), dtype=kind)
    check(lambda x: function(2, x), x, reference=lambda a: function(two, a), dtype=kind)


@pytest.mark.parametrize("number", [np.float32(2), np.float64(2), np.int64(2), np.float16(2), 2])
def test_numpy_numbers_are_numbers(number):
    x = tensor([1, 3], tp.float32)
    check(lambda x: x * number, x, reference=[np.array([2.0, 6.0])])
    check(lambda x: number * x, x, reference=[np.array([2.0, 6.0])])


def test_bools_with_bools():
    x = tensor([True, False], tp.bool)
    for value in (True, np.True_):
        check(lambda x, v=value: x & v, x, reference=[np.array([True, False])])
        check(lambda x, v=value: v | x, x, reference=[np.array([True, True])])
        check(lambda x, v=value: x ^ v, x, reference=[np.array([False, True])])


def test_numbers_take_the_tensors_type():
    for dtype in F:
        assert (tensor([1], dtype) + 1).dtype is dtype
        assert (True + tensor([1], dtype)).dtype is dtype
    assert (tensor([1], tp.int8) + 1).dtype is tp.int8


@pytest.mark.parametrize("dtype", [tp.int8, *I], ids=str)
def test_floats_with_integers_are_refused(dtype):
    x = tensor([1], dtype)
    with raises("add: the number does not fit the tensor's data type"):
        x + 1.5
    with raises("mul: the number does not fit"):
        2.0 * x


def test_ints_with_bools_are_refused():
    x = tensor([True], tp.bool)
    for function in (operator.add, operator.eq, operator.and_):
        with raises("the number does not fit the tensor's data type"):
            function(x, 1)


@pytest.mark.parametrize(
    ("dtype", "number"),
    [(tp.int8, 128), (tp.int8, -129), (tp.int32, 2**31), (tp.int64, 2**63), (tp.float16, 65520.0),
     (tp.float32, 1e39), (tp.bfloat16, -3.4e38), (tp.float32, 10**400)],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(dtype, number):
    x = tensor([1], dtype)
    with raises("add: the number is out of the tensor's range"):
        x + number


@pytest.mark.parametrize(
    ("dtype", "number"),
    [(tp.int8, -128), (tp.int32, 2**31 - 1), (tp.int64, -(2**63)), (tp.float16, 65519.0),
     (tp.float32, 3.4028235e38), (tp.float16, -INFINITY)],
)  # fmt: skip
def test_numbers_at_the_end_of_the_range(dtype, number):
    assert (tensor([0], dtype) + number).tolist()[0] == pytest.approx(number, rel=1e-3)


@pytest.mark.parametrize("other", [[1.0, 2.0], (1.0, 2.0), np.ones(2), torch.ones(2)])
def test_arrays_are_no_operands(other):
    x = tp.ones((2,))
    for function in (operator.add, operator.eq, operator.matmul):
        with raises("neither a tensor nor a number|an operand is not a tensor"):
            function(x, other)
    if not isinstance(other, torch.Tensor):  # torch answers by itself.
        with raises("neither a tensor nor a number"):
            other + x


def test_other_objects_are_left_to_python():
    x = tp.ones((2,))
    for other in ("text", None, object()):
        with pytest.raises(TypeError):
            x + other
    assert (x == None) is False  # noqa: E711
    assert (x != None) is True  # noqa: E711
    with pytest.raises(TypeError):
        x + 1j


def test_different_types_are_refused():
    x, y = tp.ones((2,)), tp.ones((2,), dtype=tp.float16)
    with raises("add: lhs and rhs have different data types") as caught:
        x + y
    assert "lhs was made here" in str(caught.value)
    assert "try:" in str(caught.value)


def test_shapes_that_do_not_broadcast_are_refused():
    x, y = tp.ones((2, 3)), tp.ones((4,))
    with raises(r"mul: the shapes cannot be broadcast together"):
        x * y
    with raises("where: the shapes cannot be broadcast"):
        tp.where(tp.ones((3,), dtype=tp.bool), tp.ones((2,)), 0.0)


@pytest.mark.parametrize("dtype", [tp.int8, *I], ids=str)
def test_integer_division_and_remainder(dtype):
    """`/` rounds towards zero, `//` down, and `%` has the divisor's sign, for all signs."""
    left = np.array([7, -7, 7, -7, 6, -6, 0, 1])
    right = np.array([2, 2, -2, -2, 3, -3, -5, 7])
    x, y = tensor(left, dtype), tensor(right, dtype)
    check(operator.truediv, x, y, reference=[np.array([3, -3, -3, 3, 2, 2, 0, 0])])
    check(operator.floordiv, x, y, reference=[np.array([3, -4, -4, 3, 2, 2, 0, 0])])
    check(operator.mod, x, y, reference=[np.array([1, 1, -1, -1, 0, 0, 0, 1])])


@pytest.mark.parametrize("dtype", [tp.int8, *I], ids=str)
def test_the_smallest_integer_over_minus_one_wraps(dtype):
    """The CPU's division traps on it: the process would end without a message."""
    low = {tp.int8: -128, tp.int32: -(2**31), tp.int64: -(2**63)}[dtype]
    x, y = tensor([low] * 9 + [5], dtype), tensor([-1] * 9 + [2], dtype)
    check(operator.truediv, x, y, reference=[np.array([low] * 9 + [2])])
    check(operator.floordiv, x, y, reference=[np.array([low] * 9 + [2])])
    check(operator.mod, x, y, reference=[np.array([0] * 9 + [1])])
    check(lambda x: x / -1, x, reference=[np.array([low] * 9 + [-5])])


@pytest.mark.parametrize("function", [operator.truediv, operator.floordiv, operator.mod])
@pytest.mark.parametrize("dtype", [tp.int8, *I, tp.bool], ids=str)
def test_integers_over_zero_are_an_error(function, dtype):
    if tp.config.default_device.kind == "gpu":
        pytest.skip("a GPU does not tell")
    x, y = tensor([1, 0], dtype), tensor([1, 0], dtype)
    quotient = function(x, y)
    with raises("an integer was divided by zero", line="quotient = function(x, y)"):
        quotient.eval()


def test_floats_over_zero():
    x, y = tensor([1, -1, 0], tp.float32), tensor([0, 0, 0], tp.float32)
    check(operator.truediv, x, y, reference=[np.array([INFINITY, -INFINITY, NAN])])


@pytest.mark.parametrize("dtype", F, ids=str)
def test_floor_division_and_remainder_of_floats(dtype):
    left, right = np.array([7.5, -7.5, 7.5, -7.5]), np.array([2.0, 2.0, -2.0, -2.0])
    x, y = tensor(left, dtype), tensor(right, dtype)
    check(operator.floordiv, x, y, reference=[np.array([3.0, -4.0, -4.0, 3.0])])
    check(operator.mod, x, y, reference=[np.array([1.5, 0.5, -0.5, -1.5])])


def test_int8_wraps():
    x = tensor([127, -128, 100], tp.int8)
    check(lambda x: x + 1, x, reference=[np.array([-128, -127, 101])])
    check(lambda x: x * 2, x, reference=[np.array([-2, 0, -56])])
    check(operator.neg, x, reference=[np.array([-127, -128, -100])])
    check(abs, x, reference=[np.array([127, -128, 100])])


def test_arithmetic_on_bools():
    x, y = tensor([0, 0, 1, 1], tp.bool), tensor([0, 1, 0, 1], tp.bool)
    check(operator.add, x, y, reference=[np.array([False, True, True, True])])
    check(operator.sub, x, y, reference=[np.array([False, True, True, False])])
    check(operator.mul, x, y, reference=[np.array([False, False, False, True])])
    check(tp.maximum, x, y, reference=[np.array([False, True, True, True])])


def test_powers_of_integers():
    x, y = tensor([2, 1, -1, -1, 0, 3], tp.int8), tensor([-1, -3, -1, -2, 0, 5], tp.int8)
    # 1 / 2 towards zero; 0 ** 0 is 1; 3 ** 5 = 243 wraps.
    check(operator.pow, x, y, reference=[np.array([0, 1, -1, 1, 1, -13])])


def test_special_values():
    x = tensor([NAN, INFINITY, -INFINITY, -0.0, 0.0], tp.float32)
    check(tp.relu, x, reference=[np.array([NAN, INFINITY, 0, 0, 0])])
    check(tp.exp, x, reference=[np.array([NAN, INFINITY, 0, 1, 1])])
    check(tp.log, x, reference=[np.array([NAN, INFINITY, NAN, -INFINITY, -INFINITY])])
    check(tp.sqrt, x, reference=[np.array([NAN, INFINITY, NAN, 0, 0])])
    check(tp.rsqrt, x, reference=[np.array([NAN, 0, NAN, -INFINITY, INFINITY])])
    check(tp.sigmoid, x, reference=[np.array([NAN, 1, 0, 0.5, 0.5])])
    check(tp.tanh, x, reference=[np.array([NAN, 1, -1, 0, 0])])
    y = tensor([1.0, NAN, 1.0, 1.0, NAN], tp.float32)
    check(tp.maximum, x, y, reference=[np.array([NAN, NAN, 1, 1, NAN])])
    check(tp.minimum, x, y, reference=[np.array([NAN, NAN, -INFINITY, 0, NAN])])
    check(operator.eq, x, x, reference=[np.array([0, 1, 1, 1, 1]) == 1], dtype=tp.bool)


def test_where_and_masked_fill_do_not_mix_in_nan():
    x = tensor([NAN, 1.0], tp.float32)
    mask = tensor([True, False], tp.bool)
    check(lambda x, m: tp.masked_fill(x, m, 0.0), x, mask, reference=[np.array([0.0, 1.0])])
    check(lambda x, m: tp.where(m, 2.0, x), x, mask, reference=[np.array([2.0, 1.0])])


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [((1.0, 0.0), tp.float32), ((1, 0), tp.int32), ((True, False), tp.bool), ((1, 0.5), tp.float32),
     ((2**40, 1), tp.int64), ((True, 0), tp.int32)],
)  # fmt: skip
def test_where_of_two_numbers(numbers, dtype):
    mask = tensor([True, False], tp.bool)
    check(lambda m: tp.where(m, *numbers), mask, reference=[np.array(numbers)], dtype=dtype)


def test_where_and_masked_fill_refuse():
    x = tp.ones((2,))
    mask = tp.Tensor([True, False])
    with raises("where: neither input nor other is a tensor"):
        tp.where(mask, [1.0], 2.0)
    with raises("where: condition has an unsupported data type"):
        tp.where(x, x, x)
    with raises("masked_fill: the value is a tensor"):
        tp.masked_fill(x, mask, x)
    with raises("masked_fill: value is not a number"):
        tp.masked_fill(x, mask, "a")
    with raises("masked_fill: mask is not a tensor"):
        tp.masked_fill(x, [True, False], 0.0)


def test_gelu_forms_differ_and_others_are_refused():
    x = tensor([1.0], tp.float32)
    assert tp.gelu(x).tolist() == [pytest.approx(0.8413447)]
    assert tp.gelu(x, approximate="tanh").tolist() == [pytest.approx(0.8411920)]
    with raises("gelu: approximate is not one of its values"):
        tp.gelu(x, approximate="sigmoid")


@pytest.mark.parametrize("source", ALL, ids=str)
@pytest.mark.parametrize("target", ALL, ids=str)
def test_casts(source, target):
    """The pairs that the API names are refused; all others keep 0, 1 and 2."""
    numbers = [0, 1, 1] if tp.bool in (source, target) else [0, 1, 2]
    x = tensor(numbers, source)
    if not is_accepted_cast(source, target):
        with raises(f"cast: {source} cannot be cast to {target}"):
            tp.cast(x, target)
        return
    check(lambda x: tp.cast(x, target), x, reference=[np.array(numbers)], dtype=target)
    check(lambda x: x.cast(target), x, reference=[np.array(numbers)], dtype=target)


def test_casts_of_negatives_and_halves():
    x = tensor([-2.7, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5], tp.float32)
    towards_zero = np.array([-2, -1, 0, 0, 1, 2, 3])
    for target in (tp.int8, *I):
        check(lambda x, t=target: tp.cast(x, t), x, reference=[towards_zero], dtype=target)
    to_even = np.array([-3, -2, 0, 0, 2, 2, 4])
    check(lambda x: tp.cast(x, tp.int4), x, reference=[to_even], dtype=tp.int4)
    check(lambda x: tp.cast(x, tp.bool), x, reference=[np.ones(7, bool)], dtype=tp.bool)


def test_casts_saturate_where_they_quantize():
    x = tensor([-1000.0, 1000.0, 8.0, -9.0], tp.float32)
    check(lambda x: tp.cast(x, tp.int4), x, reference=[np.array([-8, 7, 7, -8])], dtype=tp.int4)
    check(
        lambda x: tp.cast(x, tp.float8), x, reference=[np.array([-448, 448, 8, -9.0])],
        dtype=tp.float8,
    )  # fmt: skip
    y = tensor([-1000, 1000, 3], tp.int32)
    check(lambda y: tp.cast(y, tp.int4), y, reference=[np.array([-8, 7, 3])], dtype=tp.int4)


def test_cast_refuses_what_is_no_type():
    x = tp.ones((2,))
    for wrong in ("float32", float, torch.float32, None, tp.floating):
        with raises("cast: the data type is not supported"):
            tp.cast(x, wrong)


def test_functions_refuse_what_is_no_tensor():
    for function in (tp.exp, tp.relu, tp.gelu, lambda x: tp.cast(x, tp.int8)):
        with raises("input is not a tensor"):
            function([1.0])
    with raises("maximum: neither lhs nor rhs is a tensor"):
        tp.maximum(1.0, 2.0)


def test_maximum_takes_numbers(rng):
    x = randn(rng, (3, 4), tp.float16)
    check(lambda x: tp.maximum(0.5, x), x, reference=lambda a: np.maximum(a, 0.5))
    check(lambda x: tp.minimum(x, -1), x, reference=lambda a: np.minimum(a, -1))
