"""Layers that compute each element by itself: pages Activation, Cast, ElementWise, Identity,
Select and Unary of TensorRT's operator documentation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from tests.tensorrt.interpreter.values import FLOATS, INDICES, NUMBERS, RANGES, TORCH, Step, exact

CASTABLE = (*FLOATS, "INT8", "UINT8", *INDICES, "BOOL")


def constant_free_of_nan(step: Step, *values: torch.Tensor) -> None:
    """Which of NaN and a number is the larger is documented nowhere."""
    if any(v.is_floating_point() and v.isnan().any() for v in values):
        raise step.undocumented("what NaN does here")


def identity(step: Step) -> list[torch.Tensor]:
    """Page Identity. In a strongly typed network the output's type is the input's."""
    if step.out_type() != step.type():
        raise step.refuse("an identity layer can't change the type in a strongly typed network")
    return [step.value()]


def cast(step: Step) -> list[torch.Tensor]:
    """Page Cast: float to integer drops the fraction; DataType: out of range is undefined."""
    step.demand(CASTABLE, 0)
    to = step.layer.to_type.name
    if to not in CASTABLE:
        raise step.refuse(f"casts to {to} don't exist")
    x, kind = step.value(), step.type()
    if to in RANGES:
        if kind in FLOATS:
            x = x.double()
            low, high = RANGES[to]
            # 2**63 - 1 is no double: the bounds are those of the integer part, exclusive.
            if not bool(((x > low - 1 if low > -(2**63) else x >= low) & (x < high + 1)).all()):
                raise OverflowError(f"{step}: the result depends on an undefined cast to {to}")
            return [x.trunc().to(TORCH[to])]
        return [step.fitting(exact(x, wide=False), to)]
    if to == "BOOL":
        constant_free_of_nan(step, x)
        return [x != 0]
    if kind in ("INT32", "INT64") and to == "HALF" and bool((x.abs() > 65504).any()):
        raise OverflowError(f"{step}: the result depends on an integer too large for HALF")
    return [x.to(TORCH[to])]


def integer_division(step: Step, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if not np.all(b != 0):
        raise step.undocumented("integer division by zero")
    quotient = a // b
    if not np.all((quotient * b == a) | ((a >= 0) & (b > 0))):
        raise step.undocumented("which way DIV rounds a negative quotient of integers")
    return quotient


def integer_floor_division(step: Step, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if not np.all(b != 0):
        raise step.undocumented("integer division by zero")
    return a // b


def integer_power(step: Step, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if not np.all(b >= 0):
        raise step.undocumented("POW of integers with a negative exponent")
    return a.astype(object) ** b.astype(object)


INTEGER: dict[str, Callable[[Step, np.ndarray, np.ndarray], np.ndarray]] = {
    "SUM": lambda step, a, b: a + b,
    "PROD": lambda step, a, b: a * b,
    "SUB": lambda step, a, b: a - b,
    "MAX": lambda step, a, b: np.maximum(a, b),
    "MIN": lambda step, a, b: np.minimum(a, b),
    "DIV": integer_division,
    "FLOOR_DIV": integer_floor_division,
    "POW": integer_power,
}
FLOAT: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    "SUB": torch.sub,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "DIV": torch.div,
    "FLOOR_DIV": lambda a, b: torch.floor(a / b),
    "POW": torch.pow,
}
LOGICAL = {"AND": torch.logical_and, "OR": torch.logical_or, "XOR": torch.logical_xor}
COMPARED = {"EQUAL": torch.eq, "GREATER": torch.gt, "LESS": torch.lt}


def elementwise(step: Step) -> list[torch.Tensor]:
    """Page ElementWise: equal types and ranks, lengths that are equal or one."""
    op = step.layer.op.name
    step.demand_same(0, 1)
    step.broadcast(0, 1)
    a, b, kind = step.value(0), step.value(1), step.type()
    if op in LOGICAL:
        step.demand(("BOOL",), 0)
        return [LOGICAL[op](a, b)]
    if op in COMPARED:
        # The page lists no bool for EQUAL, which builders take all the same.
        step.demand((*NUMBERS, "BOOL") if op == "EQUAL" else NUMBERS, 0)
        return [COMPARED[op](a, b)]
    if op not in FLOAT:
        raise step.missing(f"the operation {op}")
    step.demand(NUMBERS, 0)
    if kind in FLOATS:
        if op in ("MAX", "MIN"):
            constant_free_of_nan(step, a, b)
        return [step.rounded(FLOAT[op](a.float(), b.float()))]
    if kind == "INT8" and op == "POW":
        raise step.refuse("POW takes no INT8")
    # Results beyond 2**62 by their size are computed once more in integers without bounds.
    a64, b64 = a.double(), b.double()
    if op in ("SUM", "SUB", "PROD"):
        size = FLOAT["PROD" if op == "PROD" else "SUM"](a64.abs(), b64.abs())
        wide = bool((size >= 2.0**62).any())
    else:
        wide = bool((a64.abs() >= 2.0**62).any() or (b64.abs() >= 2.0**62).any())
    return [step.fitting(INTEGER[op](step, exact(a, wide), exact(b, wide)), kind)]


UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIN": torch.sin,
    "COS": torch.cos,
    "TAN": torch.tan,
    "SINH": torch.sinh,
    "COSH": torch.cosh,
    "ASIN": torch.asin,
    "ACOS": torch.acos,
    "ATAN": torch.atan,
    "ASINH": torch.asinh,
    "ACOSH": torch.acosh,
    "ATANH": torch.atanh,
    "CEIL": torch.ceil,
    "FLOOR": torch.floor,
    "ERF": torch.erf,
    "SIGN": torch.sign,
    "ROUND": torch.round,  # To the even neighbour halfway, as UnaryOperation.ROUND.
}
INTEGER_UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ABS": np.abs,
    "NEG": np.negative,
    "SIGN": np.sign,
}


def unary(step: Step) -> list[torch.Tensor]:
    """Page Unary."""
    op, x, kind = step.layer.op.name, step.value(), step.type()
    if op == "NOT":
        step.demand(("BOOL",), 0)
        return [~x]
    if op in ("ISNAN", "ISINF"):
        step.demand(FLOATS, 0)
        return [x.isnan() if op == "ISNAN" else x.isinf()]
    if op not in UNARY:
        raise step.missing(f"the operation {op}")
    if kind not in FLOATS:
        if op not in INTEGER_UNARY or kind not in NUMBERS:
            raise step.refuse(f"{op} takes no {kind}")
        wide = bool((x.double().abs() >= 2.0**62).any())
        return [step.fitting(INTEGER_UNARY[op](exact(x, wide)), kind)]
    if op == "SIGN":
        constant_free_of_nan(step, x)
    return [step.rounded(UNARY[op](x.float()))]


def elu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.where(x >= 0, x, alpha * torch.expm1(x))


def softplus(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    # The same sum as log(exp(beta x) + 1), without the overflow that the formula could meet.
    return alpha * torch.logaddexp(beta * x, torch.zeros(()))


ACTIVATION: dict[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "RELU": lambda x, a, b: x.clamp(min=0),
    "SIGMOID": lambda x, a, b: torch.sigmoid(x),
    "TANH": lambda x, a, b: torch.tanh(x),
    "LEAKY_RELU": lambda x, a, b: torch.where(x >= 0, x, a * x),
    "ELU": lambda x, a, b: elu(x, a),
    "SELU": lambda x, a, b: torch.where(x > 0, b * x, b * (a * torch.exp(x) - a)),
    "SOFTSIGN": lambda x, a, b: x / (1 + x.abs()),
    "SOFTPLUS": softplus,
    "CLIP": lambda x, a, b: x.clamp(max=b).clamp(min=a),
    "HARD_SIGMOID": lambda x, a, b: (a * x + b).clamp(0, 1),
    "SCALED_TANH": lambda x, a, b: a * torch.tanh(b * x),
    "THRESHOLDED_RELU": lambda x, a, b: torch.where(x > a, x, torch.zeros(())),
    "GELU_ERF": lambda x, a, b: 0.5 * x * (1 + torch.erf(math.sqrt(0.5) * x)),
    "GELU_TANH": lambda x, a, b: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (0.044715 * x**3 + x)))
    ),
}


def activation(step: Step) -> list[torch.Tensor]:
    """Page Activation, and the formulas at ActivationType."""
    op = step.layer.type.name
    if op not in ACTIVATION:
        raise step.missing(f"the activation {op}")
    if op == "RELU" and step.type() in INDICES:
        return [step.value().clamp(min=0)]
    x = step.real()
    if op in ("RELU", "CLIP", "HARD_SIGMOID"):
        constant_free_of_nan(step, x)
    return [step.rounded(ACTIVATION[op](x, step.layer.alpha, step.layer.beta))]


def parametric_relu(step: Step) -> list[torch.Tensor]:
    """Page ParametricReLU: the slopes broadcast to the input, not the input to them."""
    step.demand_same(0, 1)
    step.broadcast(0, 1)
    x, slopes = step.real(0), step.real(1)
    if torch.broadcast_shapes(x.shape, slopes.shape) != x.shape:
        raise step.refuse("the slopes don't broadcast to the input")
    return [step.rounded(torch.where(x < 0, x * slopes, x))]


def select(step: Step) -> list[torch.Tensor]:
    """Page Select: a bool condition, two inputs of one type, all of one rank."""
    step.demand(("BOOL",), 0)
    step.demand((*NUMBERS, "BOOL"), 1, 2)
    step.demand_same(1, 2)
    step.broadcast(0, 1, 2)
    return [torch.where(step.value(0), step.value(1), step.value(2))]
