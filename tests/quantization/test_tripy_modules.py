"""tripy Modules: convolutions, and keys and values that are rounded in the graph."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import sqnr

CONVS = {
    "1d": (lambda: tp.Conv(8, 12, (3,), padding=((1, 1),)), (4, 8, 20)),
    "2d": (lambda: tp.Conv(8, 12, (3, 2), stride=(2, 1), bias=False), (2, 8, 12, 12)),
    "3d": (lambda: tp.Conv(4, 6, (2, 2, 2)), (2, 4, 5, 5, 5)),
    "groups": (lambda: tp.Conv(8, 12, (3, 3), groups=4), (2, 8, 10, 10)),
    "transpose": (lambda: tp.ConvTranspose(8, 12, (3, 3), stride=(2, 2)), (2, 8, 6, 6)),
    "transpose groups": (lambda: tp.ConvTranspose(8, 12, (3,), groups=2), (2, 8, 9)),
}


def filled(module: tp.Module, seed: int = 0) -> tp.Module:
    random = torch.Generator().manual_seed(seed)
    values = {
        name: torch.randn(tuple(value.shape), generator=random) * 0.2
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(values)
    return module


def data(*shape: int) -> tp.Tensor:
    return tp.Tensor(torch.randn(shape, generator=torch.Generator().manual_seed(1)))


class Attention(tp.Module):
    """One that makes queries, keys and values with one layer."""

    def __init__(self, width: int = 16) -> None:
        self.c_attn, self.c_proj = tp.Linear(width, 3 * width), tp.Linear(width, width)

    def forward(self, x):
        q, k, v = tp.split(self.c_attn(x), 3, dim=-1)
        q, k, v = (tp.unsqueeze(part, 1) for part in (q, k, v))
        y = tp.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(tp.squeeze(y, 1))


@pytest.mark.parametrize("config", [tq.INT8_DEFAULT_CFG, tq.FP8_DEFAULT_CFG,
                                    tq.INT8_WEIGHT_ONLY_CFG])  # fmt: skip
@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name, config):
    make, shape = CONVS[name]
    model, x = filled(tp.Sequential(make())), data(*shape)
    wanted, weight = model(x).numpy(), model[0].weight.numpy()
    tq.quantize(model, config, lambda: model(x).eval())
    layer = model[0]
    assert layer.weight.dtype is layer.quant_dtype
    outputs = 1 if "transpose" in name else 0
    per_channel = config is not tq.FP8_DEFAULT_CFG
    assert layer.weight_quant_dim == (outputs if per_channel else None)
    axes = tuple(i for i in range(weight.ndim) if i != outputs)
    amax = np.abs(weight).max(axes if per_channel else None)
    bound = 127 if per_channel else 448
    np.testing.assert_allclose(layer.weight_scale.numpy(), amax / bound, rtol=1e-6)
    if config is not tq.INT8_WEIGHT_ONLY_CFG:
        assert float(layer.input_scale.numpy()) == pytest.approx(
            np.abs(x.numpy()).max() / bound, rel=1e-6
        )
    assert sqnr(wanted, model(x).numpy()) > (30 if per_channel else 24)
    compiled = tp.compile(model, args=[tp.InputInfo(shape, tp.float32)])
    assert sqnr(model(x).numpy(), compiled(x).numpy()) > 50
    report = str(tq.report(model))
    assert "1 of 1 linear layers and convolutions are quantized" in report
    runs = tq.report(model).rows[0].runs
    assert runs.startswith("int8 convolution" if config is tq.INT8_DEFAULT_CFG else "weight exp")
    state = tq.describe(model)["0"]
    assert state.kind == ("ConvTranspose" if outputs else "Conv")
    restored = np.moveaxis(weight, outputs, 0).reshape(state.shape)
    assert sqnr(restored, state.rounded_weight().numpy()) > 24


@pytest.mark.parametrize("calibrator", ["percentile", "entropy", "mse"])
def test_calibrators_see_a_convolutions_input(calibrator):
    model, x = filled(tp.Sequential(tp.Conv(8, 4, (3,)))), data(16, 8, 200).numpy()
    x[0, 0, 0] = 60
    config = tq.INT8_DEFAULT_CFG.with_algorithm("max", calibrator=calibrator)
    tq.quantize(model, config, lambda: model(tp.Tensor(x)).eval())
    assert float(model[0].input_scale.numpy()) < 55 / 127


@pytest.mark.parametrize("config", [tq.INT8_SMOOTHQUANT_CFG, tq.INT4_AWQ_CFG, tq.INT4_GPTQ_CFG])
def test_what_convolutions_do_not_have(config):
    model = filled(
        tp.Sequential(tp.Conv(8, 128, (3,)), lambda x: tp.flatten(x, 1), tp.Linear(2304, 4))
    )
    x = data(2, 8, 20)
    tq.quantize(model, config, lambda: model(x).eval())
    conv, linear = tq.describe(model).values()
    assert linear.weight_quantizers
    if config is tq.INT8_SMOOTHQUANT_CFG:
        assert conv.scheme == linear.scheme and conv.pre_quant_scale is None
    else:
        assert not conv.weight_quantizers
        assert conv.reason == "a convolution's weight has no blocks"
    assert "a convolution" in str(tq.report(model)) or config is tq.INT8_SMOOTHQUANT_CFG


def test_wrong_states_of_convolutions_name_the_layer():
    model = filled(tp.Sequential(tp.Conv(2, 4, (3,))))
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    bad = data(1, 2, 8).numpy()
    bad[0, 1, 3] = np.nan
    for loop, match in (
        (lambda: model(tp.Tensor(bad)).eval(), "0: NaN or infinity"),
        (lambda: model(tp.zeros((1, 2, 8))).eval(), "0.input_quantizer: amax is zero"),
        (lambda: None, "0: the layer saw no data"),
    ):
        with pytest.raises(tp.TripyException, match=match):
            tq.quantize(model, tq.INT8_DEFAULT_CFG, loop)
        assert model[0].quant_dtype is None
        assert all(np.array_equal(before[n], v.numpy()) for n, v in model.state_dict().items())


def test_convolutions_into_another_module():
    source, x = filled(tp.Sequential(tp.Conv(8, 12, (3,)), tp.Conv(12, 4, (1,)))), data(2, 8, 9)
    tq.quantize(source, tq.INT8_DEFAULT_CFG.without("1"), lambda: source(x).eval())
    made = tq.to_tripy(source, tp.Sequential(tp.Conv(8, 12, (3,)), tp.Conv(12, 4, (1,))))
    assert made[0].weight.dtype is tp.int8 and made[1].weight.dtype is tp.float32
    assert np.array_equal(made(x).numpy(), source(x).numpy())
    for other in (tp.Conv(8, 12, (2,)), tp.Linear(24, 12)):
        with pytest.raises(tp.TripyException, match="got a"):
            tq.to_tripy(source, tp.Sequential(other, tp.Conv(12, 4, (1,))))


@pytest.mark.parametrize("bits", [8, (4, 3)])
@pytest.mark.parametrize("weights", [True, False])
def test_keys_and_values_are_rounded_in_the_graph(bits, weights):
    model, x = filled(Attention()), data(2, 12, 16)
    y = model.c_attn(x).numpy()
    before, wanted = copy.copy(model.c_attn), model(x).numpy()
    config = tq.INT8_WEIGHT_ONLY_CFG if weights else tq.QuantizationConfig(())
    tq.quantize(model, config.with_kv_cache(bits), lambda: model(x).eval())
    state, bound = tq.describe(model)["c_attn"], {8: 127, (4, 3): 448}[bits]
    for name, quantizer, part in (
        ("key_scale", state.key_quantizer, y[..., 16:32]),
        ("value_scale", state.value_quantizer, y[..., 32:]),
    ):
        scale = np.abs(part).max() / bound
        assert float(model.state_dict()[f"c_attn.{name}"].numpy()) == pytest.approx(scale, rel=1e-6)
        assert float(quantizer.scale) == pytest.approx(scale, rel=1e-6)
    if not weights:
        got = model.c_attn(x).numpy()
        assert np.array_equal(got[..., :16], y[..., :16])
        torch.testing.assert_close(
            state.key_quantizer(torch.from_numpy(y[..., 16:32])), torch.from_numpy(got[..., 16:32])
        )
    assert 20 < sqnr(wanted, model(x).numpy()) < 60
    assert isinstance(model.c_attn, type(before)) and not hasattr(model.c_proj, "key_scale")
    compiled = tp.compile(model, args=[tp.InputInfo((2, 12, 16), tp.float32)])
    assert sqnr(model(x).numpy(), compiled(x).numpy()) > 50
    assert "keys" in str(model.c_attn)


def test_a_cache_comes_along_to_another_module_and_goes_with_a_failure(monkeypatch):
    source, x = filled(Attention()), data(2, 12, 16)
    config = tq.QuantizationConfig(()).with_kv_cache(8)
    tq.quantize(source, config, lambda: source(x).eval())
    made = tq.to_tripy(source, Attention())
    assert np.array_equal(made(x).numpy(), source(x).numpy())

    model = filled(Attention())
    wanted, kind = model(x).numpy(), type(model.c_attn)
    with monkeypatch.context() as patch:  # With small weights, and without the scales of keys.
        patch.setattr("tripy.quantization.cached.Declaration", None)
        with pytest.raises(TypeError):
            tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG.with_kv_cache(8), lambda: model(x).eval())
    assert type(model.c_attn) is kind and np.array_equal(model(x).numpy(), wanted)

    def full(*_):
        raise MemoryError

    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules["tripy.quantization.quantize"], "remember", full)
    with pytest.raises(MemoryError):
        tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG.with_kv_cache(8), lambda: model(x).eval())
    assert type(model.c_attn) is kind and np.array_equal(model(x).numpy(), wanted)


@pytest.mark.parametrize("method", ["smoothquant", "awq"])
def test_layers_with_one_input_are_scaled_together(method):
    class Heads(tp.Module):
        def __init__(self):
            self.q, self.k, self.o = tp.Linear(64, 64), tp.Linear(64, 32), tp.Linear(32, 64)

        def forward(self, x):
            return self.q(x) + self.o(self.k(x))

    model, x = filled(Heads()), data(200, 64).numpy()
    x[:, 5] *= 40
    x = tp.Tensor(x)
    wanted = model(x).numpy()
    tq.quantize(
        model, tq.INT8_SMOOTHQUANT_CFG.with_algorithm(method, alpha=0.5), lambda: model(x).eval()
    )
    scales = {name: state.pre_quant_scale for name, state in tq.describe(model).items()}
    assert torch.equal(scales["q"], scales["k"]) and scales["o"].shape == (32,)
    assert sqnr(wanted, model(x).numpy()) > 25
