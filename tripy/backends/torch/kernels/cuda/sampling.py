"""The next token from the logits: the largest, or drawn at random, of all or of the k largest.

A token is drawn by adding Gumbel noise to the logits and taking the largest sum, which has the
probabilities of softmax without computing it (Maddison et al., "A* Sampling", 2014). So each
program looks at its part of the vocabulary alone, and the last one to finish takes the best of all
parts. The noise is a function of (seed, step, row id, token): no state but the step, and no
result that depends on the batch. ``kernels.sampling`` is the same on the host.

The k largest are never sorted out. A first launch finds the maxima of small groups of tokens: the
k-th largest of these is a bound that at least k tokens reach, and few others. Among those the
second launch tries tokens in the order of their noisy logits until one is found that fewer than k
logits exceed; mostly it is the first.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch
import triton

from tripy.backends.torch.kernels.cuda import sampling_kernels as kernels

T = torch.Tensor
# Maxima that each program of the first launch finds.
_GROUPS = 32
# Candidates of a part that the last program reads at once.
_SEGMENT = 16


def _block(vocabulary: int) -> int:
    """Tokens a program; depends on the vocabulary alone."""
    return 1024 if vocabulary <= 65536 else 4096


class Workspace(NamedTuple):
    """Where programs of a launch meet. Launches that may run at the same time need their own."""

    best: T
    maxima: T
    candidates: T
    keys: T
    counts: T
    arrived: T


def workspace(batch: int, vocabulary: int, device: torch.device) -> Workspace:
    """A workspace for any number of calls, one after the other, of this shape.

    Each call leaves it as it found it, so that it can be part of a CUDA graph.
    """
    block = _block(vocabulary)
    parts = triton.cdiv(vocabulary, block)

    def empty(count: int, dtype: torch.dtype) -> T:
        return torch.empty(batch * count, dtype=dtype, device=device)

    return Workspace(
        empty(parts, torch.int64), empty(parts * _GROUPS, torch.int32),
        empty(parts * block, torch.int64), empty(parts * block, torch.int32),
        empty(parts, torch.int32),
        torch.zeros(batch + 1, dtype=torch.int32, device=device),
    )  # fmt: skip


def sample(
    logits: T,
    *,
    temperature: float = 1.0,
    top_k: Optional[int] = None,
    seed_state: Optional[T] = None,
    row_ids: Optional[T] = None,
    out: Optional[T] = None,
    space: Optional[Workspace] = None,
    pdl: bool = False,
) -> T:
    """A token for each row of logits.

    A NaN counts as larger than all numbers, as for ``torch.argmax``: its token is the result.

    Args:
        logits: ``[batch, vocabulary]`` of a float type; the elements of a row next to each other.
        temperature: What the logits are divided by; 0 for the largest, of equal ones the first.
        top_k: The k largest logits are drawn from, and all that equal the last of them; None for
            all. With a temperature of 0 it changes nothing.
        seed_state: int64 ``[2]``: the seed and the step, which each call increments. Not needed
            with a temperature of 0.
        row_ids: int32 ``[batch]``: what the noise of a row is keyed with; None for its number.
        out: Where the result goes.
        space: From ``workspace``; None for a new one, which costs two launches.
        pdl: Launched early (programmatic dependent launch): waits for the launch before it.

    Returns:
        ``[batch]``, int32.
    """
    batch, vocabulary = logits.shape
    if out is None:
        out = torch.empty(batch, dtype=torch.int32, device=logits.device)
    if space is None:
        space = workspace(batch, vocabulary, logits.device)
    block, stride, greedy = _block(vocabulary), logits.stride(0), temperature == 0
    parts = triton.cdiv(vocabulary, block)
    if greedy or top_k is None or top_k >= vocabulary:
        kernels.best[(parts, batch)](
            logits, stride, vocabulary, float(temperature), seed_state, row_ids, space.best,
            space.arrived, out, BLOCK=block, PROGRAMS=triton.next_power_of_2(parts),
            GREEDY=greedy, PDL=pdl, num_warps=8, launch_pdl=pdl,
        )  # fmt: skip
        return out
    options = {"BLOCK": block, "GROUPS": _GROUPS, "PDL": pdl, "num_warps": 8, "launch_pdl": pdl}
    kernels.maxima[(parts, batch)](logits, stride, vocabulary, space.maxima, **options)
    kernels.best_of_largest[(parts, batch)](
        logits, stride, vocabulary, float(temperature), seed_state, row_ids, space.maxima,
        space.candidates, space.keys, space.counts, space.arrived, out, top_k,
        PROGRAMS=triton.next_power_of_2(parts), SEGMENT=_SEGMENT, **options,
    )  # fmt: skip
    return out
