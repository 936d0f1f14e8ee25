"""Causal attention in blocks equals torch's, at lengths around the block's size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tripy as tp

CPU = tp.device("cpu")


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 300])
@pytest.mark.parametrize("batch, scale", [(1, None), (2, 0.3)])
def test_causal_attention(length, batch, scale):
    def attend(q, k, v):
        return tp.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)

    n = tp.NamedDimension("n", 1, 128, 512)
    info = tp.InputInfo((batch, 3, n, 16), tp.float32)
    fast = tp.compile(attend, args=[info] * 3, device=CPU)
    assert "blocks" in fast.report().rows[0].kernel
    # As a model has them: cut from one tensor, with heads not next to one another in memory.
    parts = torch.randn(batch, length, 9, 16).transpose(1, 2).split(3, dim=1)
    result = fast(*map(tp.Tensor, parts)).torch()
    wanted = F.scaled_dot_product_attention(
        *(t.double() for t in parts), is_causal=True, scale=scale
    )
    assert result.shape == wanted.shape
    assert (result - wanted).abs().max() < 2e-6


def test_causal_attention_with_heads_that_are_shared():
    def attend(q, k, v):
        return tp.scaled_dot_product_attention(q, k, v, is_causal=True)

    shapes = [(2, 4, 100, 8), (2, 2, 100, 8), (2, 2, 100, 8)]
    fast = tp.compile(attend, args=[tp.InputInfo(s, tp.float32) for s in shapes], device=CPU)
    parts = [torch.randn(shape) for shape in shapes]
    wanted = F.scaled_dot_product_attention(
        *(t.double() for t in parts), is_causal=True, enable_gqa=True
    )
    assert (fast(*map(tp.Tensor, parts)).torch() - wanted).abs().max() < 2e-6


def test_other_attention_is_torchs():
    def attend(q, k, mask):
        return tp.scaled_dot_product_attention(q, k, k, mask)

    shapes = [(1, 4, 5, 8), (1, 2, 7, 8)]
    infos = [tp.InputInfo(s, tp.float32) for s in shapes] + [tp.InputInfo((5, 7), tp.bool)]
    fast = tp.compile(attend, args=infos, device=CPU)
    assert fast.report().rows[0].kernel == "torch attention"
    q, k, mask = torch.randn(shapes[0]), torch.randn(shapes[1]), torch.rand(5, 7) > 0.3
    mask[:, 0] = True
    arguments = [tp.Tensor(t) for t in (q, k, mask)]
    assert torch.equal(fast(*arguments).torch(), attend(*arguments).torch())
