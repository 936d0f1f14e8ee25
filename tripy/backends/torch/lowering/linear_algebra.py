"""Lowerings of normalization, attention and its cache."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F

from tripy.backends.torch.lowering.table import (
    EAGER_CHECKS,
    Attrs,
    RefusedValues,
    T,
    lowering,
)


@lowering("layer_norm")
def _layer_norm(attrs: Attrs, x: T, weight: T, bias: T) -> T:
    return F.layer_norm(x, weight.shape, weight, bias, attrs["eps"])


@lowering("rms_norm")
def _rms_norm(attrs: Attrs, x: T, weight: T) -> T:
    return F.rms_norm(x, weight.shape, weight, attrs["eps"])


@lowering("scaled_dot_product_attention")
def _attention(
    attrs: Attrs, query: T, key: T, value: T, mask: Optional[T] = None,
    lengths: Optional[T] = None,
) -> T:  # fmt: skip
    if lengths is not None:
        return _attention_to_lengths(attrs, query, key, value, lengths)
    if mask is not None and mask.ndim < 2:  # torch wants both dimensions of the scores.
        mask = mask.expand(query.shape[2], key.shape[2])
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=attrs["is_causal"], scale=attrs["scale"],
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


def _attention_to_lengths(attrs: Attrs, query: T, key: T, value: T, lengths: T) -> T:
    """Each batch row looks at its first keys only.

    On the CPU what no row looks at is not read. On a GPU the lengths are not waited for.
    """
    if lengths.device.type == "cpu":
        counts = check_attention_lengths(key, lengths)
        if not attrs["is_causal"]:
            longest = max(counts, default=0)
            key, value = key[:, :, :longest], value[:, :, :longest]
            if longest and min(counts) == longest:
                return _attention(attrs, query, key, value)
    columns = torch.arange(key.shape[2], device=key.device)
    visible = columns < lengths[:, None, None, None]
    if attrs["is_causal"]:
        rows = torch.arange(query.shape[2], device=key.device)
        visible = visible & (columns <= rows[:, None])
    visible = visible.expand(query.shape[0], 1, query.shape[2], key.shape[2])
    result = _attention({**attrs, "is_causal": False}, query, key, value, visible)
    # A softmax over nothing has no value of its own.
    return result.masked_fill(lengths[:, None, None, None] <= 0, 0)


def check_attention_lengths(key: T, lengths: T) -> list[int]:
    """The lengths on the host, after checking that there are as many keys."""
    counts = lengths.tolist()
    for batch, count in enumerate(counts):
        if not 0 <= count <= key.shape[2]:
            raise RefusedValues(
                "there are not as many keys.",
                got=f"a key/value length of {count} in batch row {batch}",
                expected=f"0 to {key.shape[2]}, the length of key and value",
                hint="position + 1 counts the token that has just been written at a position",
            )
    return counts


def check_cache_positions(cache: T, update: T, write_indices: T) -> list[int]:
    """The write positions on the host, after checking that the update fits the cache."""
    positions = write_indices.tolist()
    room = cache.shape[2] - update.shape[2]
    for batch, position in enumerate(positions):
        if not 0 <= position <= room:
            raise RefusedValues(
                "the update does not fit the cache.",
                got=f"{update.shape[2]} positions written from {position} on in batch row {batch}",
                expected=f"write_indices from 0 to {room} for a cache of {cache.shape[2]}",
                hint="a cache with a larger capacity",
            )
    return positions


def write_cache(cache: T, update: T, write_indices: T) -> T:
    """Write into the cache's own memory. On a GPU the positions are not waited for."""
    if cache.device.type == "cpu":
        for batch, position in enumerate(check_cache_positions(cache, update, write_indices)):
            cache[batch, :, position : position + update.shape[2]] = update[batch]
        return cache
    steps = torch.arange(update.shape[2], device=cache.device)
    index = (write_indices.long()[:, None] + steps)[:, None, :, None].expand(update.shape)
    return cache.scatter_(2, index, update)


@lowering("kv_cache_update")
def _kv_cache_update(attrs: Attrs, cache: T, update: T, write_indices: T) -> T:
    return write_cache(cache.clone(), update, write_indices)


def _check_positions(attrs: Attrs, cache: T, update: T, write_indices: T) -> None:
    if cache.device.type != "cpu":  # On the CPU, writing checks them anyway.
        check_cache_positions(cache, update, write_indices)


EAGER_CHECKS["kv_cache_update"] = _check_positions


def _check_lengths(
    attrs: Attrs, query: T, key: T, value: T, mask: Optional[T], lengths: Optional[T]
) -> None:
    if lengths is not None and lengths.device.type != "cpu":
        check_attention_lengths(key, lengths)


EAGER_CHECKS["scaled_dot_product_attention"] = _check_lengths


@lowering("rotary_embedding")
def _rotary(attrs: Attrs, x: T, cos: T, sin: T) -> T:
    half = x.shape[-1] // 2
    if attrs["interleaved"]:
        first, second = x[..., 0::2], x[..., 1::2]
    else:
        first, second = x[..., :half], x[..., half:]
    parts = (first * cos - second * sin, second * cos + first * sin)
    if attrs["interleaved"]:
        return torch.stack(parts, -1).flatten(-2)
    return torch.cat(parts, -1)
