"""Plots as inline SVG: no library, no script; colours come from the page's style sheet.

All are 440 wide in their own units and grow with the page, so that text can be read on a telephone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Optional

import numpy as np

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 440, 50, 10, 24, 36
COLUMNS = 96  # Of a histogram, and of scales: as many as can be told apart.


def number(value: float) -> str:
    """A number as short as it can be read."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


class Axes:
    """A frame with two axes.

    Args:
        x: The ends of the horizontal axis.
        y: Those of the vertical one; exponents of ten where it is logarithmic.
        labels: What is on each.
        height: Of the whole.
        logarithmic: Whether the vertical axis is.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        labels: tuple[str, str],
        height: int = 200,
        logarithmic: bool = False,
    ) -> None:
        self.x_ends = x if x[1] > x[0] else (x[0], x[0] + 1)
        self.y_ends = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
        self.height, self.labels = height, labels
        self.parts: list[str] = []
        ticks = whole_ticks(*self.y_ends) if logarithmic else ticks_between(*self.y_ends)
        for tick in ticks:
            text = f"1e{tick:g}" if logarithmic else number(tick)
            if logarithmic and 0 <= tick <= 3:
                text = f"{10**tick:g}"
            y_at = self.y(tick)
            self.parts.append(
                f'<path class="grid" d="M{LEFT} {y_at:.1f}H{WIDTH - RIGHT}"/>'
                f'<text class="tick" x="{LEFT - 5}" y="{y_at + 3:.1f}" text-anchor="end">'
                f"{text}</text>"
            )
        for tick in ticks_between(*self.x_ends):
            self.parts.append(
                f'<text class="tick" x="{self.x(tick):.1f}" y="{height - BOTTOM + 13}" '
                f'text-anchor="middle">{number(tick)}</text>'
            )

    def x(self, value: float) -> float:
        """Where a number is on the horizontal axis."""
        low, high = self.x_ends
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Where one is on the vertical axis."""
        low, high = self.y_ends
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - BOTTOM - TOP)

    def add(self, kind: str, path: str) -> None:
        """Draws a path."""
        self.parts.append(f'<path class="{kind}" d="{path}"/>')

    def line(self, kind: str, points: Sequence[tuple[float, float]]) -> None:
        """Draws a line through points."""
        at = [f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points]
        self.add(kind, "M" + "L".join(at))

    def dot(self, kind: str, x: float, y: float, radius: float = 3) -> None:
        """Draws a dot."""
        self.parts.append(
            f'<circle class="{kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}"/>'
        )

    def text(self, title: str) -> str:
        """The plot."""
        bottom, (x, y) = self.height - BOTTOM, self.labels
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(title)}">'
            + "".join(self.parts)
            + f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>'
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{self.height - 4}" text-anchor="middle">'
            f"{escape(x)}</text>"
            # Beside the axis it would meet the ticks, whose text is larger on narrow screens.
            f'<text x="2" y="12">'
            f"{escape(y)}</text></svg>"
        )


def ticks_between(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, in even steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def whole_ticks(low: float, high: float) -> list[float]:
    """Whole exponents from low to high, at most six or so."""
    first, last = math.ceil(low), math.floor(high)
    step = max(1, -(-(last - first + 1) // 6))
    return [float(i) for i in range(first, last + 1, step)]


def histogram(counts: np.ndarray, bin_width: float, thresholds: Sequence[tuple[str, float]]) -> str:
    """Counts of magnitudes, on a logarithmic axis, with lines at thresholds.

    Args:
        counts: Of bins from 0 on.
        bin_width: Of each.
        thresholds: Each with the class of its line.
    """
    filled = np.flatnonzero(counts)
    last = int(filled[-1]) + 1 if len(filled) else 1
    together = max(1, -(-last // COLUMNS))
    columns = np.add.reduceat(counts[:last], np.arange(0, last, together))
    end = max([last * bin_width, *(value * 1.02 for _, value in thresholds)])
    top = math.log10(max(float(columns.max()), 1)) * 1.05 + 0.1
    axes = Axes((0, end), (-0.3, top), ("magnitude of the input", "values"), logarithmic=True)
    path = []
    for i, count in enumerate(columns.tolist()):
        if count:
            a, b = (axes.x(j * together * bin_width) for j in (i, i + 1))
            path.append(f"M{a:.1f} {axes.y(-0.3):.1f}V{axes.y(math.log10(count)):.1f}H{b:.1f}V"
                        f"{axes.y(-0.3):.1f}Z")  # fmt: skip
    axes.add("bar", "".join(path))
    for kind, value in thresholds:
        axes.add(f"mark {kind}", f"M{axes.x(value):.1f} {TOP}V{axes.height - BOTTOM}")
    return axes.text("histogram of the input's magnitudes")


def scale_ranges(scales: np.ndarray) -> str:
    """The least and the largest scale of each output channel, or of neighbouring ones together.

    Args:
        scales: [channels, scales a channel].
    """
    channels = scales.shape[0]
    together = max(1, -(-channels // COLUMNS))
    starts = np.arange(0, channels, together)
    low = np.minimum.reduceat(scales.min(1), starts)
    high = np.maximum.reduceat(scales.max(1), starts)
    axes = Axes((0, channels), (0, float(high.max()) * 1.05), ("output channel", "scale"), 170)
    path = []
    for start, least, most in zip(starts.tolist(), low.tolist(), high.tolist()):
        a, b = axes.x(start), axes.x(min(start + together, channels))
        gap = 0.15 * (b - a)
        # A range without extent is drawn all the same.
        top, bottom = axes.y(most) - 0.6, axes.y(least) + 0.6
        path.append(f"M{a + gap:.1f} {bottom:.1f}V{top:.1f}H{b - gap:.1f}V{bottom:.1f}Z")
    axes.add("bar", "".join(path))
    return axes.text("ranges of the weight's scales")


def alpha_curve(
    curve: Sequence[tuple[float, float]], plain: Optional[float], chosen: Optional[float]
) -> str:
    """The quality of each exponent, and of no scaling.

    Args:
        curve: Exponents and SQNR in dB, finite.
        plain: SQNR without scaling, or None.
        chosen: The exponent; None for no scaling.
    """
    values = [quality for _, quality in curve] + ([] if plain is None else [plain])
    low, high = min(values), max(values)
    margin = max(0.08 * (high - low), 0.1)
    axes = Axes((0, 1), (low - margin, high + margin), ("alpha", "output SQNR, dB"), 185)
    if plain is not None:
        axes.line("plain", [(0, plain), (1, plain)])
    axes.line("curve", curve)
    for alpha, quality in curve:
        axes.dot(
            "chosen" if alpha == chosen else "dot", alpha, quality, 5 if alpha == chosen else 2.5
        )
    return axes.text("output SQNR by alpha")


def bars(rows: Sequence[tuple[str, float]], unit: str) -> str:
    """A bar a row, under its name, on a logarithmic axis.

    Args:
        rows: Names and values above 0, the largest first.
        unit: Of the values.
    """
    step, top = 38, 24
    logs = [math.log10(value) for _, value in rows]
    low, high = math.floor(min(logs)) - 0.2, max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
    height = top + step * len(rows) + 4
    wide = WIDTH - 70

    def x(log: float) -> float:
        return 4 + (log - low) / (high - low) * (wide - 8)

    parts = []
    for tick in whole_ticks(low, high):
        parts.append(
            f'<path class="grid" d="M{x(tick):.1f} {top - 4}V{height - 4}"/><text class="tick" '
            f'x="{x(tick):.1f}" y="{top - 8}" text-anchor="middle">1e{tick:g}</text>'
        )
    for i, ((name, value), log) in enumerate(zip(rows, logs)):
        y = top + step * i
        shown = name if len(name) <= 64 else f"{name[:24]}…{name[-39:]}"
        parts.append(
            f'<text x="4" y="{y + 13}">{escape(shown)}</text>'
            f'<path class="bar" d="M4 {y + 18}H{max(x(log), 5):.1f}V{y + 28}H4Z"/>'
            f'<text class="tick" x="{max(x(log), 5) + 5:.1f}" y="{y + 27.5}">{number(value)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(unit)}">'
        + "".join(parts)
        + "</svg>"
    )


def pareto(points: Sequence[tuple[float, float]], chosen: tuple[float, float]) -> str:
    """What each budget loses.

    Args:
        points: Bits a weight, and the sum of divergences.
        chosen: The one that was chosen.
    """
    positive = [kl for _, kl in points if kl > 0]
    if not positive:
        return ""
    # Nothing lost has no logarithm: it is drawn at the lower edge.
    floor = math.log10(min(positive)) - 0.3
    logs = [(bits, math.log10(kl) if kl > 0 else floor) for bits, kl in points]
    top = max(log for _, log in logs) + 0.1
    ends = (points[0][0], points[-1][0])
    margin = max(0.03 * (ends[1] - ends[0]), 0.01)
    axes = Axes(
        (ends[0] - margin, ends[1] + margin), (floor, top), ("bits a weight", "sum of KL, nats"),
        logarithmic=True,
    )  # fmt: skip
    axes.line("curve", logs)
    for bits, log in logs:
        axes.dot("dot", bits, log, 2.5)
    axes.dot("chosen", chosen[0], math.log10(chosen[1]) if chosen[1] > 0 else floor, 5)
    return axes.text("sum of divergences by bits a weight")
