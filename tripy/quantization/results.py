"""What sensitivity measures, as data; and how results are printed and written."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from tripy.errors import TripyException
from tripy.quantization.config import QuantizationConfig
from tripy.quantization.state import LinearState
from tripy.quantization.statistics import Statistics

VERSION = 1


@dataclass(frozen=True)
class SensitivityRow:
    """One layer in one format.

    Attributes:
        layer: Its dotted name.
        format: The name of the configuration.
        scheme: What the configuration does to it, in words.
        bytes: Of the weight in that format, with its scales.
        alone_sqnr: Of the logits where no other layer is quantized, in dB.
        alone_kl: The mean divergence of the logits' distributions from those of the model in
            floating point, in nats, where no other layer is quantized.
        others_sqnr: Where all other layers are quantized and this one is not; None: not measured.
        others_kl: The same.
    """

    layer: str
    format: str
    scheme: str
    bytes: int
    alone_sqnr: float
    alone_kl: float
    others_sqnr: Optional[float] = None
    others_kl: Optional[float] = None


@dataclass(frozen=True)
class Size:
    """A layer's weight.

    Attributes:
        elements: How many values it has.
        bytes: What they take in floating point, in the model's data type.
    """

    elements: int
    bytes: int


@dataclass(frozen=True)
class Sensitivity:
    """What :func:`sensitivity` has measured; printing it gives a table.

    Attributes:
        rows: The most sensitive first, by ``alone_kl``.
        sizes: Of the layers' weights, in the model's order.
        formats: The configurations by name.
        all: SQNR in dB and KL divergence in nats with all layers quantized, by the name of the
            format; empty where that was not measured.
        repeat_sqnr: SQNR in dB of a second evaluation of the model in floating point: infinite
            where evaluating is deterministic. What is near it is noise.
        statistics: What the layers saw, for :func:`quantize`; not in files.
    """

    rows: tuple[SensitivityRow, ...]
    sizes: dict[str, Size]
    formats: dict[str, QuantizationConfig]
    all: dict[str, tuple[float, float]] = field(default_factory=dict)
    repeat_sqnr: float = math.inf
    statistics: Statistics = field(default_factory=Statistics, compare=False, repr=False)

    def table(self) -> list[list[str]]:
        """The printed table, cell by cell, its header first."""
        if len(self.formats) == 1:
            header = ["layer", "alone: KL", "SQNR dB"]
            more = any(row.others_kl is not None for row in self.rows)
            table = [header + (["all others: KL", "SQNR dB"] if more else [])]
            for row in self.rows:
                cells = [row.layer, f"{row.alone_kl:.3e}", f"{row.alone_sqnr:.2f}"]
                if more:
                    cells += [_cell(row.others_kl, ".3e"), _cell(row.others_sqnr, ".2f")]
                table.append(cells)
            return table
        by_layer: dict[str, dict[str, SensitivityRow]] = {}
        for row in self.rows:
            by_layer.setdefault(row.layer, {})[row.format] = row
        table = [["layer"] + [f"{name}: {what}" for name in self.formats for what in ("KL", "dB")]]
        for name, found in by_layer.items():
            cells = [name]
            for each in self.formats:
                got = found.get(each)
                cells += (
                    ["-", "-"] if got is None else [f"{got.alone_kl:.3e}", f"{got.alone_sqnr:.2f}"]
                )
            table.append(cells)
        return table

    def __str__(self) -> str:
        alone = (
            "each layer quantized alone, the most sensitive first; KL in nats, SQNR of the logits"
        )
        lines = [alone, *aligned(self.table())]
        for name, (quality, divergence) in self.all.items():
            lines.append(f"all layers in {name}: KL {divergence:.3e}, SQNR {quality:.2f} dB")
        if math.isfinite(self.repeat_sqnr):
            lines.append(f"evaluating twice agrees to {self.repeat_sqnr:.1f} dB: less is noise")
        if all(math.isinf(row.alone_sqnr) and row.alone_kl == 0 for row in self.rows):
            lines.append("quantizing changes no logit: does evaluate() run this very model?")
        return "\n".join(lines)

    def to_json(self) -> str:
        """As text; :meth:`from_json` reads it."""
        found = {
            "version": VERSION,
            "rows": [asdict(row) for row in self.rows],
            "sizes": {name: asdict(size) for name, size in self.sizes.items()},
            "formats": {name: each.to_json() for name, each in self.formats.items()},
            "all": self.all,
            "repeat_sqnr": self.repeat_sqnr,
        }
        return json.dumps(json_ready(found), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Sensitivity:
        """From the text that :meth:`to_json` makes, to choose formats later.

        Raises:
            TripyException: For text that is none, or of another version.
        """
        try:
            found = json.loads(text)
            if found["version"] != VERSION:
                raise ValueError(f"version {found['version']}")
            return cls(
                tuple(SensitivityRow(**_numbers(row)) for row in found["rows"]),
                {name: Size(**size) for name, size in found["sizes"].items()},
                {n: QuantizationConfig.from_json(each) for n, each in found["formats"].items()},
                {name: (float(a), float(b)) for name, (a, b) in found["all"].items()},
                float(found["repeat_sqnr"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TripyException(
                "Sensitivity: the text is none.",
                got=f"{type(error).__name__}: {error}",
                expected=f"JSON that Sensitivity.to_json() has made, of version {VERSION}",
            ) from None


def stored_bytes(state: LinearState, item: int) -> int:
    """Bytes of a layer's weight and scales as tripy's layers and exported files hold them.

    Args:
        state: The layer.
        item: Bytes of a floating-point number in the model: of a scale, and of each value of a
            weight that is not quantized.
    """
    out, inputs = state.shape
    scales = sum(quantizer.amax.numel() for quantizer in state.weight_quantizers)
    caches = (state.input_quantizer, state.key_quantizer, state.value_quantizer)
    scales += sum(quantizer is not None for quantizer in caches)
    scales += 0 if state.pre_quant_scale is None else state.pre_quant_scale.numel()
    if not state.weight_quantizers:
        return out * inputs * item + scales * item
    bits = state.weight_quantizers[0].config.format.bits
    return out * -(-inputs * bits // 8) + scales * item


def aligned(table: list[list[str]]) -> list[str]:
    """The lines of a table: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))
        ).rstrip()
        for row in table
    ]


def json_ready(value: Any) -> Any:
    """The value with numbers that JSON has no word for as text: "inf", "-inf", "nan"."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): json_ready(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(each) for each in value]
    return value


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    measured = ("alone_sqnr", "alone_kl", "others_sqnr", "others_kl")
    return {k: float(v) if k in measured and v is not None else v for k, v in row.items()}


def _cell(value: Optional[float], form: str) -> str:
    return "-" if value is None else format(value, form)
