"""A reader of model configs that computes: what the files say, and nothing of the model.

It runs one rank or several, in floating point or with the scales that are beside the weights. Every
layer's fields decide what is computed, so that a wrong name, size or order shows in the logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

import tripy.quantization as tq

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}
BITS = {"fp8": (4, 3), "int8_sq": 8, "int4_awq": 4}


def run(configs: list[dict[str, Any]], data: torch.Tensor) -> torch.Tensor:
    """Logits, [batch, length, vocabulary], of the configs of all ranks."""
    first = configs[0]
    kind, quantization = first["layers"][0]["decoder_type"], first["quantization"]
    x = _joined(configs, "vocab_embedding")[data]
    if first["position_embedding"] is not None:
        x = x + _joined(configs, "position_embedding")[: data.shape[1]]
    if first["ln_embed"] is not None:
        x = _norm(x, first["ln_embed"])
    if kind == "gemma":
        x = x * x.shape[-1] ** 0.5
    for layers in zip(*(config["layers"] for config in configs)):
        x = _layer(x, layers, quantization)
    x = _norm(x, first["ln_f"])
    parts = []
    for config in configs:
        head = config["lm_head"]
        y = x @ head.weight.t()
        parts.append(y if head.bias is None else y + head.bias)
    return torch.cat(parts, -1)[..., : first["vocab_size"]]


def _joined(configs: list[dict[str, Any]], key: str) -> torch.Tensor:
    return torch.cat([config[key]["weight"] for config in configs])


def _layer(x: torch.Tensor, layers: tuple, quantization: Any) -> torch.Tensor:
    layer = layers[0]
    normed = _norm(x, layer["input_layernorm"])
    attended = sum(_attention(normed, part, quantization, i) for i, part in enumerate(layers))
    bias = layer["attention"]["dense"].bias
    attended = attended if bias is None else attended + bias
    if layer["parallel_attention"]:
        other = layer["mlp_layernorm"]
        return (
            x + attended + _mlp(normed if other is None else _norm(x, other), layers, quantization)
        )
    x = x + attended
    return x + _mlp(_norm(x, layer["post_layernorm"]), layers, quantization)


def _norm(x: torch.Tensor, norm: dict[str, Any]) -> torch.Tensor:
    if norm["layernorm_type"] == "RmsNorm":
        return x * (x.square().mean(-1, keepdim=True) + norm["eps"]).rsqrt() * norm["weight"]
    return torch.nn.functional.layer_norm(
        x, x.shape[-1:], norm["weight"], norm["bias"], norm["eps"]
    )


def rounded(linear: Any, quantization: Any) -> torch.Tensor:
    """The weight as an engine would round it."""
    if linear.weights_scaling_factor is None:
        return linear.weight
    blocks = linear.awq_block_size or None
    config = tq.QuantizerConfig(
        BITS[quantization], 0 if quantization == "int8_sq" else None, blocks
    )
    scale = linear.weights_scaling_factor
    scale = scale.reshape(()) if quantization == "fp8" else scale
    return tq.QuantizerState(config, scale.double() * config.format.maxbound)(linear.weight)


def apply(linear: Any, x: torch.Tensor, quantization: Any) -> torch.Tensor:
    """The layer's product, without its bias."""
    if linear.prequant_scaling_factor is not None:
        x = x * linear.prequant_scaling_factor
    if linear.activation_scaling_factor is not None:
        config = tq.QuantizerConfig(BITS[quantization])
        amax = linear.activation_scaling_factor.double().reshape(()) * config.format.maxbound
        x = tq.QuantizerState(config, amax)(x)
    return x @ rounded(linear, quantization).t()


def _attention(
    x: torch.Tensor, layer: dict[str, Any], quantization: Any, rank: int
) -> torch.Tensor:
    """One rank's, before the sum over ranks."""
    attention, size = layer["attention"], layer["attention_head_size"]
    made = []
    for which in "qkv":
        linear = attention["qkv"][which]
        y = apply(linear, x, quantization)
        made.append(y if linear.bias is None else y + linear.bias)
    q, k, v = (part.unflatten(-1, (-1, size)).transpose(1, 2) for part in made)
    if layer["rotary_base"]:
        dim = attention["rotary_dim"] or size
        q, k = (_turned(part, dim, layer) for part in (q, k))
    repeats = q.shape[1] // k.shape[1]
    k, v = (part.repeat_interleave(repeats, 1) for part in (k, v))
    length = x.shape[1]
    scores = q @ k.transpose(-1, -2) / math.sqrt(size)
    if layer["use_alibi"]:
        mine = slice(rank * q.shape[1], (rank + 1) * q.shape[1])
        scores = scores + _alibi(layer, length)[mine]
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return apply(attention["dense"], y, quantization)


def _turned(x: torch.Tensor, dim: int, layer: dict[str, Any]) -> torch.Tensor:
    """With rotary positions: pairs of neighbours in GPT-J, of halves elsewhere."""
    turned, kept = x[..., :dim], x[..., dim:]
    frequencies = layer["rotary_base"] ** (-torch.arange(0, dim, 2) / dim)
    angles = torch.arange(x.shape[-2])[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    if layer["decoder_type"] == "gptj":
        a, b = turned[..., 0::2], turned[..., 1::2]
        made = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        made = torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
    return torch.cat((made, kept), -1)


def _alibi(layer: dict[str, Any], length: int) -> torch.Tensor:
    """Biases of all heads, by the slopes of Press et al., 2022, for powers of two of heads."""
    heads = layer["num_attention_heads"]
    most = layer.get("alibi_bias_max") or 8
    slopes = 2.0 ** (-most / heads * torch.arange(1, heads + 1))
    bias = slopes[:, None, None] * torch.arange(length)
    # Falcon adds the biases before it scales by the head's size.
    return (
        bias / math.sqrt(layer["attention_head_size"])
        if layer["decoder_type"] == "falcon"
        else bias
    )


def _mlp(x: torch.Tensor, layers: tuple, quantization: Any) -> torch.Tensor:
    total: Any = 0
    for layer in layers:
        mlp = layer["mlp"]
        y = apply(mlp["fc"], x, quantization)
        # Readers of BLOOM mean the form with tanh by "gelu".
        act = "gelu_new" if layer["decoder_type"] == "bloom" else mlp["hidden_act"]
        y = ACTIVATIONS[act](y if mlp["fc"].bias is None else y + mlp["fc"].bias)
        if mlp["gate"] is not None:
            y = y * apply(mlp["gate"], x, quantization)
        total = total + apply(mlp["proj"], y, quantization)
    bias = layers[0]["mlp"]["proj"].bias
    return total if bias is None else total + bias
