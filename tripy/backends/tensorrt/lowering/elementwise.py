"""Layers of operations that work element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tripy import dtypes
from tripy.backends.tensorrt.lowering.table import (
    LOWERINGS,
    Lowering,
    Unsupported,
    kind_of,
    lowering,
    operand,
)
from tripy.backends.tensorrt.network import Network
from tripy.graph import Node, Value


def wrapped_int8(net: Network, tensor: Any) -> Any:
    """int32 as int8, modulo 256: TensorRT does not say what its cast makes of other numbers."""
    shifted = net.with_number("SUM", tensor, 128, dtypes.int32)
    turns = net.with_number("FLOOR_DIV", shifted, 256, dtypes.int32)
    whole = net.with_number("PROD", turns, 256, dtypes.int32)
    return net.cast(net.binary("SUB", tensor, whole), dtypes.int8)


def _through_int32(function: Lowering) -> Lowering:
    """int8 is computed in int32 and wraps, as it does in eager."""

    def run(net: Network, node: Node, *tensors: Any) -> Any:
        if kind_of(node) is not dtypes.int8:
            return function(net, node, *tensors)
        return wrapped_int8(net, function(net, node, *(net.cast(t, dtypes.int32) for t in tensors)))

    return run


def _through_float32(function: Lowering) -> Lowering:
    """int8 is computed in float32 and cut off towards zero, as it is in eager."""

    def run(net: Network, node: Node, tensor: Any) -> Any:
        if kind_of(node) is not dtypes.int8:
            return function(net, node, tensor)
        return net.cast(function(net, node, net.cast(tensor, dtypes.float32)), dtypes.int8)

    return run


def _quotient(net: Network, node: Node, left: Any, right: Any) -> Any:
    """Integers divide towards zero: the floor, and one more where it is below the quotient."""
    if issubclass(kind_of(node), dtypes.floating):
        return net.binary("DIV", left, right)
    floor = net.binary("FLOOR_DIV", left, right)
    rest = net.binary("SUB", left, net.binary("PROD", floor, right))
    kind = dtypes.int64 if left.dtype == net.types[dtypes.int64] else dtypes.int32
    inexact = net.unary("NOT", net.with_number("EQUAL", rest, 0, kind))
    negative = net.with_number("LESS", floor, 0, kind)
    up = net.cast(net.binary("AND", inexact, negative), kind)
    return net.binary("SUM", floor, up)


def _floor_quotient(net: Network, node: Node, left: Any, right: Any) -> Any:
    kind = kind_of(node)
    if kind in (dtypes.float16, dtypes.bfloat16):  # Rounded once, after the floor.
        wide = [net.cast(t, dtypes.float32) for t in (left, right)]
        return net.cast(net.binary("FLOOR_DIV", *wide), kind)
    return net.binary("FLOOR_DIV", left, right)


def _remainder(net: Network, node: Node, left: Any, right: Any) -> Any:
    """With the sign of the divisor, as Python has it."""
    kind = kind_of(node)
    wide = [left, right]
    if kind in (dtypes.float16, dtypes.bfloat16):
        wide = [net.cast(t, dtypes.float32) for t in wide]
    floor = net.binary("FLOOR_DIV", *wide)
    rest = net.binary("SUB", wide[0], net.binary("PROD", floor, wide[1]))
    return net.cast(rest, kind) if kind in dtypes.FLOATS else rest


def _arithmetic(operation: str) -> Lowering:
    return lambda net, node, left, right: net.binary(operation, left, right)


# What arithmetic on bools, which is done on 0 and 1, comes to. Divisors are 1, or undefined.
_ON_BOOLS = {
    "add": "OR", "sub": "XOR", "mul": "AND", "div": "AND", "floordiv": "AND", "maximum": "OR",
    "minimum": "AND",
}  # fmt: skip


def _with_bools(name: str, function: Lowering) -> Lowering:
    def run(net: Network, node: Node, left: Any, right: Any) -> Any:
        if kind_of(node) is not dtypes.bool:
            return function(net, node, left, right)
        if name == "mod":  # Nothing remains of a division by 1.
            return net.binary("AND", net.binary("AND", left, right), net.unary("NOT", right))
        return net.binary(_ON_BOOLS[name], left, right)

    return run


for _name, _function in {
    "add": _arithmetic("SUM"),
    "sub": _arithmetic("SUB"),
    "mul": _arithmetic("PROD"),
    "div": _quotient,
    "floordiv": _floor_quotient,
    "mod": _remainder,
    "maximum": _arithmetic("MAX"),
    "minimum": _arithmetic("MIN"),
}.items():
    LOWERINGS[_name] = _with_bools(_name, _through_int32(_function))


@lowering("pow")
@_through_int32
def _pow(net: Network, node: Node, base: Any, exponent: Any) -> Any:
    """Integers: only 1 and -1 have integer inverses; those of others are 0, and of 0 undefined."""
    if kind_of(node) in dtypes.FLOATS:
        return net.binary("POW", base, exponent)
    kind = dtypes.int64 if kind_of(node) is dtypes.int64 else dtypes.int32
    zero = net.number(0, kind, 0)
    power = net.binary("POW", base, net.binary("MAX", exponent, zero))
    half = net.with_number("FLOOR_DIV", exponent, 2, kind)
    odd = net.binary("SUB", exponent, net.with_number("PROD", half, 2, kind))
    # For a base of 1 or -1, b ** n is b where n is odd, else 1, also for negative n.
    one = net.number(1, kind, 0)
    inverse = net.select(net.with_number("EQUAL", odd, 1, kind), base, one)
    unit = net.with_number("EQUAL", net.unary("ABS", base), 1, kind)
    inverse = net.select(unit, inverse, zero)
    return net.select(net.with_number("LESS", exponent, 0, kind), inverse, power)


def _compare(*operations: str) -> Lowering:
    """A comparison; of two, either may hold: NaN is neither less than nor equal to anything."""

    def run(net: Network, node: Node, left: Any, right: Any) -> Any:
        if kind_of(node) is dtypes.bool:
            left, right = net.flags(left), net.flags(right)
        found = [net.binary(operation, left, right) for operation in operations]
        return found[0] if len(found) == 1 else net.binary("OR", *found)

    return run


LOWERINGS |= {
    "equal": _compare("EQUAL"),
    "not_equal": lambda net, node, left, right: net.unary("NOT", net.binary("EQUAL", left, right)),
    "less": _compare("LESS"),
    "less_equal": _compare("LESS", "EQUAL"),
    "greater": _compare("GREATER"),
    "greater_equal": _compare("GREATER", "EQUAL"),
    "or": _arithmetic("OR"),
    "and": _arithmetic("AND"),
    "xor": _arithmetic("XOR"),
}


@lowering("where")
def _where(net: Network, node: Node, condition: Any, chosen: Any, other: Any) -> Any:
    # TensorRT-RTX 1.7 crashes over a choice between equals whose condition was reshaped.
    if _are_alike(operand(node, 1), operand(node, 2), set()):
        return net.expand(chosen, operand(node, 1).shape, node.output.shape)
    return net.select(condition, chosen, other)


def _are_alike(left: Value, right: Value, known: set[tuple[Value, Value]]) -> bool:
    """Whether two values are computed in the same way from the same ones; ``known`` pairs are."""
    if left is right or (left, right) in known:
        return True
    known.add((left, right))
    if left.data is not None and right.data is not None:
        return left.dtype is right.dtype and torch.equal(left.data, right.data)
    one, two = left.node, right.node
    if one is None or two is None or (one.op, one.attrs) != (two.op, two.attrs):
        return False
    if left.index != right.index or len(one.inputs) != len(two.inputs):
        return False
    return all(
        a is b or (a is not None and b is not None and _are_alike(a, b, known))
        for a, b in zip(one.inputs, two.inputs)
    )


def _unary(operation: str) -> Lowering:
    return lambda net, node, tensor: net.unary(operation, tensor)


def _activation(operation: str) -> Lowering:
    return lambda net, node, tensor: net.activation(operation, tensor)


for _name in ("cos", "exp", "log", "sin", "sqrt", "not"):
    LOWERINGS[_name] = _unary(_name.upper())
for _name in ("neg", "abs"):
    LOWERINGS[_name] = _through_int32(_unary(_name.upper()))
LOWERINGS["relu"] = _through_int32(_activation("RELU"))
for _name in ("sigmoid", "tanh"):
    LOWERINGS[_name] = _through_float32(_activation(_name.upper()))


def _in_float32(function: Callable[[Network, Any], Any]) -> Lowering:
    """Several layers, rounded to 16 bits once."""

    def run(net: Network, node: Node, tensor: Any) -> Any:
        return net.cast(function(net, net.cast(tensor, dtypes.float32)), kind_of(node))

    return run


LOWERINGS["rsqrt"] = _in_float32(lambda net, x: net.unary("RECIP", net.unary("SQRT", x)))
LOWERINGS["silu"] = _in_float32(lambda net, x: net.binary("PROD", x, net.activation("SIGMOID", x)))


@lowering("gelu")
@_through_float32
def _gelu(net: Network, node: Node, tensor: Any) -> Any:
    form = "GELU_TANH" if node.attrs["approximate"] == "tanh" else "GELU_ERF"
    return net.activation(form, tensor)


@lowering("cast")
def _cast(net: Network, node: Node, tensor: Any) -> Any:
    return converted(net, tensor, kind_of(node), node.attrs["dtype"])


def converted(net: Network, tensor: Any, source: dtypes.dtype, target: dtypes.dtype) -> Any:
    """A tensor in another data type, as tripy's cast converts it."""
    if source is target:
        return tensor
    if source in (dtypes.float8, dtypes.int4):
        wide = target if target in dtypes.FLOATS else dtypes.float32
        tensor, source = net.dequantize(tensor, wide), wide
    if target in (dtypes.float8, dtypes.int4):
        if source not in dtypes.FLOATS:
            tensor, source = net.cast(tensor, dtypes.float32), dtypes.float32
        return net.quantize(tensor, source, target)
    if target is dtypes.bool and source is not dtypes.bool:
        return net.unary("NOT", net.with_number("EQUAL", tensor, 0, source))
    if target is dtypes.int8 and source in (dtypes.int32, dtypes.int64):
        return wrapped_int8(net, net.cast(tensor, dtypes.int32))
    return net.cast(tensor, target)


@lowering("copy")
def _copy(net: Network, node: Node, tensor: Any) -> Any:
    if node.attrs["where"] != operand(node).device:
        raise Unsupported(
            f"an engine runs on one device, and cannot copy to {node.attrs['where']}",
            "copy outside the compiled function",
        )
    return tensor
