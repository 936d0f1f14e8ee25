"""What the two weight-only kernels share: unpacking weights, reading inputs, the epilogue.

Hardware has no int8 → float16 conversion that is worth its time, so unpacking goes through bit
patterns: a float16 with exponent bits of 1024 has the integers 0 … 1023 in its low bits. Two bytes
are put below two such exponents by one permutation, and one packed subtraction of 1024 + offset
finishes two weights. All results are exact.
"""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803, SIM300
# mypy: allow-untyped-defs

from __future__ import annotations

import triton
import triton.language as tl

# Triton's interpreter runs no assembly; plain casts say the same.
ASSEMBLY = tl.constexpr(not triton.knobs.runtime.interpret)
_NAN = tl.constexpr(tl.PropagateNan.ALL)

# Four int8 in a register, four float16 in two. 0x6480 is 1024 + 128: int8 is biased by 128 first.
_INT8_FLOAT16 = tl.constexpr("""{
    .reg .b32 t, c;
    xor.b32 t, $2, 0x80808080;
    mov.b32 c, 0x64806480;
    prmt.b32 $0, t, 0x64646464, 0x4140;
    prmt.b32 $1, t, 0x64646464, 0x4342;
    sub.f16x2 $0, $0, c;
    sub.f16x2 $1, $1, c;
}""")
# bfloat16 has too few fraction bits for a byte: float32's 2**23 + byte, whose upper half stays.
_INT8_BFLOAT16 = tl.constexpr("""{
    .reg .b32 t;
    .reg .f32 a, b, c, d;
    .reg .b32 x, y;
    xor.b32 t, $2, 0x80808080;
    prmt.b32 x, t, 0x4B000000, 0x7650;
    prmt.b32 y, t, 0x4B000000, 0x7651;
    mov.b32 a, x;
    mov.b32 b, y;
    sub.f32 a, a, 0f4B000080;
    sub.f32 b, b, 0f4B000080;
    mov.b32 x, a;
    mov.b32 y, b;
    prmt.b32 $0, x, y, 0x7632;
    prmt.b32 x, t, 0x4B000000, 0x7652;
    prmt.b32 y, t, 0x4B000000, 0x7653;
    mov.b32 c, x;
    mov.b32 d, y;
    sub.f32 c, c, 0f4B000080;
    sub.f32 d, d, 0f4B000080;
    mov.b32 x, c;
    mov.b32 y, d;
    prmt.b32 $1, x, y, 0x7632;
}""")
# Four bytes are eight int4, each plus 8: the low halves in $0 and $1, the high ones in $2 and $3.
_INT4_FLOAT16 = tl.constexpr("""{
    .reg .b32 l, h, c;
    and.b32 l, $4, 0x0f0f0f0f;
    shr.u32 h, $4, 4;
    and.b32 h, h, 0x0f0f0f0f;
    mov.b32 c, 0x64086408;
    prmt.b32 $0, l, 0x64646464, 0x4140;
    prmt.b32 $1, l, 0x64646464, 0x4342;
    prmt.b32 $2, h, 0x64646464, 0x4140;
    prmt.b32 $3, h, 0x64646464, 0x4342;
    sub.f16x2 $0, $0, c;
    sub.f16x2 $1, $1, c;
    sub.f16x2 $2, $2, c;
    sub.f16x2 $3, $3, c;
}""")
# bfloat16's 128 + n; 1.0 * x - 136, as sm_80 has no packed subtraction.
_INT4_BFLOAT16 = tl.constexpr("""{
    .reg .b32 l, h, o, c;
    and.b32 l, $4, 0x0f0f0f0f;
    shr.u32 h, $4, 4;
    and.b32 h, h, 0x0f0f0f0f;
    mov.b32 o, 0x3f803f80;
    mov.b32 c, 0xc308c308;
    prmt.b32 $0, l, 0x43434343, 0x4140;
    prmt.b32 $1, l, 0x43434343, 0x4342;
    prmt.b32 $2, h, 0x43434343, 0x4140;
    prmt.b32 $3, h, 0x43434343, 0x4342;
    fma.rn.bf16x2 $0, $0, o, c;
    fma.rn.bf16x2 $1, $1, o, c;
    fma.rn.bf16x2 $2, $2, o, c;
    fma.rn.bf16x2 $3, $3, o, c;
}""")
# int8 that hold 16 times the weight: no sign has to be extended.
_INT4_INT8 = tl.constexpr("""{
    .reg .b32 t;
    xor.b32 t, $2, 0x88888888;
    and.b32 $1, t, 0xf0f0f0f0;
    shl.b32 t, t, 4;
    and.b32 $0, t, 0xf0f0f0f0;
}""")


@triton.jit
def prefetch(pointers):
    """Ask for the cache lines of addresses, into L2; nobody waits for them."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [pointers], tl.int32, False, 1
    )


@triton.jit
def unpack(w, TYPE: tl.constexpr):
    """int8 or float8 weights as float16, bfloat16, float32 or (int8) themselves."""
    if w.dtype == TYPE:
        return w
    elif (w.dtype == tl.int8) and (TYPE == tl.float16) and ASSEMBLY:
        return tl.inline_asm_elementwise(_INT8_FLOAT16, "=r,=r,r", [w], tl.float16, True, 4)
    elif (w.dtype == tl.int8) and (TYPE == tl.bfloat16) and ASSEMBLY:
        return tl.inline_asm_elementwise(_INT8_BFLOAT16, "=r,=r,r", [w], tl.bfloat16, True, 4)
    else:
        return w.to(tl.float32).to(TYPE)


@triton.jit
def unpack_int4(w, TYPE: tl.constexpr):
    """The low and the high halves of bytes; for int8, multiplied by 16."""
    if not ASSEMBLY:
        low = (w & 15).to(tl.int8) - 8
        high = (w >> 4).to(tl.int8) - 8
        if TYPE == tl.int8:
            return low * 16, high * 16
        return low.to(tl.float32).to(TYPE), high.to(tl.float32).to(TYPE)
    elif TYPE == tl.int8:
        return tl.inline_asm_elementwise(_INT4_INT8, "=r,=r,r", [w], (tl.int8, tl.int8), True, 4)
    elif TYPE == tl.bfloat16:
        return tl.inline_asm_elementwise(
            _INT4_BFLOAT16, "=r,=r,=r,=r,r", [w], (tl.bfloat16, tl.bfloat16), True, 4
        )
    else:
        low, high = tl.inline_asm_elementwise(
            _INT4_FLOAT16, "=r,=r,=r,=r,r", [w], (tl.float16, tl.float16), True, 4
        )
        return low.to(TYPE), high.to(TYPE)


@triton.jit
def columns_of(bytes, WINDOW: tl.constexpr):
    """The columns of x that bytes of a row belong to; for int4, those of the low halves."""
    if WINDOW == 0:
        return bytes
    else:
        return bytes // WINDOW * (2 * WINDOW) + bytes % WINDOW


@triton.jit
def quantized(y, TYPE: tl.constexpr):
    """Values divided by the scale, to the nearest int8 or float8: ties to even, saturating."""
    if TYPE == tl.int8:
        # From 2**23 on float32 has no fractions: the sum is rounded as wanted, in one instruction.
        y = tl.minimum(tl.maximum(y, -128.0), 127.0) + 12582912.0
        return y.to(tl.int32, bitcast=True).to(tl.int8)
    else:
        return tl.clamp(y, -448.0, 448.0, propagate_nan=_NAN).to(TYPE)


@triton.jit
def norm_statistics(x, rows, M, K: tl.constexpr, eps, RMS: tl.constexpr, BLOCK: tl.constexpr):
    """Mean (zero for "rms") and 1 / deviation of rows; two passes, in float32."""
    inside = (rows < M)[:, None]
    mean = tl.zeros([rows.shape[0]], tl.float32)
    columns = tl.arange(0, BLOCK)[None, :]
    if not RMS:
        for k in range(0, K, BLOCK):
            mask = inside & (columns + k < K)
            values = tl.load(x + rows[:, None].to(tl.int64) * K + columns + k, mask=mask, other=0.0)
            mean += tl.sum(values.to(tl.float32), 1)
        mean = mean / K
    squares = tl.zeros([rows.shape[0]], tl.float32)
    for k in range(0, K, BLOCK):
        mask = inside & (columns + k < K)
        values = tl.load(x + rows[:, None].to(tl.int64) * K + columns + k, mask=mask, other=0.0)
        centered = tl.where(mask, values.to(tl.float32) - mean[:, None], 0.0)
        squares += tl.sum(centered * centered, 1)
    return mean, 1.0 / tl.sqrt_rn(squares / K + eps)


@triton.jit
def read_input(
    x, rows, columns, mask, K, norm_weight, norm_bias, mean, deviation, in_scale, COMPUTE
):
    """A tile of x, normalized and rounded as asked for; zero where the mask is false.

    What is normalized is rounded to x's type, as a layer of its own would have it.
    ``rows``, ``columns``, ``mean`` and ``deviation`` broadcast to the tile's shape.
    """
    values = tl.load(x + rows.to(tl.int64) * K + columns, mask=mask, other=0.0)
    if norm_weight is not None:
        values = (values.to(tl.float32) - mean) * deviation
        values *= tl.load(norm_weight + columns, mask=columns < K, other=0.0).to(tl.float32)
        if norm_bias is not None:
            values += tl.load(norm_bias + columns, mask=columns < K, other=0.0).to(tl.float32)
        values = tl.where(mask, values, 0.0).to(x.dtype.element_ty)
    if in_scale is not None:
        values = quantized(tl.math.div_rn(values.to(tl.float32), in_scale), COMPUTE)
    return values


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -1.4426950408889634))


@triton.jit
def _activate(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu":
        return tl.where(x < 0, 0.0, x)  # NaN is not below zero and stays.
    elif ACTIVATION == "silu":
        return x * _sigmoid(x)
    elif ACTIVATION == "gelu":
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        # (1 + tanh(u)) / 2 = sigmoid(2 u); 2 sqrt(2 / pi) = 1.5957691216057308.
        return x * _sigmoid(x * (1.5957691216057308 + 0.07135481282553501 * x * x))
    else:
        return x


@triton.jit
def finish(
    result, rows, columns, scale, factor, bias, residual, out, M, N,
    GROUP: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Epilogue: scales, bias, activation and residual of a tile, which is then stored.

    GROUP is 0 for one scale, 1 for one an output; block scales are in ``result`` already.
    """
    mask = (rows < M) & (columns < N)
    if GROUP == 0:
        result *= tl.load(scale)
    elif GROUP == 1:
        result *= tl.load(scale + columns, mask=columns < N, other=0.0)
    result *= factor
    if bias is not None:
        result += tl.load(bias + columns, mask=columns < N, other=0.0).to(tl.float32)
    result = _activate(result, ACTIVATION)
    offsets = rows.to(tl.int64) * N + columns
    if residual is not None:
        result += tl.load(residual + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + offsets, result.to(out.dtype.element_ty), mask=mask)
