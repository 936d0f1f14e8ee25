"""Matrix products, attention and its cache: ranks, masks, capacity, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import F, check, raises, randn, tensor, where


def test_vectors(rng):
    x, y, m = randn(rng, (3,)), randn(rng, (3,)), randn(rng, (2, 3, 3))
    close = {"rtol": 1e-5, "atol": 1e-5}
    check(lambda x, y: x @ y, x, y, reference=np.matmul, **close)
    check(lambda x, m: x @ m, x, m, reference=np.matmul, **close)
    check(lambda m, x: m @ x, m, x, reference=np.matmul, **close)
    nothing = tensor(np.zeros((2, 0)), tp.float32)
    other = tensor(np.zeros((0, 3)), tp.float32)
    check(lambda x, y: x @ y, nothing, other, reference=[np.zeros((2, 3))])


def test_products_refuse():
    x = tp.ones((2, 3))
    with raises("matmul: the summed dimensions differ") as caught:
        x @ x
    assert "float32[2, 3]" in str(caught.value)
    with raises("matmul: a scalar has no matrix product"):
        x @ tp.Tensor(1.0)
    with raises("matmul: the shapes cannot be broadcast"):
        tp.ones((2, 2, 3)) @ tp.ones((4, 3, 2))
    with raises("matmul: an operand is not a tensor"):
        x @ 2
    with raises("matmul: lhs and rhs have different data types"):
        x @ tp.ones((3, 2), dtype=tp.float16)


def _attention_inputs(heads=2, groups=1, length=3, size=4):
    return tp.ones((1, heads * groups, length, size)), tp.ones((1, heads, length, size))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3)])
def test_attention_masks_of_any_rank(shape):
    q, k = _attention_inputs()
    attention = tp.scaled_dot_product_attention
    for mask in (tp.zeros(shape), tp.ones(shape, dtype=tp.bool)):
        assert tp.allclose(attention(q, k, k, mask), attention(q, k, k))
        info = tp.InputInfo(q.shape, tp.float32), tp.InputInfo(shape, mask.dtype)
        fast = tp.compile(lambda q, mask: attention(q, q, q, mask), args=info, device=where())
        assert tp.allclose(fast(q, mask), attention(q, k, k))


def test_attention_refuses():
    q, k = _attention_inputs()
    attention = tp.scaled_dot_product_attention
    with raises("a rank is not 4"):
        attention(tp.ones((2, 3)), k, k)
    with raises("mask and is_causal are both given"):
        attention(q, k, k, tp.ones((3, 3), dtype=tp.bool), is_causal=True)
    with raises("the mask cannot be broadcast to the scores"):
        attention(q, k, k, tp.ones((3, 2), dtype=tp.bool))
    with raises("the mask's data type does not fit|mask has an unsupported data type"):
        attention(q, k, k, tp.ones((3, 3), dtype=tp.float16))
    with raises("mask has an unsupported data type"):
        attention(q, k, k, tp.ones((3, 3), dtype=tp.int32))
    with raises("the query heads cannot be shared"):
        attention(tp.ones((1, 3, 3, 4)), k, k)
    with raises("query and key have different head sizes"):
        attention(tp.ones((1, 2, 3, 5)), k, k)
    with raises("key and value have different lengths"):
        attention(q, k, tp.ones((1, 2, 2, 4)))
    with raises("scale is not a number"):
        attention(q, k, k, scale="a")
    with raises("is_causal is not one of its values"):
        attention(q, k, k, is_causal=1)


@pytest.mark.parametrize("dtype", F, ids=str)
def test_causal_attention_sees_no_later_keys(rng, dtype):
    q, k, v = (randn(rng, (1, 2, 5, 4), dtype) for _ in range(3))
    whole = tp.scaled_dot_product_attention(q, k, v, is_causal=True).numpy()
    for length in range(1, 5):
        part = tp.scaled_dot_product_attention(
            q[:, :, :length], k[:, :, :length], v[:, :, :length], is_causal=True
        )
        np.testing.assert_allclose(
            part.numpy().astype(np.float32), whole[:, :, :length].astype(np.float32), atol=0.05
        )


def test_the_cache_is_functional():
    cache = tp.zeros((2, 1, 4, 1)).eval()
    new = tp.kv_cache_update(cache, tp.ones((2, 1, 2, 1)), tp.Tensor([0, 2]))
    assert new.flatten().tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
    assert tp.all(cache == 0)


@pytest.mark.parametrize("position", [3, 4, 100, -1])
def test_writing_past_the_capacity_is_an_error(position):
    update = tp.kv_cache_update(
        tp.zeros((1, 1, 4, 1)), tp.ones((1, 1, 2, 1)), tp.Tensor([position])
    )
    with raises("kv_cache_update: the update does not fit the cache"):
        update.eval()


def test_cache_updates_refuse():
    cache, update, index = tp.zeros((1, 2, 4, 3)), tp.ones((1, 2, 1, 3)), tp.Tensor([0])
    with raises("the update is longer than the cache"):
        tp.kv_cache_update(cache, tp.ones((1, 2, 5, 3)), index)
    with raises("a rank is not 4"):
        tp.kv_cache_update(cache[0], update, index)
    with raises("cache and update have different heads"):
        tp.kv_cache_update(cache, tp.ones((1, 1, 1, 3)), index)
    with raises("there is not one write index a batch row"):
        tp.kv_cache_update(cache, update, tp.Tensor([0, 1]))
    with raises("write_indices is not a vector"):
        tp.kv_cache_update(cache, update, tp.Tensor(0))
    with raises("write_indices has an unsupported data type"):
        tp.kv_cache_update(cache, update, tp.Tensor([0], dtype=tp.int64))


def test_rotary_keeps_lengths_and_refuses(rng):
    x = randn(rng, (2, 3, 4))
    angle = rng.normal(size=(3, 2))
    cos, sin = tensor(np.cos(angle), tp.float32), tensor(np.sin(angle), tp.float32)
    for interleaved in (False, True):
        turned = tp.rotary_embedding(x, cos, sin, interleaved)
        np.testing.assert_allclose(
            np.square(turned.numpy()).sum(-1), np.square(x.numpy()).sum(-1), rtol=1e-5
        )
    with raises("the last dimension is not even"):
        tp.rotary_embedding(tp.ones((2, 3)), tp.ones((1,)), tp.ones((1,)))
    with raises("the shape of cos does not fit"):
        tp.rotary_embedding(x, tp.ones((3, 3)), sin)
    with raises("the shape of sin does not fit"):
        tp.rotary_embedding(x, cos, tp.ones((2, 2, 3, 2)))
    with raises("interleaved is not one of its values"):
        tp.rotary_embedding(x, cos, sin, None)
