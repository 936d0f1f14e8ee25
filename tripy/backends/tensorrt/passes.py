"""What happens to a graph before it becomes a network.

Nothing is fused here: TensorRT fuses Q/DQ layers with what is next to them itself. Weights are
folded to their small type, and turned to lie [in, out], as its products read them.
"""

from __future__ import annotations

from typing import Optional

from tripy.backends.torch.eager import run_node
from tripy.graph import Node
from tripy.passes import Rule
from tripy.passes.pipeline import check, fold, rules
from tripy.passes.rewrite import Match, constant, op


def _turned_weight(match: Match) -> Optional[Node]:
    """``transpose(dequantize(w))`` as ``dequantize(transpose(w))``, with w folded once more."""
    weight, scale, dim = (
        match.value["w"],
        match.value["scale"],
        match.node["dequantize"].attrs["dim"],
    )
    if weight.rank != 2:
        return None
    turned = match.make("permute", [weight], perm=(1, 0)).output
    turned.name = weight.name
    if scale.rank == 2:
        scale = match.make("permute", [scale], perm=(1, 0)).output
    return match.make("dequantize", [turned, scale], dim=None if dim is None else 1 - dim)


_WEIGHT = op("dequantize", constant("w"), constant("scale"), name="dequantize")
WEIGHT_RULES = (Rule("weights lie [in, out]", op("permute", _WEIGHT, perm=(1, 0)), _turned_weight),)

PASSES = (
    ("constant folding", fold(run_node)),
    ("scale check", check),
    ("weights for TensorRT", rules(WEIGHT_RULES)),
    ("constant folding, again", fold(run_node)),
)
