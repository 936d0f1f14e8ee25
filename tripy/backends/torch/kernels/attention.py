"""Causal attention on the CPU, in blocks of queries.

torch's CPU kernel computes the scores above the diagonal too and throws them away. Here each block
of queries is multiplied with the keys up to its last row only, which halves the work of a long
prompt.
"""

from __future__ import annotations

from typing import Optional

import torch

from tripy.backends.base import ReportRow
from tripy.backends.torch.kernels.base import Kernel, node_name
from tripy.backends.torch.kernels.cuda import prepare_one_token
from tripy.backends.torch.kernels.cuda.available import missing
from tripy.backends.torch.lowering import LOWERINGS
from tripy.dtypes import float32
from tripy.graph import Node

T = torch.Tensor
# Rows of queries in a block: their scores against all keys should stay in the cache.
BLOCK = 64


def _causal(query: T, key: T, value: T, scale: Optional[float]) -> T:
    batch, heads, length, width = query.shape
    # Scaling the queries touches fewer numbers than scaling the scores.
    scaled = query * (width**-0.5 if scale is None else scale)
    q, k, v = (t.flatten(0, 1) for t in (scaled, key, value))
    # [batch, length, heads, width] in memory, so that merging the heads afterwards is a view.
    result = torch.empty(batch, length, heads, value.shape[3]).transpose(1, 2)
    above = torch.full((BLOCK, BLOCK), float("-inf")).triu_(1)
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        scores = torch.bmm(q[:, start:end], k[:, :end].transpose(1, 2))
        rows = end - start
        scores[:, :, start:] += above[:rows, :rows]
        block = torch.bmm(torch.softmax(scores, -1), v[:, :end])
        result[:, :, start:end] = block.unflatten(0, (batch, heads))
    return result


def prepare(node: Node) -> Kernel:
    """In blocks where that is faster, else torch's kernel."""
    query, key = node.inputs[0], node.inputs[1]
    assert query is not None and key is not None
    fits = (
        node.attrs["is_causal"]
        and query.device.kind == "cpu"
        and query.dtype is float32
        and query.shape[1] == key.shape[1]
        and query.shape[2] == key.shape[2]
        and node.inputs[4] is None
    )
    general = LOWERINGS[node.op]

    def run(query: T, key: T, value: T, mask: Optional[T], lengths: Optional[T]) -> T:
        if fits and query.shape[2] > BLOCK:
            return _causal(query, key, value, node.attrs["scale"])
        return general(node.attrs, query, key, value, mask, lengths)

    one_token = query.shape[2] == 1 and node.inputs[4] is not None
    same = query.shape[3] == node.inputs[2].shape[3]  # type: ignore[union-attr]
    small = isinstance(query.shape[3], int) and query.shape[3] <= 256
    if one_token and same and small and not missing(query.device):
        return prepare_one_token(node)
    name = f"causal attention in blocks of {BLOCK}" if fits else "torch attention"
    return Kernel(run, node.inputs, ReportRow(node_name(node), node.op, name, "", 0))
