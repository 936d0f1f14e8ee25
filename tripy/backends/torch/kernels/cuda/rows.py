"""Rows of a table picked by index, or the sum of two such: a model's embeddings, in one kernel.

PyTorch takes four launches for each table, of one microsecond and more, in a decode step of a
hundred.
"""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Optional

import torch
import triton
import triton.language as tl

T = torch.Tensor
_BLOCK = 1024


@triton.jit
def _row(table, index, place, size, columns, column):
    """A row's columns, as float32; NaN where the index is out of range."""
    at = tl.load(index + place).to(tl.int64)
    at = tl.where(at < 0, at + size, at)
    known = (at >= 0) & (at < size)
    there = column < tl.where(known, columns, 0)
    values = tl.load(table + at * columns + column, mask=there, other=0.0).to(tl.float32)
    return tl.where(known, values, float("nan"))


@triton.jit
def _gather_rows(
    table, index, other, other_index, out, size, other_size, columns,
    HAS_OTHER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    values = _row(table, index, place, size, columns, column)
    if HAS_OTHER:
        values += _row(other, other_index, place, other_size, columns, column)
    tl.store(
        out + place.to(tl.int64) * columns + column, values.to(out.dtype.element_ty),
        mask=column < columns,
    )  # fmt: skip


def gather_rows(
    table: T, index: T, other: Optional[T] = None, other_index: Optional[T] = None
) -> T:
    """``table[index]``, plus ``other[other_index]`` where there is one.

    Args:
        table: ``[rows, columns]`` of a floating-point type.
        index: int32 or int64 of any shape; negative ones count from the end. A row whose index is
            out of range is NaN.
        other: A table with as many columns, of the same type.
        other_index: Shaped as ``index``.

    Returns:
        ``[*index.shape, columns]``, rounded once.
    """
    columns = table.shape[1]
    out = torch.empty((*index.shape, columns), dtype=table.dtype, device=table.device)
    if not out.numel():
        return out
    block = min(_BLOCK, triton.next_power_of_2(columns))
    second = table if other is None else other
    _gather_rows[(index.numel(), triton.cdiv(columns, block))](
        table.contiguous(), index.contiguous(), second.contiguous(),
        index if other_index is None else other_index.contiguous(), out, len(table), len(second),
        columns, HAS_OTHER=other is not None, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return out
