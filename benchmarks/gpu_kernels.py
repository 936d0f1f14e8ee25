"""What a decode step is made of, against the GPU's memory: weight-only layers and normalization.

    python benchmarks/gpu_kernels.py

Every contestant runs in CUDA graphs, with as many copies of the weight in turn as the L2 cache
cannot hold; times are medians. Bytes are the least that must move: each input read once, each
output written once. They are set against a large copy's bytes a second (read and written), measured
in the same run. Peers are the same layers in plain PyTorch, compiled by ``torch.compile``.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
import torch
import torch.nn.functional as F
from gpu_common import attempt, copy_bandwidth

import tripy as tp

T = torch.Tensor
HALF, INT8 = torch.float16, torch.int8
SIZE = 8192
ROWS = (1, 2, 4, 8, 16, 32, 64)
COMPILED_ROWS = (1, 16, 64)  # torch.compile takes seconds for each.
GPT2 = {"qkv": (2304, 768), "proj": (768, 768), "up": (3072, 768), "down": (768, 3072)}
NORM_SHAPE = (32768, 4096)
COLD = 160 << 20  # Bytes of all copies of a weight; L2 caches have 50 to 60 MB.
MOST_COPIES = 64


def seconds(call: Callable[[int], object], copies: int, repeats: int = 15) -> float:
    """Of one call, the median over graphs that go through all copies."""
    calls = [i for _ in range(-(-12 // copies)) for i in range(copies)]
    for i in range(min(2, copies)):
        call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in calls:
            call(i)
    graph.replay()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3 / len(calls))
    return statistics.median(times)


def module(name: str) -> Any:
    """A file of kernels: these are no part of the public API."""
    return importlib.import_module(f"tripy.backends.torch.kernels.cuda.{name}")


@functools.cache
def kernels() -> dict[str, Callable]:
    """Ours by name: the native one where this GPU has it, and Triton's."""
    native = module("native_weight_only")
    found: dict[str, Callable] = {}
    why = native.available(tp.device("gpu"))
    if why is None:
        found["native"] = native.weight_only
    else:
        print(f"no native kernels: {why}")
    found["Triton"] = module("weight_only").weight_only_gemm
    return found


def unfused(x: T, weight: T, scale: T, bias: T) -> T:
    return F.linear(x, weight.to(HALF) * scale.to(HALF)[:, None], bias)


@functools.cache
def compiled(function: Callable) -> Callable:
    return torch.compile(function, dynamic=False)


def layer(
    name: str, kind: str, n: int, k: int, rows: tuple[int, ...], bandwidth: float
) -> list[dict]:
    """One layer, with each number of rows."""
    packing = module("packing")
    size = n * k // (2 if kind == "int4" else 1)
    copies = max(2, min(MOST_COPIES, -(-COLD // size)))
    high = 8 if kind == "int4" else 128
    plain = [torch.randint(-high, high, (n, k), dtype=INT8, device="cuda") for _ in range(copies)]
    pack = packing.pack_int4 if kind == "int4" else packing.pack_int8
    packed = [pack(w) for w in plain]
    scale = torch.rand(n, device="cuda") * 1e-2 / high
    bias = torch.randn(n, device="cuda").to(HALF)
    results: list[dict] = []
    for m in rows:
        x = torch.randn(m, k, device="cuda").to(HALF)
        out = torch.empty(m, n, device="cuda", dtype=HALF)
        times: dict[str, float] = {}
        for maker, kernel in kernels().items():

            def ours(i: int, kernel: Callable = kernel, x: T = x, out: T = out) -> T:
                return kernel(x, packed[i], scale, bias=bias, dtype=HALF, out=out, pdl=True)

            run = functools.partial(seconds, ours, copies)
            if (time := attempt(f"{name}, {kind}, {m} rows, {maker}", run)) is not None:
                times[maker] = time
        if not times:
            continue
        # The peer knows no packed int4: it reads int8.
        peer: Optional[float] = None
        if m in COMPILED_ROWS and kind == "int8":
            function = compiled(unfused)

            def theirs(i: int, function: Callable = function, x: T = x) -> T:
                return function(x, plain[i], scale, bias)

            run = functools.partial(seconds, theirs, copies)
            peer = attempt(f"{name}, {kind}, {m} rows, torch.compile", run)
        moved = size + x.nbytes + 2 * m * n
        best = min(times, key=lambda maker: times[maker])
        one_row = results[0]["us"].get(best) if results else times[best] * 1e6
        results.append({
            "layer": name, "kind": kind, "rows": m, "us": {k: t * 1e6 for k, t in times.items()},
            "best": best, "of copy": moved / times[best] / bandwidth,
            "x one row": None if one_row is None else times[best] * 1e6 / one_row,
            "x torch.compile": None if peer is None else peer / times[best],
        })  # fmt: skip
    return results


def normalized(x: T, residual: T, weight: T, bias: T, scale: T) -> tuple[T, T]:
    total = x + residual
    y = F.layer_norm(total, weight.shape, weight, bias)
    return total, (y.float() / scale).round().clamp(-128, 127).to(INT8)


def norm(bandwidth: float) -> list[dict]:
    """Residual, LayerNorm and quantization, by one scale and by one a row."""
    normalize = module("normalization").normalize
    rows, width = NORM_SHAPE
    x, residual = (torch.randn(rows, width, device="cuda").to(HALF) for _ in range(2))
    weight, bias = (torch.randn(width, device="cuda").to(HALF) for _ in range(2))
    scale = torch.tensor(0.03, device="cuda")
    function = compiled(normalized)
    peer = attempt(
        "norms, torch.compile",
        lambda: seconds(lambda _: function(x, residual, weight, bias, scale), 1),
    )
    moved = rows * width * (2 + 2 + 2 + 1)
    results = []
    for name, kwargs in (
        ("by one scale", {"scale": scale, "dtype": INT8}), ("by row", {"dynamic": INT8}),
    ):  # fmt: skip

        def ours(_: int, kwargs: dict = kwargs) -> object:
            return normalize(x, weight, bias, 1e-5, residual=residual, **kwargs)

        time = seconds(ours, 1)
        results.append({
            "norm": name, "us": time * 1e6, "of copy": moved / time / bandwidth,
            "x torch.compile": None if peer is None else peer / time,
        })  # fmt: skip
    return results


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("gpu_kernels needs an NVIDIA GPU; on the CPU: benchmarks/cpu_gpt2.py")
    torch.manual_seed(0)
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: copy {bandwidth / 1e12:.2f} TB/s\n")
    layers: list[dict] = []
    cases = [(f"{SIZE}x{SIZE}", kind, SIZE, SIZE, ROWS) for kind in ("int8", "int4")]
    cases += [(f"GPT-2 {name} {n}x{k}", "int8", n, k, (1,)) for name, (n, k) in GPT2.items()]
    for case in cases:
        new = attempt(f"{case[0]}, {case[1]}", functools.partial(layer, *case, bandwidth)) or []
        show_layers(new)
        layers += new
    norms = attempt("norms", functools.partial(norm, bandwidth)) or []
    header = ["residual + LayerNorm + int8", "us", "of copy", "x torch.compile"]
    print(common.table(header, [
        [f"{NORM_SHAPE[0]}x{NORM_SHAPE[1]}, {r['norm']}", f"{r['us']:.0f}", f"{r['of copy']:.2f}",
         _ratio(r["x torch.compile"])]
        for r in norms
    ]))  # fmt: skip
    common.finish("gpu_kernels", {
        "gpu": torch.cuda.get_device_name(), "copy TB/s": bandwidth / 1e12, "layers": layers,
        "norms": norms,
    })  # fmt: skip


def show_layers(rows: list[dict]) -> None:
    header = ["layer", "weight", "rows", "us", "of copy", "x one row", "x torch.compile"]
    print(common.table(header, [
        [r["layer"], r["kind"], r["rows"],
         ", ".join(f"{maker} {us:.1f}" for maker, us in r["us"].items()),
         f"{r['of copy']:.2f}", _ratio(r["x one row"]), _ratio(r["x torch.compile"])]
        for r in rows
    ]) + "\n", flush=True)  # fmt: skip


def _ratio(value: Optional[float]) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    with torch.inference_mode():
        main()
