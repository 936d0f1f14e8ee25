"""How long an engine of GPT-2 124M takes to build, and how much memory, with no GPU.

    python benchmarks/tensorrt_build.py [--layers 12] [--target sm_89]

Each mode is built in a process of its own: `forward` for any batch up to 4 and any length. Memory
is the most that the process held while it compiled, over what it held before, which includes the
model's parameters. Needs `pip install tensorrt-rtx-cu13`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TRIPY_DEVICE", "cpu")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "nanogpt"), str(ROOT / "benchmarks")]

import common  # noqa: E402
from cpu_gpt2 import checkpoint  # noqa: E402
from model import GPT  # noqa: E402
from weight_loader import load_quant_weights_from_hf, read_config  # noqa: E402

import tripy as tp  # noqa: E402

MODES = ("none", "int8-weight-only", "int8", "int4-weight-only")


def resident() -> int:
    """Bytes of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most memory that the process holds inside a ``with`` block."""

    def __enter__(self) -> Peak:
        # What is free goes back to the system first: else a build could use it unseen.
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self.before = self.most = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, resident())

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def measure(folder: str, mode: str, target: str) -> None:
    """Build one engine, and print what it took as JSON."""
    model = GPT(read_config(folder, mode))
    load_quant_weights_from_hf(model, folder, mode, lambda text: [ord(c) for c in text])
    # The library itself, once for all engines, is no copy of weights.
    tiny = [tp.InputInfo((8, 8), tp.float32)]
    tp.compile(lambda x: x @ tp.ones((8, 8)), args=tiny, backend="tensorrt", target=target)
    lengths = (1, 256, 1024)
    info = tp.InputInfo((tp.NamedDimension("batch", 1, 1, 4), lengths), tp.int32)
    start = time.perf_counter()
    with Peak() as peak:
        engine = tp.compile(model.forward, args=[info], backend="tensorrt", target=target)
    result = {
        "seconds": time.perf_counter() - start,
        "weights": model.weight_bytes(),
        "engine": engine.report().engine_bytes,
        "before": peak.before,
        "added": peak.most - peak.before,
        "peak": peak.most,
    }
    print(json.dumps(result))


def main() -> None:
    """Measure each mode in its own process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--target", default="sm_89")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure, args.target)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder), args.layers)
        for mode in MODES:
            command = [sys.executable, __file__, "--target", args.target, "--measure", folder, mode]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[mode] = json.loads(text.splitlines()[-1])
    rows = [
        (mode, f"{r['seconds']:.1f}", f"{r['weights'] / 2**20:.0f}", f"{r['engine'] / 2**20:.0f}",
         f"{r['engine'] / results['none']['engine']:.3f}", f"{r['added'] / 2**20:.0f}",
         f"{r['added'] / r['engine']:.2f}")
        for mode, r in results.items()
    ]  # fmt: skip
    header = (
        "mode",
        "s",
        "parameters MiB",
        "engine MiB",
        "x float32",
        "added MiB",
        "x engine, goal 2.5",
    )
    print(common.table(header, rows))
    common.finish("tensorrt_build", {"target": args.target, "modes": results})


if __name__ == "__main__":
    main()
