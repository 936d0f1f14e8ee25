"""quantize: models of PyTorch and tripy, in place, and every state that is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import as_tripy, inputs, mlp, sqnr, tiny_gpt2, tokens

ALL = list(tq.PRESETS.values())
IDS = list(tq.PRESETS)
# The least output SQNR on random data, in dB: 6 dB a bit, less what outliers take.
LEAST = {"INT8": 30, "FP8": 25, "INT4": 15, "W4A8": 14}


def least(config: tq.QuantizationConfig) -> float:
    return LEAST[config.name.split("_")[0]]


@pytest.mark.parametrize("config", ALL, ids=IDS)
def test_torch_models_are_quantized_in_place(config):
    model, x = mlp(), inputs()
    wanted = model(x)
    assert tq.quantize(model, config, lambda: model(x)) is model
    assert sqnr(wanted, model(x)) > least(config)
    assert type(model[0]).__name__ == "QuantizedLinear"


@pytest.mark.parametrize("config", ALL, ids=IDS)
def test_tripy_modules_are_quantized_in_place(config):
    model, x = as_tripy(mlp()), tp.Tensor(inputs())
    wanted = model(x).numpy()
    first = model[0]
    if config is tq.W4A8_AWQ_BETA_CFG:
        with pytest.raises(tp.TripyException, match="cannot hold"):
            tq.quantize(model, config, lambda: model(x).eval())
        assert np.array_equal(model(x).numpy(), wanted)
        return
    tq.quantize(model, config, lambda: model(x).eval())
    assert model[0] is first
    assert first.weight.dtype is first.quant_dtype is config.rules[0].quantizers[0].format.dtype
    assert sqnr(wanted, model(x).numpy()) > least(config)
    compiled = tp.compile(model, args=[tp.InputInfo(((1, 8, 256), 128), tp.float32)])
    assert sqnr(model(x).numpy(), compiled(x).numpy()) > least(config)


@pytest.mark.parametrize(
    "config", [tq.INT8_DEFAULT_CFG, tq.FP8_DEFAULT_CFG, tq.INT4_AWQ_CFG, tq.INT8_SMOOTHQUANT_CFG]
)
def test_both_kinds_of_model_get_the_same_scales(config):
    source, x = mlp(), inputs()
    module = as_tripy(source)
    tq.quantize(source, config, lambda: source(x))
    tq.quantize(module, config, lambda: module(tp.Tensor(x)).eval())
    for theirs, ours in zip(tq.describe(source).values(), tq.describe(module).values()):
        assert theirs.scheme == ours.scheme
        for a, b in zip(theirs.weight_quantizers, ours.weight_quantizers):
            torch.testing.assert_close(a.scale, b.scale, rtol=1e-5, atol=0)
        if theirs.input_quantizer:
            torch.testing.assert_close(
                theirs.input_quantizer.scale, ours.input_quantizer.scale, rtol=1e-4, atol=0
            )


def test_scales_are_amax_by_maxbound():
    model, x = mlp(), inputs()
    weight = model[0].weight.clone()
    tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: model(x))
    layer = tq.describe(model)["0"]
    assert layer.input_quantizer.scale == x.abs().max() / 127
    assert torch.equal(layer.weight_quantizers[0].scale, weight.abs().amax(1) / 127)
    tq.quantize(fp8 := mlp(), tq.FP8_DEFAULT_CFG, lambda: fp8(x))
    assert tq.describe(fp8)["0"].weight_quantizers[0].scale == weight.abs().max() / 448


def test_a_forward_loop_may_take_the_model():
    seen = []

    def loop(model):
        seen.append(model)
        model(inputs())

    model = mlp()
    tq.quantize(model, tq.INT8_DEFAULT_CFG, loop)
    assert seen == [model]
    other = mlp()
    tq.quantize(other, tq.INT8_DEFAULT_CFG, lambda: other(inputs()))
    assert torch.equal(other(inputs()), model(inputs()))


def test_weight_only_needs_no_data():
    model = mlp()
    tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG)
    assert tq.describe(model)["0"].input_quantizer is None


def test_conv1d_keeps_its_layout_and_ties_stay():
    model, data = tiny_gpt2(), tokens()
    before = model.transformer.h[0].attn.c_attn.weight
    wanted = model(data).logits
    tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: model(data))
    layer = model.transformer.h[0].attn.c_attn
    assert layer.weight is before and layer.weight.shape == (128, 384)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert sqnr(wanted, model(data).logits) > 28


def test_a_layer_under_two_names_is_one_layer():
    shared = torch.nn.Linear(8, 8)
    model = torch.nn.Sequential(shared, torch.nn.ReLU(), shared)
    tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: model(inputs(4, 8)))
    assert model[0] is model[2] and type(model[0]).__name__ == "QuantizedLinear"


@pytest.mark.parametrize(("bits", "name"), [(8, "int8"), ((4, 3), "fp8")])
def test_keys_and_values_have_scales_of_their_own(bits, name):
    model, data = tiny_gpt2(), tokens()
    kept = []
    handle = model.transformer.h[0].attn.c_attn.register_forward_hook(
        lambda m, a, y: kept.append(y)
    )
    model(data)
    handle.remove()
    key, value = kept[0][..., 128:256].abs().max(), kept[0][..., 256:].abs().max()
    tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG.with_kv_cache(bits), lambda: model(data))
    layer = tq.describe(model)["transformer.h.0.attn.c_attn"]
    assert (layer.key_quantizer.amax, layer.value_quantizer.amax) == (key, value)
    assert layer.key_quantizer.config.format.name == name
    assert tq.describe(model)["transformer.h.0.mlp.c_fc"].key_quantizer is None
    plain = tq.quantize(tiny_gpt2(), tq.INT8_WEIGHT_ONLY_CFG)
    assert not torch.equal(plain(data).logits, model(data).logits)


def test_outputs_agree_with_the_definition():
    model, x = mlp(), inputs()
    weight, bias = model[0].weight.clone(), model[0].bias.clone()
    tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: model(x))
    s_x, s_w = x.abs().max() / 127, weight.abs().amax(1, keepdim=True) / 127
    rounded = (x / s_x).round().clamp(-128, 127) * s_x
    wanted = rounded @ ((weight / s_w).round() * s_w).t() + bias
    torch.testing.assert_close(model[0](x), wanted, rtol=1e-5, atol=1e-5)


def test_quantizing_twice_leaves_what_is_done():
    model, x = mlp(), inputs()
    tq.quantize(model, tq.INT8_DEFAULT_CFG.without("2"), lambda: model(x))
    first = model[0]
    tq.quantize(model, tq.FP8_DEFAULT_CFG, lambda: model(x))
    assert model[0] is first
    assert [s.scheme.split()[0] for s in tq.describe(model).values()] == ["int8", "fp8"]


def test_reasons_of_layers_left_alone():
    model = mlp()
    tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG.without("2"))
    assert tq.describe(model)["2"].reason == "left out by the pattern '2'"
    assert tq.describe(mlp())["2"].reason == "it was never quantized"


# What is refused.


def refused(match: str, config=tq.INT8_DEFAULT_CFG, model=None, loop=None, **options) -> str:
    """The message; and the model has to be as it was."""
    model = mlp() if model is None else model
    before = copy.deepcopy(model.state_dict())
    kinds = [type(m) for m in model.modules()]
    with pytest.raises(tp.TripyException, match=match) as error:
        tq.quantize(model, config, loop and (lambda: loop(model)), **options)
    assert [type(m) for m in model.modules()] == kinds
    after = model.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, equal_nan=True)
    return str(error.value)


@pytest.mark.parametrize(
    "config", [tq.INT8_DEFAULT_CFG, tq.FP8_DEFAULT_CFG, tq.INT4_AWQ_CFG, tq.INT4_GPTQ_CFG]
)
def test_no_forward_loop(config):
    assert "0: int" in refused("no forward_loop", config) or config is tq.FP8_DEFAULT_CFG


def test_a_layer_that_saw_no_data():
    text = refused("2: the layer saw no data", loop=lambda model: model[0](inputs()))
    assert 'config.without("2*")' in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_inputs_that_are_not_finite(value):
    x = inputs()
    x[3, 4] = value

    def loop(model):
        model(inputs())
        model(x)

    text = refused("0: NaN or infinity in the layer's input, in batch 1", loop=loop)
    assert "2nd call" in text


def test_inputs_of_zeros():
    refused("0.input_quantizer", loop=lambda model: model(torch.zeros(2, 128)))


def test_a_weight_of_zeros():
    model = mlp()
    model[2].weight.zero_()
    refused("2.weight_quantizer: amax is zero", model=model, loop=lambda m: m(inputs()))


def test_channels_of_zeros_beside_others_are_fine():
    model, x = mlp(), inputs()
    model[0].weight[3].zero_()
    tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: model(x))
    assert torch.equal(model[0](x)[:, 3], model[0].bias[3].expand(256))


def test_a_weight_that_is_not_finite():
    model = mlp()
    model[0].weight[0, 0] = float("nan")
    text = refused("0", model=model, config=tq.INT8_WEIGHT_ONLY_CFG)
    assert "NaN" in text


def test_blocks_that_do_not_fit():
    text = refused("0.*blocks", tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, model=mlp(96), loop=None)
    assert "block_size=96" in text


def test_an_error_in_the_loop_leaves_the_model_without_hooks():
    model = mlp()
    with pytest.raises(ZeroDivisionError):
        tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: 1 / 0)
    assert not model[0]._forward_pre_hooks
    module = as_tripy(mlp())
    with pytest.raises(ZeroDivisionError):
        tq.quantize(module, tq.INT8_DEFAULT_CFG, lambda: 1 / 0)
    assert "forward" not in vars(module[0])


def test_statistics_without_the_cache():
    model, data = tiny_gpt2(), tokens()
    seen = tq.collect(model, tq.INT8_DEFAULT_CFG, lambda: model(data))
    with pytest.raises(tp.TripyException, match=r"c_attn\.k_bmm_quantizer: the statistics"):
        tq.quantize(model, tq.INT8_DEFAULT_CFG.with_kv_cache(8), statistics=seen)


def test_a_forward_of_the_users_own_stays():
    module = as_tripy(mlp())
    plain = type(module[0]).forward
    module[0].forward = own = lambda x: plain(module[0], x) * 2
    tq.collect(module, tq.INT8_DEFAULT_CFG, lambda: module(x=tp.Tensor(inputs())).eval())
    assert module[0].forward is own


def test_statistics_of_another_model():
    seen = tq.collect(other := mlp()[:1], tq.INT8_DEFAULT_CFG, lambda: other(inputs()))
    refused("2: the statistics do not have this layer", statistics=seen)


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        (tq.INT8_SMOOTHQUANT_CFG, "channels"), (tq.INT4_AWQ_CFG, "512 tokens of the input, 32"),
        (tq.INT4_GPTQ_CFG, "moments"),
    ],
)  # fmt: skip
def test_statistics_that_know_too_little(config, missing):
    seen = tq.collect(other := mlp(), tq.INT8_DEFAULT_CFG, lambda: other(inputs()))
    text = refused("0: the statistics know too little", config, statistics=seen)
    assert missing in text


def test_statistics_of_a_layer_of_another_width():
    seen = tq.collect(other := mlp(64), tq.INT8_DEFAULT_CFG, lambda: other(inputs(width=64)))
    refused("0: the statistics are of another layer", statistics=seen)


def test_all_tokens_are_enough_where_there_are_few():
    """Who has seen fewer tokens than are wanted cannot know more of them."""
    model, x = mlp(), inputs(20)
    config = tq.INT4_AWQ_CFG.with_algorithm("awq", sample_tokens=20)
    seen = tq.collect(model, config, lambda: model(x))
    tq.quantize(model, tq.INT4_AWQ_CFG, statistics=seen)
    assert tq.describe(model)["0"].weight_quantizers


def test_a_loop_that_is_a_list():
    with pytest.raises(tp.TripyException, match="forward_loop cannot be called"):
        tq.quantize(mlp(), tq.INT8_DEFAULT_CFG, [inputs()])


@pytest.mark.parametrize("answer", [None, 1, "int8"])
def test_answers_of_a_predicate(answer):
    text = refused("0: the predicate's answer", predicate=lambda name, module: answer)
    assert repr(answer) in text


def test_moments_without_an_inverse():
    config = tq.INT4_GPTQ_CFG.with_algorithm("gptq", damping=1e-30)
    text = refused("0: the second moments", config, loop=lambda model: model(inputs(4)))
    assert "a larger damping" in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "config", [tq.INT8_DEFAULT_CFG, tq.INT8_SMOOTHQUANT_CFG, tq.INT4_AWQ_CFG, tq.INT4_GPTQ_CFG]
)
def test_models_of_other_types_keep_them(config, dtype):
    model, x = mlp().to(dtype), inputs().to(dtype)
    wanted = model(x)
    tq.quantize(model, config, lambda: model(x))
    got = model(x)
    assert got.dtype == dtype and sqnr(wanted.float(), got.float()) > least(config)
    assert model[0].weight.dtype == dtype


def test_layers_with_heads_side_by_side_have_no_cache_scales():
    """Where each head's queries, keys and values follow each other, no section is the keys."""
    model = torch.nn.Sequential()
    model.add_module("query_key_value", torch.nn.Linear(16, 48))
    with pytest.raises(tp.TripyException, match="matches nothing"):
        tq.quantize(model, tq.INT8_DEFAULT_CFG.with_kv_cache(8), lambda: model(inputs(4, 16)))
