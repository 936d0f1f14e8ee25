"""From a model's layers to the nested model config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint.architectures import Architecture, find_architecture, setting
from tripy.quantization.checkpoint.model_config import (
    COLUMN,
    ROW,
    AttentionConfig,
    DecoderLayerConfig,
    EmbeddingConfig,
    LayernormConfig,
    LinearConfig,
    MLPConfig,
    ModelConfig,
    QKVConfig,
)
from tripy.quantization.checkpoint.schemes import (
    CACHE_ALGORITHMS,
    cache_scheme,
    common_scheme,
    is_quantized,
    listed,
)
from tripy.quantization.checkpoint.source import Source
from tripy.quantization.state import LinearState

# What the format's config says of a model, under the names that configs of transformers have.
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_ACTIVATION = ("hidden_activation", "hidden_act", "activation_function", "activation")
_EPS = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps")


@dataclass(frozen=True)
class Built:
    """A model config and where its linear layers come from.

    Attributes:
        config: The whole model's.
        origins: By path, such as "layers:0:attention:qkv:q": the layer, and which of its rows.
    """

    config: ModelConfig
    origins: dict[str, tuple[LinearState, Optional[torch.Tensor]]]


def build_model_config(source: Source, decoder_type: str, dtype: torch.dtype) -> Built:
    """The whole model's config.

    Raises:
        TripyException: For models and quantizations that the format cannot hold.
    """
    names = {*source.states, *source.tensors}
    builder = _Builder(source, decoder_type, find_architecture(decoder_type, names), dtype)
    return Built(builder.model(), builder.origins)


class _Builder:
    """Builds one config; ``used`` collects what has found its place."""

    def __init__(
        self, source: Source, decoder_type: str, row: Architecture, dtype: torch.dtype
    ) -> None:
        self.source, self.decoder_type, self.row, self.dtype = source, decoder_type, row, dtype
        self.origins: dict[str, tuple[LinearState, Optional[torch.Tensor]]] = {}
        self.used: set[str] = set()
        settings, states = source.settings, source.states
        self.scheme = common_scheme(states, "a model config")
        self.cache = cache_scheme(states)
        self._check_scheme()
        self.prequant = any(state.pre_quant_scale is not None for state in states.values())
        self.heads = int(setting(settings, *_HEADS, default=0))
        self.kv_heads = self._key_value_heads()
        hidden = int(setting(settings, *_HIDDEN, default=0))
        if self.heads < 1 or hidden < 1:
            raise TripyException(
                "export_model_config: the model's config does not say what is needed.",
                got=f"{self.heads} heads, hidden size {hidden}",
                expected=f"{_HEADS[0]} and {_HIDDEN[0]}, or other models' names for them",
            )
        self.head_size = int(setting(settings, "head_dim", default=hidden // self.heads))

    def _key_value_heads(self) -> int:
        settings = self.source.settings
        if self.decoder_type == "falcon" and not settings.get("new_decoder_architecture"):
            return 1 if settings.get("multi_query") else self.heads
        return int(setting(settings, *_KEY_VALUE_HEADS, default=self.heads))

    def _check_scheme(self) -> None:
        """The format has one word for all layers, and the head may be left alone."""
        if self.scheme is None:
            return
        if self.scheme.quantization is None:
            quantized = [n for n, state in self.source.states.items() if is_quantized(state)]
            raise TripyException(
                "export_model_config: a model config has no name for int8 weights alone.",
                got=f"{self.scheme.algorithm}: {listed(quantized)}",
                expected="fp8, int8_sq (inputs too), int4_awq or w4a8_awq",
                hint="export_hf, which has",
            )
        alone = [
            name
            for name, state in self.source.states.items()
            if name != self.row.lm_head and not is_quantized(state)
        ]
        if alone:
            raise TripyException(
                "export_model_config: a model config holds one quantization for all of its layers.",
                got=f"{self.scheme.quantization}, and left alone: {listed(alone)}",
                expected=f"all layers quantized; only {self.row.lm_head} may be left alone",
                hint="export_hf, which lists the layers that are left alone",
            )
        scaled = [n for n, s in self.source.states.items() if s.pre_quant_scale is not None]
        if self.scheme.quantization == "fp8" and scaled:
            raise TripyException(
                "export_model_config: fp8 layers have no pre_quant_scale in a model config.",
                got=listed(scaled),
                expected="layers whose inputs are not scaled first",
                hint='the algorithm "max" for fp8, or export_hf',
            )

    def model(self) -> ModelConfig:
        row, settings = self.row, self.source.settings
        count = int(setting(settings, *_LAYERS, default=0))
        layers = [self._layer(index) for index in range(count)]
        head, shared = self._head()
        config = ModelConfig(
            quantization=None if self.scheme is None else self.scheme.quantization,
            dtype=str(self.dtype).removeprefix("torch."),
            vocab_size=int(setting(settings, "vocab_size", default=0)),
            vocab_embedding=self._table(row.vocab_embedding),
            position_embedding=self._table(row.position_embedding),
            ln_embed=self._norm(row.ln_embed),
            layers=layers,
            ln_f=self._norm(row.ln_f),
            lm_head=head,
            share_embedding_table=shared,
        )
        rest = [name for name in self.source.states if name not in self.used]
        rest += [name for name in sorted(self.source.parameters) if name not in self.used]
        if rest:
            raise TripyException(
                f"export_model_config: parts of the model have no place in a {self.decoder_type}.",
                got=listed(rest),
                expected="only what the format's table of objects holds",
                hint="export_hf, which writes any model under its own names",
            )
        return config

    def _head(self) -> tuple[Optional[LinearConfig], bool]:
        name = self.row.lm_head
        state = self.source.states.get(name)
        weight = self.source.tensors.get(f"{name}.weight")
        if state is None and weight is not None:  # The caller's states may leave it out.
            self.used |= {f"{name}.weight", f"{name}.bias"}
            bias = self.source.tensors.get(f"{name}.bias")
            state = LinearState(name, "Linear", weight, bias)
        if state is not None:
            return self._linear(state, "lm_head", COLUMN), False
        if self.source.settings.get("tie_word_embeddings"):
            return None, True
        raise TripyException(
            "export_model_config: the model has no head.",
            got=f"no {name}",
            expected="a model for causal language modelling, such as GPT2LMHeadModel",
        )

    def _layer(self, index: int) -> DecoderLayerConfig:
        row, settings = self.row, self.source.settings
        start, path = f"{row.layers}{index}.", f"layers:{index}"
        rope = setting(settings, "rope_parameters", "rope_scaling", default={}) or {}
        base = setting(rope, "rope_theta", default=setting(settings, "rope_theta", default=10000))
        scaled = rope if rope.get("rope_type", rope.get("type", "default")) != "default" else None
        alibi = bool(setting(settings, "alibi", default=row.alibi))
        rotary_dim = settings.get("rotary_dim") if row.rotary else None
        share = rotary_dim / self.head_size if rotary_dim else 1.0
        qkv, cache = self._qkv(start, path)
        dense = self._named(f"{start}{row.dense}", f"{path}:attention:dense", ROW)
        gate = None
        if row.gate is not None:
            gate = self._named(f"{start}{row.gate}", f"{path}:mlp:gate", COLUMN)
        return DecoderLayerConfig(
            decoder_type=self.decoder_type,
            input_layernorm=self._norm(f"{start}{row.input_layernorm}"),
            attention=AttentionConfig(
                qkv,
                dense,
                cache,
                None if self.cache is None else CACHE_ALGORITHMS[self.cache],
                rotary_dim,
            ),
            post_layernorm=self._norm(row.post_layernorm and f"{start}{row.post_layernorm}"),
            mlp_layernorm=self._norm(row.mlp_layernorm and f"{start}{row.mlp_layernorm}"),
            mlp=MLPConfig(
                self._named(f"{start}{row.fc}", f"{path}:mlp:fc", COLUMN),
                gate,
                self._named(f"{start}{row.proj}", f"{path}:mlp:proj", ROW),
                str(setting(settings, *_ACTIVATION, default="gelu")),
            ),
            num_attention_heads=self.heads,
            attention_head_size=self.head_size,
            num_kv_heads=0 if self.kv_heads == self.heads else self.kv_heads,
            max_position_embeddings=int(setting(settings, *_POSITIONS, default=0)),
            rotary_pct=float(setting(rope, "partial_rotary_factor", default=share)),
            use_alibi=alibi,
            parallel_attention=bool(
                setting(settings, "parallel_attn", default=row.parallel_attention)
            )
            or row.parallel_attention,
            rotary_base=int(base) if row.rotary and not alibi else 0,
            rope_scaling=scaled if row.rotary else None,
            seq_length=int(setting(settings, "seq_length", default=0)),
        )

    def _qkv(self, start: str, path: str) -> tuple[QKVConfig, Optional[torch.Tensor]]:
        states = [self._state(start + name) for name in self.row.qkv]
        if len(states) == 3:
            triple = [(state, None) for state in states]
        else:
            triple = [(states[0], rows) for rows in self._rows(states[0])]  # type: ignore[misc]
        made = [
            self._linear(state, f"{path}:attention:qkv:{part}", COLUMN, rows)
            for part, (state, rows) in zip("qkv", triple)
        ]
        scales = [
            quantizer.scale.detach().cpu().reshape(1)
            for state in states
            for quantizer in (state.key_quantizer, state.value_quantizer)
            if quantizer is not None
        ]
        # The format has one scale for keys and values: the largest, as where q, k and v merge.
        cache = torch.stack(scales).amax(0) if scales else None
        return QKVConfig(*made), cache

    def _rows(self, state: LinearState) -> list[torch.Tensor]:
        """Which rows of a merged layer are queries, keys and values."""
        size, shared = self.head_size, self.kv_heads
        out = (self.heads + 2 * shared) * size
        if state.weight.shape[0] != out:
            raise TripyException(
                f"export_model_config: {state.name} is not queries, keys and values.",
                got=f"a weight {list(state.weight.shape)}",
                expected=f"{out} rows: {self.heads} heads and twice {shared} of {size}",
            )
        rows = torch.arange(out)
        if self.row.qkv_layout == "stacked":
            return list(rows.split([self.heads * size, shared * size, shared * size]))
        grouped = rows.view(shared, self.heads // shared + 2, size)
        return [grouped[:, :-2].reshape(-1), grouped[:, -2].reshape(-1), grouped[:, -1].reshape(-1)]

    def _state(self, name: str) -> LinearState:
        state = self.source.states.get(name)
        if state is None:
            raise TripyException(
                "export_model_config: the model lacks a layer.",
                got=f"no {name}",
                expected=f"the layers of a {self.decoder_type}, all alike",
            )
        self.used.add(name)
        return state

    def _named(self, name: str, path: str, linear_type: str) -> LinearConfig:
        return self._linear(self._state(name), path, linear_type)

    def _linear(
        self, state: LinearState, path: str, kind: str, rows: Optional[torch.Tensor] = None
    ) -> LinearConfig:
        self.used.add(state.name)
        weight = self._cast(state.weight, f"{state.name}.weight")
        bias = None if state.bias is None else self._cast(state.bias, f"{state.name}.bias")

        def pick(x: torch.Tensor) -> torch.Tensor:
            return (x if rows is None else x[rows]).contiguous()

        # What is exported, so that rounding it is what the file is compared with.
        self.origins[path] = (replace(state, weight=weight), rows)
        made = LinearConfig(kind, pick(weight), None if bias is None else pick(bias))
        if self.scheme is None or not is_quantized(state):
            return made
        first, *second = state.weight_quantizers
        scale = first.scale.detach().cpu()
        if first.config.num_bits == 8:
            scale = pick(scale.reshape(-1).expand(weight.shape[0]))
        elif first.config.block_size is not None:
            scale = pick(scale)
        else:
            scale = scale.reshape(1)
        made.weights_scaling_factor = scale
        made.awq_block_size = first.config.block_size or 0
        if second:
            made.weights_scaling_factor_2 = second[0].scale.detach().cpu().reshape(1)
        if state.input_quantizer is not None:
            made.activation_scaling_factor = state.input_quantizer.scale.detach().cpu().reshape(1)
        if self.prequant:  # Readers expect it in all layers or in none; ones change nothing.
            given = state.pre_quant_scale
            made.prequant_scaling_factor = (
                torch.ones(weight.shape[1]) if given is None else given.detach().float().cpu()
            )
        return made

    def _cast(self, value: Any, name: str) -> torch.Tensor:
        value = value if isinstance(value, torch.Tensor) else value.torch()
        made = value.detach().to("cpu", self.dtype)
        if not bool(torch.isfinite(made).all()):
            raise TripyException(
                f"export_model_config: {name} does not fit {self.dtype}.",
                got=f"values up to {float(value.detach().float().abs().max()):.6g}",
                expected=f"finite values up to {torch.finfo(self.dtype).max:.6g}",
                hint="dtype=torch.bfloat16, which has float32's range",
            )
        return made

    def _tensor(self, name: str) -> torch.Tensor:
        value = self.source.tensors.get(name)
        if value is None:
            raise TripyException(
                "export_model_config: the model lacks a tensor.",
                got=f"no {name}",
                expected=f"the tensors of a {self.decoder_type}",
            )
        self.used.add(name)
        return value

    def _table(self, name: Optional[str]) -> Optional[EmbeddingConfig]:
        if name is None:
            return None
        return EmbeddingConfig(self._cast(self._tensor(f"{name}.weight"), name).contiguous())

    def _norm(self, name: Optional[str]) -> Optional[LayernormConfig]:
        if name is None:
            return None
        weight = self._tensor(f"{name}.weight")
        if self.row.layernorm_offset:
            weight = weight.float() + self.row.layernorm_offset
        bias = None
        if f"{name}.bias" in self.source.tensors:
            bias = self._cast(self._tensor(f"{name}.bias"), name)
        return LayernormConfig(
            self._cast(weight, name),
            bias,
            self.row.layernorm_type,
            float(setting(self.source.settings, *_EPS, default=1e-5)),
        )
