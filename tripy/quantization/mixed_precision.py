"""A format for each layer, so that the model fits a budget and loses as little as can be.

What a choice loses is taken to be the sum of what each layer loses alone (its KL divergence):
errors of different layers are nearly independent, and divergences add up where errors do.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Optional, Union

from tripy.errors import TripyException
from tripy.quantization import knapsack
from tripy.quantization.config import QuantizationConfig
from tripy.quantization.knapsack import Option
from tripy.quantization.results import Sensitivity, aligned, json_ready

VERSION = 1
KEPT = "not quantized"
POINTS = 17  # Budgets of the Pareto table.
TABLE_LIMIT = 1 << 12  # Partial choices kept for each of its points.


@dataclass(frozen=True)
class MixedRow:
    """The choice for one layer.

    Attributes:
        layer: Its dotted name.
        format: The name of its configuration, or "not quantized".
        bytes: Of its weight and scales.
        bits: The same, in bits a weight value.
        kl: What it adds to the sum of divergences, in nats.
        excluded: Whether it was left out by name.
    """

    layer: str
    format: str
    bytes: int
    bits: float
    kl: float
    excluded: bool = False


@dataclass(frozen=True)
class ParetoPoint:
    """A choice that none betters: no smaller one loses as little.

    Attributes:
        bytes: Of all weights and scales.
        bits: The same, in bits a weight value.
        kl: The sum of the layers' divergences, in nats.
        layers: How many layers have each format.
        gap: What ``kl`` may be above the least; 0 where that is proven.
    """

    bytes: int
    bits: float
    kl: float
    layers: dict[str, int]
    gap: float = 0.0


@dataclass(frozen=True)
class Mixed:
    """A format a layer, as :func:`choose_formats` chose; printing it gives tables.

    Attributes:
        rows: The choice for each layer, in the model's order.
        formats: The configurations by name.
        budget_bytes: What ``bytes`` had to be within.
        bytes: Of all these layers' weights and scales.
        bits: The same, in bits a weight value.
        kl: The sum of the layers' divergences, in nats.
        gap: What ``kl`` may be above the least possible; 0 where that is proven.
        pareto: Choices for other budgets, growing.
    """

    rows: tuple[MixedRow, ...]
    formats: dict[str, QuantizationConfig]
    budget_bytes: int
    bytes: int
    bits: float
    kl: float
    gap: float = 0.0
    pareto: tuple[ParetoPoint, ...] = field(default=(), repr=False)

    @property
    def choices(self) -> dict[str, str]:
        """The name of the format, or "not quantized", by layer."""
        return {row.layer: row.format for row in self.rows}

    @property
    def config(self) -> QuantizationConfig:
        """A configuration for :func:`quantize` beside :meth:`predicate`, which overrides it."""
        return next(iter(self.formats.values()))

    def predicate(self, path: str, module: Any = None) -> Union[bool, QuantizationConfig]:
        """What :func:`quantize` is to do with a layer: its ``predicate=``."""
        chosen = self.choices.get(path, KEPT)
        return False if chosen == KEPT else self.formats[chosen]

    def table(self) -> list[list[str]]:
        """The choices, cell by cell, the header first."""
        table = [["layer", "format", "bytes", "bits", "KL"]]
        for row in self.rows:
            name = f"{row.format} (excluded)" if row.excluded else row.format
            table.append([row.layer, name, f"{row.bytes:,}", f"{row.bits:.2f}", f"{row.kl:.3e}"])
        return table

    def pareto_table(self) -> list[list[str]]:
        """The choices for other budgets, cell by cell, the header first; "*" marks this one."""
        names = [*self.formats, KEPT]
        table = [["bits", "bytes", "sum of KL", *names, ""]]
        for point in self.pareto:
            loss = f"{point.kl:.3e}" + (f" (least, or {point.gap:.0e} above)" if point.gap else "")
            counts = [str(point.layers.get(name, 0)) for name in names]
            mark = "*" if (point.bytes, point.kl) == (self.bytes, self.kl) else ""
            table.append([f"{point.bits:.3f}", f"{point.bytes:,}", loss, *counts, mark])
        return table

    def __str__(self) -> str:
        lines = [
            f"{self.bits:.3f} bits a weight, scales included: {self.bytes:,} bytes of "
            f"{self.budget_bytes:,}; sum of KL {self.kl:.3e} nats"
        ]
        if self.gap:
            lines.append(f"the search was cut off: at most {self.gap:.1e} nats above the least")
        lines += [
            *aligned(self.table()),
            "",
            "the best choices for other budgets, layers a format:",
        ]
        return "\n".join(lines + aligned(self.pareto_table()))

    def to_json(self) -> str:
        """As text, with a version."""
        found = {
            "version": VERSION,
            **{
                name: getattr(self, name) for name in ("budget_bytes", "bytes", "bits", "kl", "gap")
            },
            "rows": [asdict(row) for row in self.rows],
            "formats": {name: each.to_json() for name, each in self.formats.items()},
            "pareto": [asdict(point) for point in self.pareto],
        }
        return json.dumps(json_ready(found), indent=1)


def choose_formats(
    sensitivity: Sensitivity,
    *,
    budget_bits: Optional[float] = None,
    budget_bytes: Optional[int] = None,
    exclude: Union[str, Sequence[str]] = (),
) -> Mixed:
    """Choose a format for each layer, or none, with the least sum of KL divergences in a budget.

    The choice is the best there is, not an approximation: see :mod:`tripy.quantization.knapsack`.
    Formats in which a layer's logits were not finite are not chosen for it.

    Args:
        sensitivity: What :func:`sensitivity` has measured, with one or several formats.
        budget_bits: The average number of bits a weight value, scales included; or
        budget_bytes: the bytes of all weights and scales. Both are of the layers that were
            measured, those of ``exclude`` too; biases and all other parameters do not count.
        exclude: Patterns for names of layers that are to stay in floating point.

    Returns:
        The choice, to be applied with ``tq.quantize(model, mixed.config, forward_loop,
        predicate=mixed.predicate)``; ``statistics=sensitivity.statistics`` saves the loop.

    Raises:
        TripyException: For no budget or both, one that cannot be met (with the least that can),
            and patterns that match nothing.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(128, 64), torch.nn.Linear(64, 128))
        >>> data = torch.randn(64, 128)
        >>> run = lambda: model(data)
        >>> formats = {"int8": tq.INT8_WEIGHT_ONLY_CFG, "fp8": tq.FP8_DEFAULT_CFG}
        >>> mixed = tq.choose_formats(tq.sensitivity(model, formats, run, run), budget_bits=9)
        >>> "not quantized" in mixed.choices.values()
        False
    """
    names = list(sensitivity.sizes)
    left_out = _excluded(names, (exclude,) if isinstance(exclude, str) else tuple(exclude))
    groups: list[list[Option]] = []
    formats: list[list[str]] = []
    for name in names:
        offered = [(KEPT, Option(sensitivity.sizes[name].bytes, 0.0))]
        for row in sensitivity.rows:
            if row.layer == name and name not in left_out and math.isfinite(row.alone_kl):
                offered.append((row.format, Option(row.bytes, row.alone_kl)))
        formats.append([option[0] for option in offered])
        groups.append([option[1] for option in offered])
    elements = sum(size.elements for size in sensitivity.sizes.values())
    least = knapsack.smallest(groups)
    budget = _budget(budget_bits, budget_bytes, elements, least)
    answer = knapsack.solve(groups, budget)
    rows = tuple(
        MixedRow(
            name, formats[i][at], groups[i][at].size,
            groups[i][at].size * 8 / sensitivity.sizes[name].elements, groups[i][at].cost,
            name in left_out,
        )
        for i, (name, at) in enumerate(zip(names, answer.chosen))
    )  # fmt: skip
    most = sum(max(option.size for option in options) for options in groups)
    # Closer together where bits are few, and each counts.
    budgets = {least + (most - least) * i**2 // (POINTS - 1) ** 2 for i in range(POINTS)}
    answers = [knapsack.solve(groups, each, TABLE_LIMIT) for each in sorted(budgets)]
    return Mixed(
        rows, sensitivity.formats, budget, answer.size, answer.size * 8 / elements, answer.cost,
        answer.gap, _pareto([*answers, answer], formats, elements),
    )  # fmt: skip


def _excluded(names: list[str], patterns: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            near = difflib.get_close_matches(pattern.strip("*"), names, 1, 0.0)
            raise TripyException(
                "choose_formats: a pattern of exclude matches nothing.",
                got=f"{pattern!r}; the nearest name is {near[0]!r}" if near else repr(pattern),
                expected="patterns for names of layers that were measured",
            )
        found |= matching
    return found


def _budget(bits: Any, size: Any, elements: int, least: int) -> int:
    """In bytes."""
    given = size if bits is None else bits
    number = isinstance(given, (int, float)) and not isinstance(given, bool) and given > 0
    if (bits is None) == (size is None) or not number or not math.isfinite(given):
        raise TripyException(
            "choose_formats: the budget is none.",
            got=f"budget_bits={bits!r}, budget_bytes={size!r}",
            expected="one of them, a positive number",
        )
    # As it is written in decimal: 4.1 bits are not a bit less.
    budget = math.floor(Fraction(str(given)) * (1 if bits is None else Fraction(elements, 8)))
    if budget < least:
        raise TripyException(
            "choose_formats: the budget cannot be met.",
            got=f"{budget:,} bytes, {budget * 8 / elements:.4g} bits a weight",
            expected=f"{least:,} bytes or more, {_up(least * 8 / elements)} bits a weight",
            hint="another format with fewer bits, or fewer layers in exclude",
        )
    return budget


def _up(bits: float) -> str:
    """Rounded up, so that the number can be used."""
    return f"{math.ceil(bits * 10000) / 10000:.4f}"


def _pareto(
    answers: list[knapsack.Answer], formats: list[list[str]], elements: int
) -> tuple[ParetoPoint, ...]:
    kept: list[ParetoPoint] = []
    for answer in sorted(answers, key=lambda each: (each.size, each.cost)):
        if not kept or answer.cost < kept[-1].kl:
            counts = Counter(names[at] for names, at in zip(formats, answer.chosen))
            bits = answer.size * 8 / elements
            kept.append(ParetoPoint(answer.size, bits, answer.cost, dict(counts), answer.gap))
    return tuple(kept)
