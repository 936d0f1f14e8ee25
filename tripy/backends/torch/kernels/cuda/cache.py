"""Keys and values of many positions written into a cache, at the speed of a copy.

PyTorch's scatter takes an index for each element: in a prefill of GPT-2 XL it is an eighth of all.
"""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803
# mypy: allow-untyped-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl

T = torch.Tensor
_ELEMENTS = 4096  # of a program
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit
def _write(
    cache, update, indices, heads, capacity, length, width,
    cache_batch, cache_head, cache_step, batch_stride, head_stride, step_stride, width_stride,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(0) // heads).to(tl.int64), (tl.program_id(0) % heads).to(tl.int64)
    step = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    position = tl.load(indices + batch).to(tl.int64) + step
    inside = (column[None, :] < width) & (step < length)[:, None]
    values = tl.load(
        update + batch * batch_stride + head * head_stride
        + step[:, None].to(tl.int64) * step_stride + column[None, :] * width_stride,
        mask=inside,
    )  # fmt: skip
    inside &= ((position >= 0) & (position < capacity))[:, None]
    to = cache + batch * cache_batch + head * cache_head
    tl.store(to + position[:, None] * cache_step + column[None, :], values, mask=inside)


def write_rows(cache: T, update: T, write_indices: T) -> T:
    """Write ``update`` into the cache's own memory, from a position of each batch row on.

    Args:
        cache: ``[batch, heads, capacity, width]``; the elements of a position next to each other.
        update: ``[batch, heads, n, width]`` of the same type, with any strides.
        write_indices: int32 or int64 ``[batch]``. Positions that are not within the cache are left
            out.

    Returns:
        The cache.
    """
    batch, heads, length, width = update.shape
    if not update.numel():
        return cache
    plain = _INTEGERS[cache.element_size()]
    columns = triton.next_power_of_2(width)
    rows = max(1, min(_ELEMENTS // columns, triton.next_power_of_2(length)))
    _write[(batch * heads, triton.cdiv(length, rows))](
        cache.view(plain), update.view(plain), write_indices, heads, cache.shape[2], length, width,
        *cache.stride()[:3], *update.stride(), ROWS=rows, WIDTH=columns, num_warps=4,
    )  # fmt: skip
    return cache
