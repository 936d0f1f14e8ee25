"""GPT-2 124M and XL on an NVIDIA GPU, beside PyTorch in the same process.

    python benchmarks/gpu_gpt2.py [--quick] [--sizes 124M XL] [--soak 100000]

Random weights: speed does not depend on them. Decode goes on from a context of 256 tokens, takes
the likeliest token, and is timed from the caller's view: the host's clock around a loop that gets
each token (tripy), or that waits at its end (the peers, whose tokens stay on the GPU). Prefill
reads 8 x 1024 tokens; there the compiled peer is compiled block by block, the same code for all.
The peers' cache is 512 positions long, tripy's is 1024. The KL divergence is to the same weights in
float32.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TRIPY_DEVICE", "gpu")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "nanogpt")]

import common  # noqa: E402
import torch  # noqa: E402
from gpt2_ours import (  # noqa: E402
    CAPACITY,
    CONTEXT,
    PREFILL,
    SIZES,
    VOCABULARY,
    Ours,
    divergence,
    random_state,
    step_bytes,
    tripy_model,
)
from gpt2_peers import Peer, largest_inputs, measure_peers  # noqa: E402
from gpu_common import Timing, attempt, copy_bandwidth  # noqa: E402
from model import GPT, GPTConfig  # noqa: E402

import tripy as tp  # noqa: E402

T = torch.Tensor
MODES = ("none", "int8", "int8-weight-only", "int4-weight-only", "float8")
SECONDS_FOR_PEERS = 90


class Row(NamedTuple):
    """Times of a contestant, and what else is known of it."""

    what: str
    label: str
    timing: Timing
    more: dict[str, float]

    def text(self) -> str:
        return f"{self.what}, {self.label}: {self.timing.text()} us"


def measure_mode(
    name: str, mode: str, state: dict[str, T], inputs: dict[str, float], tokens: T,
    ends: list[T], references: list[T], bandwidth: float, rounds: int, quick: bool,
) -> list[Row]:  # fmt: skip
    """One way to quantize tripy's model: decode, and prefill unless it is to be quick."""
    size = SIZES[name]
    model, rows = tripy_model(size, mode, state, inputs), []
    wide = Ours(model, PREFILL[0])
    kl = [divergence(r, wide.logits(tokens[:, :256], end)) for r, end in zip(references, ends)]
    accuracy = {"KL": sum(kl) / len(kl)}
    for batch in size.batches[: 1 if quick else None]:
        steps = wide if batch == PREFILL[0] else Ours(model, batch)
        timing = steps.decode_timing(tokens[:batch, :CONTEXT], rounds)
        moved = step_bytes(size, mode, batch)
        more = {"MB": moved / 1e6, "of bandwidth": moved / timing.middle / bandwidth}
        rows.append(Row(f"decode, batch {batch}", f"tripy {mode}", timing, accuracy | more))
        print(f"{name}: {rows[-1].text()}", flush=True)
        # Last: a program that cannot be replayed is still one that has been timed.
        replay = attempt(f"{name}, {mode}: replay", lambda s=steps: s.replay_timing(rounds))
        if replay is not None:
            more["replay us"] = replay.middle * 1e6
            rows[-1] = rows[-1]._replace(more=accuracy | more)
    if not quick:
        rows.append(Row("prefill", f"tripy {mode}", wide.prefill_timing(tokens, 5), accuracy))
        print(f"{name}: {rows[-1].text()}", flush=True)
    return rows


def measure(name: str, bandwidth: float, rounds: int, quick: bool) -> list[dict]:
    """All contestants of one size; those that fail are left out, and said to be."""
    size, state = SIZES[name], random_state(SIZES[name])
    exact = Peer(state, size.layers, size.heads)
    tokens = torch.randint(0, VOCABULARY, PREFILL, device="cuda")
    inputs = largest_inputs(exact, tokens[:2, :256])
    # The last position of each row, in rows of other lengths.
    ends = [torch.randint(1, 257, (PREFILL[0],), device="cuda") for _ in range(2)]
    rows = torch.arange(PREFILL[0], device="cuda")
    references = [exact.every(tokens[:, :256])[rows, end - 1] for end in ends]
    del exact
    ours: list[Row] = []
    for mode in ("none", "int8") if quick else MODES:
        measured = partial(
            measure_mode, name, mode, state, inputs, tokens, ends, references, bandwidth, rounds,
            quick,
        )  # fmt: skip
        ours += attempt(f"{name}, tripy {mode}", measured) or []
        gc.collect()
    # Last: a compiler that is stopped may leave the GPU unusable.
    peers = measure_peers(
        state, size.layers, size.heads, size.batches[: 1 if quick else None],
        None if quick else tokens, CONTEXT, rounds, 60 if quick else SECONDS_FOR_PEERS, quick,
    )  # fmt: skip
    theirs = [
        Row(what, label, timing, {})
        for what, group in peers.items() for label, timing in group.items()
    ]  # fmt: skip
    results = []
    for row in sorted(theirs + ours, key=lambda row: row.what):
        others = [t.middle for t in peers.get(row.what, {}).values()]
        ratio = {"x best peer": min(others) / row.timing.middle} if others else {}
        results.append({"size": name, "what": row.what, "contestant": row.label,
                        "text": row.timing.text(), "us": row.timing.middle * 1e6, **ratio,
                        **row.more})  # fmt: skip
    return results


def show(results: list[dict]) -> None:
    """A table for each thing that was measured."""
    for what in dict.fromkeys((r["size"], r["what"]) for r in results):
        rows = []
        for r in (r for r in results if (r["size"], r["what"]) == what):
            forms = {"x best peer": ".2f", "replay us": ".0f", "MB": ".0f", "of bandwidth": ".0%",
                     "KL": ".1e"}  # fmt: skip
            cells = [f"{r[k]:{form}}" if k in r else "" for k, form in forms.items()]
            rows.append([r["contestant"], r["text"], *cells])
        unit = "a token" if what[1] != "prefill" else f"for {PREFILL[0]} x {PREFILL[1]} tokens"
        print(f"\nGPT-2 {what[0]}, {what[1]}: us {unit}, by the host's clock")
        header = ["", "median (middle half)", "x best peer", "replay us", "MB to move",
                  "of bandwidth", "KL to float32"]  # fmt: skip
        print(common.table(header, rows), flush=True)


def demo_bits() -> dict[str, float]:
    """Bits a byte of the example's checkpoint, on some of its held-out text."""
    data, loader, generation = (
        importlib.import_module(n) for n in ("data", "weight_loader", "generate")
    )
    inputs, targets = (array[::12] for array in data.evaluation_windows(data.held_out_text()))
    found = {}
    for mode, dtype in (("none", tp.float32), *((mode, tp.float16) for mode in MODES)):
        model = GPT(GPTConfig(quant_mode=mode, dtype=dtype))
        loader.load_demo_weights(model, mode)
        found[f"{mode}, {dtype}"] = generation.bits(model, inputs, targets) / targets.size
    base = next(iter(found.values()))
    print("\nthe demo's checkpoint: bits a byte")
    print(common.table(["", "bits", ""], [[k, f"{v:.4f}", f"{v / base - 1:+.2%}"]
                                          for k, v in found.items()]))  # fmt: skip
    return found


def memory() -> tuple[int, int, int]:
    """Bytes: allocated and reserved on the GPU, and resident on the host."""
    torch.cuda.synchronize()
    gc.collect()
    with open("/proc/self/statm") as file:
        host = int(file.read().split()[1]) * resource.getpagesize()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), host


def soak(steps: int) -> dict[str, object]:
    """Many steps through tp.generate, which take no memory that stays."""
    size = SIZES["124M"]
    state = random_state(size)
    tokens = torch.randint(0, VOCABULARY, (1, CONTEXT), device="cuda")
    inputs = largest_inputs(Peer(state, size.layers, size.heads), tokens)
    ours = Ours(tripy_model(size, "int8", state, inputs), 1)
    rows, each = tokens.tolist(), CAPACITY - CONTEXT + 1

    def run(count: int) -> int:
        options = {"prefill": ours.prefill, "max_new_tokens": min(count, each), "temperature": 0.8}
        return sum(1 for _ in tp.generate(ours.decode, rows, ours.caches, **options))

    for _ in range(4):
        run(each)
    before, start, done = memory(), time.perf_counter(), 0
    while done < steps:
        done += run(steps - done)
    seconds, after = time.perf_counter() - start, memory()
    grown = [b - a for a, b in zip(before, after)]
    print(f"{done:,} steps, {seconds / done * 1e6:.0f} us each; grown: {grown[0]:,} bytes on the "
          f"GPU, {grown[1]:,} reserved, {grown[2]:,} on the host")  # fmt: skip
    if grown[0] > 0 or grown[1] > 0 or grown[2] > 4 * 2**20:
        sys.exit("the soak test has failed: memory has grown")
    return {"steps": done, "us": seconds / done * 1e6, "grown": grown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="124M, batch 1, few contestants")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--soak", type=int, metavar="STEPS", help="only this: does memory grow?")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_gpt2 needs an NVIDIA GPU; on the CPU: benchmarks/cpu_gpt2.py")
    torch.manual_seed(0)
    known = {"gpu": torch.cuda.get_device_name()}
    if options.soak:
        return common.finish("gpu_gpt2", {**known, "soak": soak(options.soak)})
    bandwidth = copy_bandwidth()
    print(f"{known['gpu']}: copy {bandwidth / 1e12:.2f} TB/s")
    results: list[dict] = []
    for name in ["124M"] if options.quick else options.sizes:
        measured = partial(measure, name, bandwidth, options.rounds, options.quick)
        new = attempt(f"GPT-2 {name}", measured) or []
        show(new)
        results += new
        gc.collect()
        torch.cuda.empty_cache()
    bits = {} if options.quick else attempt("the demo's checkpoint", demo_bits) or {}
    common.finish("gpu_gpt2", {**known, "copy TB/s": bandwidth / 1e12, "rows": results,
                               "demo bits a byte": bits})  # fmt: skip


if __name__ == "__main__":
    with torch.inference_mode():
        main()
