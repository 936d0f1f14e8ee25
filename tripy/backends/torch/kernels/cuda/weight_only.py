"""Linear layers with int8, int4 or float8 weights for few rows of input.

    result = activation(x' @ (w * scale).T + bias) + residual

where x' is x as it is, or normalized, or rounded to int8 or float8, or both, inside the kernel, so
that a layer of a decode step is one launch.

Sums: products are summed in float32; where both sides are integers and scales do not vary along
K, in int32, exactly. float32 inputs keep float32's accuracy. A row's result does not depend on
the other rows; it depends on the configuration, which changes with the number of rows (1, 2,
4, 8, 16, 32, 64), by the order of float32 sums. Integer sums are the same bits for all.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Optional, Union

import torch
import triton
import triton.language as tl

from tripy.backends.torch.kernels.cuda.packing import (
    GpuWeight,
    pack_fp8,
    pack_int4,
    pack_int8,
)
from tripy.backends.torch.kernels.cuda.weight_only_kernels import (
    expand_kernel,
    rows_kernel,
    tiles_kernel,
)
from tripy.backends.torch.kernels.cuda.weight_only_table import (
    Rows,
    Tiles,
    choose_rows,
    choose_tiles,
)

__all__ = [
    "GpuWeight", "Norm", "dequantize", "pack_fp8", "pack_int4", "pack_int8", "weight_only_gemm",
]  # fmt: skip

T = torch.Tensor
ACTIVATIONS = (None, "relu", "silu", "gelu", "gelu_tanh")
_TRITON = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.int8: tl.int8,
    torch.float8_e4m3fn: tl.float8e4nv,
}


class Norm(NamedTuple):
    """A normalization of each row of x before the product, with statistics in float32.

    Attributes:
        kind: "layer" or "rms".
        weight: ``[K]``, any float type.
        bias: ``[K]`` or None.
        eps: Added to the variance, or to the mean of squares.
    """

    kind: str
    weight: T
    bias: Optional[T]
    eps: float


def weight_only_gemm(
    x: T, packed: GpuWeight, scale: T, *, x_scale: Optional[float] = None,
    bias: Optional[T] = None, residual: Optional[T] = None, activation: Optional[str] = None,
    norm: Optional[Norm] = None, in_scale: Optional[float] = None, dtype: torch.dtype,
    out: Optional[T] = None, pdl: bool = False, config: Optional[Union[Rows, Tiles]] = None,
) -> T:  # fmt: skip
    """A linear layer; see the module.

    Args:
        x: [M, K], contiguous: float16, bfloat16 or float32, or int8 or float8_e4m3fn.
        packed: The weight, from `pack_int8`, `pack_int4` or `pack_fp8`.
        scale: float32 of [1], [N] or [N, K / block], contiguous.
        x_scale: What an int8 or float8 x is multiplied with.
        bias: [N], any float type.
        residual: [M, N], contiguous, added last.
        activation: None, "relu", "silu", "gelu" (with erf) or "gelu_tanh".
        norm: Normalizes x first.
        in_scale: x (normalized) is divided by it and rounded to int8, or to float8 where the
            weight is float8; the product is then one of these.
        dtype: Type of the result: float16, bfloat16 or float32.
        out: Where to write, [M, N] contiguous of ``dtype``.
        pdl: Programmatic dependent launch (Hopper): the kernel may start before the one in front
            of it has ended. ``packed``, ``scale``, ``bias`` must not be written by that one.
        config: A configuration instead of the table's.

    Returns:
        [M, N] of ``dtype``.
    """
    rows, columns = x.shape
    outputs = packed.shape[0]
    if out is None:
        out = torch.empty(rows, outputs, dtype=dtype, device=x.device)
    group = _group(scale, columns)
    if config is None:
        config = _choose(x, packed, group)
    if isinstance(config, Tiles) and config.warps < 2:
        # Triton 3.6 leaves a barrier out: sums of int8 behind a normalization come out wrong.
        raise ValueError(f"[weight_only_gemm] got {config}; expected at least 2 warps")
    rounded, compute = _types(x, packed, in_scale)
    factor = (1.0 if x_scale is None else x_scale) * (1.0 if in_scale is None else in_scale)
    row_bytes = packed.data.shape[1]
    tensors = (
        x, packed.data, scale, bias, residual, None if norm is None else norm.weight,
        None if norm is None else norm.bias, out,
    )  # fmt: skip
    numbers = (in_scale, factor, 0.0 if norm is None else norm.eps, rows, outputs)
    options: dict[str, Any] = {
        "WINDOW": packed.window, "GROUP": group, "RMS": norm is not None and norm.kind == "rms",
        "ACTIVATION": activation, "PDL": pdl, "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n, "BLOCK_K": config.block_k, "num_warps": config.warps,
    }  # fmt: skip
    if pdl:
        options["launch_pdl"] = True
    grid = (triton.cdiv(outputs, config.block_n), triton.cdiv(rows, config.block_m))
    if isinstance(config, Rows):
        rows_kernel[grid](
            *tensors, *numbers, columns, row_bytes, COMPUTE=rounded,
            ONCE=row_bytes <= config.block_k, **options,
        )  # fmt: skip
        return out
    if compute == tl.int8 and packed.kind == "int4":  # Its int8 form is 16 times the weight.
        numbers = (in_scale, factor / 16, *numbers[2:])
    tiles_kernel[grid](
        *tensors, *numbers, columns, row_bytes, ROUNDED=rounded, COMPUTE=compute,
        STAGES=config.stages, **options,
    )  # fmt: skip
    return out


def _group(scale: T, columns: int) -> int:
    """Columns that share a scale: 0 for one scale, 1 for one an output, else a block's."""
    if scale.dim() == 2:
        return columns // scale.shape[1] if scale.shape[1] > 1 else 1
    return 0 if scale.numel() == 1 else 1


def _types(x: T, packed: GpuWeight, in_scale: Optional[float]) -> tuple[Any, Any]:
    """What x is rounded to (or is), and the type in which tensor cores multiply."""
    if in_scale is not None:
        rounded = torch.float8_e4m3fn if packed.kind == "float8" else torch.int8
    else:
        rounded = x.dtype
    if rounded is torch.int8 and packed.kind != "float8":
        return _TRITON[rounded], tl.int8
    if rounded in (torch.int8, torch.float8_e4m3fn):  # Both are exact in float16.
        return _TRITON[rounded], tl.float16
    return _TRITON[rounded], tl.float16 if rounded is torch.float16 else tl.bfloat16


def _choose(x: T, packed: GpuWeight, group: int) -> Union[Rows, Tiles]:
    rows, outputs, row_bytes = x.shape[0], packed.shape[0], packed.data.shape[1]
    weights_a_byte = 2 if packed.window else 1
    block = 0
    if group > 1:
        # Powers of two from 32 on have whole tiles in a block; others go element by element.
        block = group & -group if group & (group - 1) == 0 else 1
        if packed.window:
            block = min(block, packed.window)
        if block < 32:
            return choose_rows(rows, outputs, row_bytes, weights_a_byte)
    # Measured: tensor cores pay from few rows on where there are many outputs, and for all that is
    # large; beside few outputs each program has a long row to itself.
    small = packed.data.numel() <= 16 << 20
    if group <= 1 and small and (rows == 1 or (rows <= 4 and outputs < 2048)):
        return choose_rows(rows, outputs, row_bytes, weights_a_byte)
    x_bytes = weights_a_byte * max(2, x.dtype.itemsize)
    return choose_tiles(rows, outputs, row_bytes, block, x_bytes, _shared_memory(x.device))


@functools.cache
def _shared_memory(device: torch.device) -> int:
    """Bytes that a program can have; under the interpreter, the least of any GPU."""
    if device.type != "cuda":
        return 99 << 10
    index = torch.cuda.current_device() if device.index is None else device.index
    utils: Any = triton.runtime.driver.active.utils
    return int(utils.get_device_properties(index)["max_shared_mem"])


def dequantize(packed: GpuWeight, scale: T, dtype: torch.dtype) -> T:
    """w * scale as a plain [N, K], for products of many rows; rounded once, from float32."""
    rows, columns = packed.shape
    out = torch.empty(rows, columns, dtype=dtype, device=packed.data.device)
    row_bytes = packed.data.shape[1]
    block_k = 512
    # Rows are the second dimension of the grid, which holds 65,535 programs.
    block_n = 8
    grid = (triton.cdiv(row_bytes, block_k), triton.cdiv(rows, block_n))
    expand_kernel[grid](
        packed.data, scale, out, rows, K=columns, ROW_BYTES=row_bytes, WINDOW=packed.window,
        GROUP=_group(scale, columns), BLOCK_N=block_n, BLOCK_K=block_k,
    )  # fmt: skip
    return out
