"""What the layers of a model see while a user's loop runs it.

For each layer a histogram of its input's magnitudes, the largest magnitude of each input channel,
and, where an algorithm asks for them, a sample of tokens and the inputs' second moments.
Histograms, largest magnitudes and samples do not depend on how the data was cut into batches.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from os import PathLike
from typing import Any, Optional, Union

import numpy as np
import torch

from tripy import files
from tripy.errors import TripyException
from tripy.quantization.histogram import Histogram

VERSION = 1
_MASK: ContextVar[Optional[torch.Tensor]] = ContextVar("mask", default=None)
# Of the tokens that are kept: errors are compared on them, with and without rounding, and half of
# the bytes says as much. float16 would overflow.
KEPT = torch.bfloat16
_HASHED = 16  # The features of a token that decide whether it is in the sample.


@contextmanager
def mask_tokens(mask: Any) -> Iterator[None]:
    """Inside the block, calibration sees only the tokens where the mask is true: no padding.

    Args:
        mask: [batch, length] of booleans or 0 and 1, such as a tokenizer's ``attention_mask``.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> with tq.mask_tokens(torch.tensor([[1, 1, 0]])):
        ...     pass  # model(batch)
    """
    token = _MASK.set(torch.as_tensor(np.asarray(mask) if isinstance(mask, list) else mask).bool())
    try:
        yield
    finally:
        _MASK.reset(token)


@dataclass(frozen=True)
class Needs:
    """What to collect beside histograms.

    Attributes:
        channels: Whether the largest magnitude of each channel.
        tokens: How many tokens to keep; 0 for none.
        moments: Whether the inputs' second moments, [in, in].
    """

    channels: bool = False
    tokens: int = 0
    moments: bool = False


class LayerStatistics:
    """What one layer has seen.

    Attributes:
        histogram: Of the input's magnitudes.
        channels: [in] float32, the largest magnitude of each input channel; or None.
        sample: [tokens, in] bfloat16; or None.
        moments: [in, in] float32, the sum of the tokens' outer products; or None.
        keys: A histogram of the keys that the layer makes; or None.
        values: The same for values.
        tokens: How many tokens were seen.
    """

    def __init__(self, needs: Needs = Needs()) -> None:
        self.needs = needs
        self.histogram = Histogram()
        self.channels: Optional[torch.Tensor] = None
        self.sample: Optional[torch.Tensor] = None
        self._order: Optional[torch.Tensor] = None
        self.moments: Optional[torch.Tensor] = None
        self.keys: Optional[Histogram] = None
        self.values: Optional[Histogram] = None
        self.tokens = 0

    @torch.no_grad()
    def update(self, x: torch.Tensor) -> None:
        """Adds an input, [..., in]."""
        x = x.reshape(-1, x.shape[-1])
        self.tokens += x.shape[0]
        if self.histogram.device != x.device:
            self.histogram = self.histogram.to(x.device)
        self.histogram.update(x)
        if x.shape[0] == 0:
            return
        if self.needs.channels:
            low, high = torch.aminmax(x, dim=0)
            largest = torch.maximum(-low, high).float()
            before = self.channels
            self.channels = (
                largest if before is None else torch.maximum(before.to(x.device), largest)
            )
        if self.needs.tokens:
            self._keep(x)
        if self.needs.moments:
            wide = x.float()
            if self.moments is None:
                self.moments = torch.zeros(x.shape[1], x.shape[1], device=x.device)
            self.moments.addmm_(wide.t(), wide)

    def _keep(self, x: torch.Tensor) -> None:
        """Keeps the tokens whose hash is smallest: the same ones in whatever order they come."""
        hashes = _hash(x)
        count = min(self.needs.tokens, x.shape[0])
        hashes, best = torch.topk(hashes, count, largest=False)
        rows = x[best].to(KEPT)
        if self.sample is not None:
            hashes = torch.cat((self._order.to(x.device), hashes))  # type: ignore[union-attr]
            rows = torch.cat((self.sample.to(x.device), rows))
            count = min(self.needs.tokens, len(hashes))
            hashes, best = torch.topk(hashes, count, largest=False)
            rows = rows[best]
        self._order, self.sample = hashes, rows

    def update_cache(self, keys: Optional[torch.Tensor], values: Optional[torch.Tensor]) -> None:
        """Adds keys and values that the layer has made."""
        for name, x in (("keys", keys), ("values", values)):
            if x is not None:
                if getattr(self, name) is None:
                    setattr(self, name, Histogram(device=x.device))
                getattr(self, name).update(x)

    def merge(self, other: LayerStatistics) -> None:
        """Adds what another run has seen."""
        self.tokens += other.tokens
        for name in ("histogram", "keys", "values"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None:
                mine.merge(theirs.to(mine.device))
            elif theirs is not None:
                setattr(self, name, theirs)
        for name, join in (("channels", torch.maximum), ("moments", torch.add)):
            mine, theirs = getattr(self, name), getattr(other, name)
            both = mine is not None and theirs is not None
            # Of half of the data, neither says anything about all of it.
            setattr(self, name, join(mine, theirs.to(mine.device)) if both else None)
        if self.sample is not None and other.sample is not None:
            if other._order is not None and self._order is not None:
                self._order = torch.cat((self._order, other._order.to(self._order.device)))
            rows = torch.cat((self.sample, other.sample.to(self.sample.device)))
            count = min(self.needs.tokens, len(rows))
            self._order, best = torch.topk(self._order, count, largest=False)  # type: ignore[arg-type]
            self.sample = rows[best]
        else:
            self.sample = self._order = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as numpy arrays by name."""
        counts = {"tokens": self.tokens, "wanted": self.needs.tokens}
        found = {name: np.array(count) for name, count in counts.items()}
        for name in ("histogram", "keys", "values"):
            histogram = getattr(self, name)
            if histogram is not None:
                found |= {f"{name}.{key}": value for key, value in histogram.state().items()}
        for name in ("channels", "sample", "_order", "moments"):
            tensor = getattr(self, name)
            if tensor is not None:
                wide = tensor.float() if name == "sample" else tensor  # numpy has no bfloat16.
                found[name] = wide.cpu().numpy()
        return found

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> LayerStatistics:
        """From what :meth:`arrays` gives."""
        made = cls()
        made.tokens = int(arrays["tokens"])
        for name in ("histogram", "keys", "values"):
            state = {k[len(name) + 1 :]: v for k, v in arrays.items() if k.startswith(name + ".")}
            if state:
                setattr(made, name, Histogram.from_state(state))
        for name in ("channels", "sample", "_order", "moments"):
            if name in arrays:
                tensor = torch.from_numpy(arrays[name].copy())
                setattr(made, name, tensor.to(KEPT) if name == "sample" else tensor)
        wanted = int(arrays["wanted"]) if made.sample is not None else 0
        made.needs = Needs(made.channels is not None, wanted, made.moments is not None)
        return made


class Statistics(dict[str, LayerStatistics]):
    """What each layer of a model has seen, by the layer's name.

    Saved, loaded and merged, so that a long calibration can be resumed or shared by machines.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> data = torch.randn(8, 4)
        >>> first = tq.collect(model, tq.INT8_DEFAULT_CFG, lambda: model(data[:4]))
        >>> second = tq.collect(model, tq.INT8_DEFAULT_CFG, lambda: model(data[4:]))
        >>> both = first.merge(second)
        >>> float(both["0"].histogram.amax) == float(data.abs().max())
        True
    """

    def merge(self, other: Statistics) -> Statistics:
        """Adds what another run of the same model has seen.

        Raises:
            TripyException: For statistics of other layers.
        """
        if set(self) != set(other):
            raise TripyException(
                "Statistics: two runs of different layers cannot be merged.",
                got=f"{sorted(set(self) ^ set(other))[:5]} in one of them only",
                expected="runs of one model with one configuration",
            )
        for name, layer in other.items():
            self[name].merge(layer)
        return self

    def save(self, path: Union[str, PathLike]) -> None:
        """Writes one .npz file, with a JSON header in it; whole or not at all."""
        header = {"version": VERSION, "layers": list(self)}
        arrays: dict[str, Any] = {}
        for index, layer in enumerate(self.values()):
            arrays |= {f"{index}:{name}": value for name, value in layer.arrays().items()}
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        files.write_bytes(path, buffer.getbuffer())

    @classmethod
    def load(cls, path: Union[str, PathLike]) -> Statistics:
        """Reads what :meth:`save` has written.

        Raises:
            TripyException: For a file that cannot be read, or is of another kind or version.
        """
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                header = json.loads(bytes(file["header"]))
                if header["version"] != VERSION:
                    raise ValueError(f"version {header['version']}")
                parts: list[dict[str, np.ndarray]] = [{} for _ in header["layers"]]
                for name in file.files:
                    index, colon, key = name.partition(":")
                    if colon:
                        parts[int(index)][key] = file[name]
            layers = [LayerStatistics.from_arrays(part) for part in parts]
            return cls(zip(header["layers"], layers))
        except (
            OSError, EOFError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile,
            TripyException,
        ) as error:  # fmt: skip
            raise TripyException(
                f"Statistics: {path} cannot be read.",
                got=f"{type(error).__name__}: {error}",
                expected=f"a file that Statistics.save has written, of version {VERSION}",
            ) from None


def masked(x: torch.Tensor, layer: str) -> torch.Tensor:
    """The tokens that count, by the mask of :func:`mask_tokens`.

    Raises:
        TripyException: Where the mask does not fit the layer's input.
    """
    mask = _MASK.get()
    if mask is None:
        return x
    if x.shape[:-1] == mask.shape:
        return x[mask.to(x.device)]
    if x.dim() == 2 and x.shape[0] == mask.numel():
        return x[mask.to(x.device).reshape(-1)]
    raise TripyException(
        f"{layer}: the mask of mask_tokens does not fit the layer's input.",
        got=f"a mask of shape {tuple(mask.shape)}, an input of shape {tuple(x.shape)}",
        expected="a mask with one element for each token of the input",
    )


def finish(statistics: Statistics) -> None:
    """Checks what was collected; the only place that waits for a GPU.

    Raises:
        TripyException: For a layer that saw NaN or infinity, naming its batch, or no data.
    """
    for name, layer in statistics.items():
        for what, histogram in (
            ("input", layer.histogram), ("keys", layer.keys), ("values", layer.values),
        ):  # fmt: skip
            check_finite(name, histogram, what)
        if layer.tokens == 0:
            raise TripyException(
                f"{name}: the layer saw no data.",
                got="a forward_loop that never calls it",
                expected="inputs that reach every layer that is to be quantized",
                hint=f'leave it out: config.without("{name}*")',
            )


def check_finite(name: str, histogram: Optional[Histogram], what: str) -> None:
    """Raises the error of a layer that saw NaN or infinity."""
    bad = -1 if histogram is None else int(histogram.first_bad_update)
    if bad >= 0:
        raise TripyException(
            f"{name}: NaN or infinity in the layer's {what}, in batch {bad}.",
            got=f"values that are not finite in the layer's {_nth(bad + 1)} call",
            expected="finite values",
            hint="run that batch through the model by itself; float16 overflows above 65504",
        )


def _nth(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0)
    return f"{number}{ending or 'th'}"


def _hash(x: torch.Tensor) -> torch.Tensor:
    """A number for each row, from the bits of its first features; equal rows get equal ones."""
    bits = x[:, :_HASHED].float().contiguous().view(torch.int32).long()
    mixed = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for column in range(bits.shape[1]):
        # The constants are those of splitmix64, as signed numbers; products wrap around.
        mixed = (mixed ^ bits[:, column]) * -7046029254386353131
        mixed = mixed ^ (mixed >> 29)
    return mixed & 0x7FFFFFFFFFFFFFFF


def observer(name: str, layer: LayerStatistics) -> Callable[[torch.Tensor], None]:
    """The function that sees a layer's inputs; on the CPU it refuses NaN at once."""

    def see(x: torch.Tensor) -> None:
        layer.update(masked(x, name))
        if x.device.type == "cpu":
            check_finite(name, layer.histogram, "input")

    return see
