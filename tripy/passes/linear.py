"""Fusion of floating-point linear layers: ``x @ transpose(w) + bias`` in one call."""

from __future__ import annotations

from typing import Optional

from tripy.graph import Node
from tripy.passes.rewrite import Match, Rule, any_value, constant, layer_name, op


def _linear(match: Match) -> Optional[Node]:
    x, weight = match.value["x"], match.value["w"]
    if weight.rank != 2:
        return None
    linear = match.make("linear", [x, weight, None])
    linear.output.name = layer_name(weight)
    return linear


def _known_weight(match: Match) -> Optional[Node]:
    """A weight whose transposition was folded, or that is stored [in, out]: turned once."""
    x, weight = match.value["x"], match.value["w"]
    if weight.rank != 2:
        return None
    turned = match.make("permute", [weight], perm=(1, 0)).output
    linear = match.make("linear", [x, turned, None])
    linear.output.name = layer_name(weight)
    return linear


def _bias(match: Match) -> Optional[Node]:
    linear, bias = match.node["linear"], match.value["added"]
    if match.value["bias"] is not None or bias.shape != linear.output.shape[-1:]:
        return None
    return match.make("linear", [match.value["x"], match.value["w"], bias])


_LINEAR = op("linear", any_value("x"), any_value("w"), any_value("bias", optional=True))

LINEAR_RULES = (
    Rule(
        "linear",
        op("matmul", any_value("x"), op("permute", any_value("w"), perm=(1, 0), shared=True)),
        _linear,
    ),
    Rule("linear, weight known", op("matmul", any_value("x"), constant("w")), _known_weight),
    Rule("linear bias", op("add", _LINEAR, any_value("added")), _bias),
)
