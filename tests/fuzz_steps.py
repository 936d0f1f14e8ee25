"""The steps that random graphs are made of: one function a family of operations.

Products sum small integers, so that every order of summing gives the same number, and results can
be compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import numpy as np

import tripy as tp
from tests.fuzz import Program, Step

FLOATS = (tp.float32, tp.float16, tp.bfloat16)
INTS = (tp.int32, tp.int64)
NUMBERS = (*FLOATS, tp.int8, *INTS)
SMALL = (tp.int8, tp.int4, tp.float8)
ANY = (*NUMBERS, tp.bool)

Draw = Callable[[Program], Optional[Step]]
FAMILIES: list[tuple[float, Draw]] = []
COVERED: set[str] = set()


def family(*operations: str, weight: float = 1.0) -> Callable[[Draw], Draw]:
    """Register a function that draws a step; ``operations`` are the schemas it makes."""

    def register(function: Draw) -> Draw:
        FAMILIES.append((weight, function))
        COVERED.update(operations)
        return function

    return register


def draw(p: Program) -> Optional[Step]:
    """A random step; None where nothing fits the one that was chosen."""
    weights = np.array([weight for weight, _ in FAMILIES])
    return FAMILIES[int(p.rng.choice(len(FAMILIES), p=weights / weights.sum()))][1](p)


def step(text: str, run: Callable, *inputs: Optional[int], **flags: bool) -> Optional[Step]:
    if any(i is None for i in inputs):
        return None
    return Step(text, tuple(inputs), run, **flags)  # type: ignore[arg-type]


def axis(p: Program, index: int) -> int:
    rank = p.value(index).rank
    return int(p.rng.integers(-rank, rank))


def tame(x: tp.Tensor) -> tp.Tensor:
    """-1, 0, 1 or 2 for each element; 0 for NaN."""
    kind = x.dtype
    return tp.cast(x > 0.5, kind) + tp.cast(x > 1.5, kind) - tp.cast(x < -0.5, kind)


def constant(p: Program, kind: Any, *shape: int) -> tp.Tensor:
    values = p.rng.integers(-2, 3, shape).astype(np.float32)
    return tp.cast(tp.Tensor(values), kind).eval()


SMOOTH = [tp.cos, tp.sin, tp.tanh, tp.sigmoid, tp.relu, tp.silu, tp.gelu, abs, tp.Tensor.__neg__]
SHARP = [tp.exp, tp.log, tp.sqrt, tp.rsqrt]


@family("cos", "sin", "tanh", "sigmoid", "relu", "silu", "gelu", "abs", "neg", weight=3)
def _smooth(p: Program) -> Optional[Step]:
    x, function = p.pick(*FLOATS), p.choose(SMOOTH)
    # A fused kernel computes these itself.
    fuzzy = x is not None and p.product[x] and function in (tp.gelu, tp.silu)
    return step(f"{function.__name__}({{0}})", lambda x: function(x), x, fuzzy=bool(fuzzy))


@family("gelu")
def _gelu_tanh(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS)
    fuzzy = x is not None and p.product[x]
    return step("gelu_tanh({0})", lambda x: tp.gelu(x, approximate="tanh"), x, fuzzy=bool(fuzzy))


@family("exp", "log", "sqrt", "rsqrt")
def _sharp(p: Program) -> Optional[Step]:
    function = p.choose(SHARP)
    return step(f"{function.__name__}({{0}})", lambda x: function(x), p.pick(*FLOATS, exact=True))


@family("relu", "abs", "neg", "sigmoid", "tanh")
def _of_integers(p: Program) -> Optional[Step]:
    function = p.choose([tp.relu, abs, tp.Tensor.__neg__, tp.sigmoid, tp.tanh, tp.gelu])
    return step(f"{function.__name__}({{0}})", lambda x: function(x), p.pick(tp.int8, *INTS))


def _partner(p: Program, x: Optional[int], exact: bool) -> Optional[int]:
    if x is None:
        return None
    return p.pick(p.value(x).dtype, exact=exact, fits=lambda t: _broadcasts(t, p.value(x)))


def _broadcasts(a: tp.Tensor, b: tp.Tensor) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(a.shape[::-1], b.shape[::-1]))


@family("add", "sub", "mul", "maximum", "minimum", weight=5)
def _arithmetic(p: Program) -> Optional[Step]:
    name, function = p.choose(
        [
            ("+", lambda a, b: a + b),
            ("-", lambda a, b: a - b),
            ("*", lambda a, b: a * b),
            ("maximum", tp.maximum),
            ("minimum", tp.minimum),
        ]
    )
    x = p.pick(*ANY)
    y = _partner(p, x, False)
    fused = name == "+" and x is not None and y is not None and (p.product[x] or p.product[y])
    return step(f"{{0}} {name} {{1}}", function, x, y, product=bool(fused))


@family("div", "floordiv", "mod", "pow", weight=2)
def _division(p: Program) -> Optional[Step]:
    name, function = p.choose(
        [
            ("/", lambda a, b: a / b),
            ("//", lambda a, b: a // b),
            ("%", lambda a, b: a % b),
            ("**", lambda a, b: a**b),
        ]
    )
    x = p.pick(*ANY, exact=True)
    return step(f"{{0}} {name} {{1}}", function, x, _partner(p, x, True))


@family("add", "sub", "mul", "div", weight=2)
def _with_a_number(p: Program) -> Optional[Step]:
    x = p.pick(*NUMBERS)
    if x is None:
        return None
    whole = p.value(x).dtype not in FLOATS
    number = p.choose([1, 2, 3, -2] if whole else [0.5, 2.0, -1.0, 3])
    name, function = p.choose(
        [
            ("+", lambda a: a + number),
            ("- (reflected)", lambda a: number - a),
            ("*", lambda a: a * number),
            ("/", lambda a: a / number),
        ]
    )
    return step(f"{{0}} {name} {number}", function, x)


@family("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
def _comparison(p: Program) -> Optional[Step]:
    name = p.choose(["eq", "ne", "lt", "le", "gt", "ge"])
    x = p.pick(*ANY, exact=True)
    run = getattr(tp.Tensor, f"__{name}__")
    return step(f"{{0}} {name} {{1}}", lambda a, b: run(a, b), x, _partner(p, x, True))


@family("or", "and", "xor", "not")
def _logic(p: Program) -> Optional[Step]:
    x = p.pick(tp.bool)
    name, function = p.choose(
        [("|", lambda a, b: a | b), ("&", lambda a, b: a & b), ("^", lambda a, b: ~a ^ b)]
    )
    return step(f"{{0}} {name} {{1}}", function, x, _partner(p, x, False))


@family("where")
def _where(p: Program) -> Optional[Step]:
    x = p.pick(*ANY)
    y = _partner(p, x, False)
    if x is None or y is None:
        return None
    condition = p.pick(tp.bool, fits=lambda t: _broadcasts(t, p.value(x)))
    return step("where({0}, {1}, {2})", tp.where, condition, x, y)


@family("where")
def _masked_fill(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, tp.int32)
    if x is None:
        return None
    mask = p.pick(tp.bool, fits=lambda t: _broadcasts(t, p.value(x)))
    return step("masked_fill({0}, {1}, 1)", lambda a, m: tp.masked_fill(a, m, 1), x, mask)


@family("cast", weight=2)
def _cast(p: Program) -> Optional[Step]:
    target = p.choose([*ANY, tp.float8, tp.int4])
    # What an integer becomes of NaN, or of a number it cannot hold, is up to the processor.
    held = 7 if target is tp.int4 else 100
    x = p.pick(*ANY, *SMALL, exact=target not in FLOATS, fits=lambda t: _within(t, held))
    return step(f"cast({{0}}, {target})", lambda a: tp.cast(a, target), x)


def _within(tensor: tp.Tensor, bound: float) -> bool:
    values = tp.cast(tensor, tp.float32).numpy()
    return bool((np.abs(values) <= bound).all())


@family("matmul", "permute", weight=4)
def _layer(p: Program) -> Optional[Step]:
    """A layer with a known weight: floating point, weight-only or static; maybe more of it."""
    x = p.pick(*FLOATS, least=1, exact=True, fits=lambda t: isinstance(t.shape[-1], int))
    if x is None:
        return None
    kind, inner = p.value(x).dtype, int(p.value(x).shape[-1])
    if any(int(values[x].shape[-1]) != inner for values in p.values):
        return None  # The size is dynamic: no known weight fits.
    out = int(p.rng.integers(1, 6))
    mode = p.choose(["float", "float", "weight-only", "static", "static"])
    small = p.choose([tp.int8, tp.int8, tp.int4, tp.float8])
    stored = p.choose(["out, in", "out, in", "in, out"])
    weight = constant(p, kind, *((out, inner) if stored == "out, in" else (inner, out)))
    dim = p.choose([None, 0, 1])
    scale = 1.0 if dim is None else [1.0, 2.0, 1.0, 0.5, 1.0, 2.0, 1.0, 0.5][: weight.shape[dim]]
    if dim is not None and weight.shape[dim] > 8:
        return None
    bias = constant(p, kind, out) if p.rng.random() < 0.6 else None
    activation = p.choose([None, None, tp.relu, tp.gelu, tp.silu])
    rounding = activation in (None, tp.relu) and p.rng.random() < 0.4
    x_small = tp.int8 if small is tp.int4 else small

    def run(x: tp.Tensor) -> tp.Tensor:
        x, w = tame(x), weight
        if mode == "static":
            x = tp.dequantize(tp.quantize(x, 0.5, x_small), 0.5, kind)
        if mode != "float":
            w = tp.dequantize(tp.quantize(w, scale, small, dim), scale, kind, dim)
        y = x @ (tp.transpose(w, 0, 1) if stored == "out, in" else w)
        y = y if bias is None else bias + y
        y = y if activation is None else activation(y)
        return tp.quantize(y, 2.0, x_small) if rounding else y

    text = f"layer({{0}}, {mode}, {small}, [{stored}], dim={dim}, bias={bias is not None}, "
    text += f"{getattr(activation, '__name__', None)}, rounded={rounding})"
    fuzzy = activation in (tp.gelu, tp.silu)
    return step(text, run, x, fuzzy=fuzzy, product=activation is None and not rounding,
                after_layer=True)  # fmt: skip


@family("add", weight=2)
def _after_a_layer(p: Program) -> Optional[Step]:
    """What may look like a bias, on something that may be a product."""
    layers = [i for i, known in enumerate(p.after_layer) if known and p.value(i).dtype in FLOATS]
    if not layers:
        return None
    x = p.choose(layers)
    out = int(p.value(x).shape[-1])
    shape = p.choose([(out,), (out,), (1,), (1, out), (), (2, out)])
    added, left = constant(p, p.value(x).dtype, *shape), p.rng.random() < 0.5
    text = f"constant{list(shape)} + {{0}}" if left else f"{{0}} + constant{list(shape)}"
    return step(text, lambda a: added + a if left else a + added, x, product=p.product[x],
                after_layer=True)  # fmt: skip


@family("matmul", weight=2)
def _product(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, least=1, exact=True)
    if x is None:
        return None
    shape = p.value(x).shape

    def fits(t: tp.Tensor) -> bool:
        return t.rank > 0 and (t.shape[-2] if t.rank > 1 else t.shape[0]) == shape[-1]

    y = p.pick(p.value(x).dtype, exact=True, fits=fits)
    return step("tame({0}) @ tame({1})", lambda a, b: tame(a) @ tame(b), x, y, product=True)


@family("permute", "matmul")
def _gram(p: Program) -> Optional[Step]:
    x = p.pick(*FLOATS, least=2, exact=True)
    return step("tame({0}) @ transpose(tame({0}))",
                lambda a: tame(a) @ tp.transpose(tame(a), -1, -2), x, product=True)  # fmt: skip


@family("quantize", "dequantize", weight=2)
def _quantize(p: Program) -> Optional[Step]:
    x, small = p.pick(*FLOATS, exact=True), p.choose(SMALL)
    scale = p.choose([0.5, 0.25, 0.3, 2.0])
    text = f"quantize({{0}}, {scale}, {small})"
    return step(text, lambda a: tp.quantize(a, scale, small), x)


@family("dequantize")
def _dequantize(p: Program) -> Optional[Step]:
    kind, scale = p.choose(FLOATS), p.choose([0.5, 0.1])
    text = f"dequantize({{0}}, {scale}, {kind})"
    return step(text, lambda a: tp.dequantize(a, scale, kind), p.pick(*SMALL))


@family("quantize", "dequantize")
def _by_channel(p: Program) -> Optional[Step]:
    x, small = p.pick(*FLOATS, least=1, exact=True), p.choose(SMALL)
    if x is None:
        return None
    dim, kind = axis(p, x), p.value(x).dtype

    def run(a: tp.Tensor) -> tp.Tensor:
        scale = tp.iota((a.shape[dim],), dtype=kind) * 0.25 + 0.5
        return tp.dequantize(tp.quantize(a, scale, small, dim), scale, kind, dim)

    return step(f"quantized by channel({{0}}, {small}, {dim})", run, x)


@family("dynamic_quantize")
def _dynamic(p: Program) -> Optional[Step]:
    x, small, dim = p.pick(*FLOATS, least=1, exact=True), p.choose(SMALL), p.choose([None, -1])
    text = f"dynamic_quantize({{0}}, {small}, {dim})"
    return step(text, lambda a: tp.dynamic_quantize(a, small, dim), x)
