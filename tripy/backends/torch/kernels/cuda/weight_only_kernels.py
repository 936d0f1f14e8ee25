"""Two kernels for y = x @ W.T with packed weights and few rows of x.

A weight is used once for each row of x, so at few rows reading W is all the time there is. What a
kernel has to do is keep enough reads in flight (about 30 KB a multiprocessor) and unpack
weights at the rate at which they arrive.

- `rows_kernel`: products in float32 registers, no tensor cores. The first tile of weights, which
  for small layers is all of them, is asked for before anything else. For 1 to 4 rows.
- `tiles_kernel`: tensor cores; weights travel through several stages of shared memory. Time
  depends little on the number of rows.
"""

# ruff: noqa: N803, N806, SIM300
# mypy: allow-untyped-defs

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from tripy.backends.torch.kernels.cuda.weight_only_parts import (
    ASSEMBLY,
    columns_of,
    finish,
    norm_statistics,
    prefetch,
    read_input,
    unpack,
    unpack_int4,
)


@triton.jit
def _block_scale(scale, n, columns, K: tl.constexpr, GROUP: tl.constexpr):
    # Columns beyond K, where x is zero, take the last block's.
    return tl.load(scale + n.to(tl.int64) * (K // GROUP) + tl.minimum(columns, K - 1) // GROUP)


@triton.jit
def rows_kernel(
    x, weight, scale, bias, residual, norm_weight, norm_bias, out,
    in_scale, factor, eps, M, N, K: tl.constexpr, ROW_BYTES: tl.constexpr,
    COMPUTE: tl.constexpr, WINDOW: tl.constexpr, GROUP: tl.constexpr, RMS: tl.constexpr,
    ACTIVATION: tl.constexpr, ONCE: tl.constexpr, PDL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """BLOCK_N outputs of BLOCK_M rows. With ONCE, BLOCK_K holds a whole row of weights."""
    if PDL:
        gdc_launch_dependents()
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None, None]
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :, None]
    offsets = tl.arange(0, BLOCK_K)[None, None, :]
    # Rows beyond N read the last one again, so that no mask is needed.
    pointers = weight + tl.minimum(n, N - 1).to(tl.int64) * ROW_BYTES + offsets
    tile = tl.load(pointers, mask=offsets < ROW_BYTES, other=0.0)
    if PDL:
        gdc_wait()
    mean, deviation = 0.0, 1.0
    if norm_weight is not None:
        rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
        mean, deviation = norm_statistics(x, rows, M, K, eps, RMS, 1024)
        mean, deviation = mean[:, None, None], deviation[:, None, None]
    sums = tl.zeros([BLOCK_M, BLOCK_N, BLOCK_K], tl.float32)
    for k in range(0, BLOCK_K if ONCE else ROW_BYTES, BLOCK_K):
        w = tile
        if not ONCE:  # The next tile is on its way while this one is used.
            tile = tl.load(
                pointers + k + BLOCK_K, mask=offsets + k + BLOCK_K < ROW_BYTES, other=0.0
            )
        columns = columns_of(offsets + k, WINDOW)
        values = read_input(
            x, m, columns, (m < M) & (columns < K), K, norm_weight, norm_bias, mean, deviation,
            in_scale, COMPUTE,
        ).to(tl.float32)  # fmt: skip
        if WINDOW == 0:
            products = unpack(w, tl.float32) * values
            if GROUP > 1:
                products *= _block_scale(scale, tl.minimum(n, N - 1), columns, K, GROUP)
            sums += products
        else:
            low, high = unpack_int4(w, tl.float32)
            more = columns + WINDOW
            second = read_input(
                x, m, more, (m < M) & (more < K), K, norm_weight, norm_bias, mean, deviation,
                in_scale, COMPUTE,
            ).to(tl.float32)  # fmt: skip
            if GROUP > 1:
                low *= _block_scale(scale, tl.minimum(n, N - 1), columns, K, GROUP)
                high *= _block_scale(scale, tl.minimum(n, N - 1), more, K, GROUP)
            sums += low * values
            sums += high * second
    if (COMPUTE == tl.int8) and (GROUP <= 1):
        # Each of the sums so far is of few enough products to be an exact integer in float32.
        result = tl.sum(sums.to(tl.int32), 2).to(tl.float32)
    else:
        result = tl.sum(sums, 2)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    finish(result, m, n, scale, factor, bias, residual, out, M, N, GROUP, ACTIVATION)


@triton.jit
def _product(w, values, sums):
    if not ASSEMBLY and (w.dtype == tl.bfloat16):  # The interpreter would multiply the bits.
        w, values = w.to(tl.float32), values.to(tl.float32)
    return tl.dot(w, values, sums, out_dtype=sums.dtype)


@triton.jit
def _multiply(w, values, sums, COMPUTE: tl.constexpr):
    """Add a tile's products to the sums; float32 inputs go in as three bfloat16 parts."""
    if values.dtype == tl.float32:
        first = values.to(tl.bfloat16)
        # An infinite part has no remainder, and NaN is in the first part.
        rest = values - first.to(tl.float32)
        rest = tl.where(tl.abs(values) < float("inf"), rest, 0.0)
        second = rest.to(tl.bfloat16)
        third = (rest - second.to(tl.float32)).to(tl.bfloat16)
        sums = _product(w, third, sums)
        sums = _product(w, second, sums)
        return _product(w, first, sums)
    else:
        return _product(w, values.to(COMPUTE), sums)


@triton.jit
def tiles_kernel(
    x, weight, scale, bias, residual, norm_weight, norm_bias, out,
    in_scale, factor, eps, M, N, K: tl.constexpr, ROW_BYTES: tl.constexpr,
    ROUNDED: tl.constexpr, COMPUTE: tl.constexpr, WINDOW: tl.constexpr, GROUP: tl.constexpr,
    RMS: tl.constexpr, ACTIVATION: tl.constexpr, PDL: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One tile of the result, transposed: weights are the operand of 16 rows, and x the one of 8
    columns, which is less to pad where x has few rows.

    BLOCK_K is in bytes; a tile lies within one block of a block scale.
    """
    EVEN: tl.constexpr = (ROW_BYTES % BLOCK_K == 0) and (K == ROW_BYTES * (2 if WINDOW else 1))
    if PDL:
        gdc_launch_dependents()
    first = tl.program_id(1) * BLOCK_M
    numbers = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    outputs = tl.minimum(numbers, N - 1)  # Beyond N the last one again: no mask is needed.
    offsets = tl.arange(0, BLOCK_K)
    pointers = weight + outputs[:, None].to(tl.int64) * ROW_BYTES + offsets[None, :]
    if PDL:
        AHEAD: tl.constexpr = 8 if ROW_BYTES > 512 else 4
        lines = tl.minimum(tl.arange(0, AHEAD) * 128, ROW_BYTES - 1)
        prefetch(weight + outputs[:, None].to(tl.int64) * ROW_BYTES + lines[None, :])
        gdc_wait()
    m = (first + tl.arange(0, BLOCK_M))[None, :]
    inside = m < M
    mean, deviation = 0.0, 1.0
    if norm_weight is not None:
        mean, deviation = norm_statistics(
            x, first + tl.arange(0, BLOCK_M), M, K, eps, RMS, 512 if BLOCK_M <= 16 else 128
        )
        mean, deviation = mean[None, :], deviation[None, :]
    SUMS: tl.constexpr = tl.int32 if COMPUTE == tl.int8 else tl.float32
    sums = tl.zeros([BLOCK_N, BLOCK_M], SUMS)
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for k in tl.range(0, ROW_BYTES, BLOCK_K, num_stages=STAGES):
        if EVEN:
            tile = tl.load(pointers + k)
        else:
            tile = tl.load(pointers + k, mask=(offsets + k < ROW_BYTES)[None, :], other=0.0)
        if WINDOW == 0:
            low = unpack(tile, COMPUTE)
        else:
            low, high = unpack_int4(tile, COMPUTE)
        for half in tl.static_range(2 if WINDOW else 1):
            if half == 0:
                w = low
            else:
                w = high
            column = (columns_of(k + offsets, WINDOW) + half * WINDOW)[:, None]
            mask = inside if EVEN else inside & (column < K)
            values = read_input(
                x, m, column, mask, K, norm_weight, norm_bias, mean, deviation, in_scale, ROUNDED
            )
            if GROUP > 1:
                part = _multiply(w, values, tl.zeros_like(sums), COMPUTE).to(tl.float32)
                block = columns_of(k, WINDOW) + half * WINDOW
                total += part * _block_scale(scale, outputs, block, K, GROUP)[:, None]
            else:
                sums = _multiply(w, values, sums, COMPUTE)
    result = total if GROUP > 1 else sums.to(tl.float32)
    finish(result, m, numbers[:, None], scale, factor, bias, residual, out, M, N, GROUP, ACTIVATION)


@triton.jit
def expand_kernel(
    weight, scale, out, N, K: tl.constexpr, ROW_BYTES: tl.constexpr, WINDOW: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """w * scale in float32, stored in the type of ``out``."""
    n = (tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]).to(tl.int64)
    offsets = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]
    tile = tl.load(
        weight + n * ROW_BYTES + offsets, mask=(n < N) & (offsets < ROW_BYTES), other=0.0
    )
    columns = columns_of(offsets, WINDOW)
    if WINDOW == 0:
        low = unpack(tile, tl.float32)
    else:
        low, high = unpack_int4(tile, tl.float32)
        high *= _expanded_scale(scale, n, columns + WINDOW, N, K, GROUP)
        inside = (n < N) & (columns + WINDOW < K)
        tl.store(out + n * K + columns + WINDOW, high.to(out.dtype.element_ty), mask=inside)
    low *= _expanded_scale(scale, n, columns, N, K, GROUP)
    tl.store(out + n * K + columns, low.to(out.dtype.element_ty), mask=(n < N) & (columns < K))


@triton.jit
def _expanded_scale(scale, n, columns, N, K: tl.constexpr, GROUP: tl.constexpr):
    if GROUP == 0:
        return tl.load(scale)
    elif GROUP == 1:
        return tl.load(scale + n, mask=n < N, other=0.0)
    else:
        return tl.load(
            scale + n * (K // GROUP) + columns // GROUP, mask=(n < N) & (columns < K), other=0.0
        )
