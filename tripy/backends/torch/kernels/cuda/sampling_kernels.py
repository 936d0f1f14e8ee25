"""The kernels of ``sampling``."""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803
# mypy: allow-untyped-defs

from __future__ import annotations

import triton
import triton.language as tl

_LEAST = tl.constexpr(-(2**63))


@triton.jit
def _ordered(x):
    """Integers in the order of the numbers, NaN above all others, as for ``torch.argmax``."""
    bits = x.to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return tl.where(x == x, bits, 0x7FFFFFFF)


@triton.jit
def _packed(keys, tokens):
    """Integers whose largest is that of the largest key, and of several the first token's."""
    return (keys.to(tl.int64) << 32) | (0x7FFFFFFF - tokens).to(tl.int64)


@triton.jit
def _token(packed):
    return 0x7FFFFFFF - (packed & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def _noise(seed_state, row_ids, row, tokens):
    """Gumbel noise, ``-log(-log(u))``, from Philox (Salmon et al., 2011) of a counter."""
    seed, step = tl.load(seed_state), tl.load(seed_state + 1)
    if row_ids is not None:
        row = tl.load(row_ids + row)
    low = tokens * 0 + (step & 0xFFFFFFFF).to(tl.int32)
    high = tokens * 0 + (step >> 32).to(tl.int32)
    bits, _, _, _ = tl.philox(seed, tokens, tokens * 0 + row, low, high)
    # 1 - u: what matters most, u close to one, is a small number with all its digits.
    rest = (bits >> 1).to(tl.int32).to(tl.float32) * 2.0**-31 + 2.0**-33
    wait = tl.where(rest < 1e-3, rest + rest * rest * 0.5, -tl.log(1.0 - rest))
    # Rounded to one, a draw of no weight: its logarithm is cut off.
    return -tl.log(tl.minimum(wait, 30.0))


@triton.jit
def _last(arrived, row, programs):
    """Whether all other programs of the row have come here before; their stores are visible."""
    tl.debug_barrier()
    last = tl.atomic_add(arrived + row, 1, sem="acq_rel", scope="gpu") == programs - 1
    if last:
        tl.store(arrived + row, 0)
    return last


@triton.jit
def _finish(tokens, row, rows, token, seed_state, arrived, GREEDY: tl.constexpr):
    """Writes the result; the last row to finish moves on to the next step."""
    tl.store(tokens + row, token)
    if not GREEDY:
        last = True
        if rows > 1:
            last = tl.atomic_add(arrived + rows, 1, sem="acq_rel", scope="gpu") == rows - 1
        if last:
            tl.store(arrived + rows, 0)
            tl.store(seed_state + 1, tl.load(seed_state + 1) + 1)


@triton.jit
def best(
    logits, stride, vocabulary, temperature, seed_state, row_ids, best, arrived, tokens,
    BLOCK: tl.constexpr, PROGRAMS: tl.constexpr, GREEDY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The token with the largest logit, with noise unless GREEDY. Grid: parts, rows."""
    part, row = tl.program_id(0), tl.program_id(1)
    mine = part * BLOCK + tl.arange(0, BLOCK)
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    x = tl.load(logits + row.to(tl.int64) * stride + mine, mask=mine < vocabulary, other=0.0)
    x = x.to(tl.float32)
    if not GREEDY:
        x += temperature * _noise(seed_state, row_ids, row, mine)
    packed = tl.max(tl.where(mine < vocabulary, _packed(_ordered(x), mine), _LEAST), 0)
    parts = tl.num_programs(0)
    tl.store(best + row * parts + part, packed)
    if _last(arrived, row, parts):
        others = tl.arange(0, PROGRAMS)
        best_of = tl.load(
            best + row * parts + others, mask=others < parts, other=_LEAST, cache_modifier=".cg"
        )
        token = _token(tl.max(best_of, 0))
        _finish(tokens, row, tl.num_programs(1), token, seed_state, arrived, GREEDY)


@triton.jit
def maxima(
    logits, stride, vocabulary, maxima, BLOCK: tl.constexpr, GROUPS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """The largest logits of ``GROUPS`` groups in each part. Grid: parts, rows."""
    part, row = tl.program_id(0), tl.program_id(1)
    mine = part * BLOCK + tl.arange(0, BLOCK)
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    x = tl.load(logits + row.to(tl.int64) * stride + mine, mask=mine < vocabulary, other=0.0)
    keys = tl.where(mine < vocabulary, _ordered(x.to(tl.float32)), -0x80000000)
    most = tl.max(tl.reshape(keys, [BLOCK // GROUPS, GROUPS]), 0)
    tl.store(maxima + (row * tl.num_programs(0) + part) * GROUPS + tl.arange(0, GROUPS), most)


@triton.jit
def _bound(maxima, count, top_k, SIZE: tl.constexpr):
    """A number that at least ``top_k`` of the maxima reach, and no much larger one."""
    keys = tl.load(maxima + tl.arange(0, SIZE), mask=tl.arange(0, SIZE) < count, other=-0x80000000)
    bound = tl.full([], -0x80000000, tl.int32)
    # Two bits at a time, from the highest; half of them are as exact as bfloat16.
    for i in tl.static_range(8):
        step = 1 << (30 - 2 * i)
        # Three counts of 20 bits in one sum.
        reached = (keys >= bound + step).to(tl.int64)
        reached += (keys >= bound + 2 * step).to(tl.int64) << 20
        reached += (keys >= bound + 3 * step).to(tl.int64) << 40
        reached = tl.sum(reached, 0)
        steps = ((reached & 0xFFFFF) >= top_k).to(tl.int32)
        steps += (((reached >> 20) & 0xFFFFF) >= top_k).to(tl.int32)
        steps += ((reached >> 40) >= top_k).to(tl.int32)
        bound += steps * step
    return bound


@triton.jit
def _segment(candidates, keys, places, there):
    """Some candidates of each part, and their logits' keys, read past the L1 cache."""
    these = tl.load(candidates + places, mask=there, other=_LEAST, cache_modifier=".cg")
    those = tl.load(keys + places, mask=there, other=-0x80000000, cache_modifier=".cg")
    return these, those


@triton.jit
def best_of_largest(
    logits, stride, vocabulary, temperature, seed_state, row_ids, maxima, candidates, keys, counts,
    arrived, tokens, top_k,
    BLOCK: tl.constexpr, PROGRAMS: tl.constexpr, GROUPS: tl.constexpr, SEGMENT: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """As ``best``, of the ``top_k`` largest logits and those equal to the last of them."""
    part, row, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    mine = part * BLOCK + tl.arange(0, BLOCK)
    logits += row.to(tl.int64) * stride
    candidates += row.to(tl.int64) * parts * BLOCK
    keys += row.to(tl.int64) * parts * BLOCK
    x = tl.load(logits + mine, mask=mine < vocabulary, other=0.0).to(tl.float32)
    key = _ordered(x)
    noisy = _packed(_ordered(x + temperature * _noise(seed_state, row_ids, row, mine)), mine)
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    bound = _bound(maxima + row * parts * GROUPS, parts * GROUPS, top_k, PROGRAMS * GROUPS)
    fits = (mine < vocabulary) & (key >= bound)
    count = tl.sum(fits.to(tl.int32), 0)
    places = part * BLOCK + tl.cumsum(fits.to(tl.int32), 0) - 1
    tl.store(candidates + places, noisy, mask=fits)
    tl.store(keys + places, key, mask=fits)
    # The last program reads these of each part before it knows how many there are.
    empty = (tl.arange(0, BLOCK) >= count) & (tl.arange(0, BLOCK) < SEGMENT)
    tl.store(candidates + mine, tl.full([BLOCK], _LEAST, tl.int64), mask=empty)
    tl.store(keys + mine, tl.full([BLOCK], -0x80000000, tl.int32), mask=empty)
    tl.store(counts + row * parts + part, count)
    if _last(arrived, row, parts):
        others = tl.arange(0, PROGRAMS)
        real = others < parts
        amounts = tl.load(counts + row * parts + others, mask=real, other=0, cache_modifier=".cg")
        most = tl.max(amounts, 0)
        first = others[:, None] * BLOCK + tl.arange(0, SEGMENT)[None, :]
        there = tl.broadcast_to(real[:, None], [PROGRAMS, SEGMENT])
        front, front_keys = _segment(candidates, keys, first, there)
        highest = tl.full([], 0x7FFFFFFFFFFFFFFF, tl.int64)
        above = top_k
        while above >= top_k:
            # The best that is below the one before, and its logit.
            best = tl.where(front < highest, front, _LEAST)
            start = SEGMENT
            while start < most:
                there = start + tl.arange(0, SEGMENT)[None, :] < amounts[:, None]
                these, _ = _segment(candidates, keys, first + start, there)
                best = tl.maximum(best, tl.where(these < highest, these, _LEAST))
                start += SEGMENT
            highest = tl.max(tl.max(best, 1), 0)
            chosen = _ordered(tl.load(logits + _token(highest)).to(tl.float32))
            larger = (front_keys > chosen).to(tl.int32)
            start = SEGMENT
            while start < most:
                there = start + tl.arange(0, SEGMENT)[None, :] < amounts[:, None]
                _, those = _segment(candidates, keys, first + start, there)
                larger += (those > chosen).to(tl.int32)
                start += SEGMENT
            above = tl.sum(tl.sum(larger, 1), 0)
        _finish(tokens, row, tl.num_programs(1), _token(highest), seed_state, arrived, False)
