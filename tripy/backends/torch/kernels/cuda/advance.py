"""The end of a decode step: what was drawn becomes the next input, and goes to the host.

One small kernel, so that a step is one CUDA graph and the host only reads what it has written: the
ring may be pinned memory of the host.
"""

# Kernels have no annotations but tl.constexpr, whose names are capitals, as Triton has them.
# ruff: noqa: N803
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

T = torch.Tensor


class State(NamedTuple):
    """What a generation has on the device; all int32.

    Attributes:
        tokens: ``[batch]``: the last token of each row, which the next step reads.
        position: ``[batch]``: where that token goes.
        stopped: ``[batch]``: 1 for rows that have met a stop token.
        stops: The stop tokens; -1 where there is none.
        done: ``[1]``: the steps so far.
        ring: ``[slots, batch]``: the tokens of step i in row ``i % slots``; -1 of a stopped row.
    """

    tokens: T
    position: T
    stopped: T
    stops: T
    done: T
    ring: T


@triton.jit
def _advance(
    drawn, tokens, position, stopped, stops, count, ring, rows, slots, BLOCK: tl.constexpr,
    STOPS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, BLOCK)
    there = row < rows
    if PDL:
        tl.extra.cuda.gdc_wait()
    step = tl.load(count)
    token = tl.load(drawn + row, mask=there, other=0)
    before = tl.load(stopped + row, mask=there, other=1)
    place = tl.load(position + row, mask=there, other=0)
    stop = tl.load(stops + tl.arange(0, STOPS))
    now = tl.max((token[:, None] == stop[None, :]).to(tl.int32), 1)
    goes_on = there & (before == 0) & (now == 0)
    # A stopped row keeps its last token and place: it writes the same key there again.
    tl.store(tokens + row, token, mask=goes_on)
    tl.store(position + row, place + 1, mask=goes_on)
    tl.store(stopped + row, tl.maximum(before, now), mask=there)
    tl.store(ring + (step % slots) * rows + row, tl.where(before == 0, token, -1), mask=there)
    tl.debug_barrier()  # All threads have read the count.
    tl.store(count, step + 1)


def advance(drawn: T, state: State, *, pdl: bool = False) -> None:
    """One step further.

    Args:
        drawn: int32 ``[batch]``: the new tokens.
        state: Is changed: rows that have not stopped go on with the new token, one place further.
        pdl: Launched early (programmatic dependent launch): waits for the launch before it.
    """
    rows = len(drawn)
    _advance[(1,)](
        drawn, *state, rows, len(state.ring), BLOCK=triton.next_power_of_2(rows),
        STOPS=len(state.stops), PDL=pdl, num_warps=1 if rows <= 256 else 4, launch_pdl=pdl,
    )  # fmt: skip
