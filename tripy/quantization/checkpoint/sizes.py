"""What a model config says of a model, read from transformers' configurations.

What changes a model's results, and has no field in the format, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from tripy.errors import TripyException


@dataclass(frozen=True)
class Sizes:
    """What a model's own configuration says.

    Attributes:
        vocabulary, layers, heads, kv_heads, head_size: Of the model.
        positions: The most tokens.
        activation: Of the MLP, as transformers calls it.
        eps: Of the norms.
        rotary_base: Of rotary positions; 0 for models without.
        rotary_dim: How many values of a head are turned; None for all.
        alibi: Whether positions are biases of attention.
        parallel: Whether attention and MLP have the same input.
        fields: More fields of each layer.
    """

    vocabulary: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    positions: int
    activation: str
    eps: float
    rotary_base: int = 0
    rotary_dim: Optional[int] = None
    alibi: bool = False
    parallel: bool = False
    fields: dict[str, Any] = field(default_factory=dict)


def refused(got: str, expected: str) -> TripyException:
    """The error of a model that the format cannot describe."""
    return TripyException(
        "export_model_config: the format has no field for what the model does.",
        got=got,
        expected=expected,
        hint="export_hf, which keeps the model's own config",
    )


def gpt2_sizes(config: Any) -> Sizes:
    """Of a GPT-2."""
    if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
        raise refused("attention that is scaled in another way", "GPT-2's usual attention")
    return Sizes(
        config.vocab_size, config.n_layer, config.n_head, config.n_head,
        config.n_embd // config.n_head, config.n_positions, config.activation_function,
        config.layer_norm_epsilon,
    )  # fmt: skip


def gptj_sizes(config: Any) -> Sizes:
    """Of a GPT-J."""
    size = config.n_embd // config.n_head
    return Sizes(
        config.vocab_size, config.n_layer, config.n_head, config.n_head, size, config.n_positions,
        config.activation_function, config.layer_norm_epsilon, 10000, config.rotary_dim or size,
        parallel=True,
    )  # fmt: skip


def llama_sizes(config: Any) -> Sizes:
    """Of a Llama, and of models with its structure."""
    heads, window = config.num_attention_heads, getattr(config, "sliding_window", None)
    uses = getattr(config, "use_sliding_window", True)
    if uses and window is not None and window < config.max_position_embeddings:
        raise refused(f"attention to the last {window} tokens only", "attention to all tokens")
    return Sizes(
        config.vocab_size, config.num_hidden_layers, heads,
        getattr(config, "num_key_value_heads", None) or heads,
        getattr(config, "head_dim", None) or config.hidden_size // heads,
        config.max_position_embeddings, config.hidden_act, config.rms_norm_eps, _rotary(config),
    )  # fmt: skip


def falcon_sizes(config: Any) -> Sizes:
    """Of a Falcon: of 7B, of 40B and later, and of the first ones."""
    heads, new = config.num_attention_heads, config.new_decoder_architecture
    kv = config.num_kv_heads if new else 1 if config.multi_query else heads
    if new and not config.parallel_attn:
        raise refused("new_decoder_architecture without parallel_attn", "Falcon as it was released")
    return Sizes(
        config.vocab_size, config.num_hidden_layers, heads, kv, config.hidden_size // heads,
        config.max_position_embeddings, config.activation, config.layer_norm_epsilon,
        0 if config.alibi else _rotary(config), alibi=bool(config.alibi),
        parallel=bool(config.parallel_attn), fields={"new_decoder_architecture": bool(new)},
    )  # fmt: skip


def mpt_sizes(config: Any) -> Sizes:
    """Of an MPT, as transformers computes it: always with biases for positions."""
    attention = config.attn_config
    size = config.d_model // config.n_heads
    if attention.softmax_scale not in (None, size**-0.5):
        raise refused(f"softmax_scale={attention.softmax_scale}", "1 / sqrt(head size)")
    fields = {"alibi_bias_max": attention.alibi_bias_max, "clip_qkv": attention.clip_qkv or 0}
    return Sizes(
        config.vocab_size, config.n_layers, config.n_heads, config.n_heads, size,
        config.max_seq_len, "gelu", config.layer_norm_epsilon, alibi=True, fields=fields,
    )  # fmt: skip


def bloom_sizes(config: Any) -> Sizes:
    """Of a BLOOM."""
    if config.apply_residual_connection_post_layernorm:
        raise refused("residuals taken after the norm", "residuals taken before the norm")
    # Its positions have no end; 2,048 is what it was trained on, and what readers suppose. Its
    # GELU is the one with tanh, which readers of this decoder type mean by "gelu".
    return Sizes(
        config.vocab_size, config.n_layer, config.n_head, config.n_head,
        config.hidden_size // config.n_head, getattr(config, "seq_length", None) or 2048, "gelu",
        config.layer_norm_epsilon, alibi=True,
    )  # fmt: skip


def _rotary(config: Any) -> int:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", "default")
    if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise refused(f"rotary positions of rope_type {kind!r}", "rotary positions as trained")
    base = getattr(config, "rope_theta", None) or rope.get("rope_theta", 10000.0)
    return int(base)
