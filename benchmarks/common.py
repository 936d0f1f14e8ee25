"""What all benchmarks share: interleaved timing, tables, one JSON line at the end."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def interleaved(
    contestants: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of each call, one contestant after the other in every round.

    What slows the machine down for a while then slows all of them, and ratios hold.
    """
    for run in contestants.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(seconds: Sequence[float]) -> str:
    """Median, and the range of the middle half, in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{middle * 1e3:.2f} ({low * 1e3:.2f} to {high * 1e3:.2f})"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned for a terminal."""
    cells = [[str(c) for c in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    capability = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "unknown")()
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":")[1].strip() for line in file if "model name" in line)
            file.seek(0)
            flags = next(line for line in file if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = ""
    return {
        "processor": name, "capability": capability, "amx": "amx_int8" in flags,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip


def finish(name: str, results: Mapping[str, object]) -> None:
    """The last line: everything as one JSON object."""
    print(json.dumps({"benchmark": name, "machine": machine(), **results}))
