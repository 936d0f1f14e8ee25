"""Cases of matrix products, attention, its cache, and rotary embeddings."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

import tripy as tp
from tests.helpers import ROUNDING, tensor
from tests.ops.cases.table import Draw, Sample, case


def _sums(dtype: Any, length: int) -> dict[str, float]:
    """Tolerances for sums of so many products of numbers of about 3."""
    rounding = ROUNDING.get(dtype, 0)
    return {"rtol": 2 * rounding + 1e-5, "atol": (4 * rounding + 1e-6) * 9 * max(length, 1)}


@case("Tensor.__matmul__", "F", "matmul")
def _matmul(draw: Draw, dtype: Any) -> Sample:
    rows, inner, columns = (draw.integer(0, 4) for _ in range(3))
    batch = draw.broadcastable(2)
    left = (*batch[0][:2], rows, inner) if draw.integer(0, 3) else (inner,)
    right = (*batch[1][-2:], inner, columns) if draw.integer(0, 3) else (inner,)
    try:
        np.broadcast_shapes(left[:-2], right[:-2])
    except ValueError:
        right = (inner, columns)
    tensors = [draw.tensor(left, dtype), draw.tensor(right, dtype)]
    return Sample(operator.matmul, tensors, np.matmul, _sums(dtype, inner))


@case("outer", "F", "mul")
def _outer(draw: Draw, dtype: Any) -> Sample:
    tensors = [draw.tensor((draw.integer(0, 4),), dtype) for _ in range(2)]
    return Sample(tp.outer, tensors, np.outer)


def _attention(query, key, value, mask, is_causal, scale):
    groups = query.shape[1] // key.shape[1]
    key, value = np.repeat(key, groups, 1), np.repeat(value, groups, 1)
    scores = query @ key.swapaxes(-1, -2) * scale
    if is_causal:
        mask = np.tril(np.ones(scores.shape[-2:], bool))
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True) @ value


@case("scaled_dot_product_attention", "F")
def _sdpa_lengths(draw: Draw, dtype: Any) -> Sample:
    batch, groups, heads = draw.integer(1, 3), draw.integer(1, 3), draw.integer(1, 2)
    length, keys = draw.integer(1, 4), draw.integer(1, 5)
    size, is_causal = draw.integer(1, 5), draw.flag()
    tensors = [
        draw.tensor((batch, heads * groups, length, size), dtype),
        draw.tensor((batch, heads, keys, size), dtype),
        draw.tensor((batch, heads, keys, draw.choice([size, 3])), dtype),
        tensor(draw.rng.integers(0, keys + 1, batch), tp.int32),
    ]

    def reference(query, key, value, lengths):
        mask = np.arange(keys) < np.maximum(lengths, 1)[:, None, None, None]
        mask = np.broadcast_to(mask, (batch, 1, length, keys))
        if is_causal:
            mask = mask & np.tril(np.ones((length, keys), bool))
        result = _attention(query, key, value, mask, False, size**-0.5)
        return np.where(lengths[:, None, None, None] > 0, result, 0)

    def function(query, key, value, lengths):
        return tp.scaled_dot_product_attention(
            query, key, value, is_causal=is_causal, key_value_lengths=lengths
        )

    return Sample(function, tensors, reference, _sums(dtype, size))


@case("scaled_dot_product_attention", "F")
def _sdpa(draw: Draw, dtype: Any) -> Sample:
    batch, groups, heads = draw.integer(1, 2), draw.integer(1, 3), draw.integer(1, 2)
    length, size, value_size = draw.integer(1, 4), draw.integer(1, 5), draw.integer(1, 5)
    is_causal = draw.flag()
    key_length = length if is_causal else draw.integer(1, 5)
    scale = draw.choice([None, 0.25])
    tensors = [
        draw.tensor((batch, heads * groups, length, size), dtype),
        draw.tensor((batch, heads, key_length, size), dtype),
        draw.tensor((batch, heads, key_length, value_size), dtype),
    ]
    if not is_causal and draw.flag():
        mask = draw.rng.random((batch, 1, length, key_length)) < 0.5
        mask[..., 0] = True  # Each query sees something.
        if draw.flag():
            tensors.append(tensor(mask, tp.bool))
        else:
            tensors.append(tensor(np.where(mask, 0.5, -1.0), dtype))

    def reference(query, key, value, mask=None):
        default = size**-0.5 if scale is None else scale
        return _attention(query, key, value, mask, is_causal, default)

    return Sample(
        lambda q, k, v, m=None: tp.scaled_dot_product_attention(q, k, v, m, is_causal, scale),
        tensors,
        reference,
        _sums(dtype, size),
    )


@case("kv_cache_update", "F")
def _cache(draw: Draw, dtype: Any) -> Sample:
    batch, heads, size = draw.integer(1, 3), draw.integer(1, 2), draw.integer(1, 3)
    capacity = draw.integer(1, 6)
    count = draw.integer(0, capacity)
    index = draw.rng.integers(0, capacity - count + 1, batch)

    def reference(cache, update, index):
        cache = cache.copy()
        for row, position in enumerate(index):
            cache[row, :, position : position + count] = update[row]
        return cache

    tensors = [
        draw.tensor((batch, heads, capacity, size), dtype),
        draw.tensor((batch, heads, count, size), dtype),
        tensor(index, tp.int32),
    ]

    def function(cache, update, index):
        # What is an argument is written in place: other runs need it as it was.
        return tp.kv_cache_update(cache + 0, update, index)

    return Sample(function, tensors, reference)


@case("rotary_embedding", "F")
def _rotary(draw: Draw, dtype: Any) -> Sample:
    shape = draw.shape((1, 3), (0, 4))
    half, interleaved = draw.integer(1, 3), draw.flag()
    angle_shape = (*shape[draw.integer(0, len(shape)) :], half)
    angles = draw.rng.normal(size=angle_shape)

    def reference(x, cos, sin):
        result = np.empty_like(x)
        first, second = (
            (np.s_[..., 0::2], np.s_[..., 1::2]) if interleaved
            else (np.s_[..., :half], np.s_[..., half:])
        )  # fmt: skip
        result[first] = x[first] * cos - x[second] * sin
        result[second] = x[second] * cos + x[first] * sin
        return result

    return Sample(
        lambda x, cos, sin: tp.rotary_embedding(x, cos, sin, interleaved),
        [
            draw.tensor((*shape, 2 * half), dtype),
            tensor(np.cos(angles), dtype),
            tensor(np.sin(angles), dtype),
        ],
        reference,
        _sums(dtype, 1),
    )
