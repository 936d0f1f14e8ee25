"""What follows the sums of a matrix product: parts that its kernels share."""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803
# mypy: allow-untyped-defs

from __future__ import annotations

import triton
import triton.language as tl

# Kernels know an activation by its place here: partitions of warps take no strings.
ACTIVATIONS = (None, "relu", "silu", "gelu", "gelu_tanh")
_RELU, _SILU, _GELU, _GELU_TANH = (tl.constexpr(i) for i in range(1, 5))


@triton.jit
def place(tile, tiles_m, tiles_n, GROUP: tl.constexpr):
    """Row and column of a tile: down GROUP rows, then the next column."""
    width = GROUP * tiles_n
    first = tile // width * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    return first + tile % width % height, tile % width // height


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -1.4426950408889634))


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """The activation of that number in ``ACTIVATIONS``, of float32 numbers."""
    if ACTIVATION == _RELU:
        return tl.where(x < 0, 0.0, x)  # NaN is not below zero and stays.
    elif ACTIVATION == _SILU:
        return x * _sigmoid(x)
    elif ACTIVATION == _GELU:
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == _GELU_TANH:
        # (1 + tanh(u)) / 2 = sigmoid(2 u); 2 sqrt(2 / pi) = 1.5957691216057308.
        return x * _sigmoid(x * (1.5957691216057308 + 0.07135481282553501 * x * x))
    else:
        return x


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """x in the result's type: half to even, saturating; NaN stays NaN in floating-point types."""
    if dtype == tl.int8:
        # In [2**23, 2**24) float32's numbers are the integers: adding 1.5 * 2**23 rounds half to
        # even and leaves the integer, in two's complement, in the low bits.
        x = tl.minimum(tl.maximum(x, -128.0), 127.0) + 12582912.0
        return x.to(tl.int32, bitcast=True).to(tl.int8)
    elif dtype == tl.float8e4nv:
        return tl.clamp(x, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL).to(dtype)
    else:
        return x.to(dtype)


@triton.jit
def reciprocal(out_scale, IN_MEMORY: tl.constexpr):
    """1 / out_scale, which is a number or a pointer to one; 1 where there is none."""
    if out_scale is None:
        return 1.0
    elif IN_MEMORY:
        return 1.0 / tl.load(out_scale)
    else:
        return 1.0 / out_scale
