"""Thresholds read from a histogram: the magnitude that a format's largest value stands for.

Every method reads the same histogram, computes in float64 on the CPU, and gives float32 on the
histogram's device. None tells values apart that share a bin: what is chosen is known to a bin, of
which 1,024 to 2,048 reach to the largest magnitude. No threshold is above that magnitude.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch

from tripy.errors import TripyException
from tripy.quantization.formats import FORMATS, Bits, QuantizerConfig
from tripy.quantization.histogram import Histogram

METHODS = ("max", "percentile", "entropy", "mse")
FIRST = 128  # The least threshold that entropy tries, in bins, as the field does.
STEPS = 64  # The thresholds that mse tries in each doubling: 1.1% apart.


def amax_from(
    histogram: Histogram,
    method: str,
    config: QuantizerConfig,
    *,
    percentile: float = 99.99,
    name: str = "the tensor",
) -> torch.Tensor:
    """The threshold that a method chooses.

    Args:
        histogram: Of the tensor's magnitudes.
        method: "max", the largest; "percentile", below which so many percent are; "entropy", where
            the divergence of the rounded distribution is least; "mse", where the squared error is.
        config: What the tensor is rounded to.
        percentile: For that method; above 0, to 100.
        name: Of the tensor, for messages.

    Returns:
        float32, () or [channels].

    Raises:
        TripyException: For another method; for a histogram that is empty, has seen NaN or infinity,
            or is (in any of its channels) of zeros only.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> histogram = tq.Histogram()
        >>> histogram.update(torch.cat((torch.randn(10000), torch.tensor([50.0]))))
        >>> bool(tq.amax_from(histogram, "mse", tq.QuantizerConfig(8)) < 50)
        True
    """
    if method == "max":
        return max_amax(histogram, name=name)
    if method == "percentile":
        return percentile_amax(histogram, percentile, name=name)
    if method == "entropy":
        return entropy_amax(histogram, config, name=name)
    if method == "mse":
        return mse_amax(histogram, config, name=name)
    raise TripyException(
        f"{name}: there is no such calibrator.", got=repr(method), expected=" or ".join(METHODS)
    )


def max_amax(histogram: Histogram, *, name: str = "the tensor") -> torch.Tensor:
    """The largest magnitude, exactly: nothing is clipped.

    Args, returns and raises: as :func:`amax_from`.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> from tripy.quantization.calibrators import max_amax
        >>> histogram = tq.Histogram()
        >>> histogram.update(torch.tensor([0.5, -3.0]))
        >>> float(max_amax(histogram))
        3.0
    """
    _checked(histogram, name)
    return histogram.amax.clone()


def percentile_amax(
    histogram: Histogram, percentile: float = 99.99, *, name: str = "the tensor"
) -> torch.Tensor:
    """The least threshold with so many percent of all values, zeros too, at or below it.

    It is the ``ceil(percentile / 100 * total)``-th smallest magnitude, to a bin: the values of a
    bin are taken to be spread evenly.

    Args, returns and raises: as :func:`amax_from`.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> from tripy.quantization.calibrators import percentile_amax
        >>> histogram = tq.Histogram()
        >>> histogram.update(torch.linspace(0, 1, 10000))
        >>> round(float(percentile_amax(histogram, 90)), 2)
        0.9
    """
    number = isinstance(percentile, (int, float)) and not isinstance(percentile, bool)
    if not number or not 0 < percentile <= 100:
        raise TripyException(
            f"{name}: percentile is not usable.",
            got=repr(percentile),
            expected="a number above 0, to 100",
            hint="99.99",
        )
    counts = _checked(histogram, name)
    below = counts.cumsum(-1)
    # 0.9999 is not a float: of 10,000 values it would ask for a little more than 9,999.
    share = Fraction(str(percentile)) / 100
    ranks = np.array([[-(-int(total) * share // 1)] for total in below[:, -1]], dtype=np.int64)
    index = (below < ranks).sum(-1, keepdims=True)
    there = np.take_along_axis(counts, index, -1)
    before = np.take_along_axis(below, index, -1) - there
    return _threshold(histogram, (index + (ranks - before) / there)[:, 0])


def entropy_amax(
    histogram: Histogram, config: QuantizerConfig, *, name: str = "the tensor"
) -> torch.Tensor:
    """The threshold whose rounded distribution diverges least from the clipped one.

    For each candidate i, from 128 bins on: P is the histogram's first i bins with all above added
    to the last of them; Q is what is left of the histogram's first i bins if only the format's
    levels are told apart, each level's count spread evenly over those of its bins that are not
    empty. The choice is the i with the least KL(P || Q), the largest of equal ones (S. Migacz,
    8-bit inference with TensorRT, GTC 2017). For int8 the bins are shared evenly by 128 levels, for
    int4 by 8. The definition does not name fp8: here a bin belongs to the fp8 value that its middle
    is rounded to. The first bin, full of exact zeros in many networks, says nothing about a
    threshold: it counts as the second does, as in pytorch-quantization.
    Where all bins below a few outliers are empty, nothing can be clipped: it chooses the largest.

    Args, returns and raises: as :func:`amax_from`.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> from tripy.quantization.calibrators import entropy_amax
        >>> histogram = tq.Histogram()
        >>> histogram.update(torch.cat((torch.randn(200000), torch.full((20,), 20.0))))
        >>> bool(entropy_amax(histogram, tq.QuantizerConfig(8)) < 6)
        True
    """
    counts = _checked(histogram, name)
    starts = _level_starts(config.num_bits, histogram.bins)
    return _threshold(histogram, np.array([_entropy(row, starts) for row in counts]))


def mse_amax(
    histogram: Histogram, config: QuantizerConfig, *, name: str = "the tensor"
) -> torch.Tensor:
    """The threshold with the least expected squared error of rounding and clipping.

    The values of a bin are taken to be spread evenly, and the error is integrated over it; what the
    first bin has more than the second is taken for exact zeros, which have no error. Tried are
    thresholds of one bin and more, 1.1% apart. Clipping is at the largest value on either side:
    that int8 and int4 reach one further down is left out, since a histogram knows no signs.

    Args, returns and raises: as :func:`amax_from`.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> from tripy.quantization.calibrators import mse_amax
        >>> histogram = tq.Histogram()
        >>> histogram.update(torch.cat((torch.randn(10000), torch.tensor([50.0]))))
        >>> float(mse_amax(histogram, tq.QuantizerConfig(4))) < 5  # At 50, most would become 0.
        True
    """
    counts = _checked(histogram, name).astype(np.float64)
    counts[:, 0] = np.minimum(counts[:, 0], counts[:, 1])
    thresholds, errors = _squared_errors(config.num_bits, histogram.bins)
    expected = errors @ counts.T
    amax = histogram.amax.cpu().double() / histogram.bin_width.cpu()
    # The first candidate that reaches amax stands for amax, and the first of all is always there.
    reach = np.searchsorted(thresholds, amax.reshape(-1).numpy())
    expected[np.arange(len(thresholds))[:, None] > reach] = np.inf
    return _threshold(histogram, thresholds[expected.argmin(0)])


def _checked(histogram: Histogram, name: str) -> np.ndarray:
    """The counts, int64 [channels or 1, bins], of a histogram that says something."""
    bad = int(histogram.first_bad_update)
    if bad >= 0:
        raise TripyException(
            f"{name}: it has seen NaN or infinity.",
            got=f"values that are not finite in update {bad} (the first is 0)",
            expected="finite values",
            hint="run that batch through the model by itself; float16 overflows above 65504",
        )
    counts = histogram.counts.cpu().numpy().reshape(-1, histogram.bins)
    if not counts.any():
        raise TripyException(
            f"{name}: it saw no data.",
            got="an empty histogram",
            expected="values to count",
            hint="calibrate with data that reaches it, or leave it out",
        )
    zero = np.flatnonzero(histogram.amax.cpu().numpy().reshape(-1) == 0)
    if len(zero):
        shown = ", ".join(map(str, zero[:8])) + (", ..." if len(zero) > 8 else "")
        where = f" in {len(zero)} of {len(counts)} channels: {shown}"
        raise TripyException(
            f"{name}: amax is zero.",
            got="zeros only" + (where if histogram.channels is not None else ""),
            expected="at least one value that is not zero",
            hint="leave it out, or calibrate with data that reaches it",
        )
    return counts


def _threshold(histogram: Histogram, bins: np.ndarray) -> torch.Tensor:
    """From bins, [channels or 1], to magnitudes, not above the largest."""
    width, amax = histogram.bin_width.cpu(), histogram.amax.cpu()
    found = torch.from_numpy(bins).reshape(amax.shape) * width
    return torch.minimum(found.float(), amax).to(histogram.device)


def _entropy(counts: np.ndarray, starts: np.ndarray) -> float:
    """In bins: the threshold of least divergence for the counts of one channel, int64 [bins].

    Sums over levels are differences of running sums. With n the counts and m the mean of a level's
    bins that are not empty, P = n / total but for the last bin, and Q = m / kept, so that
    KL(P || Q) = (sum of n log n - sum of n log m) / total + log(kept / total).
    """
    last = int(np.flatnonzero(counts)[-1]) + 1
    if last <= FIRST:
        return float(last)
    histogram = counts.astype(np.float64)
    histogram[0] = histogram[1]
    filled = histogram > 0
    stops, starts = np.arange(FIRST, last + 1), starts[: last + 1 - FIRST]
    own = np.where(filled, histogram * np.log(np.where(filled, histogram, 1.0)), 0.0)
    running = _running(histogram)
    total, kept = running[-1], running[stops]
    clipped, tail = total - kept, total - running[stops - 1]
    sums = np.diff(running[starts], axis=1)
    means = np.where(sums > 0, sums, 1.0) / np.maximum(np.diff(_running(filled)[starts], axis=1), 1)
    logarithms = np.log(means)
    first = _running(own)[stops - 1] + tail * np.log(np.where(tail > 0, tail, 1.0))
    second = (sums * logarithms).sum(1) + clipped * logarithms[:, -1]
    # Else Q is zero where P is not.
    possible = (kept > 0) & ((clipped == 0) | filled[stops - 1])
    ratio = np.where(possible, kept, total) / total
    divergence = np.where(possible, (first - second) / total + np.log(ratio), np.inf)
    # What is within the rounding of the least is equal to it.
    return float(stops[np.flatnonzero(divergence <= divergence.min() + 1e-10)[-1]])


def _running(values: np.ndarray) -> np.ndarray:
    """The sums of the first 0, 1, 2, ... values."""
    return np.append(0, np.cumsum(values))


@lru_cache(maxsize=4)
def _level_starts(bits: Bits, bins: int) -> np.ndarray:
    """For thresholds from 128 bins on, the first bin of each level: [thresholds, levels + 1]."""
    stops = np.arange(FIRST, bins + 1)[:, None]
    if bits == (4, 3):
        # In 1024ths, in which the borders of fp8's values are whole. The middle of bin j, which is
        # (j + 1/2) * 448 / stop, is at or above a border from j = border * stop / 448 - 1/2 on; at
        # a border itself it goes to the even neighbour.
        values = _magnitudes(bits)
        borders = np.rint((values[1:] + values[:-1]) * 512).astype(np.int64)
        odd = np.arange(1, len(values)) % 2
        unit = 448 * 1024
        starts = -((unit // 2 - borders * stops - odd) // unit)
        starts = np.hstack((0 * stops, np.maximum(starts, 0), stops))
    else:
        levels = int(FORMATS[bits].maxbound) + 1
        starts = -(-np.arange(levels + 1) * stops // levels)
    return starts


@lru_cache(maxsize=4)
def _squared_errors(bits: Bits, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, and for each the mean squared error of each bin's values, in bins: [.., bins].

    In units of the scale, where the format's values are v, the error up to u is
    G(u) = integral of (t - v(t))^2 dt = constant of the nearest v + (u - v)^3 / 3.
    """
    count = STEPS * (bins.bit_length() - 1)
    thresholds = np.exp2(np.arange(count + 1) / STEPS)
    values = _magnitudes(bits)
    borders = (values[1:] + values[:-1]) / 2
    cubes = ((borders - values[:-1]) ** 3 - (borders - values[1:]) ** 3) / 3
    constants = _running(cubes)
    errors = np.empty((count + 1, bins))
    for row, threshold in zip(errors, thresholds):
        scale = threshold / values[-1]
        edges = np.arange(bins + 1) / scale
        nearest = np.searchsorted(borders, edges)
        integral = constants[nearest] + (edges - values[nearest]) ** 3 / 3
        row[:] = np.diff(integral) * scale**3
    return thresholds, errors


def _magnitudes(bits: Bits) -> np.ndarray:
    """The values of a format that are not negative, float64."""
    if bits == (4, 3):  # The codes up to that of 448; the next is NaN.
        codes = torch.arange(127, dtype=torch.uint8)
        return codes.view(torch.float8_e4m3fn).double().numpy()
    return np.arange(FORMATS[bits].maxbound + 1)
