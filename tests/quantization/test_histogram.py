"""Histograms: their state is a function of the values, whatever way they came."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tripy as tp
from tripy.quantization.histogram import CHUNK, LOWEST, Histogram

MAXIMUM = float(np.finfo(np.float32).max)
SUBNORMAL = 2.0**-149
SPECIAL = [0.0, -0.0, SUBNORMAL, -(2.0**-126), 2.0**-100, 2.0**-111, 1.0, -2.0, MAXIMUM, -65504.0]
VALUES = st.one_of(
    st.sampled_from(SPECIAL),
    st.floats(-10, 10, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def counted(*batches, channels=None):
    histogram = Histogram(channels)
    for batch in batches:
        histogram.update(batch)
    return histogram


def same(first, second):
    a, b = first.state(), second.state()
    for name in ("counts", "exponent", "amax"):
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name
    return True


def by_hand(x, bins=2048):
    """The definition, in exact arithmetic of float64 on numpy."""
    x = np.abs(x.double().numpy().ravel())
    amax = x.max(initial=0.0)
    k = LOWEST
    while amax >= 2.0**k:
        k += 1
    index = np.floor(x * 2.0**-k * bins).astype(np.int64)
    return np.bincount(index, minlength=bins), k, amax


@given(st.lists(VALUES, max_size=60), st.data())
def test_any_cut_and_order_give_the_same_bits(values, data):
    x = torch.tensor(values, dtype=torch.float32)
    whole = counted(x)
    counts, k, amax = by_hand(x)
    assert whole.counts.tolist() == counts.tolist()
    assert int(whole.exponent) == k and float(whole.amax) == amax
    assert int(whole.total) == len(values) and whole.is_empty == (not values)
    order = data.draw(st.permutations(range(len(values))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    parts = np.split(x.numpy()[list(order)], cuts)
    assert same(counted(*map(torch.from_numpy, parts)), whole)
    middle = len(parts) // 2
    first, second = (
        counted(*map(torch.from_numpy, half)) for half in (parts[:middle], parts[middle:])
    )
    before = second.state()
    assert first.merge(second) is first
    assert same(first, whole)
    assert all((before[name] == value).all() for name, value in second.state().items())


@given(st.integers(1, 5), st.integers(0, 8), st.integers(0, 1000), st.integers(0, 7))
def test_channels_are_histograms_of_their_own(channels, rows, seed, cut):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-40, 35, channels)
    x = torch.tensor(rng.standard_normal((2, rows, channels)) * scales, dtype=torch.float32)
    together = counted(x[:, :cut], x[:, cut:], channels=channels)
    assert together.channels == channels
    for channel in range(channels):
        alone = counted(x[..., channel])
        for name in ("counts", "exponent", "amax", "total", "bin_width"):
            assert torch.equal(getattr(together, name)[channel], getattr(alone, name)), name
        assert torch.equal(together.edges()[channel], alone.edges())
    halves = [counted(part, channels=channels) for part in (x[0], x[1])]
    assert same(halves[0].merge(halves[1]), together)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_data_types_mix(dtype):
    torch.manual_seed(0)
    small, large = torch.randn(1000).to(dtype), 30 * torch.randn(50, 7)
    mixed = counted(small, large)
    assert same(mixed, counted(large.T, small.float()))


def test_extreme_scales():
    """A first batch of scale 1e-3, then one of 10: elsewhere, 19.4 million bins."""
    torch.manual_seed(0)
    small, large = 1e-3 * torch.randn(5000), 10 * torch.randn(5000)
    both = counted(small, large)
    assert both.counts.shape == (2048,) and int(both.total) == 10000
    assert same(both, counted(large, small))
    assert same(both, counted(torch.cat((large, small))))
    assert float(both.amax) < 2.0 ** int(both.exponent) <= 2 * float(both.amax)
    assert float(both.bin_width) == 2.0 ** (int(both.exponent) - 11)
    assert both.edges().shape == (2049,) and float(both.edges()[-1]) == 2.0 ** int(both.exponent)


def test_more_than_a_chunk():
    torch.manual_seed(0)
    x = torch.randn(2 * CHUNK + 3)
    whole = counted(x)
    counts, k, amax = by_hand(x)
    assert whole.counts.tolist() == counts.tolist()
    assert (int(whole.exponent), float(whole.amax)) == (k, amax)
    assert same(counted(x[: 2 * CHUNK].view(-1, 8), channels=8).merge(Histogram(8)),
                counted(*x[: 2 * CHUNK].view(-1, 8).chunk(5), channels=8))  # fmt: skip


def test_nothing_zeros_and_powers_of_two():
    assert same(counted(torch.empty(0)), Histogram()) and Histogram().is_empty
    zeros = counted(torch.zeros(3), torch.tensor(-0.0))
    assert (float(zeros.amax), int(zeros.total), int(zeros.exponent)) == (0.0, 4, LOWEST)
    assert not zeros.is_empty
    for power in (-149, -111, -100, -1, 0, 1, 127):
        edge = counted(torch.tensor([2.0**power]))
        assert int(edge.exponent) == max(power + 1, LOWEST)
        assert int(edge.counts.argmax()) == (2.0 ** (power + 11 - int(edge.exponent)) // 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("channels", [None, 2])
def test_what_is_not_finite_is_remembered_and_not_counted(bad, channels):
    good, mixed = torch.tensor([[1.0, 0.0], [0.5, 3.0]]), torch.tensor([[1.0, bad], [0.5, 3.0]])
    histogram = counted(good, channels=channels)
    assert int(histogram.first_bad_update) == -1
    histogram.update(mixed)
    assert int(histogram.first_bad_update) == 1
    histogram.update(mixed)
    assert int(histogram.first_bad_update) == 1
    assert int(histogram.total.sum()) == 10
    assert float(histogram.amax.max()) == 3
    expected = counted(good, good, good, channels=channels)
    expected.counts[..., 0] -= 2 if channels is None else torch.tensor([0, 2])
    assert same(histogram, expected)
    assert int(counted(good, good, channels=channels).merge(histogram).first_bad_update) == 3
    assert int(histogram.merge(counted(mixed, channels=channels)).first_bad_update) == 1


@pytest.mark.parametrize("channels", [None, 3])
def test_state_round_trip(channels):
    torch.manual_seed(0)
    histogram = counted(torch.randn(20, 3), torch.full((1, 3), torch.nan), channels=channels)
    state = histogram.state()
    again = Histogram.from_state(state)
    assert same(again, histogram) and again.first_bad_update == 1
    for one in (again, histogram):
        one.update(100 * torch.ones(4, 3))
    assert same(again, histogram)
    assert state["amax"].max() < 100  # What was handed out stays as it was.
    assert same(Histogram.from_state(Histogram(channels).state()), Histogram(channels))


def broken():
    good = counted(torch.tensor([1.0, 2.0])).state()
    yield {}
    yield None
    yield [1, 2]
    yield {**good, "counts": good["counts"].astype(np.float64)}
    yield {**good, "counts": good["counts"][:-1]}
    yield {**good, "counts": good["counts"][:, None, None]}
    yield {**good, "counts": -good["counts"]}
    yield {**good, "counts": np.roll(good["counts"], 1)}
    yield {**good, "counts": 0 * good["counts"]}
    yield {**good, "amax": np.float32("nan")}
    yield {**good, "amax": np.ones(2, np.float32)}
    yield {**good, "exponent": good["exponent"] + 1}
    yield {**good, "updates": np.array([1])}
    yield {**good, "updates": np.array([1, 5])}
    yield {key: value for key, value in good.items() if key != "amax"}


@pytest.mark.parametrize("state", list(broken()))
def test_a_malformed_state_is_refused(state):
    with pytest.raises(tp.TripyException, match="Histogram"):
        Histogram.from_state(state)


@pytest.mark.parametrize("arguments", [
    {"channels": 0}, {"channels": 2.0}, {"channels": True}, {"bins": 100}, {"bins": 64},
    {"bins": 1 << 14}, {"bins": 2048.0},
])  # fmt: skip
def test_sizes_that_are_none(arguments):
    with pytest.raises(tp.TripyException, match="is not usable"):
        Histogram(**arguments)


def test_misfits():
    for channels, x in ((None, torch.ones(3, dtype=torch.int32)), (3, torch.ones(3, 4)),
                        (3, torch.tensor(1.0)), (None, torch.ones(3, device="meta"))):  # fmt: skip
        with pytest.raises(tp.TripyException, match="cannot be counted"):
            Histogram(channels).update(x)
    for other in (Histogram(2), Histogram(bins=256)):
        with pytest.raises(tp.TripyException, match="can be merged"):
            Histogram().merge(other)


def test_other_bins_and_merging_with_itself():
    x = torch.randn(500)
    coarse = Histogram(bins=256)
    coarse.update(x)
    assert coarse.counts.tolist() == counted(x).counts.view(256, 8).sum(1).tolist()
    assert same(Histogram.from_state(coarse.state()), coarse)
    assert same(coarse.merge(coarse).to("cpu"), coarse) and int(coarse.total) == 1000


def test_inside_and_outside_of_inference_mode():
    x = torch.randn(100, requires_grad=True)
    histogram = Histogram()
    with torch.inference_mode():
        histogram.update(x * 2)
        inside = x * 8
    histogram.update(inside)
    histogram.update(x)
    assert same(histogram, counted(x * 2, x * 8, x))
    assert not histogram.counts.is_inference() and not histogram.amax.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("channels", [None, 5])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_gpu_counts_the_same_without_waiting(channels, deterministic):
    torch.manual_seed(0)
    batches = [scale * torch.randn(999, 5) for scale in (1e-42, 1e-3, 10, 1e30)]
    batches[1][3, 3] = torch.nan
    batches.append(torch.tensor([SPECIAL]).view(2, 5))
    on_gpu, moved = Histogram(channels, device="cuda"), [x.cuda() for x in batches]
    other = Histogram(channels, device="cuda")
    torch.cuda.synchronize()
    torch.use_deterministic_algorithms(deterministic)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for x in moved[:3]:
            on_gpu.update(x)
        for x in moved[3:]:
            other.update(x)
        on_gpu.merge(other)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.use_deterministic_algorithms(False)
    expected = counted(*batches, channels=channels)
    assert same(on_gpu, expected) and int(on_gpu.first_bad_update) == 1
    assert on_gpu.to("cuda") is on_gpu and same(on_gpu.to("cpu"), expected)
