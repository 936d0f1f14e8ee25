"""Quantized linear layers on an NVIDIA GPU, beside PyTorch's libraries in the same process.

    python benchmarks/gpu_linear.py [--quick] [--plot linear.png]

The layers of GPT-2, GPT-2 XL and Llama-8B with 1 to 16,384 rows of input. Every contestant computes
``input @ weight.T * scale + bias`` in float16 from inputs that are ready in its type, and what ours
compute is compared with float32's first. Enough copies of the weight take turns that the L2 cache
never holds the next one. Times are medians of replayed CUDA graphs. The limit is the larger of two
times: the bytes that must move, at this GPU's measured copy bandwidth, and the operations, at the
tensor cores' dense peak in the data sheet. The first table has whole layers: bias, GELU, rounding
in the kernel, beside the libraries' bare products.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median, quantiles
from types import ModuleType
from typing import Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
import torch
from gpu_common import attempt, copy_bandwidth
from linear_contestants import (
    F8,
    HALF,
    INT8,
    PEAK,
    Case,
    Contestant,
    kernel,
    limit,
    new_case,
    ours,
    peers,
    random,
    weight_bytes,
    weight_of,
)

import tripy as tp

T = torch.Tensor
# Model: layer: outputs, inputs.
LAYERS = {
    "GPT-2": {"qkv": (2304, 768), "proj": (768, 768), "up": (3072, 768), "down": (768, 3072)},
    "GPT-2 XL": {
        "qkv": (4800, 1600), "proj": (1600, 1600), "up": (6400, 1600), "down": (1600, 6400),
    },
    "Llama-8B": {
        "qkv": (6144, 4096), "proj": (4096, 4096), "up": (14336, 4096), "down": (4096, 14336),
    },
}  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
QUICK_ROWS = (1, 16, 256, 4096)
PLOTTED = "up"  # The layer of --quick, of torch.compile, and of the plot.
COMPILED_ROWS = (1, 16, 256)  # torch.compile takes seconds for each.
WHOLE = ((4096, 4096, 4096), (8192, 8192, 8192), (4096, 16384, 4096))
CHECKED_ROWS, LARGEST_ERROR = 64, 1e-2  # A kernel that computes something else takes no part.
wrong: list[str] = []


def graph(call: Callable[[T, int], T], x: T, copies: int) -> tuple[torch.cuda.CUDAGraph, int]:
    """A graph that runs through all copies of the weight, and its number of calls."""
    for i in range(min(2, copies)):
        call(x, i)
    torch.cuda.synchronize()
    calls = [i for _ in range(-(-8 // copies)) for i in range(copies)]
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        for i in calls:
            call(x, i)
    recorded.replay()
    return recorded, len(calls)


def replay(recorded: torch.cuda.CUDAGraph, calls: int) -> float:
    """Seconds of one call, on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    recorded.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3 / calls


def seconds(call: Callable[[T, int], T], x: T, copies: int, repeats: int) -> list[float]:
    """Of one call, once for each repeat."""
    recorded = graph(call, x, copies)
    return [replay(*recorded) for _ in range(repeats)]


# ------------------------------------------------------------------------------------------------
# Whole layers of many rows.


def whole_layers(rounds: int) -> list[dict[str, object]]:
    native = kernel("native")
    if native is None or native.available(tp.device("gpu")) is not None:
        return []
    rows = []
    for sizes, kind in itertools.product(WHOLE, (INT8, F8)):
        measured = partial(whole_layer, native, sizes, kind, rounds)
        rows += attempt(f"whole layers, {sizes}, {kind}", measured) or []
    return rows


def whole_layer(
    native: ModuleType, sizes: tuple[int, int, int], kind: torch.dtype, rounds: int
) -> list[dict[str, object]]:
    """Bias, GELU and scaling in the kernel, against bare products; in turns, round after round."""
    m, n, k = sizes
    x, weight = random(kind, m, k), random(kind, n, k)
    scale, bias = torch.rand(n, device="cuda") * 1e-4, torch.randn(n, device="cuda")
    one = torch.ones((), device="cuda")

    def layer(dtype: torch.dtype) -> T:
        step = 0.05 if dtype.itemsize == 1 else None
        return native.scaled_gemm(
            x, weight, scale, bias=bias, activation="gelu_tanh", out_scale=step, dtype=dtype
        )

    def library(dtype: torch.dtype) -> T:
        if kind is INT8:
            return torch._int_mm(x, weight.t())
        result = {"scale_result": one} if dtype.itemsize == 1 else {}
        return torch._scaled_mm(
            x, weight.t(), one, one, out_dtype=dtype, use_fast_accum=True, **result
        )

    graphs = {
        (call, dtype): graph(lambda x, i, c=call, d=dtype: c(d), x, 1)
        for dtype in (HALF, kind)
        for call in (layer, library)
    }
    times: dict = {name: [] for name in graphs}
    for _ in range(rounds):
        for name, recorded in graphs.items():
            times[name].append(replay(*recorded))
    rows = []
    for dtype in (HALF, kind):
        mine, theirs = (median(times[call, dtype]) for call in (layer, library))
        tera = 2 * m * n * k / mine / 1e12
        rows.append({
            "shape": f"{m}x{n}x{k}", "type": str(kind)[6:], "out": str(dtype)[6:],
            "us": mine * 1e6, "tera": tera, "of peak": tera * 1e12 / PEAK[kind],
            "library": tera * mine / theirs, "x library": theirs / mine,
        })  # fmt: skip
    return rows


# ------------------------------------------------------------------------------------------------
# All layers.


def error_of(case: Case, kind: str, contestant: Contestant, x: T) -> float:
    """How far the first rows are from float32's, relative to their size."""
    part = x[:CHECKED_ROWS]
    expected = part.float() @ weight_of(case, kind).T * case.scale + case.bias.float()
    got = contestant.call(x, 0)[: len(part)].float()
    return float((got - expected).norm() / expected.norm())


def measure(
    case: Case, name: str, bandwidth: float, with_compile: bool, quick: bool, repeats: int
) -> list[dict[str, object]]:
    """One row for each contestant of ours."""
    inputs = {kind: random(kind, case.m, case.k) for kind in (HALF, INT8, F8)}
    known: dict[str, list[float]] = {}

    def time(name: str, contestant: Contestant) -> Optional[float]:
        if name not in known:
            x = inputs[contestant.takes]
            run = partial(seconds, contestant.call, x, case.copies, repeats)
            # Some libraries do not take all sizes.
            known[name] = attempt(f"{name}, {case.m}x{case.n}x{case.k}", run) or []
        return median(known[name]) if known[name] else None

    rows = []
    others = peers(case, with_compile)
    for who, contestant in ours(case, only_native=quick).items():
        kind = who.split(":")[0]
        checked = partial(error_of, case, kind, contestant, inputs[contestant.takes])
        error = attempt(f"{name}, {case.m} rows, {who}", checked)
        if error is None or not error < LARGEST_ERROR:
            print(f"WRONG: {name}, {case.m} rows, {who}: relative error {error}", flush=True)
            wrong.append(who)
            continue
        mine = time(who, contestant)
        if mine is None:
            continue
        times = {peer: (time(peer, c), c.part) for peer, c in others[kind].items()}
        whole = {p: t for p, (t, part) in times.items() if t is not None and not part}
        best = min(whole, key=lambda p: whole[p])
        low, _, high = quantiles(known[who], n=4)
        rows.append({
            "layer": name, "rows": case.m, "contestant": who, "us": mine * 1e6,
            "spread": (high - low) / mine, "tera": 2 * case.m * case.n * case.k / mine / 1e12,
            "weight TB/s": weight_bytes(case, kind) / mine / 1e12,
            "limit": limit(case, kind, bandwidth) / mine,
            "best peer": best, "x best": whole[best] / mine, "x fp16": whole["fp16"] / mine,
            "peers us": {p: t * 1e6 for p, (t, _) in times.items() if t is not None},
        })  # fmt: skip
    return rows


def plot(rows: Sequence[dict], path: str) -> None:
    """Speed against cuBLAS in float16, and the share of the limit, one column a model."""
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(2, len(LAYERS), figsize=(15, 8), sharex=True, sharey="row")
    for model, (speed, share) in zip(LAYERS, axes.T):
        chosen = [r for r in rows if r["layer"].startswith(f"{model} {PLOTTED} ")]
        for who in dict.fromkeys(r["contestant"] for r in chosen):
            mine = [r for r in chosen if r["contestant"] == who]
            for axis, key in ((speed, "x fp16"), (share, "limit")):
                axis.plot([r["rows"] for r in mine], [r[key] for r in mine], marker=".", label=who)
        speed.axhline(1, color="gray")
        speed.set(title=f"{model}, {PLOTTED}", xscale="log")
        share.set(xlabel="rows of input", ylim=(0, 1))
    axes[0][0].set_ylabel("times as fast as float16 (cuBLAS)")
    axes[1][0].set_ylabel("share of the limit")
    axes[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one layer a model, four sizes, no Triton twins"
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--plot", metavar="FILE.png")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_linear needs an NVIDIA GPU; on the CPU: benchmarks/cpu_gpt2.py")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        sys.exit("gpu_linear: --plot needs Matplotlib: pip install matplotlib")
    torch.manual_seed(0)
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: copy {bandwidth / 1e12:.2f} TB/s\n")
    whole = whole_layers(options.repeats)
    if whole:
        print("bias, GELU and scaling in the kernel, T/s, beside the library's bare product")
        show(whole, ("shape", "type", "out", "us", "tera", "of peak", "library", "x library"))
    rows: list[dict] = []
    for model, layers in LAYERS.items():
        for layer, (n, k) in layers.items():
            if options.quick and layer != PLOTTED:
                continue
            new = []
            for m in QUICK_ROWS if options.quick else ROWS:
                with_compile = layer == PLOTTED and m in COMPILED_ROWS
                with_compile &= not options.quick or (m == 1 and model == "GPT-2 XL")
                case, name = (m, n, k), f"{model} {layer} {n}x{k}"

                def measured(case: tuple = case, name: str = name, on: bool = with_compile) -> list:
                    return measure(new_case(*case), name, bandwidth, on, options.quick,
                                   options.repeats)  # fmt: skip

                new += attempt(f"{name}, {m} rows", measured) or []
            show(new, ("layer", "rows", "contestant", "us", "tera", "weight TB/s", "limit",
                       "best peer", "x best", "x fp16"))  # fmt: skip
            rows += new
    print("geometric means over everything above")
    for who in dict.fromkeys(r["contestant"] for r in rows):
        mine = [r for r in rows if r["contestant"] == who]
        means = [geometric_mean(r[key] for r in mine) for key in ("x best", "x fp16")]
        print(f"  {who}: {means[0]:.2f} x the best peer, {means[1]:.2f} x fp16")
    if options.plot:
        attempt("the plot", partial(plot, rows, options.plot))
    common.finish("gpu_linear", {
        "gpu": torch.cuda.get_device_name(), "copy TB/s": bandwidth / 1e12, "whole": whole,
        "rows": rows,
    })  # fmt: skip
    if wrong:
        sys.exit(f"gpu_linear: {len(wrong)} wrong results")


def show(rows: Sequence[dict], keys: Sequence[str]) -> None:
    digits = {"us": 1, "tera": 1, "library": 1}
    cells = [
        [f"{r[k]:.{digits.get(k, 2)}f}" if isinstance(r[k], float) else r[k] for k in keys]
        for r in rows
    ]
    print(common.table(keys, cells) + "\n", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
