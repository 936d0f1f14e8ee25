"""Fusion of quantized linear layers.

``matmul(dequantize(q_x), transpose(dequantize(q_w))) [+ bias] [→ activation] [→ quantize]`` becomes
one ``quantized_linear`` node, built up a step at a time. Between two such layers with an
activation, the tensor stays quantized and is never floating point.
"""

from __future__ import annotations

from typing import Optional

from tripy import dtypes
from tripy.graph import Node, Value
from tripy.passes.rewrite import Match, Rule, any_value, constant, layer_name, op

# The inputs of a quantized_linear node, in the schema's order.
_INPUTS = ("x", "w", "w_scale", "x_scale", "bias", "out_scale", "residual")


def _untransposed_weight(match: Match) -> Optional[Node]:
    """``x @ dequantize(w)`` with w [in, out]: the same with the weight stored [out, in]."""
    dequantize, weight, scale = match.node["dequantize"], match.value["w"], match.value["w_scale"]
    if weight.rank != 2:
        return None
    dim = dequantize.attrs["dim"]
    turned = match.make("permute", [weight], perm=(1, 0)).output
    if scale.rank == 2:
        scale = match.make("permute", [scale], perm=(1, 0)).output
    dim = None if dim is None else 1 - dim
    product = match.make("dequantize", [turned, scale], dim=dim).output
    product = match.make("permute", [product], perm=(1, 0)).output
    return match.make("matmul", [match.root.inputs[0], product])


def _static(match: Match) -> Optional[Node]:
    """Input and weight quantized: scales leave the sum, so the product is of small numbers."""
    x, w, w_scale, x_scale = (match.value[n] for n in ("x", "w", "w_scale", "x_scale"))
    dim = match.node["dequantize_w"].attrs["dim"]
    if x_scale.rank or w.rank != 2 or w_scale.rank > 1 or dim == 1:
        return None
    if x.dtype is dtypes.int4 or (x.dtype is dtypes.float8) != (w.dtype is dtypes.float8):
        return None
    return _quantized_linear(match, x, x_scale)


def _weight_only(match: Match) -> Optional[Node]:
    """Only the weight is quantized: it is expanded next to the product."""
    if match.value["w"].rank != 2:
        return None
    return _quantized_linear(match, match.value["x"], None)


def _quantized_linear(match: Match, x: Optional[Value], x_scale: Optional[Value]) -> Node:
    weight, scale = match.value["w"], match.value["w_scale"]
    node = match.make(
        "quantized_linear",
        [x, weight, scale, x_scale, None, None, None],
        activation=None,
        dim=match.node["dequantize_w"].attrs["dim"],
        dtype=scale.dtype,
    )
    node.output.name = layer_name(weight)
    return node


def _inputs(match: Match) -> list:
    return [match.value[name] for name in _INPUTS]


def _bias(match: Match) -> Optional[Node]:
    linear, bias = match.node["quantized_linear"], match.value["added"]
    if linear.attrs["activation"] or bias.shape != linear.output.shape[-1:]:
        return None
    if match.value["bias"] is not None or match.value["out_scale"] is not None:
        return None
    inputs = _inputs(match)
    inputs[4] = bias
    return match.make("quantized_linear", inputs, **linear.attrs)


def _activation(match: Match) -> Optional[Node]:
    linear = match.node["quantized_linear"]
    if linear.attrs["activation"] or match.value["out_scale"] is not None:
        return None
    name = match.root.op
    if match.root.attrs.get("approximate") == "tanh":
        name = "gelu_tanh"
    return match.make("quantized_linear", _inputs(match), **{**linear.attrs, "activation": name})


def _requantize(match: Match) -> Optional[Node]:
    linear, quantize = match.node["quantized_linear"], match.root
    scale, dtype = match.value["scale"], quantize.attrs["dtype"]
    if scale.rank or match.value["x_scale"] is None or match.value["out_scale"] is not None:
        return None
    if dtype is not match.value["x"].dtype:
        return None
    inputs = _inputs(match)
    inputs[5] = scale
    return match.make("quantized_linear", inputs, **{**linear.attrs, "dtype": dtype})


_WEIGHT = op("dequantize", any_value("w"), any_value("w_scale"), name="dequantize_w", shared=True)
_TRANSPOSED = op("permute", _WEIGHT, perm=(1, 0), shared=True)
_INPUT = op("dequantize", any_value("x"), any_value("x_scale"), name="dequantize_x", shared=True)
_LINEAR = op(
    "quantized_linear",
    *(any_value(name, optional=True) for name in _INPUTS),
    name="quantized_linear",
)

QUANTIZATION_RULES = (
    Rule("static quantized linear", op("matmul", _INPUT, _TRANSPOSED), _static),
    Rule("weight-only linear", op("matmul", any_value("x"), _TRANSPOSED), _weight_only),
    Rule(
        "weight stored [in, out]",
        op("matmul", any_value("x"), op("dequantize", constant("w"), constant("w_scale"))),
        _untransposed_weight,
    ),
    Rule("bias", op("add", _LINEAR, any_value("added")), _bias),
    Rule("gelu", op("gelu", _LINEAR), _activation),
    Rule("relu", op("relu", _LINEAR), _activation),
    Rule("silu", op("silu", _LINEAR), _activation),
    Rule("requantize", op("quantize", _LINEAR, any_value("scale"), dim=None), _requantize),
)
