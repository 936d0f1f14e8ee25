"""Checkpoints: written, verified, read, split for ranks; and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import mlp, sqnr, tiny_gpt2, tokens
from tripy.quantization.checkpoint.reading import merged_qkv

FORMATS = {
    "fp8": tq.FP8_DEFAULT_CFG,
    "int8_sq": tq.INT8_SMOOTHQUANT_CFG,
    "int4_awq": tq.INT4_AWQ_CFG,
    "w4a8_awq": tq.W4A8_AWQ_BETA_CFG,
}
BLOCKS = tq.Rule("*.weight_quantizer", (tq.QuantizerConfig(4, block_size=32),))


def quantized(config, small_blocks: bool = False):
    model, data = tiny_gpt2(), tokens()
    if small_blocks and config is tq.INT4_AWQ_CFG:
        config = config.with_rules(BLOCKS, tq.Rule("*lm_head*", enable=False))
    tq.quantize(model, config, lambda: model(data))
    return model


@pytest.fixture(scope="module")
def models():
    return {name: quantized(config, True) for name, config in FORMATS.items()}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# Hugging Face's layout.


@pytest.mark.parametrize("name", FORMATS)
def test_hugging_face_round_trip(models, name, tmp_path):
    model = models[name]
    tq.export_hf(model, tmp_path / "out")
    assert files(tmp_path) == ["out"]
    assert files(tmp_path / "out") == ["config.json", "hf_quant_config.json", "model.safetensors"]
    found, meant = tq.load_hf(tmp_path / "out"), tq.describe(model)
    assert list(found.layers) == [n for n, s in meant.items() if s.weight_quantizers] != []
    for layer, state in found.layers.items():
        wanted = meant[layer]
        assert state.scheme == wanted.scheme
        assert torch.equal(state.rounded_weight(), wanted.rounded_weight())
        assert torch.equal(state.bias, wanted.bias)
        if wanted.input_quantizer:
            assert torch.equal(state.input_quantizer.scale, wanted.input_quantizer.scale)
        if wanted.pre_quant_scale is not None:
            assert torch.equal(state.pre_quant_scale, wanted.pre_quant_scale)
    declared = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]
    assert declared["exclude_modules"] == ["lm_head"] and declared["weight_layout"] == "out_in"


def test_weights_in_the_file_are_small_and_out_in(models, tmp_path):
    tq.export_hf(models["int4_awq"], tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    name = "transformer.h.0.attn.c_attn"
    assert stored[f"{name}.weight"].dtype == torch.uint8
    assert stored[f"{name}.weight"].shape == (192, 128)
    assert stored[f"{name}.weight_scale"].shape == (384, 4)
    state = tq.describe(models["int4_awq"])[name]
    q = state.weight_quantizers[0].round(state.weight.float()).int()
    assert torch.equal(stored[f"{name}.weight"].int(), (q[0::2] & 15) | (q[1::2] & 15) << 4)


def test_caches_have_scales(tmp_path):
    model = quantized(tq.INT8_DEFAULT_CFG.with_kv_cache((4, 3)))
    tq.export_hf(model, tmp_path)
    layer = "transformer.h.1.attn.c_attn"
    found, meant = tq.load_hf(tmp_path).layers[layer], tq.describe(model)[layer]
    assert torch.equal(found.key_quantizer.scale, meant.key_quantizer.scale)
    assert torch.equal(found.value_quantizer.scale, meant.value_quantizer.scale)


def test_a_gpt2_that_does_not_say_how_its_weights_lie_is_refused(models, tmp_path):
    tq.export_hf(models["fp8"], tmp_path)
    path = tmp_path / "hf_quant_config.json"
    declared = json.loads(path.read_text())
    del declared["quantization"]["weight_layout"]
    path.write_text(json.dumps(declared))
    with pytest.raises(tp.TripyException, match="how its weights lie"):
        tq.load_hf(tmp_path)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("fp8", "input_scale"), ("w4a8_awq", "weight_scale_2"), ("fp8", "weight_scale"),
        ("int8_sq", "pre_quant_scale"),
    ],
)  # fmt: skip
def test_a_declared_feature_without_its_tensor_is_refused(models, name, gone, tmp_path):
    tq.export_hf(models[name], tmp_path)
    path = tmp_path / "model.safetensors"
    kept = {n: t for n, t in load_file(path).items() if not n.endswith(f".{gone}")}
    save_file(kept, path)
    with pytest.raises(tp.TripyException, match="is not usable"):
        tq.load_hf(tmp_path)


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "hf_quant_config.json"])
def test_damaged_checkpoints(models, damage, tmp_path):
    tq.export_hf(models["fp8"], tmp_path)
    path = tmp_path / damage
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(tp.TripyException, match="cannot be read"):
        tq.load_hf(tmp_path)


def test_what_the_format_cannot_name():
    mixed = mlp()
    tq.quantize(mixed, tq.INT8_WEIGHT_ONLY_CFG.without("2"))
    tq.quantize(mixed, tq.FP8_DEFAULT_CFG, lambda: mixed(torch.randn(8, 128)))
    with pytest.raises(tp.TripyException, match="2: the checkpoint format holds one"):
        tq.export_hf(mixed, "never")
    model = mlp()
    tq.quantize(model, tq.W4A8_INT8_CFG, lambda: model(torch.randn(8, 128)))
    with pytest.raises(tp.TripyException, match="0: the checkpoint format has no name"):
        tq.export_hf(model, "never")


@pytest.mark.parametrize("export", ["hf", "model_config"])
def test_nothing_is_left_of_a_failure(models, export, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("tripy.quantization.checkpoint.huggingface.save_file", full)
    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(OSError, match="no space"):
        if export == "hf":
            tq.export_hf(models["fp8"], tmp_path / "out")
        else:
            tq.export_model_config(models["fp8"], "gpt2", "float16", tmp_path / "out")
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["fp8", "int8_sq", "int4_awq"])
def test_into_tripy(models, name, tmp_path):
    """A checkpoint gives a tripy Module the same layer as the model that it was written from."""
    tq.export_hf(models[name], tmp_path)

    class Part(tp.Module):
        def __init__(self):
            self.c_fc = tp.Linear(128, 512)

        def forward(self, x):
            return self.c_fc(x)

    names = {f"transformer.h.0.mlp.c_fc{end}": f"c_fc{end}" for end in ("", ".weight", ".bias")}
    from_file = tq.to_tripy(tq.load_hf(tmp_path), Part(), names)
    directly = tq.to_tripy(models[name], Part(), names)
    x = torch.randn(4, 128)
    wanted = models[name].transformer.h[0].mlp.c_fc(x)
    assert np.array_equal(from_file(tp.Tensor(x)).numpy(), directly(tp.Tensor(x)).numpy())
    assert sqnr(wanted, from_file(tp.Tensor(x)).numpy()) > 60


def test_a_bias_is_never_dropped(models):
    module = tp.Sequential(tp.Linear(128, 512, bias=False))
    for source in (models["fp8"], tiny_gpt2()):
        with pytest.raises(tp.TripyException, match="got a bias"):
            tq.to_tripy(source, module, {"transformer.h.0.mlp.c_fc": "0"})


def test_into_tripy_that_does_not_fit(models):
    module = tp.Sequential(tp.Linear(128, 512, quant_dtype=tp.int8, weight_quant_dim=0))
    with pytest.raises(tp.TripyException) as error:
        tq.to_tripy(models["fp8"], module, {"transformer.h.0.mlp.c_fc": "0"})
    assert "got fp8 per tensor" in str(error.value) and "quant_dtype=int8" in str(error.value)
    with pytest.raises(tp.TripyException, match="nothing was loaded"):
        tq.to_tripy(models["fp8"], tp.Sequential(tp.Linear(3, 4)), lambda name: name)


# JSON + npz.


def export(model, folder, ranks: int, dtype="float32"):
    tq.export_model_config(model, "gpt2", dtype, folder, inference_gpus=ranks)
    return [tq.load_model_config(folder, "gpt2", rank, ranks) for rank in range(ranks)]


def test_files_and_names(models, tmp_path):
    tq.export_model_config(
        models["int8_sq"], "gpt2", torch.float16, tmp_path, inference_tensor_parallel=2
    )
    assert files(tmp_path) == ["gpt2_tp2.json", "gpt2_tp2_rank0.npz", "gpt2_tp2_rank1.npz"]
    config = json.loads((tmp_path / "gpt2_tp2.json").read_text())
    assert (config["quantization"], config["dtype"]) == ("int8_sq", "float16")
    with np.load(tmp_path / "gpt2_tp2_rank0.npz") as arrays:
        names = set(arrays.files)
        weight = arrays["_np:layers:0:attention:qkv:q:weight"]
    assert {
        "_np:vocab_embedding:weight", "_np:position_embedding:weight",
        "_np:final_layernorm:bias", "_np:lm_head:weight", "_np:layers:1:post_layernorm:weight",
        "_np:layers:1:mlp:proj:prequant_scaling_factor",
        "_np:layers:0:attention:dense:activation_scaling_factor",
    } <= names  # fmt: skip
    assert (weight.dtype, weight.shape) == (np.float16, (64, 128))


def test_bfloat16_is_two_bytes_of_no_type(models, tmp_path):
    config = export(models["fp8"], tmp_path, 1, "bfloat16")[0]
    with np.load(tmp_path / "gpt2_tp1_rank0.npz") as arrays:
        assert arrays["_np:vocab_embedding:weight"].dtype == np.dtype("V2")
    wanted = models["fp8"].transformer.wte.weight.bfloat16()
    assert torch.equal(config["vocab_embedding"]["weight"], wanted)


def joined(parts, kind: str, attribute: str):
    values = [getattr(part, attribute) for part in parts]
    if values[0] is None:
        return None
    dim = {"weight": kind == "row"}.get(attribute, 0)
    cut = {
        "weight": True, "bias": kind == "column",
        "weights_scaling_factor": values[0].numel() > 1 and (
            kind == "column" or values[0].dim() == 2),
        "prequant_scaling_factor": kind == "row",
    }.get(attribute, False)  # fmt: skip
    if attribute == "weights_scaling_factor":
        dim = int(kind == "row")
    if not cut:
        assert all(torch.equal(value, values[0]) for value in values)
        return values[0]
    return torch.cat(values, int(dim))


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", ["fp8", "int8_sq", "int4_awq"])
def test_shards_concatenate_to_the_whole(models, name, ranks, tmp_path):
    whole = export(models[name], tmp_path / "1", 1)[0]
    parts = export(models[name], tmp_path / "n", ranks)
    for index, layer in enumerate(whole["layers"]):
        for group, key in (
            ("qkv", "q"), ("qkv", "k"), ("qkv", "v"), ("attention", "dense"), ("mlp", "fc"),
            ("mlp", "proj"),
        ):  # fmt: skip
            pick = lambda c: (c["attention"]["qkv"] if group == "qkv" else c[group])[key]  # noqa: B023, E731
            mine = [pick(part["layers"][index]) for part in parts]
            one = pick(layer)
            for attribute in (
                "weight", "bias", "activation_scaling_factor", "weights_scaling_factor",
                "prequant_scaling_factor",
            ):  # fmt: skip
                wanted, got = getattr(one, attribute), joined(mine, one.linear_type, attribute)
                assert (wanted is None) == (got is None)
                assert wanted is None or torch.equal(wanted, got), (key, attribute)


def rounded(linear, name: str):
    """The weight as an engine would round it."""
    bits = {"fp8": (4, 3), "int8_sq": 8, "int4_awq": 4}[name]
    blocks = linear.awq_block_size or None
    config = tq.QuantizerConfig(bits, 0 if name == "int8_sq" else None, blocks)
    scale = linear.weights_scaling_factor
    scale = scale.reshape(()) if name == "fp8" else scale
    return tq.QuantizerState(config, scale.double() * config.format.maxbound)(linear.weight)


def apply(linear, x, name: str):
    if linear.prequant_scaling_factor is not None:
        x = x * linear.prequant_scaling_factor
    if linear.activation_scaling_factor is not None:
        config = tq.QuantizerConfig((4, 3) if name == "fp8" else 8)
        amax = linear.activation_scaling_factor.double().reshape(()) * config.format.maxbound
        x = tq.QuantizerState(config, amax)(x)
    return x @ rounded(linear, name).t()


def logits(configs, name: str, data):
    """A GPT-2 of one or several ranks: columns by themselves, rows summed."""
    first = configs[0]

    def norm(x, n):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], n["weight"], n["bias"], n["eps"])

    words = torch.cat([c["vocab_embedding"]["weight"] for c in configs])
    places = torch.cat([c["position_embedding"]["weight"] for c in configs])
    x = words[data] + places[: data.shape[1]]
    for layers in zip(*(c["layers"] for c in configs)):
        h, total = norm(x, layers[0]["input_layernorm"]), 0
        for layer in layers:
            attention = layer["attention"]
            merged = merged_qkv(attention)
            y = apply(merged, h, name) + merged.bias
            size = layer["attention_head_size"]
            q, k, v = (t.unflatten(-1, (-1, size)).transpose(1, 2) for t in y.chunk(3, -1))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            total = total + apply(attention["dense"], y.transpose(1, 2).flatten(2), name)
        x = x + total + layers[0]["attention"]["dense"].bias
        h, total = norm(x, layers[0]["post_layernorm"]), 0
        for layer in layers:
            y = apply(layer["mlp"]["fc"], h, name) + layer["mlp"]["fc"].bias
            y = torch.nn.functional.gelu(y, approximate="tanh")
            total = total + apply(layer["mlp"]["proj"], y, name)
        x = x + total + layers[0]["mlp"]["proj"].bias
    x = norm(x, first["ln_f"])
    return torch.cat([x @ c["lm_head"].weight.t() for c in configs], -1)[..., : first["vocab_size"]]


@pytest.mark.parametrize("name", ["fp8", "int8_sq", "int4_awq"])
def test_two_ranks_give_the_logits_of_one(models, name, tmp_path):
    data = tokens()
    one = logits(export(models[name], tmp_path / "1", 1), name, data)
    two = logits(export(models[name], tmp_path / "2", 2), name, data)
    # Sums in another order turn a few roundings of the next layer's input.
    assert sqnr(one, two) > (40 if name != "int4_awq" else 90)
    assert sqnr(models[name](data).logits, one) > (35 if name != "int4_awq" else 90)


def test_a_rank_loads_into_a_module_of_its_shapes(models, tmp_path):
    for part in export(models["int8_sq"], tmp_path, 2):
        linear = part["layers"][0]["mlp"]["fc"]
        layer = tp.Linear(128, 256, quant_dtype=tp.int8, weight_quant_dim=0)
        layer.weight, layer.bias = tp.Tensor(linear.weight), tp.Tensor(linear.bias)
        layer.weight_scale = tp.Tensor(linear.weights_scaling_factor)
        layer.input_scale = tp.Tensor(linear.activation_scaling_factor.reshape(()))
        layer.pre_quant_scale = tp.Tensor(linear.prequant_scaling_factor)
        x = torch.randn(3, 128)
        wanted = apply(linear, x, "int8_sq") + linear.bias
        assert sqnr(wanted, layer(tp.Tensor(x)).numpy()) > 60


def test_blocks_across_ranks_are_refused_before_anything_is_written(tmp_path):
    model = quantized(tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG)
    with pytest.raises(tp.TripyException) as error:
        tq.export_model_config(model, "gpt2", "float16", tmp_path / "out", inference_gpus=2)
    assert "transformer.h.0.attn.c_proj" in str(error.value)
    assert "128 inputs in blocks of 128" in str(error.value)
    assert files(tmp_path) == []


def test_padding_and_fewer_heads_than_ranks(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    data = torch.randint(0, 61, (2, 8))
    tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: model(data))
    tq.export_model_config(model, "llama", "float32", tmp_path, inference_gpus=4)
    parts = [tq.load_model_config(tmp_path, "llama", rank, 4) for rank in range(4)]
    words = torch.cat([part["vocab_embedding"]["weight"] for part in parts])
    assert words.shape == (64, 64) and parts[0]["vocab_size"] == 61
    assert torch.equal(words[:61], model.model.embed_tokens.weight) and not words[61:].any()
    assert parts[0]["layers"][0]["num_kv_heads"] == 2
    keys = [part["layers"][0]["attention"]["qkv"]["k"] for part in parts]
    assert torch.equal(keys[0].weight, keys[1].weight) and keys[0].weight.shape == (16, 64)
    whole = model.model.layers[0].self_attn.k_proj.weight
    assert torch.equal(torch.cat([keys[0].weight, keys[2].weight]), whole)
    assert parts[0]["layers"][0]["mlp"]["gate"].weight.shape == (24, 64)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("gpt5", "float16", 1), "decoder type"), (("gpt2", "int8", 1), "dtype"),
        (("gpt2", "float16", 0), "ranks"), (("llama", "float16", 1), "no llama"),
    ],
)  # fmt: skip
def test_exports_that_cannot_be(models, arguments, match, tmp_path):
    kind, dtype, ranks = arguments
    with pytest.raises(tp.TripyException, match=match):
        tq.export_model_config(models["fp8"], kind, dtype, tmp_path / "out", ranks)
    assert files(tmp_path) == []


def test_heads_are_never_cut(models, tmp_path):
    with pytest.raises(tp.TripyException, match="the heads cannot be given to the ranks"):
        tq.export_model_config(models["fp8"], "gpt2", "float16", tmp_path / "out", 3)
    assert files(tmp_path) == []


def test_layers_left_alone_among_others_are_refused(tmp_path):
    model = quantized(tq.INT8_DEFAULT_CFG.without("*h.1.attn.c_proj*"))
    with pytest.raises(tp.TripyException, match=r"h\.1\.attn\.c_proj: the layer is not quantized"):
        tq.export_model_config(model, "gpt2", "float16", tmp_path / "out")
    assert files(tmp_path) == []


def test_parameters_without_a_place_are_refused(tmp_path):
    model = tiny_gpt2()
    model.transformer.h[0].extra = torch.nn.LayerNorm(4)
    with pytest.raises(tp.TripyException, match=r"no place for transformer\.h\.0\.extra\.bias"):
        tq.export_model_config(model, "gpt2", "float16", tmp_path / "out")


def test_scaled_rotary_positions_are_refused(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    config = LlamaConfig(
        vocab_size=61, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=32, rope_parameters=rope,
    )  # fmt: skip
    with pytest.raises(tp.TripyException, match="rotary"):
        tq.export_model_config(LlamaForCausalLM(config), "llama", "float16", tmp_path / "out")


def test_a_head_of_its_own_is_not_tied_in_the_config(tmp_path):
    model, head = tiny_gpt2(), tq.Rule("lm_head.weight_quantizer", (tq.QuantizerConfig(8, 0),))
    tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG.with_rules(head))
    tq.export_hf(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head" in tq.load_hf(tmp_path).layers


@pytest.mark.parametrize("text", ["[]", "3", '{"layers": 3}', '{"layers": [{}]}'])
def test_json_of_another_kind(models, text, tmp_path):
    export(models["fp8"], tmp_path, 1)
    (tmp_path / "gpt2_tp1.json").write_text(text)
    with pytest.raises(tp.TripyException, match="load_model_config"):
        tq.load_model_config(tmp_path, "gpt2")


def test_two_numbers_of_ranks(models, tmp_path):
    with pytest.raises(tp.TripyException, match="two numbers of ranks"):
        tq.export_model_config(
            models["fp8"], "gpt2", "float16", tmp_path, 2, inference_tensor_parallel=4
        )


def test_weights_that_float16_cannot_hold(tmp_path):
    model = tiny_gpt2()
    model.transformer.h[1].mlp.c_fc.weight[3, 5] = 1e5
    with pytest.raises(tp.TripyException, match="values that float16 cannot hold"):
        tq.export_model_config(model, "gpt2", "float16", tmp_path / "out")
    tq.export_model_config(model, "gpt2", "bfloat16", tmp_path / "out")


@pytest.mark.parametrize("kind", ["json", "npz", "array"])
def test_damaged_model_configs(models, kind, tmp_path):
    export(models["fp8"], tmp_path, 1)
    if kind == "array":
        path = tmp_path / "gpt2_tp1.json"
        path.write_text(path.read_text().replace("_np:lm_head:weight", "_np:no:weight"))
    else:
        path = next(tmp_path.glob(f"*.{kind}"))
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(tp.TripyException, match="load_model_config"):
        tq.load_model_config(tmp_path, "gpt2")
