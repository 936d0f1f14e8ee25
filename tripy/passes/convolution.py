"""Fusion of quantized convolutions.

``convolution(dequantize(q_x), dequantize(q_w), bias) [→ activation] [→ quantize]``, and the same
with ``conv_transpose``, becomes one ``quantized_convolution`` node, built up a step at a time.
Between two of them with an activation, the tensor stays quantized and is never floating point.

A residual block's end is one node too: ``quantize(relu(convolution + dequantize(q_r)))``, whose
residual is int8 as its result is. A layer that follows, and quantizes with the same scale what was
dequantized for the residual, takes the int8 tensor itself.
"""

from __future__ import annotations

from typing import Optional

from tripy import dtypes
from tripy.graph import Node, Value
from tripy.passes.rewrite import Match, Rule, any_value, constant, layer_name, op

# The inputs of a quantized_convolution node, in the schema's order.
_INPUTS = ("x", "w", "w_scale", "x_scale", "bias", "out_scale")


def _static(match: Match) -> Optional[Node]:
    """Input and weight quantized: scales leave the sum, so the products are of small numbers."""
    x, w, w_scale, x_scale = (match.value[n] for n in ("x", "w", "w_scale", "x_scale"))
    outputs = 1 if match.root.op == "conv_transpose" else 0
    if x_scale.rank or w_scale.rank > 1 or match.node["dequantize_x"].attrs["dim"] is not None:
        return None
    if w_scale.rank and match.node["dequantize_w"].attrs["dim"] != outputs:
        return None
    if x.dtype is dtypes.int4 or (x.dtype is dtypes.float8) != (w.dtype is dtypes.float8):
        return None
    return _quantized(match, x, x_scale)


def _weight_only(match: Match) -> Optional[Node]:
    """Only the weight is quantized: it is expanded next to the convolution."""
    return _quantized(match, match.value["x"], None)


def _quantized(match: Match, x: Optional[Value], x_scale: Optional[Value]) -> Node:
    weight, scale = match.value["w"], match.value["w_scale"]
    node = match.make(
        "quantized_convolution",
        [x, weight, scale, x_scale, match.value["bias"], None],
        **match.root.attrs,
        transposed=match.root.op == "conv_transpose",
        activation=None,
        dim=match.node["dequantize_w"].attrs["dim"],
        dtype=scale.dtype,
    )
    node.output.name = layer_name(weight)
    return node


def _rebuilt(match: Match, position: int, value: Optional[Value], **changed: object) -> Node:
    """The convolution with another input, and with other attributes."""
    inputs = [match.value[name] for name in _INPUTS]
    inputs[position] = value
    attrs = {**match.node["quantized_convolution"].attrs, **changed}
    return match.make("quantized_convolution", inputs, **attrs)


def _bias(match: Match) -> Optional[Node]:
    """An addend with one number a channel, such as [channels, 1, 1] for two dimensions."""
    node, bias = match.node["quantized_convolution"], match.value["added"]
    shape = node.output.shape
    if node.attrs["activation"] or match.value["out_scale"] is not None:
        return None
    if match.value["bias"] is not None or bias.dtype is not node.output.dtype:
        return None
    wanted = (1, shape[1], *[1] * (len(shape) - 2))
    if bias.rank < len(shape) - 1 or bias.shape != wanted[-bias.rank :]:
        return None
    flat = match.make("reshape", [bias], shape=(shape[1],)).output
    return _rebuilt(match, 4, flat)


def _activation(match: Match) -> Optional[Node]:
    node = match.node["quantized_convolution"]
    if node.attrs["activation"] or match.value["out_scale"] is not None:
        return None
    name = match.root.op
    if match.root.attrs.get("approximate") == "tanh":
        name = "gelu_tanh"
    return _rebuilt(match, 5, None, activation=name)


def _requantize(match: Match) -> Optional[Node]:
    scale, dtype = match.value["scale"], match.root.attrs["dtype"]
    if scale.rank or match.value["x_scale"] is None or match.value["out_scale"] is not None:
        return None
    if dtype is not match.value["x"].dtype:
        return None
    return _rebuilt(match, 5, scale, dtype=dtype)


def _residual(match: Match) -> Optional[Node]:
    """All at once, since only from int8 to int8 is there anything to gain: see cpu_conv.py."""
    node, residual, scale = (
        match.node["quantized_convolution"], match.value["residual"], match.value["residual_scale"],
    )  # fmt: skip
    if node.attrs["activation"] or node.attrs["transposed"] or match.value["out_scale"] is not None:
        return None
    if match.value["x_scale"] is None or match.value["scale"].rank or scale.rank:
        return None
    kinds = {residual.dtype, match.value["x"].dtype, match.root.attrs["dtype"]}
    if kinds != {dtypes.int8} or node.output.dtype is not dtypes.float32:
        return None
    if residual.shape != node.output.shape:
        return None
    inputs = [match.value[name] for name in _INPUTS]
    inputs[5] = match.value["scale"]
    attrs = {
        **node.attrs, "dtype": dtypes.int8, "activation": "relu" if "relu" in match.node else None,
    }  # fmt: skip
    return match.make("quantized_convolution", [*inputs, residual, scale], **attrs)


def _quantized_before(match: Match) -> Optional[Node]:
    """``quantize(dequantize(q, s), s)`` is q: rounding moves ``q * s / s`` by less than a half."""
    q, scale, again = match.value["q"], match.value["scale"], match.value["again"]
    if q.node is None or len(q.node.outputs) > 1 or q.dtype is not dtypes.int8 or scale.rank:
        return None
    if match.root.attrs["dtype"] is not dtypes.int8 or scale.dtype is not dtypes.float32:
        return None
    # Within these bounds the product neither overflows nor loses digits.
    if again.rank or float(scale.data) != float(again.data) or not 1e-30 < scale.data < 1e30:
        return None
    return q.node


_WEIGHT = op("dequantize", any_value("w"), any_value("w_scale"), name="dequantize_w", shared=True)
_INPUT = op("dequantize", any_value("x"), any_value("x_scale"), name="dequantize_x", shared=True)
_QUANTIZED = op(
    "quantized_convolution",
    *(any_value(name, optional=True) for name in _INPUTS),
    name="quantized_convolution",
)
_BIAS = any_value("bias", optional=True)
_RESIDUAL = op(
    "dequantize", any_value("residual"), any_value("residual_scale"), name="dequantize_residual",
    shared=True, dim=None,
)  # fmt: skip
_SUM = op("add", _QUANTIZED, _RESIDUAL)

CONVOLUTION_RULES = (
    *(
        rule
        for kind in ("convolution", "conv_transpose")
        for rule in (
            Rule(f"static quantized {kind}", op(kind, _INPUT, _WEIGHT, _BIAS), _static),
            Rule(f"weight-only {kind}", op(kind, any_value("x"), _WEIGHT, _BIAS), _weight_only),
        )
    ),
    *(
        Rule("residual", op("quantize", total, any_value("scale"), dim=None), _residual)
        for total in (_SUM, op("relu", _SUM))
    ),
    Rule("convolution bias", op("add", _QUANTIZED, constant("added")), _bias),
    *(
        Rule(f"convolution {name}", op(name, _QUANTIZED), _activation)
        for name in ("relu", "silu", "gelu")
    ),
    Rule(
        "quantized before",
        op(
            "quantize",
            op("dequantize", any_value("q"), constant("scale"), shared=True, dim=None),
            constant("again"),
            dim=None,
        ),
        _quantized_before,
    ),
    Rule("requantize", op("quantize", _QUANTIZED, any_value("scale"), dim=None), _requantize),
)
