"""Matrix product of int8 or float8 tensors on tensor cores, with everything after it in one kernel.

    r = activation(sum * row_scale[m] * scale[n] + bias[n]) + residual[m, n]

and, with ``out_scale``, r / out_scale rounded to int8 or float8. A separate kernel for the scales
would read and write the whole result again, which at usual sizes takes as long as the product.

Two kernels share one epilogue:

- `_persistent` (Hopper and later): as many programs as multiprocessors, each going through several
  tiles; tiles travel through tensor descriptors (TMA), which need no address arithmetic, no masks
  and no registers on their way into shared memory.
- `_tiled` (any GPU, any K and any alignment): one program a tile, masked loads through pointers.

Sums of int8 products are exact in int32 as long as K < 2**17, so that the result does not depend on
the tile. float8 products are summed in float32 inside the tensor cores; Hopper's keep 14 bits of
a sum's fraction, which `exact` bounds by adding up in float32 registers every 128 products.
"""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803
# mypy: allow-untyped-defs

from __future__ import annotations

import functools
from typing import Any, Optional, Union

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tripy.backends.torch.kernels.cuda.gemm_epilogue import (
    ACTIVATIONS,
    activate,
    place,
    reciprocal,
    rounded,
)
from tripy.backends.torch.kernels.cuda.gemm_table import Hardware, Tile, choose

T = torch.Tensor


@triton.jit
def _epilogue(acc, row_scale, scale, bias, rows, columns, M, N, SCALES, ACTIVATION):
    """Scales, bias and activation of one tile, in float32."""
    inside = columns < N
    column_scale = tl.load(scale + columns * SCALES, mask=inside, other=0.0)
    result = acc.to(tl.float32) * column_scale[None, :]
    if row_scale is not None:
        result *= tl.load(row_scale + rows, mask=rows < M, other=0.0)[:, None]
    if bias is not None:
        result += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    return activate(result, ACTIVATION)


@triton.jit
def _persistent(
    x, weight, out, scale, row_scale, bias, residual, out_scale, M, N,
    K: tl.constexpr, SCALES: tl.constexpr, ACTIVATION: tl.constexpr,
    IMPRECISE: tl.constexpr, IN_MEMORY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    inverse = reciprocal(out_scale, IN_MEMORY)
    kind: tl.constexpr = tl.int32 if x.dtype == tl.int8 else tl.float32
    for tile in range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0)):
        tile_m, tile_n = place(tile, tiles_m, tiles_n, GROUP)
        row, column = tile_m * BLOCK_M, tile_n * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), kind)
        for k in range(0, tl.cdiv(K, BLOCK_K)):
            a = x.load([row, k * BLOCK_K])
            b = weight.load([column, k * BLOCK_K])
            acc = tl.dot(a, b.T, acc, max_num_imprecise_acc=IMPRECISE, out_dtype=kind)
        rows = row + tl.arange(0, BLOCK_M)
        columns = column + tl.arange(0, BLOCK_N)
        result = _epilogue(acc, row_scale, scale, bias, rows, columns, M, N, SCALES, ACTIVATION)
        if residual is not None:
            result += residual.load([row, column]).to(tl.float32)
        out.store([row, column], rounded(result * inverse, out.dtype))


@triton.jit
def _tiled(
    x, weight, out, scale, row_scale, bias, residual, out_scale, M, N,
    K: tl.constexpr, SCALES: tl.constexpr, ACTIVATION: tl.constexpr,
    IMPRECISE: tl.constexpr, IN_MEMORY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    tile_m, tile_n = place(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N), GROUP)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    x_rows = x + rows.to(tl.int64)[:, None] * K
    weight_rows = weight + columns.to(tl.int64)[None, :] * K
    kind: tl.constexpr = tl.int32 if x.dtype.element_ty == tl.int8 else tl.float32
    acc = tl.zeros((BLOCK_M, BLOCK_N), kind)
    for start in range(0, K, BLOCK_K):
        ks = start + depth
        a = tl.load(x_rows + ks[None, :], (rows < M)[:, None] & (ks < K)[None, :], 0.0)
        b = tl.load(weight_rows + ks[:, None], (columns < N)[None, :] & (ks < K)[:, None], 0.0)
        acc = tl.dot(a, b, acc, max_num_imprecise_acc=IMPRECISE, out_dtype=kind)
    result = _epilogue(acc, row_scale, scale, bias, rows, columns, M, N, SCALES, ACTIVATION)
    offsets = rows.to(tl.int64)[:, None] * N + columns[None, :]
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    if residual is not None:
        result += tl.load(residual + offsets, inside, 0.0).to(tl.float32)
    result *= reciprocal(out_scale, IN_MEMORY)
    tl.store(out + offsets, rounded(result, out.dtype.element_ty), inside)


@functools.cache
def _hardware(index: int) -> Hardware:
    properties: Any = torch.cuda.get_device_properties(index)
    return Hardware(
        properties.major >= 9, properties.multi_processor_count,
        properties.shared_memory_per_block_optin,
    )  # fmt: skip


# What the interpreter emulates: no descriptors, one program after the other.
_EMULATED = Hardware(False, 1, 227 * 1024)


def _rows_fit_tma(*tensors: Optional[T]) -> bool:
    """Whether tensor descriptors can describe them: rows and start at multiples of 16 bytes."""
    return all(
        t is None or (t.stride(0) * t.itemsize % 16 == 0 and t.data_ptr() % 16 == 0)
        for t in tensors
    )


def scaled_gemm(
    x: T,
    weight: T,
    scale: T,
    *,
    row_scale: Optional[T] = None,
    bias: Optional[T] = None,
    activation: Optional[str] = None,
    residual: Optional[T] = None,
    out_scale: Union[float, T, None] = None,
    dtype: torch.dtype,
    exact: bool = False,
    tile: Optional[Tile] = None,
) -> T:
    """act(x @ weight.T * row_scale[:, None] * scale + bias) + residual, optionally quantized.

    Row i depends on row i of ``x`` alone: for int8 its bits are the same at any M, for float8 the
    same wherever the table has the same tile. The division by ``out_scale`` is a product with its
    reciprocal, which may differ from the quotient in float32's last bit.

    Args:
        x: [M, K], int8 or float8_e4m3fn, contiguous.
        weight: [N, K] of x's type, contiguous.
        scale: float32, [N] or one element: weight's scale times x's.
        row_scale: float32, [M].
        bias: [N], any floating-point type.
        activation: None, "relu", "silu", "gelu" (with erf) or "gelu_tanh".
        residual: [M, N] of ``dtype``, contiguous; added after the activation, before rounding.
        out_scale: A number, or float32 of one element.
        dtype: The result's type: float16, bfloat16, float32; with out_scale int8 or float8_e4m3fn.
        exact: Whether float8 sums are kept to float32's precision (see above); slower.
        tile: The tile to use instead of the table's.
    """
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty((m, n), dtype=dtype, device=x.device)
    hardware = _hardware(x.device.index) if x.device.type == "cuda" else _EMULATED
    tile = tile or choose(m, n, hardware, out.itemsize, residual is not None)
    constants: dict[str, Any] = {
        "K": k, "SCALES": int(scale.numel() > 1), "ACTIVATION": ACTIVATIONS.index(activation),
        "IMPRECISE": tile.k if exact else None, "IN_MEMORY": isinstance(out_scale, T),
        "BLOCK_M": tile.m, "BLOCK_N": tile.n, "BLOCK_K": tile.k, "GROUP": tile.group,
        "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip
    parameters = (scale, row_scale, bias, residual, out_scale, m, n)
    tiles = triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n)
    described = hardware.descriptors and tile.m >= 64
    if not described or not _rows_fit_tma(x, weight, out, residual):
        _tiled[(tiles,)](x, weight, out, *parameters, **constants)
        return out
    block = [tile.m, tile.n]
    parameters = (scale, row_scale, bias, _described(residual, block), out_scale, m, n)
    _persistent[(min(tiles, hardware.multiprocessors),)](
        _described(x, [tile.m, tile.k]), _described(weight, [tile.n, tile.k]),
        _described(out, block), *parameters, **constants,
    )  # fmt: skip
    return out


def _described(tensor: Optional[T], block: list[int]) -> Optional[TensorDescriptor]:
    return None if tensor is None else TensorDescriptor.from_tensor(tensor, block)
