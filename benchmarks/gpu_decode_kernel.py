"""The decode step's kernel alone, on the GPU's clock; also of libraries built from changed sources.

    python benchmarks/gpu_decode_kernel.py [--sizes 124M XL] [--modes int8] [--libraries FILE ...]

What `gpu_gpt2.py` measures of a token is this, the embeddings, the choice of the token and the time
between kernels. The same step is launched again and again, by one library after the other in every
round, so that their ratios hold; results are compared with those of the first one. Bytes are those
that a step must move, set against a large copy's bytes a second. Of a library that was built with
`cmake -DTRIPY_CLOCKS=ON` it also says how many cycles each phase of a step takes, in the average
block and in the slowest one.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import sys
from pathlib import Path

os.environ.setdefault("TRIPY_DEVICE", "gpu")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "nanogpt")]

import common  # noqa: E402
import torch  # noqa: E402
from decode_clocks import kinds, noted, phases  # noqa: E402
from gpt2_ours import (  # noqa: E402
    CONTEXT,
    SIZES,
    Ours,
    random_state,
    step_bytes,
    tripy_model,
)
from gpu_common import copy_bandwidth, on_the_gpu  # noqa: E402
from gpu_kernels import module  # noqa: E402

import tripy as tp  # noqa: E402

T = torch.Tensor
native, native_decode = module("native"), module("native_decode")
MODES = ("int8", "int8-weight-only", "int4-weight-only", "float8")
LARGEST_INPUT = 3.0  # Speed does not depend on it.


class Recorded:
    """One decode step of a model, as it was launched."""

    def __init__(self, name: str, mode: str) -> None:
        size = SIZES[name]
        layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        inputs = {f"h.{i}.{x}": LARGEST_INPUT for i in range(size.layers) for x in layers}
        self.ours = Ours(tripy_model(size, mode, random_state(size), inputs), 1)
        launch_of = native_decode.launch_of
        found: list = []

        def note(*given: object) -> object:
            found.append((launch_of(*given), given))
            return found[-1][0]

        token, place = (
            tp.Tensor(torch.full((1,), n, dtype=torch.int32, device="cuda")) for n in (5, CONTEXT)
        )
        native_decode.launch_of = note
        try:
            logits, _ = self.ours.decode(token, place, self.ours.caches)
        finally:
            native_decode.launch_of = launch_of
        if not found:
            sys.exit(f"{name}, {mode}: the step is not one kernel:\n{self.ours.decode.report()}")
        # What was given holds what the launch points to.
        (self.launch, self.given), self.logits = found[-1], logits.torch()

    def microseconds(self, library: ctypes.CDLL) -> float:
        """One round, of 50 launches."""
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

        def launch() -> None:
            if error := library.tripy_decode_step(ctypes.byref(self.launch), stream):
                sys.exit(f"CUDA says: {native.text_of(error)}")

        return on_the_gpu(launch, 1, 50).middle * 1e6


def measure(
    name: str, mode: str, libraries: dict[str, ctypes.CDLL], rounds: int, bandwidth: float
) -> list[dict]:
    """A row for each library."""
    step = Recorded(name, mode)
    times: dict[str, list[float]] = {library: [] for library in libraries}
    results: dict[str, T] = {}
    for _ in range(rounds + 1):  # The first one warms up.
        for label, library in libraries.items():
            times[label].append(step.microseconds(library))
            results[label] = step.logits.float().clone()
    for label, library in libraries.items():
        if library.tripy_decode_clocks():
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            clocks = noted(step.launch, library, stream)
            print(f"\n{name}, {mode}, {label}: cycles until (mean, slowest block)")
            print(phases(clocks, kinds(step.given[0])), flush=True)
    first, moved = next(iter(results.values())), step_bytes(SIZES[name], mode, 1)
    rows = []
    for label, found in times.items():
        middle = statistics.median(found[1:])
        rows.append({
            "size": name, "mode": mode, "library": label, "us": middle,
            "fastest": min(found[1:]), "slowest": max(found[1:]),
            "of bandwidth": moved / (middle * 1e-6) / bandwidth,
            "differs": float((results[label] - first).abs().max()),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["int8"])
    parser.add_argument("--libraries", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_decode_kernel needs an NVIDIA GPU")
    if why := native_decode.available(tp.device("gpu")):
        sys.exit(f"gpu_decode_kernel: {why}")
    tp.config.cuda_graphs = False
    libraries = {"installed": native.library()}
    for path in options.libraries:
        libraries[path.stem] = ctypes.CDLL(os.fspath(path.resolve()))
        if not native_decode.agrees(libraries[path.stem]):
            sys.exit(f"{path} has been built for other structures than this Python code")
    bandwidth, rows = copy_bandwidth(), []
    for name in options.sizes:
        for mode in options.modes:
            rows += measure(name, mode, libraries, options.rounds, bandwidth)
            gc.collect()
            torch.cuda.empty_cache()
    cells = [
        [r["size"], r["mode"], r["library"], f"{r['us']:.1f}",
         f"{r['fastest']:.1f} to {r['slowest']:.1f}", f"{r['of bandwidth']:.0%}",
         f"{r['differs']:.1e}"] for r in rows
    ]  # fmt: skip
    header = ["GPT-2", "mode", "library", "us", "all rounds", "of bandwidth", "differs"]
    print(common.table(header, cells))
    known = {"gpu": torch.cuda.get_device_name(), "copy TB/s": bandwidth / 1e12}
    common.finish("gpu_decode_kernel", {**known, "rows": rows})


if __name__ == "__main__":
    with torch.inference_mode():
        main()
