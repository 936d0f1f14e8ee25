"""Normalization of rows with what surrounds it: the residual sum before it, quantization after it.

Done one after the other these read and write each row up to four times. Here a row is read once,
kept in registers, and written once in the type that the next layer reads: the traffic is that of a
copy. Rows of more than ``_ONE_PASS`` elements are read again for each of the statistics.

The result of a row depends on that row and its width alone: it is the same, bit for bit, in any
batch.
"""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803
# mypy: allow-untyped-defs

from __future__ import annotations

import functools
from typing import Optional, Union

import torch
import triton
import triton.language as tl

T = torch.Tensor
# Elements of a row that one program holds in registers.
_ONE_PASS = 16384
_LONG_BLOCK = 4096
# Of a multiprocessor, for rows in registers.
_WARPS_AT_ONCE = 64
# The largest number of each type, without int8's -128: scales are symmetric.
HIGH = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
_LAYER, _RMS, _NONE = (tl.constexpr(i) for i in range(3))
_KINDS = {"layer": _LAYER, "rms": _RMS, None: _NONE}
_NAN = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def quantized(y, scale, out_type: tl.constexpr):
    """``y / scale`` as int8 or float8: to the nearest, ties to even, saturating.

    NaN stays NaN in float8; in int8 it becomes any number.
    """
    # The quotient of a division, at a third of its cost: a product with the reciprocal, corrected
    # by what it leaves over (Markstein, "Computation of elementary functions on the IBM RISC
    # System/6000 processor", 1990). Infinities are cut off first: they would leave over NaN.
    reciprocal = tl.math.div_rn(1.0, scale)
    y = y.to(tl.float32)
    quotient = tl.clamp(y * reciprocal, -1000.0, 1000.0)
    quotient = tl.fma(tl.fma(-quotient, scale, y), reciprocal, quotient)
    if out_type == tl.int8:
        quotient = tl.clamp(quotient, -128.0, 127.0)
        # From 2**23 on float32 has no fractions: the sum is rounded as wanted, in one instruction.
        return ((quotient + 12582912.0) - 12582912.0).to(tl.int8)
    return tl.clamp(quotient, -448.0, 448.0, propagate_nan=_NAN).to(out_type)


@triton.jit
def _summed(x, residual, sums, offsets, inside):
    """A part of a row plus the residual, rounded to its type, as the layers one by one would."""
    value = tl.load(x + offsets, mask=inside, other=0.0)
    if residual is not None:
        other = tl.load(residual + offsets, mask=inside, other=0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(value.dtype)
        tl.store(sums + offsets, value, mask=inside)
    return value.to(tl.float32)


@triton.jit
def _affine(y, weight, bias, columns, inside):
    """``y * weight + bias``; what is outside of the row becomes zero."""
    if weight is not None:
        y *= tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        y += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    return tl.where(inside, y, 0.0)


@triton.jit
def _magnitude(y):
    """Absolute values as integers, which have the same order, and NaN above all others."""
    return tl.abs(y).to(tl.int32, bitcast=True)


@triton.jit
def _row_scale(magnitude, high, tiny, type: tl.constexpr):
    """``amax / high``, in the type of the row; a row of zeros gets the smallest normal number."""
    scale = tl.math.div_rn(magnitude.to(tl.float32, bitcast=True), high)
    return tl.maximum(scale, tiny, propagate_nan=_NAN).to(type).to(tl.float32)


@triton.jit
def _short_rows(
    x, residual, sums, weight, bias, scale, out, row_scales, rows, width, eps, high, tiny,
    KIND: tl.constexpr, SCALE: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Every so many-th row by one program, held in registers; the next one is on its way."""
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    # Read once, and before the row is: they do not come from the launch before this one.
    if weight is not None:
        w = tl.load(weight + columns, mask=inside, other=0.0)
    if bias is not None:
        b = tl.load(bias + columns, mask=inside, other=0.0)
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    if SCALE == "tensor":
        factor = tl.load(scale)
    elif SCALE == "number":
        factor = scale
    first = tl.program_id(0)
    offsets = first.to(tl.int64) * width + columns
    next_value = tl.load(x + offsets, mask=inside, other=0.0)
    if residual is not None:
        next_other = tl.load(residual + offsets, mask=inside, other=0.0)
    for row in range(first, rows, tl.num_programs(0)):
        value = next_value
        if residual is not None:
            value = (value.to(tl.float32) + next_other.to(tl.float32)).to(value.dtype)
        here = offsets
        offsets += tl.cast(tl.num_programs(0), tl.int64) * width
        # Behind the last row nothing is read.
        exists = columns < tl.where(row + tl.num_programs(0) < rows, width, 0)
        next_value = tl.load(x + offsets, mask=exists, other=0.0)
        if residual is not None:
            next_other = tl.load(residual + offsets, mask=exists, other=0.0)
            tl.store(sums + here, value, mask=inside)
        y = value.to(tl.float32)
        if KIND == _LAYER:
            y = tl.where(inside, y - tl.sum(y, 0) / width, 0.0)
        if KIND != _NONE:
            y *= tl.rsqrt(tl.sum(y * y, 0) / width + eps)
        if weight is not None:
            y *= w.to(tl.float32)
        if bias is not None:
            y += b.to(tl.float32)
        if SCALE == "none":
            tl.store(out + here, y.to(out.dtype.element_ty), mask=inside)
        else:
            y = y.to(x.dtype.element_ty).to(tl.float32)
            if SCALE == "row":
                factor = _row_scale(tl.max(_magnitude(y), 0), high, tiny, x.dtype.element_ty)
                tl.store(row_scales + row, factor)
            tl.store(out + here, quantized(y, factor, out.dtype.element_ty), mask=inside)


@triton.jit
def _long_rows(
    x, residual, sums, weight, bias, scale, out, row_scales, eps, high, tiny,
    KIND: tl.constexpr, SCALE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One program a row, which reads the row for the mean, the variance, the amax and the result.

    All but the first time it comes from the L2 cache.
    """
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    mean = 0.0
    factor = 1.0
    if KIND == _LAYER:
        total = tl.zeros([BLOCK], tl.float32)
        for start in range(0, WIDTH, BLOCK):
            inside = start + lanes < WIDTH
            total += _summed(x, residual, sums, row * WIDTH + start + lanes, inside)
        mean = tl.sum(total, 0) / WIDTH
    if KIND != _NONE:
        total = tl.zeros([BLOCK], tl.float32)
        for start in range(0, WIDTH, BLOCK):
            inside = start + lanes < WIDTH
            y = _summed(x, residual, sums, row * WIDTH + start + lanes, inside)
            y = tl.where(inside, y - mean, 0.0)
            total += y * y
        factor = tl.rsqrt(tl.sum(total, 0) / WIDTH + eps)
    # The second time around, where the scale is the row's own, the result is known to be in range.
    if SCALE == "row":
        most = tl.zeros([BLOCK], tl.int32)
        for start in range(0, WIDTH, BLOCK):
            inside = start + lanes < WIDTH
            y = _summed(x, residual, sums, row * WIDTH + start + lanes, inside)
            if KIND != _NONE:
                y = _affine((y - mean) * factor, weight, bias, start + lanes, inside)
            y = y.to(x.dtype.element_ty).to(tl.float32)
            most = tl.maximum(most, _magnitude(y))
        divisor = _row_scale(tl.max(most, 0), high, tiny, x.dtype.element_ty)
        tl.store(row_scales + row, divisor)
    elif SCALE == "tensor":
        divisor = tl.load(scale)
    elif SCALE == "number":
        divisor = scale
    for start in range(0, WIDTH, BLOCK):
        inside = start + lanes < WIDTH
        offsets = row * WIDTH + start + lanes
        y = _summed(x, residual, sums, offsets, inside)
        if KIND != _NONE:
            y = _affine((y - mean) * factor, weight, bias, start + lanes, inside)
        if SCALE == "none":
            tl.store(out + offsets, y.to(out.dtype.element_ty), mask=inside)
        else:
            y = y.to(x.dtype.element_ty).to(tl.float32)
            y = quantized(y, divisor, out.dtype.element_ty)
            tl.store(out + offsets, y, mask=inside)


def _warps(block: int) -> int:
    """By width alone, so that the order of the sums does not depend on the number of rows."""
    return max(2, min(16, block // 1024))


@functools.cache
def _programs(device: torch.device, warps: int) -> int:
    """As many as run at one time; under the interpreter, few enough to have several rows."""
    if device.type != "cuda":
        return 2
    count = torch.cuda.get_device_properties(device).multi_processor_count
    return count * (_WARPS_AT_ONCE // warps)


def normalize(
    x: T,
    weight: Optional[T],
    bias: Optional[T],
    eps: float,
    *,
    kind: Optional[str] = "layer",
    residual: Optional[T] = None,
    scale: Union[float, T, None] = None,
    dynamic: Optional[torch.dtype] = None,
    dtype: Optional[torch.dtype] = None,
    pdl: bool = False,
) -> tuple[Optional[T], T, Optional[T]]:
    """``norm(x + residual) * weight + bias``, quantized where a scale is given or asked for.

    The sum and the normalized row are rounded to the type of x before they go on, as between
    layers, so that the result is that of the operations one by one. Statistics are float32, and
    the variance is the mean of squared distances from the mean.

    Args:
        x: ``[..., width]``, float32, float16 or bfloat16, contiguous.
        weight: ``[width]``, or None for ones.
        bias: ``[width]``, or None for zeros.
        eps: What is added to the variance.
        kind: "layer", "rms", or None for quantization alone.
        residual: What is added to x first: of its shape and type, contiguous.
        scale: A number, or one in a float32 tensor: the result is divided by it and rounded.
        dynamic: int8 or float8_e4m3fn: the scale of each row is its largest magnitude over 127
            or 448, rounded to the type of x.
        dtype: The type of the result: int8 or float8_e4m3fn with ``scale``, else a float type.
            None for that of x.
        pdl: Launched early (programmatic dependent launch): waits for the launch before it.

    Returns:
        ``x + residual``, or None without a residual; the result, of x's shape; the rows' scales,
        float32 of x's shape without the last dimension, or None where they are not dynamic.
    """
    width = x.shape[-1]
    rows = x.numel() // width
    sums = None if residual is None else torch.empty_like(x)
    out = torch.empty_like(x, dtype=dynamic or dtype or x.dtype)
    scales = None if dynamic is None else x.new_empty(x.shape[:-1], dtype=torch.float32)
    if not rows:
        return sums, out, scales
    if dynamic is not None:
        mode = "row"
    elif scale is None:
        mode = "none"
    else:
        mode = "tensor" if isinstance(scale, torch.Tensor) else "number"
    high, tiny = HIGH.get(out.dtype, 1.0), torch.finfo(x.dtype).tiny
    block = triton.next_power_of_2(width)
    first = (x, residual, sums, weight, bias, scale, out, scales)
    options = {"KIND": _KINDS[kind], "SCALE": mode, "PDL": pdl, "launch_pdl": pdl}
    if block > _ONE_PASS:
        _long_rows[(rows,)](
            *first, eps, high, tiny, WIDTH=width, BLOCK=_LONG_BLOCK, num_warps=8, **options
        )
    else:
        warps = _warps(block)
        _short_rows[(min(rows, _programs(x.device, warps)),)](
            *first, rows, width, eps, high, tiny, BLOCK=block, num_warps=warps, **options
        )
    return sums, out, scales


def quantize_rows(
    x: T,
    *,
    scale: Union[float, T, None] = None,
    dynamic: Optional[torch.dtype] = None,
    dtype: Optional[torch.dtype] = None,
    pdl: bool = False,
) -> tuple[T, Optional[T]]:
    """Rows quantized by one scale, or each by its own; see ``normalize``.

    Example:
        >>> values, scales = quantize_rows(x, dynamic=torch.int8)
    """
    _, out, scales = normalize(
        x, None, None, 0.0, kind=None, scale=scale, dynamic=dynamic, dtype=dtype, pdl=pdl
    )
    return out, scales
