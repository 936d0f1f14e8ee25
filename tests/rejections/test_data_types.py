"""The data types of every function, written down by hand: what is not listed is refused.

Each row is a function, called with ``t`` of each of the nine types, and the types that it accepts,
in short form. The types that are listed must be accepted, all others refused with a message that
names the type, all that are accepted and the user's own line.
"""

from __future__ import annotations

import re

import pytest

import tripy as tp
from tests.helpers import ALL, is_accepted_cast, types_of
from tests.rejections.support import check_message, message, run

# The line, and the types of `t`. `o` is t with its elements in another order.
OPERATORS = [
    *((f"t {sign} o", "F i8 I b") for sign in ("+", "-", "*", "/", "//", "%")),
    ("t ** o", "F i8 int64"),
    *((f"t {sign} o", "F i8 I b") for sign in ("==", "!=", "<", "<=", ">", ">=")),
    ("t | o", "b"), ("t & o", "b"), ("t ^ o", "b"), ("~t", "b"),
    ("-t", "F i8 I"), ("abs(t)", "F i8 I"),
    ("t @ o", "F"),
    ("t[0]", "F int4 i8 I b"), ("t[0, ::-1]", "F int4 i8 I b"),
    ("t[None]", "F int4 i8 I b"), ("t[tp.Tensor([1])]", "F int4 i8 I b"),
]  # fmt: skip
FUNCTIONS = [
    ("tp.full_like(t, 1)", "F i8 I b"), ("tp.ones_like(t)", "F i8 I b"),
    ("tp.zeros_like(t)", "F i8 I b"), ("tp.iota_like(t)", "any"),
    ("tp.tril(t)", "F i8 I b"), ("tp.triu(t)", "F i8 I b"),
    ("tp.allclose(t, o)", "F"), ("tp.equal(t, o)", "F i8 I b"),
    ("tp.concatenate([t, o], 0)", "any"), ("tp.stack([t, o])", "any"),
    ('tp.copy(t, tp.device("cpu"))', "any"), ("tp.cumsum(t, 0)", "F"),
    ("tp.expand(t, (3, 2, 2))", "F I b"), ("tp.flatten(t)", "F int4 i8 I b"),
    ("tp.flip(t)", "F I b"), ("tp.flip(t, 0)", "F I b"),
    ("tp.gather(t, 0, tp.Tensor([1]))", "any"), ("tp.gather(x, 0, t)", "I"),
    ("tp.masked_fill(x, t, 0.0)", "b"), ("tp.where(t, x, 0.0)", "b"),
    ("tp.maximum(t, o)", "F i8 I b"), ("tp.minimum(t, o)", "F i8 I b"),
    ("tp.outer(v, v)", "F"), ("tp.pad(t, [(1, 0), (0, 1)])", "F I b"),
    ('tp.pad(t, [(1, 0), (0, 1)], mode="reflect")', "F I b"),
    ("tp.permute(t, (1, 0))", "any"), ("tp.transpose(t, 0, 1)", "any"),
    ("tp.repeat(t, 2, 0)", "F I b"), ("tp.reshape(t, (4,))", "any"),
    ("tp.resize(t, (4, 4))", "float32 float16 i8"),
    ("tp.resize(t, scales=(2, 2))", "float32 float16 i8"),
    ("tp.softmax(t)", "F"), ("tp.softmax(t, 0)", "F"), ("tp.split(t, 2)", "any"),
    ("tp.squeeze(u, 0)", "any"), ("tp.unsqueeze(t, 0)", "any"),
    ("tp.avgpool(i, (2, 2))", "F i8"), ("tp.maxpool(i, (2, 2))", "F i8"),
    *((f"tp.{name}(t)", "F I") for name in ("sum", "prod", "max", "min", "mean")),
    ("tp.var(t)", "F"), ("tp.all(t)", "b"), ("tp.any(t)", "b"),
    *((f"tp.{name}(t)", "F") for name in ("cos", "exp", "log", "rsqrt", "sin", "sqrt")),
    *((f"tp.{name}(t)", "F i8") for name in ("gelu", "sigmoid", "silu", "tanh")),
    ('tp.gelu(t, approximate="tanh")', "F i8"), ("tp.relu(t)", "F i8 I"),
    ("tp.scaled_dot_product_attention(i, i, i)", "F"),
    ("tp.kv_cache_update(i, i, tp.Tensor([0]))", "F"),
    ("tp.kv_cache_update(c, c, w)", "int32"),
    ("tp.rotary_embedding(t, a, a)", "F"),
    ("tp.quantize(t, 1.0, tp.int8)", "F"), ("tp.dynamic_quantize(t, tp.int8)", "F"),
    ("tp.dequantize(t, 1.0, tp.float32)", "int4 i8 f8"),
]  # fmt: skip
# A data type given as an argument.
ARGUMENTS = [
    ("tp.arange(2, dtype=d)", "any"), ("tp.iota((2,), dtype=d)", "any"),
    ("tp.iota_like(x, dtype=d)", "any"),
    ("tp.full((2,), 1, dtype=d)", "F i8 I b"), ("tp.full_like(x, 1, dtype=d)", "F i8 I b"),
    ("tp.ones((2,), dtype=d)", "F i8 I b"), ("tp.ones_like(x, dtype=d)", "F i8 I b"),
    ("tp.zeros((2,), dtype=d)", "F i8 I b"), ("tp.zeros_like(x, dtype=d)", "F i8 I b"),
    ("tp.quantize(x, 1.0, d)", "int4 i8 f8"), ("tp.dynamic_quantize(x, d)", "int4 i8 f8"),
    ("tp.dequantize(q, 1.0, d)", "F"), ("tp.Linear(2, 3, dtype=d)", "F"),
    ("tp.Linear(2, 3, quant_dtype=d)", "int4 i8 f8"), ("tp.Embedding(2, 3, dtype=d)", "F"),
    ("tp.LayerNorm(2, dtype=d)", "F"), ("tp.RMSNorm(2, dtype=d)", "F"),
    ("tp.GroupNorm(1, 2, dtype=d)", "F"), ("tp.InstanceNorm(2, dtype=d)", "F"),
    ("tp.BatchNorm(2, dtype=d)", "F"), ("tp.Conv(1, 1, (3,), dtype=d)", "F"),
    ("tp.ConvTranspose(1, 1, (3,), dtype=d)", "F"),
    ("tp.Conv(1, 1, (3,), quant_dtype=d)", "int4 i8 f8"),
    ("tp.ConvTranspose(1, 1, (3,), quant_dtype=d)", "int4 i8 f8"),
]  # fmt: skip


def program(line: str, dtype: str) -> str:
    return f"""\
d = tp.{dtype}
t = tp.cast(tp.Tensor([[1, 0], [0, 1]]), d)
o = tp.cast(tp.Tensor([[1, 1], [1, 1]]), d)
u = tp.cast(tp.Tensor([[1, 0]]), d)
v = tp.cast(tp.Tensor([1, 0]), d)
w = tp.cast(tp.Tensor([0]), d)
a = tp.cast(tp.Tensor([[1], [0]]), d)
i = tp.cast(tp.Tensor([[[[1, 0], [0, 1]]]]), d)
c = tp.zeros((1, 1, 2, 2))
x = tp.ones((2, 2))
q = tp.cast(x, tp.int8)
{line}"""


@pytest.mark.parametrize("dtype", [str(kind) for kind in ALL])
@pytest.mark.parametrize(
    ("line", "short"), [*OPERATORS, *FUNCTIONS, *ARGUMENTS], ids=lambda text: text
)
def test_data_types(line, short, dtype):
    code, accepted = program(line, dtype), types_of(short)
    if getattr(tp, dtype) in accepted:
        run(code)
        return
    text = message(code)
    check_message(text, code, text.splitlines()[0], dtype, "")
    assert re.search("unsupported data type|the data type is not supported", text)
    expected = re.search("expected: +(?:one of )?(.*)", text)[1].replace("tp.", "")
    assert set(expected.split(", ")) == {str(kind) for kind in accepted}


@pytest.mark.parametrize("source", ALL, ids=str)
@pytest.mark.parametrize("target", ALL, ids=str)
def test_casts(source, target):
    """Any pair except f8↔i8, f8→i4, i4→{f8, i8, int64}."""
    code = program(f"tp.cast(t, tp.{target})", str(source))
    if is_accepted_cast(source, target):
        run(code)
        return
    summary = f"cast: {source} cannot be cast to {target}."
    check_message(message(code), code, summary, f"{source}[2, 2]", "any pair but float8 with int8")
