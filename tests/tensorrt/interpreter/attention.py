"""Pages Attention, KVCacheUpdate and RotaryEmbedding of TensorRT's operator documentation, with its
guide "Working with Transformers"."""

from __future__ import annotations

from typing import Any

import torch

from tests.tensorrt.interpreter.values import FLOATS, Step


def attention_input(step: Step) -> list[torch.Tensor]:
    """The first of an attention's two layers: its output only carries the order of things."""
    return [step.value(0)]


def causal_kind(attention: Any) -> str:
    """Versions before causal_kind have a flag, which meant UPPER_LEFT."""
    if hasattr(attention, "causal_kind"):
        return attention.causal_kind.name
    return "UPPER_LEFT" if attention.causal else "NONE"


def plain(step: Step, attention: Any) -> None:
    """Refuses what only some attentions have, and isn't implemented."""
    if attention.normalization_quantize_scale is not None:
        raise step.missing("a quantized softmax")
    if getattr(attention, "num_ranks", 1) != 1:
        raise step.missing("attention over several devices")
    for form in ("query_form", "key_value_form"):
        if hasattr(attention, form) and getattr(attention, form).name != "PADDED_BHND":
            raise step.missing(f"the layout {getattr(attention, form).name}")


def attention_output(step: Step) -> list[torch.Tensor]:
    """Page Attention: BMM1 (query by key, with no scale), mask, softmax over the keys, BMM2.

    Fewer heads of key and value than of query are repeated, each for neighbouring query heads.
    """
    attention = step.layer.attention
    plain(step, attention)
    tensors = [attention.get_input(i) for i in range(3)]
    types = {tensor.dtype.name for tensor in tensors}
    if len(types) > 1 or not types <= set(FLOATS):
        raise step.refuse(f"query, key and value of the types {sorted(types)}")
    q, k, v = (step.values[tensor.name].float() for tensor in tensors)
    if not q.dim() == k.dim() == v.dim() == 4 or k.shape[:3] != v.shape[:3]:
        raise step.refuse("query, key and value must have four dimensions, key and value agree")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[1] % k.shape[1]:
        raise step.refuse(f"a query of {tuple(q.shape)}, a key of {tuple(k.shape)}")
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = masked(step, attention, q @ k.mT)
    if attention.norm_op.name == "SOFTMAX":
        if bool((scores == -torch.inf).all(-1).any()):
            raise step.undocumented("a query that may attend to no key")
        scores = torch.softmax(scores, -1)
    elif bool((scores == -torch.inf).any()):
        raise step.undocumented("a mask without a softmax")
    return [step.rounded(scores @ v)]


def masked(step: Step, attention: Any, scores: torch.Tensor) -> torch.Tensor:
    kind, mask = causal_kind(attention), attention.mask
    batch, heads, queries, keys = scores.shape
    if mask is not None:
        if kind != "NONE":
            raise step.refuse("a mask and a causal attention")
        value, name = step.values[mask.name], mask.dtype.name
        if value.dim() != 4 or value.shape[2:] != scores.shape[2:]:
            raise step.refuse(f"a mask of {tuple(value.shape)} for {tuple(scores.shape)}")
        if value.shape[0] not in (1, batch) or value.shape[1] not in (1, heads):
            raise step.refuse(f"a mask of {tuple(value.shape)} for {tuple(scores.shape)}")
        if name == "BOOL":
            scores = scores.masked_fill(~value, -torch.inf)
        elif name == attention.get_input(0).dtype.name:
            scores = scores + value.float()
        else:
            raise step.refuse(f"a mask of {name}")
    elif kind != "NONE":
        below = torch.arange(keys) - torch.arange(queries)[:, None]
        allowed = below <= (0 if kind == "UPPER_LEFT" else keys - queries)
        scores = scores.masked_fill(~allowed, -torch.inf)
    lengths = getattr(attention, "key_value_lengths", None)
    if lengths is None:
        return scores
    value = step.values[lengths.name]
    if lengths.dtype.name != "INT32" or list(value.shape) != [batch]:
        raise step.refuse("key_value_lengths must be one INT32 a batch")
    if bool(((value < 1) | (value > keys)).any()):
        raise step.refuse(f"lengths {value.tolist()} of {keys} keys")
    if kind == "LOWER_RIGHT" and bool((value != keys).any()):
        raise step.undocumented("whether LOWER_RIGHT starts at a key's length or at the padding's")
    beyond = torch.arange(keys) >= value[:, None]
    return scores.masked_fill(beyond[:, None, None, :], -torch.inf)


def kv_cache_update(step: Step) -> list[torch.Tensor]:
    """Page KVCacheUpdate: each batch's update goes to the cache from its write index on."""
    layer = step.layer
    if layer.cache_mode.name != "LINEAR":
        raise step.missing(f"the cache mode {layer.cache_mode.name}")
    if hasattr(layer, "update_form") and layer.update_form.name != "PADDED_BHND":
        raise step.missing(f"the layout {layer.update_form.name}")
    step.demand(FLOATS, 0)
    step.demand_same(0, 1)
    step.demand(("INT32",), 2)
    cache, update, indices = step.value(0).clone(), step.value(1), step.value(2)
    if cache.dim() != 4 or update.dim() != 4 or list(indices.shape) != [cache.shape[0]]:
        raise step.refuse("cache and update need four dimensions, write_indices one a batch")
    if cache.shape[:2] != update.shape[:2] or cache.shape[3] != update.shape[3]:
        raise step.refuse(f"a cache of {tuple(cache.shape)}, an update of {tuple(update.shape)}")
    for batch, start in enumerate(indices.tolist()):
        if start < 0 or start + update.shape[2] > cache.shape[2]:
            raise step.refuse(f"an update at {start} leaves the cache")
        cache[batch, :, start : start + update.shape[2]] = update[batch]
    return [cache]


def rotary_embedding(step: Step) -> list[torch.Tensor]:
    """Page RotaryEmbedding: pairs of elements, adjacent or half the width apart, are rotated.

    The caches are [batch, length, width / 2], or [positions, width / 2] with position ids. A
    rotary_embedding_dim of 0 rotates the whole last dimension, another so many leading elements.
    """
    layer = step.layer
    step.demand_same(0, 1, 2)
    x, cosine, sine = step.real(0), step.real(1), step.real(2)
    if x.dim() != 4:
        raise step.refuse("the input must have four dimensions")
    batch, _, length, width = x.shape
    turning = layer.rotary_embedding_dim or width
    if turning % 2 or turning > width:
        raise step.refuse(f"a rotary_embedding_dim of {turning} for {width} elements")
    if step.has(3):
        step.demand(("INT32", "INT64"), 3)
        ids = step.value(3).long()
        if cosine.dim() != 2 or list(ids.shape) != [batch, length]:
            raise step.refuse("position ids need caches of two dimensions, and one a position")
        if ids.numel() and (ids.min() < 0 or ids.max() >= cosine.shape[0]):
            raise IndexError(f"{step}: position ids outside the caches")
        cosine, sine = cosine[ids], sine[ids]
    for cache in (cosine, sine):
        if list(cache.shape) != [batch, length, turning // 2]:
            raise step.refuse(f"a cache of {tuple(cache.shape)}")
    cosine, sine = cosine[:, None], sine[:, None]
    part, rest = x[..., :turning], x[..., turning:]
    if layer.interleaved:
        a, b = part[..., 0::2], part[..., 1::2]
        pair = torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1)
        turned = pair.reshape(part.shape)
    else:
        a, b = part.chunk(2, -1)
        turned = torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)
    return [step.rounded(torch.cat([turned, rest], -1))]
