"""Bar charts as SVG, in the colours of the page around them."""

from __future__ import annotations

import html
from collections.abc import Mapping

ROW, LABEL, NUMBER, WIDTH = 28, 190, 80, 560


def bars(title: str, values: Mapping[str, float], unit: str) -> str:
    """A chart of horizontal bars from zero.

    Args:
        title: What is shown.
        values: Numbers of 0 or more, by label, in the order of the rows.
        unit: Written behind each number.

    Returns:
        An SVG element; text and bars have the colours of the page's text and links.
    """
    largest = max(values.values(), default=0) or 1
    height = ROW * (len(values) + 1) + 8
    lines = [
        f'<svg class="bars" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(title)}" fill="currentColor" font-size="15">',
        f'<text x="0" y="18" font-weight="bold">{html.escape(title)}</text>',
    ]
    for row, (label, value) in enumerate(values.items(), 1):
        width = max(1, round((WIDTH - LABEL - NUMBER) * value / largest))
        y = ROW * row + 6
        lines += [
            f'<text x="0" y="{y + 17}">{html.escape(label)}</text>',
            f'<rect class="bar" x="{LABEL}" y="{y}" width="{width}" height="{ROW - 8}" rx="3"/>',
            f'<text x="{LABEL + width + 8}" y="{y + 17}">{value:.3g} {html.escape(unit)}</text>',
        ]
    return "\n".join([*lines, "</svg>"])
