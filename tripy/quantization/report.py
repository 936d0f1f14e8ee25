"""Which layers are really quantized, how well, what will run, and why some were left alone."""

from __future__ import annotations

import json
import math
import os
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import torch

from tripy import files
from tripy.errors import TripyException
from tripy.quantization.describe import describe
from tripy.quantization.html import page
from tripy.quantization.layers import QuantizedLinear
from tripy.quantization.mixed_precision import KEPT, Mixed
from tripy.quantization.modelopt import is_modelopt
from tripy.quantization.norms import find_norms
from tripy.quantization.results import Sensitivity, json_ready
from tripy.quantization.rows import Drawn, Range, ReportRow, item_size, make_drawn, make_row
from tripy.quantization.runs import speed_notes
from tripy.quantization.targets import find_targets

VERSION = 1


@dataclass(frozen=True)
class Report:
    """A row a linear layer; printing it gives a table.

    Attributes:
        model: The model's class.
        rows: In the model's order.
        notes: What runs and how fast, in sentences.
        sensitivity: What :func:`sensitivity` measured, or None.
        mixed: What :func:`choose_formats` chose, or None.
    """

    model: str
    rows: tuple[ReportRow, ...]
    notes: tuple[str, ...]
    sensitivity: Optional[Sensitivity] = None
    mixed: Optional[Mixed] = None
    drawn: dict[str, Drawn] = field(default_factory=dict, repr=False, compare=False)

    @property
    def summary(self) -> dict[str, Any]:
        """How much is quantized: layers, their share of the weights' bytes, bytes before, after."""
        done = [row for row in self.rows if row.quantized]
        before = sum(row.bytes_before for row in self.rows)
        return {
            "layers": len(self.rows),
            "quantized_layers": len(done),
            "quantized_share": sum(row.bytes_before for row in done) / before if before else 0.0,
            "bytes_before": before,
            "bytes_after": sum(row.bytes_after for row in self.rows),
        }

    def headline(self) -> str:
        """The summary in a sentence."""
        found = self.summary
        before, after = found["bytes_before"], found["bytes_after"]
        plain = all(row.kind not in ("Conv", "ConvTranspose") for row in self.rows)
        kind = "linear layers" if plain else "linear layers and convolutions"
        return (
            f"{found['quantized_layers']} of {found['layers']} {kind} are quantized, with "
            f"{found['quantized_share']:.1%} of the bytes of all their weights; "
            f"{before:,} bytes become {after:,} ({after / before if before else 1:.1%}), "
            "scales included"
        )

    def table(self) -> list[list[str]]:
        """The rows, cell by cell, the header first."""
        header = (
            "layer", "weight", "input", "weight scale", "input scale", "pre_quant_scale", "alpha",
            "bytes before", "after", "weight dB", "output dB", "cosine", "left alone because",
        )  # fmt: skip
        return [list(header)] + [
            [
                row.name, row.weight, row.input, _range(row.weight_scale), _number(row.input_scale),
                _range(row.pre_quant_scale), _alpha(row), f"{row.bytes_before:,}",
                f"{row.bytes_after:,}", _number(row.weight_sqnr, ".1f"),
                _number(row.output_sqnr, ".1f"), _number(row.output_cosine, ".6f"), row.reason,
            ]
            for row in self.rows
        ]  # fmt: skip

    def __str__(self) -> str:
        table = self.table()
        # A column in which no layer has anything says nothing.
        used = [i for i in range(len(table[0])) if i < 3 or any(r[i] not in "-" for r in table[1:])]
        widths = {i: max(len(row[i]) for row in table) for i in used}
        right = {i for i in used if 3 <= i < len(table[0]) - 1}
        lines = [self.headline()]
        for row in table:
            cells = [
                row[i].rjust(widths[i]) if i in right else row[i].ljust(widths[i]) for i in used
            ]
            lines.append("  ".join(cells).rstrip())
        for note in ("", *self.notes):
            lines += textwrap.wrap(note, 98, initial_indent="- ", subsequent_indent="  ") or [""]
        for part in (self.sensitivity, self.mixed):
            lines += [] if part is None else ["", str(part)]
        return "\n".join(lines)

    def to_json(self) -> str:
        """As text, with a version; numbers that JSON has no word for are "inf" and "-inf"."""
        found = {
            "version": VERSION,
            "model": self.model,
            "summary": self.summary,
            "layers": [asdict(row) for row in self.rows],
            "search": {name: each.search for name, each in self.drawn.items() if each.search},
            "notes": self.notes,
            "sensitivity": self.sensitivity and json.loads(self.sensitivity.to_json()),
            "mixed": self.mixed and json.loads(self.mixed.to_json()),
        }
        return json.dumps(json_ready(found), indent=1)

    def to_html(self) -> str:
        """A page by itself: no script, no other file, nothing from the network."""
        return page(self)

    def save(self, path: Union[str, os.PathLike]) -> None:
        """Writes the report, whole or not at all: JSON or a page, by the suffix.

        Raises:
            TripyException: For another suffix.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in (".json", ".html"):
            raise TripyException(
                "Report: the suffix does not say what to write.",
                got=str(path),
                expected="a path that ends in .json or .html",
            )
        text = self.to_json() if suffix == ".json" else self.to_html()
        files.write_bytes(path, text.encode())


def report(
    model: Any, *, sensitivity: Optional[Sensitivity] = None, mixed: Optional[Mixed] = None
) -> Report:
    """Which layers of a model are quantized, how well, what will run, and why others were not.

    Args:
        model: A torch.nn.Module, also one that nvidia-modelopt has quantized, or a
            :class:`tripy.Module`.
        sensitivity: What :func:`sensitivity` has measured, to be shown with it.
        mixed: What :func:`choose_formats` has chosen, to be shown with it.

    Returns:
        A report; print it, or ``save("report.html")``.

    Raises:
        TripyException: For something that is no model, or has no linear layer.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
        >>> _ = tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG.without("1"))
        >>> print(tq.report(model).headline()[:39])
        1 of 2 linear layers are quantized, wit
    """
    for given, kind in ((sensitivity, Sensitivity), (mixed, Mixed)):
        if given is not None and not isinstance(given, kind):
            raise TripyException(
                f"report: {kind.__name__.lower()} is none.",
                got=f"{given!r:.80}",
                expected=f"a {kind.__name__}",
            )
    states = describe(model)
    foreign = is_modelopt(model)
    modules = {} if foreign else {name: t.module for name, t in find_targets(model).items()}
    rows = tuple(
        make_row(state, item_size(state, modules.get(name)), _mixed_reason(mixed, name))
        for name, state in states.items()
    )
    drawn = {name: make_drawn(state) for name, state in states.items()}
    torch_model = isinstance(model, torch.nn.Module)
    fake = foreign or any(isinstance(module, QuantizedLinear) for module in modules.values())
    quantized = any(row.quantized for row in rows)
    notes = speed_notes([row.runs for row in rows if row.quantized], torch_model, fake, quantized)
    norms = [] if foreign else [n for n, t in find_norms(model).items() if t.rounds]
    if norms:
        notes += (f"The inputs of {len(norms)} norms are rounded, as was asked for: {norms[0]}"
                  + (", ..." if norms[1:] else "") + ".",)  # fmt: skip
    return Report(type(model).__name__, rows, notes, sensitivity, mixed, drawn)


def _mixed_reason(mixed: Optional[Mixed], name: str) -> str:
    """Why mixed precision left a layer alone; "" if it did not."""
    row = None if mixed is None else next((r for r in mixed.rows if r.layer == name), None)
    if row is None or row.format != KEPT:
        return ""
    return (
        "excluded from mixed precision"
        if row.excluded
        else "the budget of mixed precision has room for it as it is"
    )


def _number(value: Optional[float], form: str = ".4g") -> str:
    if value is None:
        return "-"
    return "exact" if value == math.inf else format(value, form)


def _range(ends: Range) -> str:
    if ends is None:
        return "-"
    low, high = (f"{end:.3g}" for end in ends)
    return low if low == high else f"{low} to {high}"


def _alpha(row: ReportRow) -> str:
    if not row.searched:
        return "-"
    return "no scaling" if row.alpha is None else f"{row.alpha:.3g}"
