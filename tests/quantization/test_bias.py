"""Where weights are clipped by the output's error, the bias takes up the mean of that error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import as_tripy, inputs, mlp, sqnr

BLOCKS = tq.Rule("*weight_quantizer", (tq.QuantizerConfig(4, block_size=32),))
AWQ = tq.INT4_AWQ_CFG.with_rules(BLOCKS)
W4A8 = tq.W4A8_INT8_CFG.with_rules(BLOCKS)
CLIPPED = tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG.with_rules(BLOCKS).with_algorithm(
    "max", weight_calibrator="mse", sample_tokens=768
)
INT8 = tq.INT8_DEFAULT_CFG.with_algorithm("max", weight_calibrator="mse")


def shifted(tokens: int = 512, by: float = 1.0) -> torch.Tensor:
    """Inputs whose means are not zero; kept tokens are the same, as bfloat16 holds them."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, 128, generator=random)
    x += by * torch.randn(128, generator=random)
    return x.bfloat16().float()


@pytest.mark.parametrize("config", [AWQ, W4A8, CLIPPED, INT8])
def test_means_of_outputs_stay(config):
    model, x = mlp()[:1], shifted(256)
    before, wanted = model[0].bias, model(x)
    unmoved = before.clone()
    tq.quantize(model, config, lambda: model(x))
    state = tq.describe(model)["0"]
    error = wanted - model(x)
    assert float(error.mean(0).abs().max()) < 1e-4 * float(wanted.abs().max())
    assert float(error.square().mean()) > 0  # What is left varies from token to token.
    assert torch.equal(before, unmoved)  # The model's own parameter is as it was.
    assert state.search["bias"] == "corrected" and not torch.equal(state.bias, before)
    assert isinstance(model[0].bias, torch.nn.Parameter)
    assert model[0].bias.requires_grad is before.requires_grad
    assert torch.equal(model.state_dict()["0.bias"], state.bias)


def test_thresholds_spend_nothing_on_means_that_the_bias_takes_up():
    """Of inputs with a mean, what varies is quantized better in a layer with a bias."""
    x, new, errors = shifted(1024, by=3), inputs(1024), []
    for bias in (True, False):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(128, 256, bias=bias)).requires_grad_(False)
        wanted = model(new)
        tq.quantize(model, AWQ, lambda m=model: m(x))
        varying = wanted - model(new)
        errors.append(float((varying - varying.mean(0)).square().sum()))
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize(
    ("config", "tokens"),
    [(AWQ, 31), (tq.INT4_GPTQ_CFG, 512), (tq.INT8_DEFAULT_CFG, 512), (tq.INT8_SMOOTHQUANT_CFG, 512),
     (tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, 512)],
)  # fmt: skip
def test_other_biases_are_left_alone(config, tokens):
    """Of algorithms that do not clip by the output's error, and of few tokens."""
    model, x = mlp()[:1], shifted(tokens)
    before = model[0].bias
    tq.quantize(model, config, lambda: model(x))
    assert model[0].bias is before and "bias" not in tq.describe(model)["0"].search


def test_a_layer_without_one_gets_none():
    model, x = torch.nn.Sequential(torch.nn.Linear(128, 64, bias=False)), shifted()
    tq.quantize(model, AWQ, lambda: model(x))
    assert model[0].bias is None and "bias" not in tq.describe(model)["0"].search


def test_half_precision_keeps_its_type():
    model, x = mlp()[:1].half(), shifted().half()
    tq.quantize(model, AWQ, lambda: model(x))
    assert model[0].bias.dtype is torch.float16


def test_tripy_modules_and_transfer():
    source, x = mlp(), shifted()
    module, given, wanted = as_tripy(source), tp.Tensor(x), source(x)
    tq.quantize(source, AWQ, lambda: source(x))
    tq.quantize(module, AWQ, lambda m: m(given).eval())
    moved = tq.to_tripy(source, as_tripy(mlp()))
    for name in ("0", "2"):
        assert tq.describe(source)[name].search["bias"] == "corrected"
        for each in (module, moved):
            np.testing.assert_allclose(
                tq.describe(each)[name].bias, tq.describe(source)[name].bias, rtol=1e-3, atol=1e-4
            )
    assert sqnr(source(x), moved(given).numpy()) > 50
    assert sqnr(wanted, module(given).numpy()) > 18
    fast = tp.compile(module, args=[tp.InputInfo(tuple(x.shape), tp.float32)])
    assert sqnr(module(given).numpy(), fast(given).numpy()) > 40


@pytest.mark.parametrize("make", [mlp, lambda: as_tripy(mlp())])
def test_what_is_only_tried_changes_nothing(make):
    model, x = make(), shifted()
    given = x if isinstance(model, torch.nn.Module) else tp.Tensor(x)
    before = tq.describe(model)["0"].bias.clone()
    tq.sensitivity(model, AWQ, lambda m: np.asarray(m(given)), evaluate=lambda: model(given))
    assert torch.equal(tq.describe(model)["0"].bias, before)
