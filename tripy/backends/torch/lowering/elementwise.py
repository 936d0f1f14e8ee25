"""Lowerings of operations that work element by element."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from tripy import dtypes
from tripy.backends.torch.lowering.table import (
    LOWERINGS,
    Attrs,
    RefusedValues,
    T,
    lowering,
    row,
)
from tripy.backends.torch.storage import TORCH_TYPES, to_float8, torch_device


def _through_int(function: Callable) -> Callable:
    """Arithmetic that torch does not define on bools: on integers, and back."""

    def run(attrs: Attrs, lhs: T, rhs: T) -> T:
        if lhs.dtype is torch.bool:
            return function(lhs.int(), rhs.int()).bool()
        return function(lhs, rhs)

    return run


def _whole_division(function: Callable) -> Callable:
    """Division of integers, without the two cases that the CPU's instruction traps on."""

    def run(lhs: T, rhs: T) -> T:
        if lhs.dtype.is_floating_point or lhs.device.type != "cpu":
            return function(lhs, rhs)
        if rhs.numel() == 1 and rhs.item() not in (0, -1):
            return function(lhs, rhs)
        if not rhs.all() and lhs.numel():
            raise RefusedValues(
                "an integer was divided by zero.",
                "a divisor of 0",
                "divisors other than 0",
                "tp.where to replace them, or floating point, which has infinities",
            )
        negated = rhs == -1
        if not negated.any():
            return function(lhs, rhs)
        # The smallest integer over -1 is one too large: the instruction kills the process. By
        # two's complement the quotient is the negative, which wraps, and nothing remains.
        whole = 0 if function is torch.remainder else -lhs
        return torch.where(negated, whole, function(lhs, rhs.masked_fill(negated, 1)))

    return run


def _divide(lhs: T, rhs: T) -> T:
    """Integers divide towards zero, as hardware and TensorRT do; floor division is its own."""
    if lhs.dtype.is_floating_point:
        return lhs / rhs
    return torch.div(lhs, rhs, rounding_mode="trunc")


LOWERINGS |= {
    "add": _through_int(torch.add),
    "sub": _through_int(torch.sub),
    "mul": _through_int(torch.mul),
    "div": _through_int(_whole_division(_divide)),
    "floordiv": _through_int(_whole_division(torch.floor_divide)),
    "mod": _through_int(_whole_division(torch.remainder)),
    "maximum": _through_int(torch.maximum),
    "minimum": _through_int(torch.minimum),
}
_PLAIN: dict[str, Callable] = {
    "pow": torch.pow,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "or": torch.logical_or,
    "and": torch.logical_and,
    "xor": torch.logical_xor,
    "not": torch.logical_not,
    "neg": torch.neg,
    "abs": torch.abs,
    "cos": torch.cos,
    "exp": torch.exp,
    "log": torch.log,
    "rsqrt": torch.rsqrt,
    "sin": torch.sin,
    "sqrt": torch.sqrt,
    "relu": torch.relu,
    "where": torch.where,
    "matmul": torch.matmul,
}
for _name, _function in _PLAIN.items():
    row(_name, _function)


def _int8_through_float(function: Callable) -> Callable:
    """int8 activations: computed in float32, truncated towards zero."""

    def run(attrs: Attrs, x: T) -> T:
        if x.dtype is torch.int8:
            return function(attrs, x.float()).to(torch.int8)
        return function(attrs, x)

    return run


LOWERINGS |= {
    "sigmoid": _int8_through_float(lambda attrs, x: torch.sigmoid(x)),
    "tanh": _int8_through_float(lambda attrs, x: torch.tanh(x)),
    "silu": _int8_through_float(lambda attrs, x: F.silu(x)),
    "gelu": _int8_through_float(lambda attrs, x: F.gelu(x, approximate=attrs["approximate"])),
}


@lowering("cast")
def cast(attrs: Attrs, x: T) -> T:
    target = attrs["dtype"]
    if target is dtypes.float8:
        return to_float8(x)
    if target is dtypes.int4:
        if x.dtype.is_floating_point:
            x = x.float().round()
        return x.clamp(-8, 7).to(torch.int8)
    if x.dtype is torch.float8_e4m3fn and target not in dtypes.FLOATS:
        x = x.float()
    return x.to(TORCH_TYPES[target])


@lowering("copy")
def _copy(attrs: Attrs, x: T) -> T:
    return x.to(torch_device(attrs["where"]), copy=True)
