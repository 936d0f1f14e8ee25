"""Names and sizes of models in transformers, by the decoder type of a model config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.state import LinearState, QuantizerState


class Sizes(NamedTuple):
    """What a model's own configuration says."""

    vocabulary: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    positions: int
    activation: str
    eps: float
    rotary_base: int


@dataclass(frozen=True)
class Family:
    """Where a kind of model keeps its parts.

    Attributes:
        layer: The start of a layer's names, with {} for its number.
        linear: The linear layers' names in a layer; "qkv" for one that makes all three.
        norms: Those of the two norms in a layer.
        embedding, positions, final_norm, head: Names in the model; None for what it has not.
        norm: "LayerNorm" or "RmsNorm".
        sizes: Reads the model's own configuration.
    """

    layer: str
    linear: dict[str, Optional[str]]
    norms: tuple[str, str]
    embedding: str
    positions: Optional[str]
    final_norm: str
    head: str
    norm: str
    sizes: Callable[[Any], Sizes]


def _gpt2_sizes(config: Any) -> Sizes:
    heads = config.n_head
    return Sizes(
        config.vocab_size, config.n_layer, heads, heads, config.n_embd // heads,
        config.n_positions, config.activation_function, config.layer_norm_epsilon, 0,
    )  # fmt: skip


def _llama_sizes(config: Any) -> Sizes:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv = getattr(config, "num_key_value_heads", None) or heads
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise TripyException(
            "export_model_config: the format has no field for scaled rotary positions.",
            got=f"rope_type {kind!r}",
            expected="rotary positions as they were trained",
            hint="export_hf, which keeps the model's own config",
        )
    base = getattr(config, "rope_theta", None) or rope.get("rope_theta", 10000.0)
    return Sizes(
        config.vocab_size, config.num_hidden_layers, heads, kv, size,
        config.max_position_embeddings, config.hidden_act, config.rms_norm_eps, int(base),
    )  # fmt: skip


GPT2 = Family(
    "transformer.h.{}.",
    {"qkv": "attn.c_attn", "dense": "attn.c_proj", "fc": "mlp.c_fc", "gate": None,
     "proj": "mlp.c_proj"},
    ("ln_1", "ln_2"),
    "transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head", "LayerNorm", _gpt2_sizes,
)  # fmt: skip
LLAMA = Family(
    "model.layers.{}.",
    {"qkv": None, "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
     "dense": "self_attn.o_proj", "fc": "mlp.gate_proj", "gate": "mlp.up_proj",
     "proj": "mlp.down_proj"},
    ("input_layernorm", "post_attention_layernorm"),
    "model.embed_tokens", None, "model.norm", "lm_head", "RmsNorm", _llama_sizes,
)  # fmt: skip
FAMILIES = {"gpt2": GPT2, "llama": LLAMA}


def qkv(
    family: Family, layers: dict[str, LinearState], prefix: str, sizes: Sizes
) -> list[LinearState]:
    """Queries, keys and values of a layer, each as a layer of its own."""
    fused = family.linear["qkv"]
    wanted = [fused] if fused else [family.linear[which] for which in "qkv"]
    for name in wanted:
        if f"{prefix}{name}" not in layers:
            raise TripyException(
                "export_model_config: the model has other names.",
                got=f"no {prefix}{name}",
                expected="those of transformers' model of the decoder type",
            )
    if not fused:
        return [layers[f"{prefix}{name}"] for name in wanted]
    state = layers[prefix + fused]
    kv = sizes.kv_heads * sizes.head_size
    widths = [state.weight.shape[0] - 2 * kv, kv, kv]
    weights = state.weight.split(widths)
    biases = [None] * 3 if state.bias is None else state.bias.split(widths)
    parts = []
    for index, (weight, bias) in enumerate(zip(weights, biases)):
        quantizers = tuple(_part(q, widths, index) for q in state.weight_quantizers)
        parts.append(replace(state, weight=weight, bias=bias, weight_quantizers=quantizers))
    return parts


def _part(quantizer: QuantizerState, widths: list[int], index: int) -> QuantizerState:
    amax: torch.Tensor = quantizer.amax
    return replace(quantizer, amax=amax if amax.dim() == 0 else amax.split(widths)[index])
