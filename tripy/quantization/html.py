"""A report as one page: no script, no other file, nothing from the network."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from tripy.errors import TripyException
from tripy.quantization import svg
from tripy.quantization.calibrators import METHODS, amax_from
from tripy.quantization.formats import QuantizerConfig
from tripy.quantization.mixed_precision import Mixed
from tripy.quantization.results import Sensitivity
from tripy.quantization.rows import Drawn, ReportRow
from tripy.quantization.svg import number

if TYPE_CHECKING:
    from tripy.quantization.report import Report

BARS = 40  # Of the most sensitive layers.

STYLE = """
:root { color-scheme: light dark; --text: #1d2733; --soft: #566270; --line: #d5dbe1;
  --page: #fff; --panel: #f5f7f9; --bar: #7b9cc4; --max: #b3261e; --percentile: #9a6700;
  --entropy: #1a7f37; --mse: #7b3fc4; --accent: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e9ee; --soft: #9fabb8; --line: #39434e;
  --page: #14191f; --panel: #1c232b; --bar: #55779f; --max: #ff8a80; --percentile: #e3b341;
  --entropy: #56d364; --mse: #c69cff; --accent: #6cb6ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.15rem; margin: 1.8rem 0 .5rem; }
h3 { font-size: .95rem; margin: .8rem 0 .2rem; } p { margin: .4rem 0; max-width: 60rem; }
li { max-width: 60rem; margin: .25rem 0; } ul { padding-left: 1.2rem; }
.soft { color: var(--soft); } .lead { font-size: 1.05rem; }
.share { height: .6rem; background: var(--line); border-radius: .3rem; overflow: hidden;
  max-width: 40rem; margin: .5rem 0; }
.share div { height: 100%; background: var(--accent); }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%;
  border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; font-size: .82rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .45rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child, .words { text-align: left; }
td.words:nth-child(2) { white-space: normal; min-width: 9.5rem; }
tr.alone td { color: var(--soft); }
tr.this td { font-weight: 700; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0;
  background: var(--panel); padding: 0 .8rem; }
summary { cursor: pointer; padding: .5rem 0; } summary code { font-weight: 600; }
details[open] { padding-bottom: .8rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: .6rem 1.4rem; } .plots > div { max-width: 36rem; min-width: 0; }
svg { display: block; width: 100%; height: auto; max-width: 36rem; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); } svg text.tick { font-size: 10px; }
.grid { stroke: var(--line); stroke-width: .7; } .axis { stroke: var(--soft); }
.bar { fill: var(--bar); } path { fill: none; } path.bar { fill: var(--bar); }
.curve { stroke: var(--accent); stroke-width: 1.6; } .dot { fill: var(--accent); }
.chosen { fill: var(--max); } .plain { stroke: var(--soft); stroke-dasharray: 5 4; }
.mark { stroke-width: 1.6; } .max { stroke: var(--max); }
.percentile { stroke: var(--percentile); stroke-dasharray: 8 3; }
.entropy { stroke: var(--entropy); stroke-dasharray: 4 3; }
.mse { stroke: var(--mse); stroke-dasharray: 1.5 2.5; } .used { stroke: var(--text);
  stroke-width: 5; opacity: .3; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .82rem; margin: .2rem 0; }
.legend svg { display: inline-block; width: 26px; height: 10px; margin-right: .35rem; }
@media (max-width: 40rem) { svg text { font-size: 15px; } svg text.tick { font-size: 13.5px; } }
"""


def page(report: Report) -> str:
    """The page."""
    parts = [
        f"<h1>Quantization of {escape(report.model)}</h1>",
        _summary(report),
        "<h2>What runs, and how fast</h2><ul>",
        *(f"<li>{escape(note)}</li>" for note in report.notes),
        "</ul><h2>Layers</h2>",
        _layers(report),
    ]
    if report.sensitivity is not None:
        parts.append(_sensitivity(report.sensitivity))
    if report.mixed is not None:
        parts.append(_mixed(report.mixed))
    parts.append("<h2>Layer by layer</h2>")
    parts += [_layer(row, report.drawn.get(row.name)) for row in report.rows]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Quantization of {escape(report.model)}</title><style>{STYLE}</style></head>\n"
        "<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _summary(report: Report) -> str:
    share = report.summary["quantized_share"]
    return (
        f'<p class="lead">{escape(report.headline())}.</p>'
        f'<div class="share"><div style="width: {share:.1%}"></div></div>'
    )


def _table(
    table: list[list[str]], words: tuple[int, ...] = (), classes: Optional[dict[int, str]] = None
) -> str:
    """Cells as a table; ``words`` are columns of text, and ``classes`` those of rows."""

    text = ' class="words"'

    def cells(row: list[str], tag: str) -> str:
        return "".join(
            f"<{tag}{text if i in words else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )

    lines = [f"<tr>{cells(table[0], 'th')}</tr>"]
    for i, row in enumerate(table[1:]):
        kind = (classes or {}).get(i)
        opening = f'<tr class="{kind}">' if kind else "<tr>"
        lines.append(f"{opening}{cells(row, 'td')}</tr>")
    return '<div class="scroll"><table>' + "\n".join(lines) + "</table></div>"


def _layers(report: Report) -> str:
    table = report.table()
    used = [i for i in range(len(table[0])) if i < 3 or any(row[i] not in "-" for row in table[1:])]
    # The reason is more than any scale: it goes where it is seen without scrolling.
    for row, cells in zip(report.rows, table[1:]):
        cells[1] = f"not quantized: {row.reason}" if row.reason else cells[1]
    table = [[row[i] for i in used if i < len(row) - 1] for row in table]
    words = tuple(at for at, i in enumerate(used) if i in (1, 2))
    alone = {i: "alone" for i, row in enumerate(report.rows) if not row.quantized}
    return _table(table, words, alone) + (
        '<p class="soft">Bytes after: of tripy\'s layers and exported files, with scales. '
        "dB: signal to quantization noise of the weight, and of the layer's output on calibration "
        "data; 6 dB are a bit.</p>"
    )


def _sensitivity(found: Sensitivity) -> str:
    parts = [
        "<h2>Sensitivity</h2><p>What the model's logits lose where one layer alone is "
        "quantized: the mean KL divergence of their distributions from those in floating point, "
        "in nats.</p>"
    ]
    plots = []
    for name in found.formats:
        rows = [(r.layer, r.alone_kl) for r in found.rows if r.format == name]
        drawn = [(n, kl) for n, kl in rows if kl > 0 and math.isfinite(kl)][:BARS]
        if drawn:
            more = f", the worst {BARS} of {len(rows)}" if len(rows) > BARS else ""
            plot = svg.bars(drawn, "KL divergence in nats")
            plots.append(f"<div><h3>{escape(name)}{more}: KL, nats</h3>{plot}</div>")
    parts.append(f'<div class="plots">{"".join(plots)}</div>')
    for name, (quality, divergence) in found.all.items():
        parts.append(
            f"<p>All layers in {escape(name)}: KL {number(divergence)} nats, "
            f"SQNR {number(quality)} dB.</p>"
        )
    table = found.table()
    return "".join(parts) + f"<h3>All numbers</h3>{_table(table)}"


def _mixed(found: Mixed) -> str:
    points = [(point.bits, point.kl) for point in found.pareto]
    this = [(p.bytes, p.kl) == (found.bytes, found.kl) for p in found.pareto]
    marked = {i: "this" for i, here in enumerate(this) if here}
    return (
        f"<h2>Mixed precision</h2><p>{escape(str(found).splitlines()[0])}.</p>"
        f'<div class="plots"><div><h3>What a budget loses; this choice is the large dot</h3>'
        f"{svg.pareto(points, (found.bits, found.kl))}</div></div>"
        f"<h3>The best choices by budget, with the number of layers in each format</h3>"
        f"{_table(found.pareto_table(), (), marked)}"
        f"<h3>This choice</h3>{_table(found.table(), (1,))}"
    )


def _layer(row: ReportRow, drawn: Optional[Drawn]) -> str:
    facts = [f"{row.kind}, {row.shape[1]:,} inputs, {row.shape[0]:,} outputs"]
    if row.quantized:
        facts += [f"compiled for a CPU: {row.runs}"]
    if row.key_scale is not None or row.value_scale is not None:
        scales = (("keys", row.key_scale), ("values", row.value_scale))
        facts += [f"scale of {what} {number(s)}" for what, s in scales if s is not None]
    plots = [] if drawn is None else _plots(drawn)
    why = f" · {escape(row.reason)}" if row.reason else ""
    return (
        f'<details><summary><code>{escape(row.name)}</code> <span class="soft">'
        f"{escape(row.scheme)}{why}</span></summary><p>{escape('; '.join(facts))}</p>"
        + (f'<div class="plots">{"".join(plots)}</div>' if plots else "")
        + "</details>"
    )


def _plots(drawn: Drawn) -> list[str]:
    plots = []
    if drawn.histogram is not None and int(drawn.histogram.total.sum()):
        plots.append(_histogram(drawn))
    if drawn.scales is not None:
        scales = drawn.scales.numpy()
        many = f", {scales.shape[1]} a channel: their ranges" if scales.shape[1] > 1 else ""
        plots.append(f"<div><h3>Scales of the weight{many}</h3>{svg.scale_ranges(scales)}</div>")
    curve = [
        (p["alpha"], p["sqnr"]) for p in drawn.search.get("curve", ()) if math.isfinite(p["sqnr"])
    ]
    tried = [(alpha, quality) for alpha, quality in curve if alpha is not None]
    if tried:
        plain = next((quality for alpha, quality in curve if alpha is None), None)
        plots.append(_alpha(drawn.search, tried, plain))
    return plots


def _histogram(drawn: Drawn) -> str:
    histogram = drawn.histogram.to("cpu")
    quantizer = drawn.input_quantizer
    used = None if quantizer is None else float(quantizer.amax.max())
    thresholds = _thresholds(histogram, None if quantizer is None else quantizer.config)
    counts, width = histogram.counts.numpy().astype(np.int64), float(histogram.bin_width)
    lines = list(thresholds.items())
    comment = ""
    if drawn.scaled and used is not None:
        comment = (
            f"Counted before the input is multiplied with pre_quant_scale. The threshold in use, "
            f"{number(used)}, is that of the product."
        )
    elif used is not None:
        lines.insert(0, ("used", used))
    elif quantizer is None:
        comment = "The input is not rounded."
    legend = []
    for name, value in lines:
        same = [
            n
            for n, v in thresholds.items()
            if used is not None and math.isclose(v, used, rel_tol=1e-3)
        ]
        label = f"in use{f', {same[0]}' if same else ''}" if name == "used" else name
        legend.append(
            f'<span><svg viewBox="0 0 26 10"><path class="mark {name}" d="M0 5H26"/></svg>'
            f"{'percentile 99.99' if label == 'percentile' else label}: {number(value)}</span>"
        )
    return (
        f"<div><h3>Input</h3>{svg.histogram(counts, width, lines)}"
        f'<div class="legend">{"".join(legend)}</div>'
        + (f'<p class="soft">{escape(comment)}</p>' if comment else "")
        + "</div>"
    )


def _thresholds(histogram: Any, config: Optional[QuantizerConfig]) -> dict[str, float]:
    """What each method chooses; those that depend on a format only where there is one."""
    found = {}
    for method in METHODS if config is not None else ("max", "percentile"):
        try:
            amax = amax_from(histogram, method, config or QuantizerConfig())
        except TripyException:  # Zeros only: no threshold.
            continue
        found[method] = float(amax)
    return found


def _alpha(search: dict[str, Any], tried: list[tuple[float, float]], plain: Optional[float]) -> str:
    alpha = search.get("alpha")
    words = "no scaling is best" if alpha is None else f"alpha {number(alpha)} is best"
    if plain is not None:
        words += f"; dashed: {number(plain)} dB without scaling"
    method = escape(str(search.get("method", "scaling")))
    return f"<div><h3>{method}: {escape(words)}</h3>{svg.alpha_curve(tried, plain, alpha)}</div>"
