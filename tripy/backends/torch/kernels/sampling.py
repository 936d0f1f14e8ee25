"""The next token from logits, on the host: what ``cuda.sampling`` computes on a GPU.

The noise is the same function of (seed, step, row id, token), so one seed draws the same tokens on
both, but where logits or logarithms that are rounded in another way change which sum is largest.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

Array = Any  # numpy's arrays; their types differ from version to version.

# Of Philox 4x32, 10 rounds (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
# No noise is larger: it is -log(2**-33) at most.
_MOST_NOISE = np.float32(23.0)
# In larger vocabularies most tokens are known to lose before their noise is.
_FEW = 1024


def philox(seed: int, tokens: Array, row: int, step: int) -> Array:
    """The first of the four words, uint32, for each token."""
    # Even words in one array, odd ones in another: a round multiplies the even ones.
    even: Array = np.empty((2, len(tokens)), np.uint64)
    even[0], even[1] = tokens, step & 0xFFFFFFFF
    odd: Array = np.empty_like(even)
    odd[0], odd[1] = row & 0xFFFFFFFF, step >> 32 & 0xFFFFFFFF
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(_ROUNDS):
        products = even * _MULTIPLIERS
        keys = np.array(key, np.uint64)[:, None]
        even, odd = (products >> _HALF)[::-1] ^ odd ^ keys, (products & _LOW)[::-1]
        key = [k + add & 0xFFFFFFFF for k, add in zip(key, _KEY_STEPS)]
    return even[0].astype(np.uint32)


def noise(seed: int, tokens: Array, row: int, step: int) -> Array:
    """Gumbel noise, ``-log(-log(u))`` with u from Philox, float32, for each token."""
    bits = philox(seed, tokens, row, step)
    # 1 - u, a small number with all its digits where u is close to one.
    rest = (bits >> 1).astype(np.float32) * np.float32(2.0**-31) + np.float32(2.0**-33)
    with np.errstate(divide="ignore"):
        wait = -np.log(np.float32(1.0) - rest)
    wait = np.where(rest < np.float32(1e-3), rest + rest * rest * np.float32(0.5), wait)
    return -np.log(np.minimum(wait, np.float32(30.0)))


def _ordered(logits: Array) -> Array:
    """Integers in the order of the numbers, NaN above all others."""
    bits = np.ascontiguousarray(logits).view(np.int32)
    bits = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    return np.where(np.isnan(logits), np.int32(0x7FFFFFFF), bits)


def _draw(
    logits: Array, temperature: Array, top_k: Optional[int], seed: int, row: int, step: int
) -> int:
    """One row's token."""
    if np.isnan(logits).any():
        return int(np.isnan(logits).argmax())
    count = len(logits)

    def noisy(tokens: Array) -> Array:
        return logits[tokens] + temperature * noise(seed, tokens, row, step)

    if top_k is not None and top_k < count:
        keys = _ordered(logits)
        tokens = np.flatnonzero(keys >= np.partition(keys, count - top_k)[count - top_k])
    elif count > _FEW:
        best = noisy(np.argpartition(logits, count - 32)[count - 32 :]).max()
        tokens = np.flatnonzero(logits + temperature * _MOST_NOISE >= best)
    else:
        tokens = np.arange(count)
    return int(tokens[_ordered(noisy(tokens)).argmax()])


def sample(
    logits: Array,
    *,
    temperature: float,
    top_k: Optional[int],
    seed: int,
    step: int,
    row_ids: Array,
) -> Array:
    """A token for each row; see ``cuda.sampling.sample``.

    Args:
        logits: ``[batch, vocabulary]``, float32.
        temperature: What the logits are divided by; 0 for the largest, of equal ones the first.
        top_k: The k largest logits are drawn from, and all that equal the last of them.
        seed: With the three others the noise is keyed by.
        step: The number of the step.
        row_ids: ``[batch]``: a number for each row.

    Returns:
        ``[batch]``, int32.

    Example:
        >>> sample(logits, temperature=0.8, top_k=None, seed=0, step=0, row_ids=np.arange(2))
    """
    if temperature == 0:
        return _ordered(logits).argmax(1).astype(np.int32)
    scale = np.float32(temperature)
    rows = [_draw(x, scale, top_k, seed, int(i), step) for x, i in zip(logits, row_ids)]
    return np.array(rows, np.int32)
