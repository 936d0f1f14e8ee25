"""What the algorithms gain, on models with outliers made on purpose."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tripy.quantization as tq
from tests.quantization.support import inputs, mlp, sqnr
from tripy.quantization.algorithms.clipping import (
    FINE_RATIOS,
    SHRINKAGE,
    clipped_amax,
    jointly_clipped,
)
from tripy.quantization.formats import amax_of

W4A8_MAX = tq.W4A8_INT8_CFG.with_algorithm("max")


def with_outliers(width: int = 128, channels: int = 10, factor: float = 30.0):
    """A layer and its inputs, of which some channels are large and their weights small.

    That is how outliers come about in language models: a norm's gain is large for a few channels,
    and the next layer's weights make up for it.
    """
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(width, 256)).requires_grad_(False)
    x = inputs(1024, width)
    chosen = torch.randperm(width)[:channels]
    x[:, chosen] *= factor
    layer[0].weight[:, chosen] /= factor
    return layer, x


def quality(config, model=None) -> float:
    layer, x = with_outliers() if model is None else model
    wanted, layer = layer(x), copy.deepcopy(layer)
    tq.quantize(layer, config, lambda: layer(x))
    return sqnr(wanted, layer(x))


def test_smoothquant_recovers_what_outliers_cost():
    assert quality(tq.INT8_SMOOTHQUANT_CFG) > quality(tq.INT8_DEFAULT_CFG) + 10


def test_awq_recovers_what_outliers_cost():
    assert quality(tq.W4A8_INT8_CFG) > quality(W4A8_MAX) + 10
    assert quality(tq.INT4_AWQ_CFG) > quality(tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG) + 10


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        (tq.INT8_SMOOTHQUANT_CFG, tq.INT8_DEFAULT_CFG),
        (tq.INT4_AWQ_CFG, tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG),
        (tq.INT4_GPTQ_CFG, tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG),
    ],
)
def test_no_worse_than_max_where_there_is_nothing_to_gain(config, plain):
    model = mlp()[:1], inputs(1024)
    assert quality(config, model) > quality(plain, model) - 0.1


def test_the_curve_and_the_choice_are_kept():
    layer, x = with_outliers()
    tq.quantize(layer, tq.INT8_SMOOTHQUANT_CFG, lambda: layer(x))
    search = tq.describe(layer)["0"].search
    best = max(search["curve"], key=lambda point: point["sqnr"])
    assert best["alpha"] == search["alpha"] is not None
    assert [point["alpha"] for point in search["curve"]][1:] == pytest.approx(
        [step / 10 for step in range(11)]
    )


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_smoothquant_with_a_given_alpha(alpha):
    layer, x = with_outliers()
    weight = layer[0].weight.abs().amax(0)
    tq.quantize(
        layer, tq.INT8_SMOOTHQUANT_CFG.with_algorithm("smoothquant", alpha=alpha), lambda: layer(x)
    )
    pre = tq.describe(layer)["0"].pre_quant_scale
    wanted = (weight ** (1 - alpha) / x.abs().amax(0) ** alpha).clamp(1e-4, 1e4)
    torch.testing.assert_close(pre, wanted, rtol=1e-5, atol=0)


def test_awq_scales_are_normalised():
    layer, x = with_outliers()
    config = tq.INT4_AWQ_CFG.with_algorithm("awq", alpha=0.5)
    tq.quantize(layer, config, lambda: layer(x))
    pre = tq.describe(layer)["0"].pre_quant_scale
    assert float(pre.max() * pre.min()) == pytest.approx(1, rel=1e-4)


def test_gptq_is_better_on_inputs_that_depend_on_each_other():
    torch.manual_seed(0)
    layer = mlp()[:1]
    x = torch.randn(2048, 16) @ torch.randn(16, 128) + 0.1 * torch.randn(2048, 128)
    gain = quality(tq.INT4_GPTQ_CFG, (layer, x)) - quality(
        tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, (layer, x)
    )
    assert gain > 6


def test_gptq_weights_lie_on_the_grid():
    layer, x = mlp()[:1], inputs(512)
    tq.quantize(layer, tq.INT4_GPTQ_CFG, lambda: layer(x))
    state = tq.describe(layer)["0"]
    torch.testing.assert_close(state.rounded_weight(), state.weight.float(), rtol=1e-6, atol=1e-8)


def joint(weight, config, x):
    """Output errors, in the moments that thresholds are chosen by: alone, and together."""
    amax = amax_of(weight, config)
    errors = []
    for found in (clipped_amax(weight, amax, config, x), jointly_clipped(weight, amax, config, x)):
        error = tq.QuantizerState(config, found)(weight) - weight
        between = x.t() @ x
        moments = torch.lerp(between, between.diagonal().diag(), SHRINKAGE)
        # Within a block, moments count as they are.
        errors.append(float(((error @ moments) * error).sum()))
    return errors


@pytest.mark.parametrize("bits", [4, 8, (4, 3)])
@pytest.mark.parametrize("mixed", [0.0, 3.0])
def test_thresholds_chosen_together_are_never_worse(bits, mixed):
    torch.manual_seed(0)
    config = tq.QuantizerConfig(bits, block_size=16)
    x = torch.randn(300, 64) + mixed * torch.randn(300, 1)
    alone, together = joint(torch.randn(24, 64), config, x)
    # Where inputs depend on each other, errors of blocks cancel.
    assert together < alone * (0.8 if mixed and bits == 4 else 1)


def test_one_block_an_output_is_chosen_by_its_own_error():
    torch.manual_seed(0)
    config, x, weight = tq.QuantizerConfig(4, block_size=32), inputs(200, 32), torch.randn(20, 32)
    amax = amax_of(weight, config)
    between = x.t() @ x
    moments = torch.lerp(between, between.diagonal().diag(), SHRINKAGE)
    costs = []
    for ratio in FINE_RATIOS:
        error = tq.QuantizerState(config, amax * ratio)(weight) - weight
        costs.append(((error @ moments) * error).sum(1))
    found = jointly_clipped(weight, amax, config, x, FINE_RATIOS)
    error = tq.QuantizerState(config, found)(weight) - weight
    least = torch.stack(costs).amin(0)
    assert bool((((error @ moments) * error).sum(1) <= least * (1 + 1e-4)).all())


@pytest.mark.parametrize("config", [tq.INT8_SMOOTHQUANT_CFG, tq.INT4_AWQ_CFG])
def test_scaling_makes_no_second_copy_of_the_weights(config):
    layer, x = with_outliers()
    parameter, before = layer[0].weight, layer[0].weight.clone()
    wanted = layer(x)
    tq.quantize(layer, config, lambda: layer(x))
    state = tq.describe(layer)["0"]
    assert layer[0].weight is parameter and torch.equal(parameter, before)
    torch.testing.assert_close(state.weight, before / state.pre_quant_scale)
    # What it computes is what the state says.
    rounded = x * state.pre_quant_scale
    if state.input_quantizer is not None:
        rounded = state.input_quantizer(rounded)
    torch.testing.assert_close(
        layer(x), rounded @ state.rounded_weight().t() + state.bias, rtol=1e-4, atol=1e-4
    )
    assert sqnr(wanted, layer(x)) > 20


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("INT8_DEFAULT_CFG", {"method": "max"}),
        ("INT8_DEFAULT_CFG", {"method": "max", "calibrator": "mse"}),
        ("INT8_SMOOTHQUANT_CFG", {"method": "smoothquant", "alpha": 0.5, "sample_tokens": 256}),
        ("INT4_AWQ_CFG", {"method": "awq", "alpha": 0.5, "sample_tokens": 256}),
    ],
)
def test_quantizing_holds_little_beside_the_model(name, algorithm):
    """The tensors that are alive at once, beside the model: less than a third of its bytes.

    Counted by torch's profiler, as a process's resident memory depends on what else the machine
    does.
    """
    layers = [torch.nn.Linear(1024, 1024) for _ in range(32)]
    model = torch.nn.Sequential(*layers).requires_grad_(False)
    x = inputs(300, 1024)
    config = tq.PRESETS[name].with_algorithm(**algorithm)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        tq.quantize(model, config, lambda: model(x))
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda e: e.start_ns())]
    weights = 32 * 4 * 1024 * 1024
    assert sum(change for change in changes if change > 0) > weights  # It saw them.
    assert max(itertools.accumulate(changes)) < 0.33 * weights


@pytest.mark.parametrize("calibrator", ["max", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("config", [tq.INT8_DEFAULT_CFG, tq.FP8_DEFAULT_CFG])
def test_calibrators_of_inputs(calibrator, config):
    layer, x = mlp()[:1], inputs(1024)
    x[0, 0] = 40.0
    tq.quantize(layer, config.with_algorithm("max", calibrator=calibrator), lambda: layer(x))
    amax = float(tq.describe(layer)["0"].input_quantizer.amax)
    assert amax == 40.0 if calibrator == "max" else 2.0 < amax <= 40.0


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 6), st.sampled_from([8, 4, (4, 3)]),
    st.sampled_from(["tensor", "channel", "block"]), st.integers(0, 2**31),
)  # fmt: skip
def test_rounding_errs_by_half_a_step_at_most(rows, blocks, bits, grain, seed):
    config = {
        "tensor": tq.QuantizerConfig(bits), "channel": tq.QuantizerConfig(bits, axis=0),
        "block": tq.QuantizerConfig(bits, block_size=8),
    }[grain]  # fmt: skip
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.standard_normal((rows, 8 * blocks)).astype(np.float32))
    layer = torch.nn.Sequential(torch.nn.Linear(8 * blocks, rows)).requires_grad_(False)
    layer[0].weight.copy_(weight)
    tq.quantize(layer, tq.QuantizationConfig((tq.Rule("*weight_quantizer", (config,)),)))
    state = tq.describe(layer)["0"]
    scale = state.weight_quantizers[0].scale
    if grain != "tensor":
        scale = scale.reshape(rows, -1).repeat_interleave(weight.shape[1] // (
            blocks if grain == "block" else 1) if grain == "channel" else 8, 1)  # fmt: skip
    error = (state.rounded_weight() - weight).abs()
    # float8 has 3 bits of mantissa: half a step is a 16th of the value.
    limit = torch.maximum(weight.abs() / 16, scale * 2**-10) if bits == (4, 3) else scale / 2
    assert bool((error <= limit * (1 + 1e-4)).all())
