"""Where models keep what a model config holds: one row a family of names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from tripy.errors import TripyException


@dataclass(frozen=True)
class Architecture:
    """Names in a Hugging Face model. Those of a layer's parts stand behind ``layers`` and a number.

    Attributes:
        layers: What comes before a layer's number.
        qkv: The layers of queries, keys and values; or the one that makes all three.
        qkv_layout: How the one orders its rows: "stacked" is [all q | all k | all v], "grouped"
            for each key/value head its queries, its key and its value.
        optional: Fields whose tensors a model may lack.
        layernorm_offset: What the model adds to the weights of its normalizations.
    """

    layers: str
    vocab_embedding: str
    ln_f: str
    input_layernorm: str
    post_layernorm: Optional[str]
    qkv: tuple[str, ...]
    dense: str
    fc: str
    proj: str
    gate: Optional[str] = None
    position_embedding: Optional[str] = None
    ln_embed: Optional[str] = None
    mlp_layernorm: Optional[str] = None
    qkv_layout: str = "stacked"
    layernorm_type: str = "LayerNorm"
    layernorm_offset: float = 0.0
    rotary: bool = False
    alibi: bool = False
    parallel_attention: bool = False
    lm_head: str = "lm_head"


_LLAMA = Architecture(
    layers="model.layers.",
    vocab_embedding="model.embed_tokens",
    ln_f="model.norm",
    input_layernorm="input_layernorm",
    post_layernorm="post_attention_layernorm",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    dense="self_attn.o_proj",
    fc="mlp.gate_proj",
    gate="mlp.up_proj",
    proj="mlp.down_proj",
    layernorm_type="RmsNorm",
    rotary=True,
)


def _like(row: Architecture, **changes: Any) -> Architecture:
    return Architecture(**{**row.__dict__, **changes})


_GPT2 = Architecture(
    layers="transformer.h.",
    vocab_embedding="transformer.wte",
    position_embedding="transformer.wpe",
    ln_f="transformer.ln_f",
    input_layernorm="ln_1",
    post_layernorm="ln_2",
    qkv=("attn.c_attn",),
    dense="attn.c_proj",
    fc="mlp.c_fc",
    proj="mlp.c_proj",
)
_GPTJ = Architecture(
    layers="transformer.h.",
    vocab_embedding="transformer.wte",
    ln_f="transformer.ln_f",
    input_layernorm="ln_1",
    post_layernorm=None,
    qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    dense="attn.out_proj",
    fc="mlp.fc_in",
    proj="mlp.fc_out",
    rotary=True,
    parallel_attention=True,
)
_BLOOM = Architecture(
    layers="transformer.h.",
    vocab_embedding="transformer.word_embeddings",
    ln_embed="transformer.word_embeddings_layernorm",
    ln_f="transformer.ln_f",
    input_layernorm="input_layernorm",
    post_layernorm="post_attention_layernorm",
    qkv=("self_attention.query_key_value",),
    dense="self_attention.dense",
    fc="mlp.dense_h_to_4h",
    proj="mlp.dense_4h_to_h",
    qkv_layout="grouped",
    alibi=True,
)
_FALCON = _like(
    _BLOOM, ln_embed=None, post_layernorm=None, rotary=True, alibi=False, parallel_attention=True
)
_MPT = Architecture(
    layers="transformer.blocks.",
    vocab_embedding="transformer.wte",
    ln_f="transformer.norm_f",
    input_layernorm="norm_1",
    post_layernorm="norm_2",
    qkv=("attn.Wqkv",),
    dense="attn.out_proj",
    fc="ffn.up_proj",
    proj="ffn.down_proj",
    alibi=True,
)

# By decoder type, the families that a model of it may belong to.
ARCHITECTURES: dict[str, tuple[Architecture, ...]] = {
    "gpt2": (_GPT2,),
    "gptj": (_GPTJ,),
    "llama": (_LLAMA,),
    "falcon": (
        _FALCON,
        _like(_FALCON, input_layernorm="ln_attn", mlp_layernorm="ln_mlp"),
        _like(_FALCON, post_layernorm="post_attention_layernorm", parallel_attention=False),
    ),
    "baichuan": (_like(_LLAMA, qkv=("self_attn.W_pack",)),),
    "mpt": (_MPT,),
    "bloom": (_BLOOM,),
    "qwen": (_LLAMA,),
    "gemma": (_like(_LLAMA, layernorm_offset=1.0),),
}

# transformers' models whose linear layers are of the class Conv1D, which keeps weights [in, out];
# and those layers' names. (gpt_bigcode has the same names, and plain Linear layers.)
CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"}
CONV1D_LAYERS = ("c_attn", "q_attn", "c_proj", "c_fc")


def is_conv1d(model_type: Any, name: str, kind: str = "") -> bool:
    """Whether transformers keeps the layer's weight as [in, out].

    nvidia-modelopt makes linear layers of them, so that the class alone does not tell.
    """
    return kind == "Conv1D" or (
        model_type in CONV1D_MODELS and name.rpartition(".")[2] in CONV1D_LAYERS
    )


def find_architecture(decoder_type: str, names: Collection[str]) -> Architecture:
    """The row whose names a model has.

    Args:
        decoder_type: Such as "gpt2".
        names: Of the model's linear layers and its other tensors.

    Raises:
        TripyException: For decoder types without a row, and models with other names.
    """
    rows = ARCHITECTURES.get(decoder_type)
    if rows is None:
        raise TripyException(
            "export_model_config: the decoder type is not supported.",
            got=f"decoder_type={decoder_type!r}",
            expected=", ".join(ARCHITECTURES),
            hint="export_hf, which writes any model under its own names",
        )
    known = set(names)
    lacks = []
    for row in rows:
        missing = [name for name in _first_layer(row) if name not in known]
        # Every tensor has to find its place: more names than the row's is another family.
        start = f"{row.layers}0."
        norms = {n for n in known if n.startswith(start) and n.endswith(".weight")}
        places = {start + n for n in _norms(row)}
        surplus = [n for n in norms if n.removesuffix(".weight") not in places | known]
        if not missing and not surplus:
            return row
        lacks.append(missing or [f"a place for {name}" for name in surplus])
    raise TripyException(
        f"export_model_config: the model is no {decoder_type}.",
        got="a model without " + ", or without ".join(", ".join(names[:6]) for names in lacks),
        expected=f"the names of a {decoder_type} with a language model's head, in transformers",
        hint="another decoder_type, or export_hf, which writes any model under its own names",
    )


def _norms(row: Architecture) -> list[str]:
    return [n for n in (row.input_layernorm, row.post_layernorm, row.mlp_layernorm) if n]


def _first_layer(row: Architecture) -> list[str]:
    """What a model of the family has at least."""
    start = f"{row.layers}0."
    parts = [*row.qkv, row.dense, row.fc, row.proj, *([row.gate] if row.gate else [])]
    tables = [row.vocab_embedding, row.ln_f, *(n for n in (row.position_embedding,) if n)]
    tensors = [*tables, *(start + n for n in _norms(row))]
    return [*(start + n for n in parts), *(f"{n}.weight" for n in tensors)]


def setting(config: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    """A model's setting, under the first of its names that is there and not None."""
    for name in names:
        value = config.get(name)
        if value is not None:
            return value
    return default
