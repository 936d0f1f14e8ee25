"""Schemas of operations that work element by element, with broadcasting."""

from __future__ import annotations

from tripy.dtypes import ALL, FLOATS, INTS, bool, float8, int4, int8, int64
from tripy.graph.schema import Inference, Shape, operation

ARITHMETIC = (*FLOATS, int8, *INTS, bool)
POWER = (*FLOATS, int8, int64)


def _broadcast(ctx: Inference) -> Shape:
    return ctx.broadcast(*(v.shape for v in ctx.values if v is not None))


def _same(ctx: Inference) -> Shape:
    return ctx.shape()


for _name in ("add", "sub", "mul", "div", "floordiv", "mod", "maximum", "minimum"):
    operation(_name, "lhs: T, rhs: T -> T", T=ARITHMETIC)(_broadcast)
operation("pow", "lhs: T, rhs: T -> T", T=POWER)(_broadcast)

for _name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
    operation(_name, "lhs: T, rhs: T -> bool", T=ARITHMETIC)(_broadcast)

for _name in ("or", "and", "xor"):
    operation(_name, "lhs: T, rhs: T -> bool", T=(bool,))(_broadcast)
operation("not", "input: T -> bool", T=(bool,))(_same)

for _name in ("neg", "abs"):
    operation(_name, "input: T -> T", T=(*FLOATS, int8, *INTS))(_same)

for _name in ("cos", "exp", "log", "rsqrt", "sin", "sqrt"):
    operation(_name, "input: T -> T", T=FLOATS)(_same)
for _name in ("sigmoid", "silu", "tanh"):
    operation(_name, "input: T -> T", T=(*FLOATS, int8))(_same)
operation("relu", "input: T -> T", T=(*FLOATS, int8, *INTS))(_same)
# Attribute approximate: "none" (the erf form) or "tanh".
operation("gelu", "input: T -> T", T=(*FLOATS, int8))(_same)

operation("where", "condition: bool, input: T, other: T -> T", T=(*FLOATS, int8, *INTS, bool))(
    _broadcast
)

# Pairs of data types that have no conversion; int4 and float8 convert through quantization.
NO_CAST = {
    (float8, int8), (int8, float8), (float8, int4), (int4, float8), (int4, int8), (int4, int64),
}  # fmt: skip


@operation("cast", "input: T -> @dtype", T=ALL, dtype=ALL)
def _cast(ctx: Inference) -> Shape:
    source, target = ctx.values[0].dtype, ctx.attrs["dtype"]  # type: ignore[union-attr]
    if (source, target) in NO_CAST:
        raise ctx.fail(
            f"{source} cannot be cast to {target}.",
            expected="any pair but float8 with int8 or int4, and int4 to int8 or int64",
            hint="cast to float32 first",
        )
    return ctx.shape()
