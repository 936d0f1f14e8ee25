"""What happens to a graph before it becomes a network.

Nothing is fused here: TensorRT fuses Q/DQ layers with what is next to them itself. Quantized
weights are folded to their small type, and turned to lie [in, out], as products of small numbers
read them; weights in floating point stay as they are.
"""

from __future__ import annotations

from typing import Optional

from tripy.backends.torch.backend import evaluate
from tripy.backends.torch.lowering.quantization import is_usable_scale
from tripy.graph import Node
from tripy.passes import Rule
from tripy.passes.pipeline import check, fold, rules
from tripy.passes.rewrite import Match, any_value, constant, op


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


def _shared_weight(match: Match) -> Optional[Node]:
    """``x @ transpose(w)`` reads w as it lies: it needs no turned copy."""
    return match.make("linear", [match.value["x"], match.value["w"], None])


_STORED = op("permute", constant("w"), perm=(1, 0), shared=True)
SHARED_RULES = (
    Rule("weights stay [out, in]", op("matmul", any_value("x"), _STORED), _shared_weight),
)
WEIGHT_RULES = (Rule("weights lie [in, out]", op("permute", _WEIGHT, perm=(1, 0)), _turned_weight),)

PASSES = (
    ("weights of floating point", rules(SHARED_RULES)),
    ("constant folding", fold(evaluate)),
    ("scale check", check(is_usable_scale)),
    ("weights for TensorRT", rules(WEIGHT_RULES)),
    ("constant folding, again", fold(evaluate)),
)
