"""Every decoder type that is exported: what the files say, computed, gives the model's logits."""

from __future__ import annotations

import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.engine import run
from tests.quantization.support import sqnr
from tripy.quantization.checkpoint.reading import merged_qkv

SIZES = {
    "vocab_size": 61, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
FALCON = {
    "vocab_size": 61, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 32,
}  # fmt: skip
SMALL = {"vocab_size": 61, "n_layer": 2, "n_head": 4}
TOKENS = {"bos_token_id": 0, "eos_token_id": 0}
# Decoder type, transformers' names, and the configuration.
MODELS = {
    "gpt2": ("gpt2", "GPT2", {**SMALL, "n_embd": 64, "n_positions": 32}),
    "gptj": ("gptj", "GPTJ", {**SMALL, "n_embd": 64, "n_positions": 32, "rotary_dim": 8}),
    "llama": ("llama", "Llama", {**SIZES, "head_dim": 32}),
    "mistral": ("llama", "Mistral", {**SIZES, "sliding_window": None}),
    "qwen2": ("qwen", "Qwen2", SIZES),
    "gemma": ("gemma", "Gemma", {**SIZES, "head_dim": 32, "pad_token_id": 0}),
    "bloom": ("bloom", "Bloom", {**SMALL, "hidden_size": 64}),
    "mpt": ("mpt", "Mpt", {"vocab_size": 61, "d_model": 64, "n_heads": 4, "n_layers": 2}),
    "falcon-7b": ("falcon", "Falcon", FALCON),
    "falcon-40b": (
        "falcon", "Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "falcon-11b": (
        "falcon", "Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2,
                             "num_ln_in_parallel_attn": 1, "bias": True},
    ),
    "falcon-rw": (
        "falcon", "Falcon", {**FALCON, "multi_query": False, "parallel_attn": False, "bias": True,
                             "alibi": True},
    ),
}  # fmt: skip


def model(name: str):
    """Random, and with norms and biases that are not ones and zeros."""
    import transformers  # noqa: PLC0415

    _, kind, options = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**TOKENS, **options})
    made = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in made.parameters():
        if parameter.dim() == 1:
            parameter += 0.2 * torch.randn_like(parameter)
        else:
            parameter *= 4  # Of an untrained model, attention is nearly even.
    return made


def data() -> torch.Tensor:
    return torch.randint(0, 61, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_files_give_the_models_logits(name, ranks, tmp_path):
    made, kind = model(name), MODELS[name][0]
    tq.export_model_config(made, kind, "float32", tmp_path, inference_gpus=ranks)
    configs = [tq.load_model_config(tmp_path, kind, rank, ranks) for rank in range(ranks)]
    wanted, got = made(data()).logits, run(configs, data())
    # Falcon's biases of positions are rounded to bfloat16.
    assert sqnr(wanted, got) > (50 if name == "falcon-rw" else 100)


@pytest.mark.parametrize("config", [tq.INT8_DEFAULT_CFG, tq.FP8_DEFAULT_CFG, tq.INT4_AWQ_CFG])
@pytest.mark.parametrize("name", MODELS)
def test_scales_come_along(name, config, tmp_path):
    made, kind = model(name), MODELS[name][0]
    wanted = made(data()).logits
    blocks = tq.Rule("*weight_quantizer", (tq.QuantizerConfig(4, block_size=16),))
    if config is tq.INT4_AWQ_CFG:
        config = config.with_rules(blocks)
    config = config.without("*lm_head*")
    tq.quantize(made, config, lambda: made(data()))
    assert sum(bool(s.weight_quantizers) for s in tq.describe(made).values()) >= 8
    quantized = made(data()).logits
    tq.export_model_config(made, kind, "float32", tmp_path)
    got = run([tq.load_model_config(tmp_path, kind)], data())
    noise = sqnr(wanted, quantized)
    assert sqnr(quantized, got) > noise + (6 if config.name != "FP8_DEFAULT_CFG" else 3)


@pytest.mark.parametrize("config", [tq.INT8_SMOOTHQUANT_CFG, tq.INT4_AWQ_CFG])
def test_layers_with_one_input_have_one_pre_quant_scale(config, tmp_path):
    """So queries, keys and values can be run as one layer, as readers of the format do."""
    made = model("llama")
    wanted = made(data()).logits
    blocks = tq.Rule("*layers*weight_quantizer", (tq.QuantizerConfig(4, block_size=16),))
    config = config.with_rules(blocks) if config is tq.INT4_AWQ_CFG else config
    tq.quantize(made, config, lambda: made(data()))
    layers = tq.describe(made)
    for index in range(2):
        q, k, v, o, gate, up = (
            layers[f"model.layers.{index}.{name}_proj"].pre_quant_scale
            for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate",
                         "mlp.up")
        )  # fmt: skip
        same = [(q is None) == (other is None) for other in (k, v)] + [
            (gate is None) == (up is None)
        ]
        assert all(same)
        if q is not None:
            assert torch.equal(q, k) and torch.equal(q, v)
            assert o is None or q.shape != o.shape or not torch.equal(q, o)
        if gate is not None:
            assert torch.equal(gate, up) and (q is None or not torch.equal(q, gate))
    assert any(state.pre_quant_scale is not None for state in layers.values())
    assert sqnr(wanted, made(data()).logits) > (20 if config.name.startswith("INT8") else 8)
    tq.export_model_config(made, "llama", "float32", tmp_path)
    attention = tq.load_model_config(tmp_path, "llama")["layers"][0]["attention"]
    assert merged_qkv(attention).weight.shape == (256, 64)


@pytest.mark.parametrize(
    ("kind", "reason"), [("baichuan", "transformers has none"), ("gptnext", "NeMo"),
                         ("chatglm", "transformers has none")]
)  # fmt: skip
def test_types_that_are_not_exported_say_why(kind, reason, tmp_path):
    with pytest.raises(tp.TripyException, match=reason):
        tq.export_model_config(model("llama"), kind, "float32", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("mistral", {"sliding_window": 16}, "last 16 tokens"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "after the norm"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scaled in another way"),
        ("mpt", {"attn_config": {"softmax_scale": 0.5}}, "softmax_scale=0.5"),
    ],
)  # fmt: skip
def test_what_has_no_field_is_refused(name, options, match, tmp_path, monkeypatch):
    kind, cls, given = MODELS[name]
    monkeypatch.setitem(MODELS, name, (kind, cls, {**given, **options}))
    with pytest.raises(tp.TripyException, match=match):
        tq.export_model_config(model(name), kind, "float32", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_kind_is_refused(tmp_path):
    with pytest.raises(tp.TripyException, match="the model is no gemma"):
        tq.export_model_config(model("llama"), "gemma", "float32", tmp_path / "out")
