"""The kernel of ``decode_attention``: one chunk of the keys a program."""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803
# mypy: allow-untyped-defs

from __future__ import annotations

import triton
import triton.language as tl

from tripy.backends.torch.kernels.cuda.normalization import quantized


@triton.jit
def _tile(base, times, time_stride, lanes, there, within):
    """``[times, lanes]`` of a cache's head, zero where there is none."""
    offsets = times.to(tl.int64)[:, None] * time_stride + lanes[None, :]
    return tl.load(base + offsets, mask=there[:, None] & within[None, :], other=0.0)


@triton.jit
def _step(q, k, v, there, score_scale, top, total, result):
    """The running softmax's largest scores, totals and sums, with one more block of keys.

    Shapes: q and result ``[HEADS, D]``, k and v ``[keys, D]``, top and total ``[HEADS]``.
    """
    scores = tl.dot(q, tl.trans(k.to(q.dtype)), input_precision="tf32x3") * score_scale
    scores = tl.where(there[None, :], scores, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, 1))
    # From -inf there is no difference to take.
    safe = tl.where(higher == float("-inf"), 0.0, higher)
    shrink = tl.exp2(top - safe)
    p = tl.exp2(scores - safe[:, None])
    total = total * shrink + tl.sum(p, 1)
    sums = tl.dot(p.to(q.dtype), v.to(q.dtype), input_precision="tf32x3")
    return higher, total, result * shrink[:, None] + sums


@triton.jit
def _to_cache(x, scale, type: tl.constexpr):
    """A new key or value in the cache's type."""
    if (type == tl.int8) or (type == tl.float8e4nv):
        return quantized(x, scale, type)
    return x.to(type)


@triton.jit
def _divisor(total):
    """What sums are divided by: of no keys they are 0 and stay it."""
    return tl.where(total == 0.0, 1.0, total)


@triton.jit
def _combined(partial, tops, rows, slots, active, used, lanes, within):
    """``[heads, D]``: results of all chunks together, read past the L1 cache.

    ``slots``, ``[chunks, heads]``, says where those of each are, ``used`` which heads there are: of
    others nothing has been written.
    """
    there = (tl.arange(0, slots.shape[0]) < active)[:, None] & used[None, :]
    top = tl.load(tops + slots, mask=there, other=float("-inf"), cache_modifier=".cg")
    total = tl.load(tops + rows + slots, mask=there, other=0.0, cache_modifier=".cg")
    offsets = slots[:, :, None] * lanes.shape[0] + lanes[None, None, :]
    mask = there[:, :, None] & within[None, None, :]
    result = tl.load(partial + offsets, mask=mask, other=0.0, cache_modifier=".cg")
    highest = tl.max(top, 0)
    highest = tl.where(highest == float("-inf"), 0.0, highest)
    share = tl.exp2(top - highest[None, :])
    return tl.sum(result * share[:, :, None], 0) / _divisor(tl.sum(total * share, 0))[:, None]


@triton.jit
def attend(
    query, new_key, new_value, key, value, position, lengths, out, partial, arrived,
    new_stride, query_stride, out_stride, key_row, key_head, key_time, value_row, value_head,
    value_time, groups, capacity, score_scale, key_scale, value_scale,
    SHARED: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    CHUNK: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
    TOGETHER: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One chunk of keys for up to ``HEADS`` of the ``SHARED`` query heads with one key head.

    Grid: chunks, parts of the shared heads, batch * groups. ``partial`` holds, for each of these,
    ``HEADS`` rows of ``PADDED`` sums, then the largest scores and the totals of all.
    """
    chunk, part, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, group = (pair // groups).to(tl.int64), (pair % groups).to(tl.int64)
    lanes = tl.arange(0, PADDED)
    within = lanes < WIDTH
    key += row * key_row + group * key_head
    value += row * value_row + group * value_head
    length = tl.minimum(tl.load(lengths + row).to(tl.int32), capacity)
    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, length)
    # An empty context is one chunk too: its result is 0.
    active = tl.maximum(tl.cdiv(length, CHUNK), 1)
    at = tl.full([], -1, tl.int32)
    if position is not None:
        raw = tl.load(position + row)
        at = tl.where((raw >= 0) & (raw < capacity), raw, -1).to(tl.int32)
    # Keys of earlier tokens do not come from the launch before this one: nothing to wait for.
    times = begin + tl.arange(0, BLOCK)
    there = (times < end) & (times != at)
    k = _tile(key, times, key_time, lanes, there, within)
    v = _tile(value, times, value_time, lanes, there, within)
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    heads = part * HEADS + tl.arange(0, HEADS)
    used = heads < SHARED
    mine = used[:, None] & within[None, :]
    heads = group * SHARED + heads
    offsets = row * query_stride + heads[:, None] * WIDTH + lanes[None, :]
    q = tl.load(query + offsets, mask=mine, other=0.0)
    top = tl.full([HEADS], float("-inf"), tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    result = tl.zeros([HEADS, PADDED], tl.float32)
    if position is not None:
        own = (at >= begin) & (at < begin + CHUNK)
        fresh = row * new_stride + group * WIDTH + lanes
        here = lanes < tl.where(own, WIDTH, 0)
        new_k = tl.load(new_key + fresh, mask=here, other=0.0)
        new_v = tl.load(new_value + fresh, mask=here, other=0.0)
        new_k = _to_cache(new_k, key_scale, key.dtype.element_ty)
        new_v = _to_cache(new_v, value_scale, value.dtype.element_ty)
        writes = lanes < tl.where(own & (part == 0), WIDTH, 0)
        tl.store(key + at.to(tl.int64) * key_time + lanes, new_k, mask=writes)
        tl.store(value + at.to(tl.int64) * value_time + lanes, new_v, mask=writes)
        # The sums begin with the new token, which is never read back.
        if own & (at < length):
            score = tl.sum(q.to(tl.float32) * new_k.to(tl.float32)[None, :], 1)
            top = score * score_scale
            total += 1.0
            result += new_v.to(tl.float32)[None, :]
    if chunk < active:
        top, total, result = _step(q, k, v, there, score_scale, top, total, result)
        for i in tl.range(1, CHUNK // BLOCK, num_stages=STAGES):
            times = begin + i * BLOCK + tl.arange(0, BLOCK)
            there = (times < end) & (times != at)
            k = _tile(key, times, key_time, lanes, there, within)
            v = _tile(value, times, value_time, lanes, there, within)
            top, total, result = _step(q, k, v, there, score_scale, top, total, result)
        out += row * out_stride
        if active == 1:
            mean = (result / _divisor(total)[:, None] * value_scale).to(out.dtype.element_ty)
            tl.store(out + heads[:, None] * WIDTH + lanes[None, :], mean, mask=mine)
        else:
            unit = pair * tl.num_programs(1) + part
            indices = tl.arange(0, HEADS)
            slots = (unit * CHUNKS + chunk).to(tl.int64) * HEADS + indices
            rows = tl.num_programs(2).to(tl.int64) * tl.num_programs(1) * CHUNKS * HEADS
            tops = partial + rows * PADDED
            tl.store(partial + slots[:, None] * PADDED + lanes[None, :], result, mask=mine)
            tl.store(tops + slots, top, mask=used)
            tl.store(tops + rows + slots, total, mask=used)
            # All warps have stored before one thread says so to the other programs.
            tl.debug_barrier()
            if tl.atomic_add(arrived + unit, 1, sem="acq_rel", scope="gpu") == active - 1:
                tl.store(arrived + unit, 0)
                head = 0
                while (head < HEADS) & (part * HEADS + head < SHARED):
                    several = head + tl.arange(0, TOGETHER)
                    parts = (unit * CHUNKS + tl.arange(0, CHUNKS)).to(tl.int64) * HEADS
                    parts = parts[:, None] + several[None, :]
                    several += part * HEADS
                    among = several < SHARED
                    mean = _combined(partial, tops, rows, parts, active, among, lanes, within)
                    mean = (mean * value_scale).to(out.dtype.element_ty)
                    places = (group * SHARED + several)[:, None] * WIDTH + lanes[None, :]
                    tl.store(out + places, mean, mask=among[:, None] & within[None, :])
                    head += TOGETHER
