"""Tensor-parallel splitting of one linear layer.

Columns (q, k, v, fc, gate, lm_head) are cut along their outputs, rows (dense, proj) along their
inputs; what belongs to the cut dimension is cut with it, and the rest is the same on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional

import torch

from tripy.errors import TripyException


@dataclass(frozen=True)
class Linear:
    """A linear layer of a model config.

    Attributes:
        linear_type: "column" or "row".
        weight: [out, in].
        bias: [out], or None.
        activation_scaling_factor: (1,), or None.
        weights_scaling_factor: (1,) float8, (out,) int8, (out, in / block) int4, or None.
        weights_scaling_factor_2: (1,), for int4 rounded to float8; or None.
        prequant_scaling_factor: (in,), or None.
        awq_block_size: The number of inputs that share an int4 scale; 0 for none.
    """

    linear_type: str
    weight: torch.Tensor
    bias: Optional[torch.Tensor] = None
    activation_scaling_factor: Optional[torch.Tensor] = None
    weights_scaling_factor: Optional[torch.Tensor] = None
    weights_scaling_factor_2: Optional[torch.Tensor] = None
    prequant_scaling_factor: Optional[torch.Tensor] = None
    awq_block_size: int = 0


def split(linear: Linear, ranks: int, name: str, heads: int = 0) -> list[Linear]:
    """The parts of a layer, one a rank.

    Args:
        linear: The whole layer.
        ranks: How many.
        name: Of the layer, for messages.
        heads: For queries, keys and values: how many heads its outputs are; fewer heads than
            ranks are given to several ranks each. 0 for other layers.

    Raises:
        TripyException: Where a row's inputs cannot be cut, or not between blocks.
    """
    if ranks == 1:
        return [linear]
    return (
        _rows(linear, ranks, name)
        if linear.linear_type == "row"
        else _columns(linear, ranks, name, heads)
    )


def _columns(linear: Linear, ranks: int, name: str, heads: int) -> list[Linear]:
    if heads and heads % ranks and (heads > ranks or ranks % heads):
        raise TripyException(
            f"{name}: the heads cannot be given to the ranks.",
            got=f"{heads} heads, {ranks} ranks",
            expected="a number of ranks that divides the heads, or is a multiple of them",
        )

    def cut(x: Optional[torch.Tensor], fill: float = 0.0) -> list:
        if x is None:
            return [None] * ranks
        if 0 < heads < ranks:
            parts = x.unflatten(0, (heads, -1)).repeat_interleave(ranks // heads, 0)
            return list(parts.unbind(0))
        return list(padded(x, ranks, fill).chunk(ranks))

    scale, blocks = linear.weights_scaling_factor, linear.awq_block_size
    whole = scale is None or (scale.numel() == 1 and not blocks and linear.weight.shape[0] != 1)
    # Rows of zeros that pad a weight need a scale that can be divided by.
    scales = [scale] * ranks if whole else cut(scale, 1.0)
    weights, biases = cut(linear.weight), cut(linear.bias)
    return [
        replace(linear, weight=w, bias=b, weights_scaling_factor=s)
        for w, b, s in zip(weights, biases, scales)
    ]


def _rows(linear: Linear, ranks: int, name: str) -> list[Linear]:
    inputs, block = linear.weight.shape[1], max(linear.awq_block_size, 1)
    if inputs % (ranks * block):
        raise TripyException(
            f"{name}: the layer's inputs cannot be cut for {ranks} ranks.",
            got=f"{inputs} inputs" + (f" in blocks of {block}" if block > 1 else ""),
            expected=f"a multiple of {ranks * block}",
            hint="fewer ranks" + (", or smaller blocks" if block > 1 else ""),
        )
    scale, pre = linear.weights_scaling_factor, linear.prequant_scaling_factor
    cut_scale = scale is not None and linear.awq_block_size > 0
    scales = scale.chunk(ranks, 1) if cut_scale else [scale] * ranks  # type: ignore[union-attr]
    pres = [None] * ranks if pre is None else pre.chunk(ranks)
    return [
        replace(linear, weight=w, weights_scaling_factor=s, prequant_scaling_factor=p)
        for w, s, p in zip(linear.weight.chunk(ranks, 1), scales, pres)
    ]


def padded(x: torch.Tensor, ranks: int, fill: float = 0.0) -> torch.Tensor:
    """With rows added at the end, up to a multiple of the ranks."""
    missing = -x.shape[0] % ranks
    if not missing:
        return x
    return torch.cat((x, x.new_full((missing, *x.shape[1:]), fill)))


def merged(parts: list[Linear], name: str) -> Linear:
    """Queries, keys and values as one layer, ``[q; k; v]``.

    float8 scales take the largest, and the weight is to be rounded with it; int8 and int4 scales
    are joined; the inputs' scale takes the largest.

    Raises:
        TripyException: Where their inputs are scaled differently.
    """
    first = parts[0]
    pres = [part.prequant_scaling_factor for part in parts]
    given = [pre for pre in pres if pre is not None]
    if len(given) not in (0, len(parts)) or any(not torch.equal(p, given[0]) for p in given):
        raise TripyException(
            f"{name}: queries, keys and values scale their input differently.",
            got="different prequant_scaling_factor",
            expected="one for all three",
            hint="run them as three layers, or calibrate without smoothquant and awq",
        )

    def join(attribute: str, largest: bool) -> Optional[torch.Tensor]:
        values = [getattr(part, attribute) for part in parts]
        if any(value is None for value in values):
            return None
        return torch.stack(values).amax(0) if largest else torch.cat(values)

    scale = first.weights_scaling_factor
    one = scale is not None and scale.numel() == 1 and not first.awq_block_size
    return replace(
        first,
        weight=torch.cat([part.weight for part in parts]),
        bias=join("bias", False),
        activation_scaling_factor=join("activation_scaling_factor", True),
        weights_scaling_factor=join("weights_scaling_factor", one),
        weights_scaling_factor_2=join("weights_scaling_factor_2", True),
    )
