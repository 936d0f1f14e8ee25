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
def _attention(attrs: Attrs, query: T, key: T, value: T, mask: Optional[T] = None) -> T:
    if mask is not None and mask.ndim < 2:  # torch wants both dimensions of the scores.
        mask = mask.expand(query.shape[2], key.shape[2])
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=attrs["is_causal"], scale=attrs["scale"],
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


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
