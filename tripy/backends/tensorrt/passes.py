"""What happens to a graph before it becomes a network.

Nothing is fused here: TensorRT fuses Q/DQ layers with what is next to them itself. Quantized
weights are folded to their small type. Those whose inputs are quantized too stay as they lie,
[out, in], which is how products of int8 and float8 read both sides, and need no second copy while
an engine is built. The others are turned to lie [in, out]: TensorRT would turn them itself.
Weights in floating point stay as they are.
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
_INPUT = op("dequantize", any_value("q"), constant("q_scale"), name="input", shared=True)


def _shared_weight(match: Match) -> Optional[Node]:
    """``x @ transpose(w)`` reads w as it lies: it needs no turned copy."""
    return match.make("linear", [match.value["x"], match.value["w"], None])


def _small_product(match: Match) -> Optional[Node]:
    """``dequantize(x) @ transpose(dequantize(w))`` becomes one product of small numbers."""
    x, x_scale = match.value["q"], match.value["q_scale"]
    weight, scale = match.value["w"], match.value["scale"]
    # For other scales TensorRT has no such product, and expands the weight as for a plain input.
    if x.dtype is not weight.dtype or x_scale.rank or scale.rank > 1 or weight.rank != 2:
        return None
    inputs = [match.node["input"].output, match.node["dequantize"].output, None]
    return match.make("linear", inputs)


_STORED = op("permute", constant("w"), perm=(1, 0), shared=True)
SHARED_RULES = (
    Rule("weights stay [out, in]", op("matmul", any_value("x"), _STORED), _shared_weight),
)
_SMALL = op("permute", _WEIGHT._replace(shared=True), perm=(1, 0), shared=True)
SMALL_RULES = (Rule("small weights stay [out, in]", op("matmul", _INPUT, _SMALL), _small_product),)
WEIGHT_RULES = (Rule("weights lie [in, out]", op("permute", _WEIGHT, perm=(1, 0)), _turned_weight),)

PASSES = (
    ("weights of floating point", rules(SHARED_RULES)),
    ("constant folding", fold(evaluate)),
    ("scale check", check(is_usable_scale)),
    ("weights of quantized layers", rules(SMALL_RULES)),
    ("weights for TensorRT", rules(WEIGHT_RULES)),
    ("constant folding, again", fold(evaluate)),
)
