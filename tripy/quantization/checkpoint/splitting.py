"""Tensor-parallel splitting, as a table: how each tensor is cut, and put together again.

A :class:`Cut` says of one tensor which part of it each rank gets. Columns (q, k, v, fc, gate,
lm_head) are cut along their outputs, rows (dense, proj) along their inputs; what belongs to the cut
dimension is cut with it, and the rest is the same on every rank. :meth:`Cut.parts` splits and
:meth:`Cut.joined` joins, so that files are checked by what their ranks make together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Optional

import torch

from tripy.errors import TripyException


@dataclass(frozen=True)
class Cut:
    """A tensor, and how ranks share it.

    Attributes:
        value: The whole.
        dim: The dimension that is cut, 0 or 1; None for one that every rank has whole.
        fill: What the last rank's part is filled up with where the ranks do not divide dimension 0.
        heads: Of how many heads dimension 0 consists, where fewer heads than ranks are given to
            several ranks each; 0 for others.
    """

    value: torch.Tensor
    dim: Optional[int] = None
    fill: float = 0.0
    heads: int = 0

    def parts(self, ranks: int) -> list[torch.Tensor]:
        """What each rank gets."""
        if self.dim is None:
            return [self.value] * ranks
        if 0 < self.heads < ranks:
            each = self.value.unflatten(0, (self.heads, -1))
            return list(each.repeat_interleave(ranks // self.heads, 0).unbind(0))
        missing = -self.value.shape[self.dim] % ranks
        whole = self.value
        if missing:
            rows = whole.new_full((missing, *whole.shape[1:]), self.fill)
            whole = torch.cat((whole, rows))
        return list(whole.chunk(ranks, self.dim))

    def joined(self, parts: list[torch.Tensor]) -> Optional[torch.Tensor]:
        """The whole that the ranks' parts make; None where they contradict one another."""
        if [part.shape for part in parts] != [part.shape for part in self.parts(len(parts))]:
            return None
        if self.dim is None or 0 < self.heads < len(parts):
            copies = len(parts) // (self.heads or 1) if self.dim is not None else len(parts)
            first = parts[::copies]
            same = all(torch.equal(part, first[i // copies]) for i, part in enumerate(parts))
            if not same:
                return None
            return first[0] if self.dim is None else torch.cat(first)
        whole, size = torch.cat(parts, self.dim), self.value.shape[self.dim]
        filled = whole.narrow(self.dim, size, whole.shape[self.dim] - size)
        return whole.narrow(self.dim, 0, size) if bool((filled == self.fill).all()) else None


@dataclass(frozen=True)
class Linear:
    """A linear layer of a model config; a whole one has a :class:`Cut` for each tensor.

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
    weight: Any
    bias: Any = None
    activation_scaling_factor: Any = None
    weights_scaling_factor: Any = None
    weights_scaling_factor_2: Any = None
    prequant_scaling_factor: Any = None
    awq_block_size: int = 0


# What is cut along which dimension; None: whole on every rank. A weight scale is cut only where
# there is one for each output or block.
CUTS: dict[str, dict[str, Optional[int]]] = {
    "column": {
        "weight": 0, "bias": 0, "activation_scaling_factor": None, "weights_scaling_factor": 0,
        "weights_scaling_factor_2": None, "prequant_scaling_factor": None,
    },
    "row": {
        "weight": 1, "bias": None, "activation_scaling_factor": None, "weights_scaling_factor": 1,
        "weights_scaling_factor_2": None, "prequant_scaling_factor": 0,
    },
}  # fmt: skip


def cut_linear(linear: Linear, ranks: int, name: str, heads: int = 0) -> Linear:
    """The layer with a :class:`Cut` for each of its tensors.

    Args:
        linear: The whole layer.
        ranks: How many there will be.
        name: Of the layer, for messages.
        heads: For queries, keys and values: how many heads its outputs are; fewer heads than
            ranks are given to several ranks each. 0 for other layers.

    Raises:
        TripyException: Where heads would be cut, a row's inputs cannot be cut, or not between
            blocks.
    """
    kind = linear.linear_type
    if kind == "row":
        _check_row(linear, ranks, name)
    elif heads and heads % ranks and (heads > ranks or ranks % heads):
        raise TripyException(
            f"{name}: the heads cannot be given to the ranks.",
            got=f"{heads} heads, {ranks} ranks",
            expected="a number of ranks that divides the heads, or is a multiple of them",
        )
    made: dict[str, Any] = {}
    for attribute, dim in CUTS[kind].items():
        value = getattr(linear, attribute)
        if value is None:
            continue
        scale = attribute == "weights_scaling_factor"
        if scale and not _fits_cut(linear, value, dim):
            dim = None
        # Rows of zeros that pad a weight need a scale that can be divided by.
        made[attribute] = Cut(value, dim, 1.0 if scale else 0.0, heads if dim == 0 else 0)
    return replace(linear, **made)


def _fits_cut(linear: Linear, scale: torch.Tensor, dim: Optional[int]) -> bool:
    """Whether the scale has a value for each part of what is cut."""
    if linear.awq_block_size:
        return True
    # Of a layer with one output, the output's scale and the layer's are the same.
    return dim == 0 and scale.shape[0] == linear.weight.shape[0] > 1


def _check_row(linear: Linear, ranks: int, name: str) -> None:
    inputs, block = linear.weight.shape[1], max(linear.awq_block_size, 1)
    if inputs % (ranks * block):
        raise TripyException(
            f"{name}: the layer's inputs cannot be cut for {ranks} ranks.",
            got=f"{inputs} inputs" + (f" in blocks of {block}" if block > 1 else ""),
            expected=f"a multiple of {ranks * block}",
            hint="fewer ranks" + (", or smaller blocks" if block > 1 else ""),
        )


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
