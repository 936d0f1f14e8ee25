"""A streamed histogram of magnitudes whose state does not depend on how the data was cut.

It has 2,048 bins over [0, 2^k). Bins are powers of two wide, so the bin of a value is exact, and
where the range has to double, pairs of bins merge. k is the smallest that the largest magnitude
needs, so the state is a function of the values alone: not of their order, nor of their batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, Union

import numpy as np
import torch

from tripy.errors import TripyException

BINS = 2048
# The range of k. Above 2^128 float32 ends. For narrower ranges than 2^-100 it would not have the
# factors that scale to bins: all smaller magnitudes are counted in bins of that range.
LOWEST, HIGHEST = -100, 128
CHUNK = 1 << 19  # Elements at a time: what is made of them stays in a processor's cache.
GPU_CHUNK = 1 << 23  # There, torch.histc counts in float32: exact up to 2^24.


class Histogram:
    """Counts of magnitudes, of a whole tensor or of each channel of its last dimension.

    Two histograms that have counted the same values are equal in every bit, however the values
    were cut into updates and whatever was merged. Nothing waits for a GPU in :meth:`update` and
    :meth:`merge`: ranges, merging of bins and the check for NaN stay on the device.

    Args:
        channels: The number of channels, or None for one histogram.
        bins: How many; a power of two from 128 to 8192.
        device: Where it lives.

    Attributes:
        counts: int64, [bins] or [channels, bins].
        exponent: int64, () or [channels]: the bins cover [0, 2^exponent). From -100 to 128; a
            histogram of nothing, or of zeros only, has -100.
        amax: float32, () or [channels]: the exact largest magnitude; 0 where there is none.
        first_bad_update: int64, (): the index of the first update with NaN or infinity, or -1. Such
            values are not counted.

    Raises:
        TripyException: For other numbers of channels or bins.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> histogram = tq.Histogram()
        >>> histogram.update(torch.tensor([0.5, -3.0]))
        >>> float(histogram.amax), int(histogram.total), histogram.bin_width.item()
        (3.0, 2, 0.001953125)
    """

    def __init__(
        self,
        channels: Optional[int] = None,
        bins: int = BINS,
        device: Union[str, torch.device] = "cpu",
    ) -> None:
        if channels is not None and not (_whole(channels) and channels > 0):
            raise _refused("channels", channels, "None, or a positive number")
        if not _whole(bins) or not 128 <= bins <= 8192 or bins & (bins - 1):
            raise _refused("bins", bins, "a power of two from 128 to 8192")
        outer = () if channels is None else (channels,)
        self.counts = torch.zeros(*outer, bins, dtype=torch.int64, device=device)
        self.exponent = torch.full(outer, LOWEST, dtype=torch.int64, device=device)
        self.amax = torch.zeros(outer, dtype=torch.float32, device=device)
        self.first_bad_update = torch.full((), -1, dtype=torch.int64, device=device)
        self._updates = 0

    @property
    def channels(self) -> Optional[int]:
        """The number of channels, or None."""
        return None if self.counts.dim() == 1 else self.counts.shape[0]

    @property
    def bins(self) -> int:
        """The number of bins."""
        return self.counts.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.counts.device

    @property
    def total(self) -> torch.Tensor:
        """How many values were counted, int64: () or [channels]."""
        return self.counts.sum(-1)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted. Waits for a GPU."""
        return not bool(self.counts.any())

    @property
    def bin_width(self) -> torch.Tensor:
        """The width of a bin, float64: () or [channels]."""
        return _power(self.exponent - _log2(self.bins)).double()

    def edges(self) -> torch.Tensor:
        """The edges of the bins, float64: [bins + 1] or [channels, bins + 1].

        Bin ``i`` holds the magnitudes from ``edges()[i]`` up to, and without, ``edges()[i + 1]``.
        """
        steps = torch.arange(self.bins + 1, dtype=torch.float64, device=self.device)
        return self.bin_width.unsqueeze(-1) * steps

    def to(self, device: Union[str, torch.device]) -> Histogram:
        """A copy on another device; itself where it is there already."""
        counts = self.counts.to(device)
        if counts is self.counts:
            return self
        moved = Histogram(self.channels, self.bins, counts.device)
        moved.counts = counts
        for name in ("exponent", "amax", "first_bad_update"):
            setattr(moved, name, getattr(self, name).to(device))
        moved._updates = self._updates
        return moved

    # What is made in inference mode could not be changed outside of it afterwards.
    @torch.inference_mode(False)
    @torch.no_grad()
    def update(self, x: torch.Tensor) -> None:
        """Counts the magnitudes of a tensor.

        Args:
            x: Floating point, on the histogram's device; [..., channels] if there are channels.
                float64 is rounded to float32, all else is exact.

        Raises:
            TripyException: For another data type, device or number of channels.
        """
        channels = self.channels
        fits = channels is None or x.shape[-1:] == (channels,)
        if not x.is_floating_point() or not fits or x.device != self.device:
            raise TripyException(
                "Histogram: the tensor cannot be counted.",
                got=f"{x.dtype}, shape {tuple(x.shape)}, on {x.device}",
                expected="floating point, "
                + (f"[..., {channels}], " if channels is not None else "")
                + f"on {self.device}",
            )
        index, self._updates = self._updates, self._updates + 1
        flat = x.detach().reshape(-1 if channels is None else (-1, channels))
        most = CHUNK if x.device.type == "cpu" else GPU_CHUNK
        pieces = -(-x.numel() // most)
        if pieces:
            for part in flat.split(-(-len(flat) // pieces)):
                self._count(part.float(), index)

    def _count(self, x: torch.Tensor, index: int) -> None:
        magnitude = x.abs()
        bad: Optional[torch.Tensor] = None
        amax = _amax(magnitude, self.channels)
        if self.device.type != "cpu" or not bool(torch.isfinite(amax).all()):
            bad = ~torch.isfinite(magnitude)
            magnitude.masked_fill_(bad, 0.0)
            amax = _amax(magnitude, self.channels)
            first = torch.where(bad.any(), index, -1)
            known = self.first_bad_update
            self.first_bad_update = torch.where(known < 0, first, known)
        self.amax = torch.maximum(self.amax, amax)
        self._widen(_exponent(self.amax))
        self._add(magnitude.mul_(_power(_log2(self.bins) - self.exponent)))
        if bad is not None:  # They were counted as zeros.
            self.counts[..., 0] -= bad.sum() if self.channels is None else bad.sum(0)

    def _add(self, scaled: torch.Tensor) -> None:
        """Counts magnitudes that were divided by the width of a bin."""
        if self.channels is None and scaled.device.type == "cpu":
            # Of all ways the fastest: torch.histc takes four times as long.
            self.counts += torch.bincount(scaled.int(), minlength=self.bins)
        elif self.channels is None and not torch.are_deterministic_algorithms_enabled():
            # bincount would wait for the GPU. histc is refused where determinism is asked for,
            # though the order of its additions does not change a whole number.
            self.counts += torch.histc(scaled, self.bins, 0, self.bins).long()
        else:
            # Channels first: a channel's counts stay in the cache for all of its values.
            bins = (scaled.t().contiguous() if self.channels is not None else scaled).long()
            one = torch.ones((), dtype=torch.int64, device=bins.device)
            self.counts.scatter_add_(-1, bins, one.expand(bins.shape))

    def _widen(self, exponent: torch.Tensor) -> None:
        """Covers [0, 2^exponent), merging as many bins as that takes."""
        if self.device.type == "cpu" and torch.equal(exponent, self.exponent):
            return
        shift = (exponent - self.exponent).clamp(max=_log2(self.bins))
        bins = torch.arange(self.bins, device=self.device) >> shift.unsqueeze(-1)
        self.counts = torch.zeros_like(self.counts).scatter_add_(-1, bins, self.counts)
        self.exponent = exponent

    @torch.inference_mode(False)
    @torch.no_grad()
    def merge(self, other: Histogram) -> Histogram:
        """Adds what another histogram has counted: as if one had counted both, in this order.

        Args:
            other: Of as many channels and bins, on any device. It stays as it is.

        Returns:
            This histogram.

        Raises:
            TripyException: For another number of channels or bins.
        """
        if (other.channels, other.bins) != (self.channels, self.bins):
            raise TripyException(
                "Histogram: only histograms of as many channels and bins can be merged.",
                got=f"channels {other.channels}, bins {other.bins}",
                expected=f"channels {self.channels}, bins {self.bins}",
            )
        theirs = other.to(self.device)
        wider = torch.maximum(self.exponent, theirs.exponent)
        added = Histogram(self.channels, self.bins, self.device)
        added.counts, added.exponent = theirs.counts, theirs.exponent
        added._widen(wider)
        self._widen(wider)
        self.counts = self.counts + added.counts
        self.amax = torch.maximum(self.amax, theirs.amax)
        bad = theirs.first_bad_update
        after = torch.where(bad < 0, -1, bad + self._updates)
        self.first_bad_update = torch.where(self.first_bad_update < 0, after, self.first_bad_update)
        self._updates += theirs._updates
        return self

    def state(self) -> dict[str, np.ndarray]:
        """All of it as numpy arrays, copies; :meth:`from_state` takes them. Waits for a GPU.

        Returns:
            counts, exponent and amax as the attributes are, and updates: int64 [2], how many
            updates there were and the index of the first bad one.
        """
        return {
            "counts": self.counts.cpu().numpy().copy(),
            "exponent": self.exponent.cpu().numpy().copy(),
            "amax": self.amax.cpu().numpy().copy(),
            "updates": np.array([self._updates, int(self.first_bad_update)], dtype=np.int64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Histogram:
        """From what :meth:`state` gives; on the CPU.

        Raises:
            TripyException: For something else.
        """
        try:
            arrays = [np.asarray(state[name]) for name in ("counts", "exponent", "amax", "updates")]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _no_state(f"{type(error).__name__}: {error}") from None
        counts, exponent, amax, updates = arrays
        fits = (
            counts.dtype == exponent.dtype == updates.dtype == np.int64
            and amax.dtype == np.float32
            and counts.ndim in (1, 2)
            and exponent.shape == amax.shape == counts.shape[:-1]
            and updates.shape == (2,)
        )
        if not fits:
            raise _no_state(", ".join(f"{array.dtype} {array.shape}" for array in arrays))
        made = cls(counts.shape[0] if counts.ndim == 2 else None, counts.shape[-1])
        made.counts, made.exponent, made.amax = (torch.from_numpy(a.copy()) for a in arrays[:3])
        made._updates, made.first_bad_update = int(updates[0]), torch.tensor(int(updates[1]))
        if not -1 <= updates[1] < max(updates[0], 1) or not made._is_whole():
            raise _no_state("counts, exponent, amax and updates that contradict one another")
        return made

    def _is_whole(self) -> bool:
        """Whether the counts, the range and the largest magnitude fit together."""
        if not bool((torch.isfinite(self.amax) & (self.amax >= 0)).all()):
            return False
        if not torch.equal(self.exponent, _exponent(self.amax)) or bool((self.counts < 0).any()):
            return False
        filled = self.counts > 0
        last = self.bins - 1 - filled.flip(-1).int().argmax(-1)  # The first of equals is found.
        top = (self.amax * _power(_log2(self.bins) - self.exponent)).long()
        return bool(torch.where(filled.any(-1), last == top, self.amax == 0).all())


def _amax(magnitude: torch.Tensor, channels: Optional[int]) -> torch.Tensor:
    return magnitude.amax() if channels is None else magnitude.amax(0)


def _exponent(amax: torch.Tensor) -> torch.Tensor:
    """The smallest e, from LOWEST on, with amax < 2^e."""
    exponent = torch.frexp(amax)[1].long()
    return torch.where(amax > 0, exponent.clamp(min=LOWEST), LOWEST)


def _power(exponent: torch.Tensor) -> torch.Tensor:
    """2^exponent in float32, from -126 to 127, exactly: made of its bits."""
    return ((exponent + 127) << 23).to(torch.int32).view(torch.float32)


def _log2(bins: int) -> int:
    return bins.bit_length() - 1


def _whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _refused(name: str, got: Any, expected: str) -> TripyException:
    return TripyException(f"Histogram: {name} is not usable.", got=repr(got), expected=expected)


def _no_state(got: str) -> TripyException:
    return TripyException(
        "Histogram: the state is none.",
        got=got,
        expected="what Histogram.state() gives",
        hint="calibrate again, or take the file as it was saved",
    )
