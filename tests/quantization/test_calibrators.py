"""Calibrators against brute force on the data, and against the definitions written plainly."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tripy as tp
from tripy.quantization.calibrators import (
    METHODS,
    amax_from,
    entropy_amax,
    max_amax,
    mse_amax,
    percentile_amax,
)
from tripy.quantization.formats import QuantizerConfig, fake_quantize
from tripy.quantization.histogram import Histogram

INT8, INT4, FP8 = QuantizerConfig(8), QuantizerConfig(4), QuantizerConfig((4, 3))
FORMATS = pytest.mark.parametrize("config", [INT8, INT4, FP8], ids=lambda config: str(config))


def counted(x, channels=None, bins=2048):
    histogram = Histogram(channels, bins)
    histogram.update(x)
    return histogram


def squared_error(x, config, threshold):
    """The mean squared error on the values themselves."""
    scale = torch.tensor(threshold / config.format.maxbound, dtype=torch.float32)
    return float((fake_quantize(x, scale, config).double() - x.double()).square().mean())


def best_threshold(x, config):
    """By dense search, 3% apart and then finer around the best."""
    amax = float(x.abs().max())
    tried = [amax * 0.97**step for step in range(160)]
    errors = [squared_error(x, config, threshold) for threshold in tried]
    middle = tried[int(np.argmin(errors))]
    tried = [min(amax, middle * (1 + step / 200)) for step in range(-6, 7)]
    errors = [squared_error(x, config, threshold) for threshold in tried]
    return tried[int(np.argmin(errors))], min(errors)


def samples():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(12000, generator=generator)
    uniform = torch.rand(12000, generator=generator)
    outliers = torch.full((3,), 20.0)
    return {
        "normal": normal,
        "uniform": uniform,
        "outliers": torch.cat((normal, outliers)),
        "relu": torch.relu(normal),
        "sparse": torch.cat((torch.relu(normal - 1.3), 3 * outliers)),
        "gelu": torch.nn.functional.gelu(normal),
        "laplace": torch.log(uniform.clamp(min=1e-6)) * normal.sign(),
        "heavy": torch.exp(2 * normal),
        "tiny": 1e-12 * normal,
        "huge": 1e30 * normal,
    }


SAMPLES = samples()


@FORMATS
@pytest.mark.parametrize("kind", SAMPLES)
def test_mse_is_the_best_of_a_dense_search_on_the_data(kind, config):
    x = SAMPLES[kind]
    if kind == "huge":  # Whose squares are no float32, but are compared as float64.
        assert math.isfinite(squared_error(x, config, 1e30))
    chosen = float(mse_amax(counted(x), config))
    _, least = best_threshold(x, config)
    # int4 reaches one further down, 8 to 7: what a histogram, which has no signs, cannot see.
    bound = 1.02 if config is INT4 else 1.01
    assert squared_error(x, config, chosen) <= bound * least


def test_mse_with_twenty_outliers_among_200_000():
    """The threshold itself: within 5% of the best for the values, which is near the outliers."""
    torch.manual_seed(0)
    x = torch.cat((torch.randn(200_000), torch.full((20,), 20.0)))
    chosen = float(mse_amax(counted(x), INT8))
    # The error of clipping n of N outliers A and of rounding, n (A - T)^2 / N + T^2 / (12 * 127^2),
    # is least at T = A / (1 + N / (12 * 127^2 * n)).
    expected = 20 / (1 + 200_020 / (12 * 127**2 * 20))
    assert abs(chosen / expected - 1) < 0.05
    wanted = squared_error(x, INT8, chosen)
    assert all(wanted < 1.01 * squared_error(x, INT8, expected * by) for by in (0.95, 1, 1.05))
    assert wanted < 0.1 * squared_error(x, INT8, 5.13)
    # With one such outlier the best is far below it.
    x = x[:-19]
    chosen, expected = float(mse_amax(counted(x), INT8)), 20 / (1 + 200_001 / (12 * 127**2))
    assert expected < 10 and abs(chosen / expected - 1) < 0.05


@pytest.mark.parametrize("method", METHODS)
@FORMATS
def test_channels_are_chosen_by_themselves(method, config):
    x = torch.stack([SAMPLES[kind][:5000] for kind in ("normal", "relu", "heavy", "tiny")], -1)
    together = amax_from(counted(x, 4), method, config)
    assert together.shape == (4,) and together.dtype == torch.float32
    for channel in range(4):
        alone = amax_from(counted(x[:, channel]), method, config)
        assert alone.shape == () and alone.dtype == torch.float32
        torch.testing.assert_close(together[channel], alone, rtol=1e-6, atol=0)


def test_max_is_exact():
    x = SAMPLES["heavy"]
    histogram = counted(-x)
    assert float(max_amax(histogram)) == float(x.max())
    assert max_amax(histogram) is not histogram.amax


@given(
    st.integers(1, 500),
    st.integers(0, 1000),
    st.sampled_from([0.1, 25, 50, 99.0, 99.9, 99.99, 100]),
)
def test_percentile_is_that_of_numpy_to_a_bin(count, seed, percentile):
    x = torch.tensor(np.random.default_rng(seed).standard_normal(count), dtype=torch.float32)
    histogram = counted(x)
    chosen = float(percentile_amax(histogram, percentile))
    exact = float(np.quantile(x.abs().numpy(), percentile / 100, method="inverted_cdf"))
    assert abs(chosen - exact) <= float(histogram.bin_width)
    assert 0 < chosen <= float(histogram.amax)


def test_percentile_of_whole_numbers_of_values():
    """0.9999 as a float is above 9999 in 10,000, and would ask for the outlier."""
    x = torch.cat((torch.linspace(0, 1, 9999), torch.tensor([1000.0])))
    assert float(percentile_amax(counted(x), 99.99)) < 2
    assert float(percentile_amax(counted(x), 99.995)) > 999
    assert float(percentile_amax(counted(x), 100)) == 1000
    zeros = torch.cat((torch.zeros(900), torch.linspace(0, 1, 100)))
    assert abs(float(percentile_amax(counted(zeros), 95)) - 0.5) < 0.02


@pytest.mark.parametrize("percentile", [0, -1, 100.1, math.nan, "99", None, True])
def test_percentiles_that_are_none(percentile):
    with pytest.raises(tp.TripyException, match=r"fc1: percentile"):
        amax_from(counted(torch.ones(1)), "percentile", INT8, percentile=percentile, name="fc1")


def level(index, stop, config):
    """The level that bin ``index`` of ``stop`` is told apart as."""
    if config is INT8:
        return index * 128 // stop
    if config is INT4:
        return index * 8 // stop
    value = torch.tensor((index + 0.5) * 448 / stop)
    return float(value.to(torch.float8_e4m3fn))


def slow_entropy(counts, config):
    """The definition, a bin at a time; returns the divergence of each threshold in bins."""
    counts = [float(count) for count in counts]
    last = max(index for index, count in enumerate(counts) if count) + 1
    counts[0] = counts[1]
    found = {}
    for stop in range(128, last + 1):
        reference = counts[:stop]
        reference[-1] += sum(counts[stop:])
        members = {}
        for index in range(stop):
            if counts[index]:
                members.setdefault(level(index, stop, config), []).append(index)
        candidate = [0.0] * stop
        for indices in members.values():
            for index in indices:
                candidate[index] = sum(counts[i] for i in indices) / len(indices)
        p_sum, q_sum = sum(reference), sum(candidate)
        divergence = 0.0
        for p, q in zip(reference, candidate):
            if p and not q:
                divergence = math.inf
            elif p:
                divergence += p / p_sum * math.log((p / p_sum) / (q / q_sum))
        found[stop] = divergence
    return found


@FORMATS
@pytest.mark.parametrize("kind", ["normal", "outliers", "sparse", "laplace", "heavy"])
def test_entropy_is_the_definition(kind, config):
    histogram = counted(SAMPLES[kind][-4000:], bins=512)
    slow = slow_entropy(histogram.counts.tolist(), config)
    least = min(slow.values())
    stop = max(stop for stop, divergence in slow.items() if divergence <= least + 1e-9)
    expected = min(stop * float(histogram.bin_width), float(histogram.amax))
    assert float(entropy_amax(histogram, config)) == pytest.approx(expected, rel=1e-6)


@FORMATS
def test_entropy_clips_the_outliers_of_many_values(config):
    torch.manual_seed(0)
    x = torch.cat((torch.randn(200_000), torch.full((20,), 20.0)))
    assert 2 < float(entropy_amax(counted(x), config)) < 6


@FORMATS
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [2.0**-149, 1e-35, 0.7, 1.0, 3.4e38])
def test_a_single_value_is_kept(method, config, value):
    x = torch.tensor([0.0, value, -value])
    histogram = counted(x)
    amax = float(histogram.amax)
    chosen = float(amax_from(histogram, method, config))
    assert 0.98 * amax <= chosen <= amax


def test_refusals_name_the_tensor():
    bad = counted(torch.ones(3))
    bad.update(torch.tensor([1.0, math.nan]))
    for method in METHODS:
        for histogram, text in (
            (Histogram(), "saw no data"),
            (Histogram(3), "saw no data"),
            (counted(torch.zeros(5)), "amax is zero"),
            (bad, "update 1 "),
        ):
            with pytest.raises(tp.TripyException, match=rf"(?s)^h\.3\.fc1.*{text}") as caught:
                amax_from(histogram, method, INT8, name="h.3.fc1")
            assert "expected:" in str(caught.value) and "try:" in str(caught.value)
        with pytest.raises(tp.TripyException, match=r"(?s)zero.*in 1 of 3 channels: 1\n"):
            amax_from(counted(torch.tensor([1.0, 0.0, 2.0]), 3), method, INT8)
    with pytest.raises(tp.TripyException, match=r"(?s)no such calibrator.*'kl'.*max or percentile"):
        amax_from(counted(torch.ones(3)), "kl", INT8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
@FORMATS
def test_a_histogram_on_a_gpu(method, config):
    histogram = counted(SAMPLES["outliers"].view(-1, 1), 1)
    chosen = amax_from(histogram.to("cuda"), method, config)
    assert chosen.device.type == "cuda"
    assert torch.equal(chosen.cpu(), amax_from(histogram, method, config))
