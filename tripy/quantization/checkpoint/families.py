"""Names and sizes of models in transformers, by the decoder type of a model config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint.sizes import (
    Sizes,
    bloom_sizes,
    falcon_sizes,
    gpt2_sizes,
    gptj_sizes,
    llama_sizes,
    mpt_sizes,
    refused,
)
from tripy.quantization.state import LinearState, QuantizerState


@dataclass(frozen=True)
class Family:
    """Where a kind of model keeps its parts.

    Attributes:
        models: The ``model_type`` of transformers' models of that kind.
        layer: The start of a layer's names, with {} for its number.
        linear: The linear layers' names in a layer: "q", "k" and "v", or "qkv" for one that makes
            all three; "dense", "fc", "proj", and "gate" where there is one.
        norms: The names of the norms in a layer, by what the format calls them. The first of
            several names that the model has is meant.
        embedding, final_norm, head: Names in the model.
        sizes: Reads the model's own configuration.
        positions: The name of the embedding of positions; None for models without.
        embedding_norm: That of the norm after the embedding; None for models without.
        norm: "LayerNorm" or "RmsNorm".
        plus_one: Whether norms multiply with one more than their weight.
        interleaved: Whether one layer that makes all three has them head by head.
    """

    models: tuple[str, ...]
    layer: str
    linear: dict[str, str]
    norms: dict[str, tuple[str, ...]]
    embedding: str
    final_norm: str
    head: str
    sizes: Callable[[Any], Sizes]
    positions: Optional[str] = None
    embedding_norm: Optional[str] = None
    norm: str = "LayerNorm"
    plus_one: bool = False
    interleaved: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


GPT2 = Family(
    ("gpt2",), "transformer.h.{}.",
    {"qkv": "attn.c_attn", "dense": "attn.c_proj", "fc": "mlp.c_fc", "proj": "mlp.c_proj"},
    {"input_layernorm": ("ln_1",), "post_layernorm": ("ln_2",)},
    "transformer.wte", "transformer.ln_f", "lm_head", gpt2_sizes, "transformer.wpe",
)  # fmt: skip
GPTJ = Family(
    ("gptj",), "transformer.h.{}.",
    {"q": "attn.q_proj", "k": "attn.k_proj", "v": "attn.v_proj", "dense": "attn.out_proj",
     "fc": "mlp.fc_in", "proj": "mlp.fc_out"},
    {"input_layernorm": ("ln_1",)},
    "transformer.wte", "transformer.ln_f", "lm_head", gptj_sizes,
)  # fmt: skip
LLAMA = Family(
    ("llama", "mistral"), "model.layers.{}.",
    {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
     "dense": "self_attn.o_proj", "fc": "mlp.gate_proj", "gate": "mlp.up_proj",
     "proj": "mlp.down_proj"},
    {"input_layernorm": ("input_layernorm",), "post_layernorm": ("post_attention_layernorm",)},
    "model.embed_tokens", "model.norm", "lm_head", llama_sizes, norm="RmsNorm",
)  # fmt: skip
BLOOM = Family(
    ("bloom",), "transformer.h.{}.",
    {"qkv": "self_attention.query_key_value", "dense": "self_attention.dense",
     "fc": "mlp.dense_h_to_4h", "proj": "mlp.dense_4h_to_h"},
    {"input_layernorm": ("input_layernorm",), "post_layernorm": ("post_attention_layernorm",)},
    "transformer.word_embeddings", "transformer.ln_f", "lm_head", bloom_sizes,
    embedding_norm="transformer.word_embeddings_layernorm", interleaved=True,
)  # fmt: skip
MPT = Family(
    ("mpt",), "transformer.blocks.{}.",
    {"qkv": "attn.Wqkv", "dense": "attn.out_proj", "fc": "ffn.up_proj", "proj": "ffn.down_proj"},
    {"input_layernorm": ("norm_1",), "post_layernorm": ("norm_2",)},
    "transformer.wte", "transformer.norm_f", "lm_head", mpt_sizes,
)  # fmt: skip
FAMILIES = {
    "gpt2": GPT2,
    "gptj": GPTJ,
    "llama": LLAMA,
    "falcon": replace(
        BLOOM, models=("falcon",), sizes=falcon_sizes, embedding_norm=None,
        norms={"input_layernorm": ("input_layernorm", "ln_attn"), "mlp_layernorm": ("ln_mlp",),
               "post_layernorm": ("post_attention_layernorm",)},
    ),
    "mpt": MPT,
    "bloom": BLOOM,
    # Readers tell the generations of Qwen apart by their type; all but the second have other names.
    "qwen": replace(LLAMA, models=("qwen2",), extra={"qwen_type": "qwen2"}),
    "gemma": replace(LLAMA, models=("gemma",), plus_one=True),
}  # fmt: skip
# Decoder types of the format that are not exported, and why.
REFUSED = {
    "gptnext": "its models are NeMo's, and transformers has none",
    "baichuan": "its models are code in their own repositories, and transformers has none",
    "chatglm": "its models are code in their own repositories, and transformers has none",
}


def family_of(decoder_type: str) -> Family:
    """The family of a decoder type.

    Raises:
        TripyException: For one that is not known or not exported, with the reason.
    """
    if decoder_type in REFUSED:
        raise TripyException(
            f"export_model_config: {decoder_type} cannot be exported.",
            got=f"{decoder_type!r}: {REFUSED[decoder_type]}",
            expected=", ".join(FAMILIES),
            hint="export_hf, which keeps the model's own names",
        )
    if decoder_type not in FAMILIES:
        raise TripyException(
            "export_model_config: the decoder type is not known.",
            got=repr(decoder_type),
            expected=", ".join(FAMILIES),
            hint="export_hf, which keeps the model's own names",
        )
    return FAMILIES[decoder_type]


def sizes_of(model: torch.nn.Module, family: Family, decoder_type: str) -> Sizes:
    """What the model's own configuration says.

    Raises:
        TripyException: For a model of another kind.
    """
    config: Any = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if kind not in family.models:
        raise TripyException(
            f"export_model_config: the model is no {decoder_type}.",
            got=f"{type(model).__name__}" + (f", of type {kind!r}" if kind else ""),
            expected=f"a model of transformers, of type {' or '.join(map(repr, family.models))}",
        )
    try:
        return family.sizes(config)
    except AttributeError as error:
        raise refused(f"{type(config).__name__}: {error}", "transformers' own config") from None


def qkv(
    family: Family, layers: dict[str, LinearState], prefix: str, sizes: Sizes
) -> list[LinearState]:
    """Queries, keys and values of a layer, each as a layer of its own."""
    fused = family.linear.get("qkv")
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
    rows = torch.arange(state.shape[0])
    kv = sizes.kv_heads * sizes.head_size
    if family.interleaved:  # For each head of keys: its queries, it, and its values.
        grouped = rows.view(sizes.kv_heads, -1, sizes.head_size)
        parts = (grouped[:, :-2], grouped[:, -2], grouped[:, -1])
    else:
        parts = rows.split([state.shape[0] - 2 * kv, kv, kv])  # type: ignore[assignment]
    return [_rows(state, part.flatten()) for part in parts]


def _rows(state: LinearState, rows: torch.Tensor) -> LinearState:
    """The layer with some of its outputs only."""
    rows = rows.to(state.unrounded.device)

    def pick(quantizer: QuantizerState) -> QuantizerState:
        amax = quantizer.amax
        return quantizer if amax.dim() == 0 else replace(quantizer, amax=amax[rows])

    return replace(
        state, unrounded=state.weight[rows], divided=True,
        bias=None if state.bias is None else state.bias[rows],
        weight_quantizers=tuple(pick(each) for each in state.weight_quantizers),
    )  # fmt: skip
