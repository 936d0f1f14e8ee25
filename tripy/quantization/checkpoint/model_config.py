"""The nested model config: what each object of the format holds.

Tensors are torch tensors on the CPU. In the JSON file each is replaced by the name of its array;
which fields those are, and which hold other objects, the dataclasses' metadata say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Union

import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint.schemes import BY_QUANTIZATION, weight_configs
from tripy.quantization.formats import QuantizerConfig, restore, round_to

COLUMN, ROW = "column", "row"


def _tensor() -> Any:
    return field(default=None, metadata={"tensor": True})


def _object(kind: type) -> Any:
    return field(default=None, metadata={"object": kind})


@dataclass
class EmbeddingConfig:
    """A table, weight [rows, hidden]."""

    weight: Optional[torch.Tensor] = _tensor()


@dataclass
class LayernormConfig:
    """A normalization, weight and bias [hidden]; layernorm_type "LayerNorm" or "RmsNorm"."""

    weight: Optional[torch.Tensor] = _tensor()
    bias: Optional[torch.Tensor] = _tensor()
    layernorm_type: str = "LayerNorm"
    eps: float = 1e-5


@dataclass
class LinearConfig:
    """A linear layer whose weight is not rounded yet.

    Attributes:
        linear_type: "column" (split along out) or "row" (split along in).
        weight: [out, in], floating point.
        bias: [out], or None.
        activation_scaling_factor: (1,), float32; None where inputs are not quantized.
        weights_scaling_factor: float32; fp8 (1,), int8 (out,), int4 (out, in / block).
        weights_scaling_factor_2: (1,), float32: of float8, that int4's result is rounded to.
        prequant_scaling_factor: (in,), float32, that the input is multiplied with first.
        awq_block_size: Of int4; 0 for none.
    """

    linear_type: str = COLUMN
    weight: Optional[torch.Tensor] = _tensor()
    bias: Optional[torch.Tensor] = _tensor()
    activation_scaling_factor: Optional[torch.Tensor] = _tensor()
    weights_scaling_factor: Optional[torch.Tensor] = _tensor()
    weights_scaling_factor_2: Optional[torch.Tensor] = _tensor()
    prequant_scaling_factor: Optional[torch.Tensor] = _tensor()
    awq_block_size: int = 0


@dataclass
class QKVConfig:
    """Queries, keys and values, each a layer by itself."""

    q: Optional[LinearConfig] = _object(LinearConfig)
    k: Optional[LinearConfig] = _object(LinearConfig)
    v: Optional[LinearConfig] = _object(LinearConfig)


@dataclass
class AttentionConfig:
    """Attention; kv_cache_scaling_factor (1,), kv_cache_dtype "INT8", "FP8" or None."""

    qkv: Union[QKVConfig, LinearConfig, None] = _object(QKVConfig)
    dense: Optional[LinearConfig] = _object(LinearConfig)
    kv_cache_scaling_factor: Optional[torch.Tensor] = _tensor()
    kv_cache_dtype: Optional[str] = None
    rotary_dim: Optional[int] = None


@dataclass
class MLPConfig:
    """fc is what the activation is applied to, gate what its result is multiplied with."""

    fc: Optional[LinearConfig] = _object(LinearConfig)
    gate: Optional[LinearConfig] = _object(LinearConfig)
    proj: Optional[LinearConfig] = _object(LinearConfig)
    hidden_act: str = ""


@dataclass
class DecoderLayerConfig:
    """A layer of the decoder. Counts of heads are the whole model's, also in a rank's config."""

    decoder_type: str = ""
    input_layernorm: Optional[LayernormConfig] = _object(LayernormConfig)
    attention: Optional[AttentionConfig] = _object(AttentionConfig)
    post_layernorm: Optional[LayernormConfig] = _object(LayernormConfig)
    mlp_layernorm: Optional[LayernormConfig] = _object(LayernormConfig)
    mlp: Optional[MLPConfig] = _object(MLPConfig)
    num_attention_heads: int = 0
    attention_head_size: Optional[int] = None
    num_kv_heads: int = 0
    max_position_embeddings: int = 0
    rotary_pct: float = 1.0
    use_alibi: bool = False
    parallel_attention: bool = False
    rotary_base: int = 0
    rope_scaling: Optional[dict] = None
    seq_length: int = 0


@dataclass
class ModelConfig:
    """A model, or one rank's part of it.

    Attributes:
        quantization: None, "fp8", "int8_sq", "int4_awq" or "w4a8_awq".
        dtype: Of weights: "float16", "bfloat16" or "float32".
        vocab_size: The true one, also where tables are padded.
        rank: Whose part this is.
        tensor_parallel: How many parts there are.
        share_embedding_table: Whether a lm_head of None is the vocabulary's embedding.
    """

    version: float = 0.0
    quantization: Optional[str] = None
    dtype: str = "float16"
    vocab_size: int = 0
    rank: int = 0
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    vocab_embedding: Optional[EmbeddingConfig] = _object(EmbeddingConfig)
    position_embedding: Optional[EmbeddingConfig] = _object(EmbeddingConfig)
    ln_embed: Optional[LayernormConfig] = _object(LayernormConfig)
    layers: list[DecoderLayerConfig] = field(
        default_factory=list, metadata={"object": DecoderLayerConfig}
    )
    ln_f: Optional[LayernormConfig] = _object(LayernormConfig)
    lm_head: Optional[LinearConfig] = _object(LinearConfig)
    share_embedding_table: bool = False


def key_value_heads(layer: DecoderLayerConfig) -> int:
    """How many heads keys and values have."""
    return layer.num_kv_heads or layer.num_attention_heads


def linears(config: ModelConfig) -> Iterator[tuple[str, LinearConfig, Optional[DecoderLayerConfig]]]:
    """Each linear layer: its path, such as "layers:0:mlp:fc", itself, and its decoder layer."""
    for index, layer in enumerate(config.layers):
        start = f"layers:{index}:"
        attention, mlp = layer.attention, layer.mlp
        if attention is not None:
            if isinstance(attention.qkv, LinearConfig):
                yield f"{start}attention:qkv", attention.qkv, layer
            elif attention.qkv is not None:
                for part in ("q", "k", "v"):
                    linear = getattr(attention.qkv, part)
                    if linear is not None:
                        yield f"{start}attention:qkv:{part}", linear, layer
            if attention.dense is not None:
                yield f"{start}attention:dense", attention.dense, layer
        for part in ("fc", "gate", "proj"):
            linear = getattr(mlp, part, None)
            if linear is not None:
                yield f"{start}mlp:{part}", linear, layer
    if config.lm_head is not None:
        yield "lm_head", config.lm_head, None


def _quantizers(
    linear: LinearConfig, quantization: Optional[str]
) -> list[tuple[QuantizerConfig, torch.Tensor]]:
    """The weight's quantizers with their scales, in order; none for a layer left alone."""
    if quantization is None or linear.weights_scaling_factor is None:
        return []
    configs = weight_configs(BY_QUANTIZATION[quantization], linear.awq_block_size or None)
    scales = (linear.weights_scaling_factor, linear.weights_scaling_factor_2)
    return [
        (config, scale.reshape(()) if config.granularity == "per tensor" else scale)
        for config, scale in zip(configs, scales)
        if scale is not None
    ]


def quantized_weight(linear: LinearConfig, quantization: Optional[str]) -> torch.Tensor:
    """The small values of the weight, [out, in]: int8 (also for int4) or float8_e4m3fn.

    Of w4a8_awq these are the int4 values. A layer left alone gives its weight as it is.

    Example:
        >>> import torch, tripy.quantization.checkpoint as checkpoint
        >>> linear = checkpoint.LinearConfig(
        ...     weight=torch.tensor([[1.0, -4.0]]), weights_scaling_factor=torch.tensor([0.5])
        ... )
        >>> checkpoint.quantized_weight(linear, "int8_sq").tolist()
        [[2, -8]]
    """
    weight: torch.Tensor = linear.weight  # type: ignore[assignment]
    for config, scale in _quantizers(linear, quantization):
        return round_to(weight, scale, config)
    return weight


def dequantized_weight(linear: LinearConfig, quantization: Optional[str]) -> torch.Tensor:
    """The weight that an engine computes with, float32 [out, in].

    Example:
        >>> import torch, tripy.quantization.checkpoint as checkpoint
        >>> linear = checkpoint.LinearConfig(
        ...     weight=torch.tensor([[1.2, -4.0]]), weights_scaling_factor=torch.tensor([0.5])
        ... )
        >>> checkpoint.dequantized_weight(linear, "int8_sq").tolist()
        [[1.0, -4.0]]
    """
    weight = linear.weight.float()  # type: ignore[union-attr]
    for config, scale in _quantizers(linear, quantization):
        weight = restore(round_to(weight, scale, config), scale, config, torch.float32)
    return weight


def merge_qkv(config: ModelConfig) -> ModelConfig:
    """The config with queries, keys and values of each layer as one linear layer, [q; k; v].

    Scales of float8 take the largest of the three, with which the weight is then quantized; those
    of int8 and int4 concatenate; activation scales take the largest.

    Args:
        config: The whole model's config, or a rank's; it stays as it is.

    Raises:
        TripyException: Where the three cannot be one layer: only some are quantized, or their
            inputs are scaled differently.

    Example:
        >>> import torch, tripy.quantization.checkpoint as checkpoint
        >>> part = checkpoint.LinearConfig(weight=torch.zeros(4, 8))
        >>> attention = checkpoint.AttentionConfig(checkpoint.QKVConfig(part, part, part))
        >>> layer = checkpoint.DecoderLayerConfig(attention=attention)
        >>> merged = checkpoint.merge_qkv(checkpoint.ModelConfig(layers=[layer]))
        >>> merged.layers[0].attention.qkv.weight.shape
        torch.Size([12, 8])
    """
    layers = []
    for index, layer in enumerate(config.layers):
        attention = layer.attention
        if attention is not None and isinstance(attention.qkv, QKVConfig):
            merged = _merged(attention.qkv, f"layers:{index}:attention:qkv")
            layer = replace(layer, attention=replace(attention, qkv=merged))
        layers.append(layer)
    return replace(config, layers=layers)


def _merged(qkv: QKVConfig, path: str) -> LinearConfig:
    parts = [qkv.q, qkv.k, qkv.v]

    def values(name: str) -> Optional[list[torch.Tensor]]:
        found = [getattr(part, name) for part in parts]
        if all(value is None for value in found):
            return None
        if any(value is None for value in found):
            missing = [which for which, value in zip("qkv", found) if value is None]
            raise _unmergeable(path, f"no {name} for {', '.join(missing)}", f"all three or no {name}")
        return found

    def joined(name: str) -> Optional[torch.Tensor]:
        found = values(name)
        return None if found is None else torch.cat(found)

    def largest(name: str) -> Optional[torch.Tensor]:
        found = values(name)
        return None if found is None else torch.stack(found).amax(0)

    blocks = {part.awq_block_size for part in parts}  # type: ignore[union-attr]
    if len(blocks) > 1:
        raise _unmergeable(path, f"awq_block_size {sorted(blocks)}", "one block size")
    prequant = values("prequant_scaling_factor")
    if prequant and not all(torch.equal(prequant[0], other) for other in prequant[1:]):
        raise _unmergeable(
            path,
            "prequant_scaling_factor of q, k and v that differ",
            "the same: one layer multiplies its input once",
        )
    scales = values("weights_scaling_factor")
    outs = [len(part.weight) for part in parts]  # type: ignore[union-attr, arg-type]
    per_row = scales is not None and all(
        scale.dim() == 2 or (scale.numel() == out and out > 1) for scale, out in zip(scales, outs)
    )
    return LinearConfig(
        COLUMN,
        joined("weight"),
        joined("bias"),
        largest("activation_scaling_factor"),
        joined("weights_scaling_factor") if per_row else largest("weights_scaling_factor"),
        largest("weights_scaling_factor_2"),
        None if prequant is None else prequant[0],
        blocks.pop(),
    )


def _unmergeable(path: str, got: str, expected: str) -> TripyException:
    return TripyException(
        f"merge_qkv: q, k and v of {path} do not merge.", got=got, expected=expected
    )
