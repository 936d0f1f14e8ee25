"""Attention of one new token over its key/value cache, the new key and value written on the way.

The context is cut into chunks, one program each, so that a single sequence fills the GPU too. Each
program leaves its sums and its largest score; the last one to finish adds them up in the order of
the chunks ("Flash-Decoding", Dao et al., 2023), without a second launch. How the context is cut
depends on the shapes alone, not on the lengths: the grid can be captured in a CUDA graph, and a
sequence's result is the same, bit for bit, in any run and whatever the other rows of the batch are.
Only their number can change its rounding: with many rows the chunks are longer.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch
import triton

from tripy.backends.torch.kernels.cuda.decode_attention_kernels import attend

T = torch.Tensor
_LOG2_E = 1.4426950408889634
# What the tensor cores take at least, of each dimension.
_LEAST = 16
# Query heads of one program; more that share a key head are split over programs.
_MOST_HEADS = 32
# Two for each multiprocessor of an H200.
_PROGRAMS = 264
_MOST_CHUNKS = 64


class _Tiling(NamedTuple):
    """How the work is cut: a program takes ``chunk`` keys for ``heads`` heads, in blocks."""

    heads: int
    chunk: int
    block: int
    warps: int
    stages: int


def _tiling(units: int, shared: int, width: int, capacity: int, itemsize: int = 2) -> _Tiling:
    """For ``units`` key heads of all rows, each shared by some query heads.

    A new chunk costs about as much as 100 keys more, so there are no more than fill the GPU.
    """
    heads = min(_MOST_HEADS, max(_LEAST, triton.next_power_of_2(shared)))
    parts = units * triton.cdiv(shared, heads)
    chunk = 256
    while chunk < 2048 and parts * triton.cdiv(capacity, chunk) > _PROGRAMS:
        chunk *= 2
    chunk = max(chunk, triton.next_power_of_2(triton.cdiv(capacity, _MOST_CHUNKS)))
    # Bytes of a block: a short chunk is in registers, a long one has several blocks on their way.
    size, stages = (32768, 2) if chunk == 256 else (16384, 3)
    block = max(_LEAST, min(256, size // (_padded(width) * max(2, itemsize))))
    return _Tiling(heads, chunk, block, 4, stages)


def _padded(width: int) -> int:
    return max(_LEAST, triton.next_power_of_2(width))


class Workspace(NamedTuple):
    """Where programs of a launch meet. Launches that may run at the same time need their own."""

    partial: T
    arrived: T


def workspace_sizes(
    batch: int, heads: int, groups: int, width: int, capacity: int
) -> tuple[int, int]:
    """Numbers in the two parts of a workspace; what has the same can share one."""
    tiling = _tiling(batch * groups, heads // groups, width, capacity)
    units = batch * groups * triton.cdiv(heads // groups, tiling.heads)
    rows = units * triton.next_power_of_2(triton.cdiv(capacity, tiling.chunk)) * tiling.heads
    return rows * (_padded(width) + 2), units


def workspace(
    batch: int, heads: int, groups: int, width: int, capacity: int, device: torch.device
) -> Workspace:
    """A workspace for any number of launches, one after the other, of this shape.

    Each launch leaves it as it found it, so that it can be part of a CUDA graph.
    """
    partial, units = workspace_sizes(batch, heads, groups, width, capacity)
    return Workspace(
        torch.empty(partial, dtype=torch.float32, device=device),
        torch.zeros(units, dtype=torch.int32, device=device),
    )


def _launch(
    query: T,
    new: tuple[T, T],
    new_stride: int,
    query_stride: int,
    key: T,
    value: T,
    position: Optional[T],
    lengths: T,
    out: T,
    heads: int,
    scales: tuple[float, float, float],
    space: Optional[Workspace],
    pdl: bool,
) -> None:
    batch, groups, capacity, width = key.shape
    shared = heads // groups
    tiling = _tiling(batch * groups, shared, width, capacity, key.element_size())
    if space is None:
        space = workspace(batch, heads, groups, width, capacity, key.device)
    chunks, padded = triton.cdiv(capacity, tiling.chunk), _padded(width)
    slots = triton.next_power_of_2(chunks)
    # Heads whose chunks are added up at once, as many as fit the registers.
    together = min(triton.next_power_of_2(shared), max(1, 16384 // (slots * padded)), tiling.heads)
    score_scale, key_scale, value_scale = scales
    # Lanes with copies of a sum add the same two products, each its own one last. Fused with that
    # addition, it is not rounded, and copies differ.
    attend[(chunks, triton.cdiv(shared, tiling.heads), batch * groups)](
        query, *new, key, value, position, lengths, out, *space, new_stride, query_stride,
        heads * width, *key.stride()[:3], *value.stride()[:3], groups, capacity,
        score_scale * key_scale * _LOG2_E, key_scale, value_scale,
        SHARED=shared, HEADS=tiling.heads, WIDTH=width, PADDED=padded, CHUNK=tiling.chunk,
        CHUNKS=slots, BLOCK=tiling.block, STAGES=tiling.stages, TOGETHER=together, PDL=pdl,
        num_warps=tiling.warps, launch_pdl=pdl, enable_fp_fusion=False,
    )  # fmt: skip


def decode_attention(
    query: T,
    key: T,
    value: T,
    lengths: T,
    *,
    scale: float,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    out: Optional[T] = None,
    space: Optional[Workspace] = None,
    pdl: bool = False,
) -> T:
    """``softmax(query @ key.T * scale) @ value`` of one token, over the first keys of each row.

    Scores, softmax and sums are float32; the weights are rounded to the query's type before they
    meet the values, for the tensor cores.

    Args:
        query: ``[batch, heads, 1, width]``, float32, float16 or bfloat16, contiguous.
        key: ``[batch, groups, capacity, width]``, of a float type, int8 or float8_e4m3fn; ``width``
            at most 256, its elements next to each other; ``heads`` is a multiple of ``groups``.
        value: As key; both may be views of one cache.
        lengths: ``[batch]``, int32: row b attends to its first ``lengths[b]`` keys. Over none, the
            result is 0; more than there are count as all.
        scale: What the scores are multiplied with.
        key_scale: The number that one unit of a quantized key stands for.
        value_scale: As key_scale.
        out: Where the result goes.
        space: From ``workspace``; None for a new one, which costs a launch.
        pdl: Launched early (programmatic dependent launch): keys, values and lengths are read
            before this one waits, and must be older than every launch that may still run.

    Returns:
        ``[batch, heads, 1, width]`` of the query's type.
    """
    out = torch.empty_like(query) if out is None else out
    heads = query.shape[1]
    _launch(
        query, (query, query), 0, heads * query.shape[3], key, value, None, lengths, out, heads,
        (scale, key_scale, value_scale), space, pdl,
    )  # fmt: skip
    return out


def append_and_attend(
    qkv: T,
    cache: T,
    position: T,
    lengths: T,
    *,
    heads: int,
    groups: int,
    scale: float,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    out: Optional[T] = None,
    space: Optional[Workspace] = None,
    pdl: bool = False,
) -> T:
    """Writes each row's new key and value into its cache and attends to the first ``lengths``.

    Args:
        qkv: ``[batch, (heads + 2 * groups) * width]``, contiguous: query heads, keys, values.
        cache: ``[batch, 2 * groups, capacity, width]``, the keys' heads, then the values'. Of the
            type of qkv, or of another; int8 and float8_e4m3fn are divided by their scale first.
        position: ``[batch]``, int32 or int64: where the new key goes; nothing is written where it
            is not within the cache.
        lengths: ``[batch]``, int32, with the new key; see ``decode_attention``.
        heads: Query heads.
        groups: Key heads.
        scale: What the scores are multiplied with.
        key_scale: The number that one unit of a quantized key stands for.
        value_scale: As key_scale.
        out: Where the result goes.
        space: From ``workspace``; None for a new one, which costs a launch.
        pdl: Launched early (programmatic dependent launch): cache, position and lengths are read
            before this one waits, and must be older than every launch that may still run.

    Returns:
        ``[batch, heads * width]`` of the type of qkv.
    """
    width = cache.shape[3]
    out = qkv.new_empty(qkv.shape[0], heads * width) if out is None else out
    new_key, new_value = qkv[:, heads * width :], qkv[:, (heads + groups) * width :]
    _launch(
        qkv, (new_key, new_value), qkv.shape[1], qkv.shape[1], cache[:, :groups],
        cache[:, groups:], position, lengths, out, heads, (scale, key_scale, value_scale), space,
        pdl,
    )  # fmt: skip
    return out
