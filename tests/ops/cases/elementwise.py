"""Cases of operators and functions that work element by element."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

import tripy as tp
from tests import helpers
from tests.helpers import tensor, values
from tests.ops.cases.table import Draw, Sample, case, is_float, positive

ARITHMETIC = "F i8 I b"


def _bools(function: Callable) -> Callable:
    """Arithmetic on bools: on integers, and whether the result is not 0."""

    def run(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if a.dtype == bool:
            return function(a.astype(int), b.astype(int)) != 0
        return function(a, b)

    return run


def _truncated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; for integers towards zero."""
    if not np.issubdtype(a.dtype, np.integer):
        return a / b
    quotient = np.abs(a.astype(object)) // np.abs(b.astype(object))
    exact = quotient * np.sign(a.astype(object)) * np.sign(b.astype(object))
    return np.asarray(exact, dtype=object).astype(np.int64).astype(a.dtype)


def _binary(name: str, op: str, types: str, function: Callable, reference: Callable) -> None:
    by_zero = op in ("div", "floordiv", "mod")

    @case(name, types, op)
    def build(draw: Draw, dtype: Any) -> Sample:
        left, right = (values(draw.rng, shape, dtype) for shape in draw.broadcastable(2))
        if by_zero:
            right = np.where(right == 0, np.ones_like(right), right)
        return Sample(function, [tensor(left, dtype), tensor(right, dtype)], reference)


_binary("Tensor.__add__", "add", ARITHMETIC, operator.add, _bools(np.add))
_binary("Tensor.__sub__", "sub", ARITHMETIC, operator.sub, _bools(np.subtract))
_binary("Tensor.__mul__", "mul", ARITHMETIC, operator.mul, _bools(np.multiply))
_binary("Tensor.__truediv__", "div", ARITHMETIC, operator.truediv, _bools(_truncated))
_binary("Tensor.__floordiv__", "floordiv", ARITHMETIC, operator.floordiv, _bools(np.floor_divide))
_binary("Tensor.__mod__", "mod", ARITHMETIC, operator.mod, _bools(np.mod))
_binary("maximum", "maximum", ARITHMETIC, tp.maximum, np.maximum)
_binary("minimum", "minimum", ARITHMETIC, tp.minimum, np.minimum)
_binary("Tensor.__or__", "or", "b", operator.or_, np.logical_or)
_binary("Tensor.__and__", "and", "b", operator.and_, np.logical_and)
_binary("Tensor.__xor__", "xor", "b", operator.xor, np.logical_xor)


def _comparison(name: str, op: str, function: Callable, reference: Callable) -> None:
    @case(name, ARITHMETIC, op)
    def build(draw: Draw, dtype: Any) -> Sample:
        left, right = (draw.tensor(shape, dtype) for shape in draw.broadcastable(2))
        return Sample(function, [left, right], reference, {"dtype": tp.bool})


_comparison("Tensor.__eq__", "equal", operator.eq, np.equal)
_comparison("Tensor.__ne__", "not_equal", operator.ne, np.not_equal)
_comparison("Tensor.__lt__", "less", operator.lt, np.less)
_comparison("Tensor.__le__", "less_equal", operator.le, np.less_equal)
_comparison("Tensor.__gt__", "greater", operator.gt, np.greater)
_comparison("Tensor.__ge__", "greater_equal", operator.ge, np.greater_equal)


@case("Tensor.__pow__", "F i8 int64", "pow")
def _pow(draw: Draw, dtype: Any) -> Sample:
    base, exponent = (values(draw.rng, shape, dtype) for shape in draw.broadcastable(2))
    if is_float(dtype):
        base = positive(base)
    else:  # What integers to negative powers are is in test_elementwise.
        exponent = np.abs(exponent) % 5
    options = {"rtol": 4 * helpers.ROUNDING.get(dtype, 0) + 2e-6}
    return Sample(operator.pow, [tensor(base, dtype), tensor(exponent, dtype)], np.power, options)


def _unary(
    name: str, types: str, function: Callable, reference: Callable, domain: Any = None,
    op: str | None = None, **options: float,
) -> None:  # fmt: skip
    @case(name, types, op)
    def build(draw: Draw, dtype: Any) -> Sample:
        array = values(draw.rng, draw.shape(), dtype)
        if domain is not None:
            array = domain(array)
        return Sample(function, [tensor(array, dtype)], reference, options)


_unary("Tensor.__invert__", "b", operator.invert, np.logical_not, op="not")
_unary("Tensor.__neg__", "F i8 I", operator.neg, np.negative, op="neg")
_unary("Tensor.__abs__", "F i8 I", abs, np.abs, op="abs")
_unary("exp", "F", tp.exp, np.exp)
_unary("log", "F", tp.log, np.log, positive, atol=2e-7)
_unary("sqrt", "F", tp.sqrt, np.sqrt, np.abs)
_unary("rsqrt", "F", tp.rsqrt, lambda a: 1 / np.sqrt(a), positive, rounds=2)
_unary("sin", "F", tp.sin, np.sin, atol=2e-7)
_unary("cos", "F", tp.cos, np.cos, atol=2e-7)
_unary("relu", "F i8 I", tp.relu, lambda a: np.maximum(a, np.zeros((), a.dtype)))


def _through_float32(function: Callable) -> Callable:
    """int8: worked out in float32, then towards zero."""

    def run(a: np.ndarray) -> np.ndarray:
        if a.dtype == np.int8:
            return np.trunc(function(a.astype(np.float32))).astype(np.int8)
        return function(a)

    return run


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(a: np.ndarray) -> np.ndarray:
    return (a * ((1 + _erf(a / math.sqrt(2))) / 2)).astype(a.dtype)


def _gelu_tanh(a: np.ndarray) -> np.ndarray:
    return a * (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))) / 2


def _tanh_form(x: tp.Tensor) -> tp.Tensor:
    return tp.gelu(x, approximate="tanh")


_unary("sigmoid", "F i8", tp.sigmoid, _through_float32(_sigmoid))
_unary("tanh", "F i8", tp.tanh, _through_float32(np.tanh))
_unary("silu", "F i8", tp.silu, _through_float32(lambda a: a * _sigmoid(a)))
_unary("gelu", "F i8", tp.gelu, _through_float32(_gelu), atol=1e-6)
_unary("gelu", "F i8", _tanh_form, _through_float32(_gelu_tanh), atol=3e-6)


@case("where", "F i8 I b")
def _where(draw: Draw, dtype: Any) -> Sample:
    mask, left, right = draw.broadcastable(3)
    tensors = [draw.tensor(mask, tp.bool), draw.tensor(left, dtype), draw.tensor(right, dtype)]
    return Sample(tp.where, tensors, np.where, {"dtype": dtype})


@case("masked_fill", "F i8 I b", "where")
def _masked_fill(draw: Draw, dtype: Any) -> Sample:
    left, mask = draw.broadcastable(2)
    number = (
        True if dtype is tp.bool else draw.choice([-float("inf"), 2.5]) if is_float(dtype) else 7
    )
    return Sample(
        lambda x, m: tp.masked_fill(x, m, number),
        [draw.tensor(left, dtype), draw.tensor(mask, tp.bool)],
        lambda x, m: np.where(m, np.asarray(number, x.dtype), x),
    )
