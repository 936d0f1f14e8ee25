"""Quantizes a GPT-2 style checkpoint from the command line.

    python -m tripy.quantization MODEL_DIR --format int8 --calibration text.txt --out DIR

Reads the checkpoint with transformers, calibrates on the text, measures bits a byte before and
after, and writes the quantized checkpoint.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import torch

import tripy.quantization as tq
from tripy.errors import TripyException
from tripy.quantization.checkpoint.families import FAMILIES, family_of
from tripy.quantization.config import CALIBRATORS, METHODS
from tripy.quantization.progress import progress

FORMATS = {
    "int8": tq.INT8_DEFAULT_CFG,
    "int8-smoothquant": tq.INT8_SMOOTHQUANT_CFG,
    "int8-weight-only": tq.INT8_WEIGHT_ONLY_CFG,
    "fp8": tq.FP8_DEFAULT_CFG,
    "int4": tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG,
    "int4-awq": tq.INT4_AWQ_CFG,
    "int4-gptq": tq.INT4_GPTQ_CFG,
    "w4a8": tq.W4A8_AWQ_BETA_CFG,
}


def main(arguments: Optional[list[str]] = None) -> int:
    """Runs the command; the exit code."""
    args = _arguments(arguments)
    try:
        _run(args)
    except (TripyException, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


def _arguments(arguments: Optional[list[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tripy.quantization",
        description="Quantize a GPT-2 style checkpoint.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL_DIR", help="config.json and model.safetensors")
    add("--format", choices=tuple(FORMATS), default="int8", help="of weights and inputs")
    add("--calibration", type=Path, required=True, help="a text file; its last tenth measures")
    add("--out", type=Path, required=True, help="folder for the quantized checkpoint")
    layouts = ("huggingface", "model-config")
    add("--layout", choices=layouts, default=layouts[0], help="of that checkpoint")
    add("--tensor-parallel", type=int, default=1, help="ranks; with --layout model-config")
    add("--method", choices=METHODS, help="instead of the format's own")
    add("--calibrator", choices=CALIBRATORS, default="max", help="threshold of inputs")
    add("--block-size", type=int, default=128, help="of int4 weights")
    add("--kv-cache", choices=("int8", "fp8"), help="format of keys and values")
    add("--exclude", nargs="*", default=[], help="patterns for layers to leave alone")
    add("--windows", type=int, default=128, help="calibration sequences")
    add("--length", type=int, default=128, help="tokens a sequence")
    add("--report", type=Path, help="where to write the report: .html or .json")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, help="of PyTorch, to calibrate on")
    args = parser.parse_args(arguments)
    for name in ("tensor_parallel", "block_size", "windows", "length"):
        if getattr(args, name) < 1:
            parser.error(f"got {name}={getattr(args, name)}; expected 1 or more")
    if args.report is not None and args.report.suffix.lower() not in (".html", ".json"):
        parser.error(f"got --report {args.report}; expected a name that ends in .html or .json")
    if args.out.resolve() == args.model.resolve():
        parser.error("--out is MODEL_DIR; expected another folder: the model would be overwritten")
    if args.tensor_parallel > 1 and args.layout != "model-config":
        parser.error("--tensor-parallel needs --layout model-config")
    return args


def _run(args: argparse.Namespace) -> None:
    model, encode = _load(args.model, args.device)
    kind = _decoder_type(model) if args.layout == "model-config" else ""
    text = args.calibration.read_text(encoding="utf-8", errors="replace")
    cut = len(text) * 9 // 10
    length = min(args.length, getattr(model.config, "n_positions", args.length))
    calibration = _windows(encode(text[:cut]), length, args.windows, args.calibration)
    held_out = _windows(encode(text[cut:]), length + 1, args.windows, args.calibration)
    share = len(text[cut:].encode()) / max(len(encode(text[cut:])), 1)
    config = FORMATS[args.format].without(*args.exclude)
    options = {"calibrator": args.calibrator}
    config = config.with_algorithm(args.method or config.algorithm.method, **options)
    if args.block_size != 128:
        config = _with_blocks(config, args.block_size)
    if args.kv_cache:
        config = config.with_kv_cache(8 if args.kv_cache == "int8" else (4, 3))
    before = _bits(model, held_out, args.device) / share

    def forward_loop() -> None:
        for window in progress(calibration.split(4), "calibrating"):
            model(window.to(args.device))

    tq.quantize(model, config, forward_loop)
    after = _bits(model, held_out, args.device) / share
    report = tq.report(model)
    print(report)
    print(f"bits a byte, held-out text  {before:.4f} before, {after:.4f} after, "
          f"{after / before - 1:+.2%}")  # fmt: skip
    if args.layout == "huggingface":
        tq.export_hf(model, args.out)
    else:
        ranks = args.tensor_parallel
        tq.export_model_config(model, kind, torch.float16, args.out, inference_gpus=ranks)
    print(f"wrote {args.out}")
    if args.report:
        report.save(args.report)
        print(f"wrote {args.report}")


def _with_blocks(config: tq.QuantizationConfig, size: int) -> tq.QuantizationConfig:
    rules = tuple(
        tq.Rule(
            rule.pattern,
            tuple(
                tq.QuantizerConfig(q.num_bits, block_size=size) if q.block_size else q
                for q in rule.quantizers
            ),
            rule.enable,
            rule.parent_class,
        )
        for rule in config.rules
    )
    return tq.QuantizationConfig(rules, config.algorithm, config.name)


def _load(folder: Path, device: str) -> tuple[Any, Callable[[str], list[int]]]:
    """The model, and what makes tokens of text."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  (optional)
    except ImportError:
        raise TripyException(
            "python -m tripy.quantization reads checkpoints with transformers.",
            got="a Python without it",
            expected="transformers",
            hint="pip install transformers",
        ) from None
    if not (folder / "config.json").is_file():
        raise TripyException(
            "there is no checkpoint in the folder.",
            got=f"{folder}, without a config.json",
            expected="a folder that save_pretrained has written",
        )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    if model.config.vocab_size <= 256:
        return model, lambda text: list(text.encode())  # Bytes are tokens.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return model, lambda text: tokenizer(text)["input_ids"]


def _decoder_type(model: Any) -> str:
    """What a model config calls the model; said before anything is calibrated."""
    kind = model.config.model_type
    named = next((name for name, family in FAMILIES.items() if kind in family.models), kind)
    family_of(named)
    return named


def _windows(tokens: list[int], length: int, count: int, path: Path) -> torch.Tensor:
    """Pieces spread evenly over the text, [windows, length]."""
    whole = len(tokens) // length
    if whole == 0:
        raise TripyException(
            f"{path} is too short.",
            got=f"{len(tokens)} tokens in a part of it",
            expected=f"{length} or more, in nine tenths and in the last tenth",
            hint="a longer text, or a smaller --length",
        )
    pieces = torch.tensor(tokens[: whole * length]).view(whole, length)
    return pieces[torch.linspace(0, whole - 1, min(count, whole)).long()]


@torch.no_grad()
def _bits(model: Any, windows: torch.Tensor, device: str) -> float:
    """Bits a token, the mean over the windows' tokens but the first."""
    total = 0.0
    for batch in progress(windows.split(4), "evaluating"):
        logits = model(batch[:, :-1].to(device)).logits.float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch[:, 1:].flatten().to(device), reduction="sum"
        )
        total += float(loss)
    return total / (windows.shape[0] * (windows.shape[1] - 1)) / math.log(2)


if __name__ == "__main__":
    sys.exit(main())
