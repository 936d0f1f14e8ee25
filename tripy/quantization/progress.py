"""Progress bars of loops that may take a while: tqdm's, where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Optional


def progress(items: Iterable[Any], what: str, total: Optional[int] = None) -> Iterable[Any]:
    """The items, with a bar on a terminal's standard error once two seconds have passed."""
    try:
        from tqdm import tqdm  # noqa: PLC0415  (optional)
    except ImportError:
        return items
    return tqdm(items, what, total, delay=2, leave=False, file=sys.stderr, disable=None)
