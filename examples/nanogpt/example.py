"""Generates text with a GPT-2 that tripy has quantized, and measures what quantization costs.

    python example.py --quant-mode int8 --evaluate           # the demo, and its cost in bits a byte
    python example.py --model-type gpt2 --quant-mode int4-weight-only --input-text "Once upon"
    python example.py --checkpoint my_gpt2 --device gpu      # any GPT-2 that save_pretrained wrote

The demo's tokens are bytes. Those of other checkpoints need `pip install transformers`.
"""

import argparse
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from data import held_out_text
from generate import Generator, bits
from model import GPT, QUANT_MODES
from weight_loader import DEMO, load_quant_weights_from_hf, read_config

import tripy as tp

PROMPT = 'def read_lines(path):\n    """Read a file and return its lines."""\n'


class ByteTokenizer:
    def encode(self, text):  # Bytes on the command line that are not UTF-8 are surrogates.
        return list(text.encode("utf-8", "surrogateescape"))

    def decode(self, tokens):
        return bytes(tokens).decode("utf-8", "replace")


def make_tokenizer(source, vocabulary: int):
    """The tokenizer of a checkpoint: bytes, its own, or GPT-2's."""
    if vocabulary <= 256:
        return ByteTokenizer()
    try:
        from transformers import AutoTokenizer  # noqa: PLC0415  (optional)

        own = not Path(source).is_dir() or any(Path(source).glob("[tv]o*.json"))
        return AutoTokenizer.from_pretrained(source if own else "gpt2")
    except Exception as error:  # Not installed, no files, no network: of many types.
        raise ValueError(
            f"[tokenizer] got {error}; expected GPT-2's tokenizer; try pip install transformers, "
            "or a checkpoint with a tokenizer.json"
        ) from None


def load(source, quant_mode: str, tokenizer, calibration="tripy", dtype=tp.float32) -> GPT:
    """A model with its weights."""
    model = GPT(replace(read_config(source, quant_mode), dtype=dtype))
    load_quant_weights_from_hf(model, source, quant_mode, tokenizer.encode, calibration)
    return model


def show(tokens, tokenizer) -> bool:
    """Prints text as it is made; False if the user has stopped it."""
    waiting, finished = [], False
    with suppress(KeyboardInterrupt):
        for token in tokens:
            waiting.append(token)
            text = tokenizer.decode(waiting)
            # A character may take several tokens, but never more than 4.
            if not text.endswith("\ufffd") or len(waiting) == 4:
                print(text, end="", flush=True)
                waiting.clear()
        finished = True
    print(tokenizer.decode(waiting), "\n---", "" if finished else " stopped", sep="")
    return finished


def print_statistics(generator: Generator, model: GPT) -> None:
    """What it took: time, bytes and kernels."""
    floating = GPT(replace(model.config, quant_mode="none", dtype=tp.float32)).weight_bytes()
    for step, seconds in generator.seconds.items():
        count = generator.tokens[step]
        print(f"{step:9}{count:,} tokens, {count / seconds:,.0f} a second")
    if generator.slides:
        print(f"         the context was full {generator.slides} times; its last half was kept")
    print(f"weights  {model.weight_bytes():,} bytes; {floating:,} in float32")
    seconds = sum(step.compile_seconds for step in generator.steps.values())
    print(f"compile  {seconds:.2f} s for prefill and decode")
    rows = generator.steps["decode"].report().rows
    for kernel, count in Counter(f"{row.operation}: {row.kernel}" for row in rows).items():
        print(f"kernels  {count} x {kernel}")


def evaluate(source, tokenizer, model: GPT) -> None:
    """Prints bits a byte in float32 and quantized, on every fifth window of the held-out text."""
    length, mode = model.config.block_size, model.config.quant_mode
    tokens = np.array(tokenizer.encode((text := held_out_text()).decode()))
    total = (len(tokens) - 1) // length * length
    inputs, targets = (tokens[i : i + total].reshape(-1, length)[::5] for i in (0, 1))
    size = round(targets.size * len(text) / len(tokens))
    print(f"evaluate {size:,} bytes of held-out text, {len(inputs)} windows of {length} tokens")
    floating = bits(load(source, "none", tokenizer), inputs, targets) / size
    print(f"         float32: {floating:.4f} bits a byte", flush=True)
    mode = mode if model.config.dtype is tp.float32 else f"{mode}, {model.config.dtype}"
    if mode != "none":
        quantized = bits(model, inputs, targets) / size
        print(f"         {mode}: {quantized:.4f} bits a byte, {quantized / floating - 1:+.2%}")


def run(args: argparse.Namespace) -> int:
    """Loads, generates, reports; the exit code."""
    tp.config.default_device = None if args.device == "auto" else tp.device(args.device)
    gpu = tp.config.default_device.kind == "gpu"
    dtype = getattr(tp, getattr(args, "dtype", "float16" if gpu else "float32"))
    source = args.checkpoint or (DEMO if args.model_type == "demo" else args.model_type)
    tokenizer = make_tokenizer(source, read_config(source).vocab_size)
    prompt = tokenizer.encode(args.input_text)
    generator = Generator(load(source, args.quant_mode, tokenizer, args.calibration, dtype))
    (generator.warm_up if gpu else generator.check)(prompt)
    print(tokenizer.decode(prompt), end="", flush=True)
    how = {"temperature": args.temperature, "top_k": args.top_k or None, "seed": args.seed}
    finished = show(generator.stream(prompt, args.max_new_tokens, **how), tokenizer)
    print_statistics(generator, generator.model)
    if args.evaluate and finished:
        evaluate(source, tokenizer, generator.model)
    return 0 if finished else 130


def main() -> int:
    """Reads the arguments; an error is one message, without a traceback."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(None, None, __doc__.splitlines()[0], formatter_class=formatter)
    add, types = parser.add_argument, ("demo", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
    add("--input-text", default=PROMPT, help="what the text starts with")
    add("--model-type", choices=types, default="demo")
    add("--checkpoint", type=Path, help="folder with config.json and model.safetensors")
    add("--max-new-tokens", type=int, default=400)
    add("--seed", type=int, default=0)
    add("--temperature", type=float, default=0.7, help="0 takes the likeliest token")
    add("--top-k", type=int, default=0, help="only so many of the likeliest tokens; 0 for all")
    add("--quant-mode", choices=tuple(QUANT_MODES), default="none")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU if there is")
    usual = {"default": argparse.SUPPRESS, "help": "(default: float16 on a GPU, else float32)"}
    add("--dtype", choices=("float32", "float16", "bfloat16"), **usual)
    add("--calibration", choices=("tripy", "modelopt"), default="tripy", help="what finds scales")
    add("--evaluate", action="store_true", help="measure bits a byte on held-out text")
    args = parser.parse_args()
    for name, least in {"max_new_tokens": 1, "seed": 0, "temperature": 0, "top_k": 0}.items():
        if not getattr(args, name) >= least:
            parser.error(f"got {name}={getattr(args, name)}; expected {least} or more")
    sys.stdout.reconfigure(errors="replace")  # Not every terminal has every character.
    try:
        return run(args)
    except (tp.TripyException, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
