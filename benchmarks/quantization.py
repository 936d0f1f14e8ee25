"""What each format and calibrator costs in quality on the demo, and what calibration takes.

    python benchmarks/quantization.py [--windows 1210] [--tables quality cost] [--only int4 fp8]

Three tables: bits a byte and KL divergence of the demo GPT on text that it was not trained on, with
the standard errors of their means over windows, and what that closes of the gap that the plain
scales of the same format leave, with the standard error of that, window by window;
the output of a layer whose inputs have outlier channels; seconds and memory of calibrating a random
GPT-2 124M of transformers (`pip install transformers`), as ratios to the plain forward passes. In
the third, each row has a process of its own: what an allocator keeps of one row would be there for
the next, and hide or pretend that it needs memory. "MiB more" is the peak above the model; "without
a batch" is that less the peak of the plain passes, and with the model, in sizes of the model.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional

os.environ.setdefault("TRIPY_DEVICE", "cpu")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "nanogpt")]

import common  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from data import calibration_text, evaluation_windows, held_out_text  # noqa: E402
from model import GPT, GPTConfig  # noqa: E402
from weight_loader import load_demo_weights  # noqa: E402

import tripy as tp  # noqa: E402
import tripy.quantization as tq  # noqa: E402

INT4 = tq.Rule("h.*.weight_quantizer", (tq.QuantizerConfig(4, block_size=64),))
WIDE = tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG.with_rules(INT4)
CALIBRATORS = ("max", "percentile", "entropy", "mse")
LENGTH, BATCH = 256, 8
TABLES = ("quality", "outliers", "cost")


def configurations() -> dict[str, tq.QuantizationConfig]:
    """What is compared; int4 in blocks of 64."""
    found = {}
    for name, config in (("int8 W8A8", tq.INT8_DEFAULT_CFG), ("fp8", tq.FP8_DEFAULT_CFG)):
        for calibrator in CALIBRATORS:
            found[f"{name}, {calibrator}"] = config.with_algorithm("max", calibrator=calibrator)
    found["int8 W8A8, smoothquant"] = tq.INT8_SMOOTHQUANT_CFG
    found["int8 weights, max"] = tq.INT8_WEIGHT_ONLY_CFG
    found["int4 weights, max"] = WIDE
    found["int4 weights, mse"] = WIDE.with_algorithm("max", weight_calibrator="mse")
    found["int4 weights, awq"] = tq.INT4_AWQ_CFG.with_rules(INT4)
    found["int4 weights, gptq"] = tq.INT4_GPTQ_CFG.with_rules(INT4)
    w4a8 = tq.W4A8_INT8_CFG.with_rules(INT4)
    found["W4A8 int8, max"] = w4a8.with_algorithm("max")
    found["W4A8 int8, awq"] = w4a8
    return found


def log_likelihoods(model: GPT, tokens: np.ndarray):
    """Of each window's next tokens, a batch at a time."""
    run = tp.compile(model, args=[tp.InputInfo((BATCH, LENGTH), tp.int32)], backend="torch")
    for start in range(0, len(tokens), BATCH):
        logits = run(tp.Tensor(tokens[start : start + BATCH].astype(np.int32))).torch()
        yield torch.log_softmax(logits.double(), -1)


def quality(windows: int, wanted_rows: Callable[[str], bool]) -> list[list[object]]:
    """A row a configuration: bits a byte, their rise, and KL divergence from float32."""
    inputs, targets = evaluation_windows(held_out_text(), LENGTH)
    step = max(1, len(inputs) // windows)
    count = min(windows, len(inputs[::step])) // BATCH * BATCH
    inputs, targets = (x[::step][:count] for x in (inputs, targets))
    calibration = np.frombuffer(calibration_text(64, LENGTH), np.uint8).astype(np.int32)
    batches = [tp.Tensor(part) for part in calibration.reshape(16, 4, LENGTH)]
    floating = GPT(GPTConfig())
    load_demo_weights(floating)
    wanted = list(log_likelihoods(floating, inputs))
    goals = torch.from_numpy(targets).split(BATCH)
    before = torch.cat([bits(p, goal) for p, goal in zip(wanted, goals)])
    base = float(before.mean())
    rows: list[list[object]] = [["float32", f"{base:.4f}", "", "", "", ""]]
    plain: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, config in configurations().items():
        if not wanted_rows(name):
            continue
        model = GPT(GPTConfig())
        load_demo_weights(model)
        tq.quantize(model, config, lambda m: [m(batch).eval() for batch in batches])
        after, parts = [], []
        for p, q, goal in zip(wanted, log_likelihoods(model, inputs), goals):
            after.append(bits(q, goal))
            parts.append((p.exp() * (p - q)).sum(-1).mean(-1))
        rise, divergence = torch.cat(after) - before, torch.cat(parts)
        reference = plain.setdefault(name.partition(",")[0], (rise, divergence))
        more, spent = float(rise.mean()), float(divergence.mean())
        rows.append(
            [name, f"{base + more:.4f}", f"{more / base:+.2%} ± {error(rise) / base:.2%}",
             f"{spent:.5f} ± {error(divergence):.5f}",
             *(closed(*pair) for pair in zip((rise, divergence), reference))]
        )  # fmt: skip
    return rows


def bits(likelihoods: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Bits a byte, of each window."""
    chosen = likelihoods.gather(-1, goal[..., None])
    return -chosen.mean((-2, -1)) / math.log(2)


def error(values: torch.Tensor) -> float:
    """The standard error of their mean."""
    return float(values.std()) / len(values) ** 0.5


def closed(mine: torch.Tensor, theirs: torch.Tensor) -> str:
    """The share of a gap that is closed, by the means over the same windows.

    Its standard error is that of a ratio of means, by the first-order (delta) method.
    """
    ratio = mine.mean() / theirs.mean()
    return f"{1 - ratio:.0%} ± {error((mine - ratio * theirs) / theirs.mean()):.0%}"


def outliers() -> list[list[object]]:
    """Output SQNR of a layer with 10 of 128 inputs 30 times as large, and weights as small."""
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(128, 256)).requires_grad_(False)
    x = torch.randn(1024, 128)
    chosen = torch.randperm(128)[:10]
    x[:, chosen] *= 30
    layer[0].weight[:, chosen] /= 30
    rows: list[list[object]] = []
    w4a8 = tq.W4A8_INT8_CFG
    for name, plain, better in (
        ("int8 W8A8", tq.INT8_DEFAULT_CFG, tq.INT8_SMOOTHQUANT_CFG),
        ("int4 weights", tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG, tq.INT4_AWQ_CFG),
        ("W4A8 int8", w4a8.with_algorithm("max"), w4a8),
    ):
        measured = []
        for config in (plain, better):
            model, wanted = copy.deepcopy(layer), layer(x)
            tq.quantize(model, config, lambda m: m(x))
            noise = (wanted - model(x)).square().sum()
            measured.append(float(10 * (wanted.square().sum() / noise).log10()))
        low, high = measured
        method = better.algorithm.method
        rows.append([name, f"{low:.1f}", f"{high:.1f} ({method})", f"{high - low:+.1f}"])
    return rows


def costs() -> dict[str, Optional[tq.QuantizationConfig]]:
    """What is calibrated; None for the forward passes alone."""
    return {
        "plain forward passes": None,
        "int8, max": tq.INT8_DEFAULT_CFG,
        "int8, mse of histograms": tq.INT8_DEFAULT_CFG.with_algorithm("max", calibrator="mse"),
        "int8, smoothquant": tq.INT8_SMOOTHQUANT_CFG,
        "int4, awq": tq.INT4_AWQ_CFG,
    }


def cost(wanted_rows: Callable[[str], bool]) -> list[list[object]]:
    """Seconds and memory of calibrating GPT-2 124M with 128 sequences of 128 tokens."""
    rows: list[list[object]] = []
    activations = 0
    for name, config in costs().items():
        if config is not None and not wanted_rows(name):
            continue
        with multiprocessing.get_context("spawn").Pool(1) as process:
            seconds, plain, grown, weights = process.apply(measured, (name,))
        activations = grown if config is None else activations
        share = 1 + (grown - activations) / weights
        row = [name, f"{seconds:.1f}", f"{seconds / plain:.2f}", f"{grown >> 20}", f"{share:.2f}"]
        rows.append(row)
    return rows


def measured(name: str, sequences: int = 128) -> tuple[float, float, int, int]:
    """In a fresh process: seconds, those of plain passes, bytes above the model, and its bytes."""
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415  (optional)

    tp.logger.verbosity = "warning"
    torch.manual_seed(0)
    data = torch.randint(0, 50257, (sequences, 128)).split(4)
    model = GPT2LMHeadModel(GPT2Config()).eval().requires_grad_(False)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())

    def forward(model: torch.nn.Module, batches: Sequence[torch.Tensor] = data) -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch, use_cache=False)

    before = settled()
    forward(model, data[:1])  # First calls take longer.
    start = time.perf_counter()
    forward(model)
    middle = time.perf_counter()
    config = costs()[name]
    if config is None:
        return middle - start, middle - start, peak() - before, weights
    tq.quantize(model, config, forward)
    seconds = time.perf_counter() - middle
    return seconds, middle - start, peak() - before, weights


def settled() -> int:
    """The resident size of the process in bytes, where its peak then starts; glibc on Linux only.

    What making the model has freed goes back first: it would serve as room for activations.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The largest resident size since then, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=242, help="of held-out text, of 1,210")
    parser.add_argument("--only", nargs="+", help="configurations with one of these in their names")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    args = parser.parse_args()

    def wanted_rows(name: str) -> bool:
        return args.only is None or any(part in name for part in args.only)

    tp.logger.verbosity = "warning"
    results: dict[str, object] = {}
    columns = ("demo GPT", "bits a byte", "rise", "KL", "closed: bits", "KL")
    tables = {
        "quality": (columns, lambda: quality(args.windows, wanted_rows)),
        "outliers": (("output SQNR, dB", "max", "better", "gain"), outliers),
        "cost": (
            ("GPT-2 124M", "seconds", "ratio", "MiB more", "without a batch"),
            lambda: cost(wanted_rows),
        ),
    }
    for name in args.tables:
        header, make = tables[name]
        rows = make()
        print(common.table(header, rows), end="\n\n", flush=True)
        results[name] = rows
    common.finish("quantization", results)


if __name__ == "__main__":
    main()
