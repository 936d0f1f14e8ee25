"""GPT-2 124M and XL on an NVIDIA GPU, beside PyTorch in the same process.

    python benchmarks/gpu_gpt2.py [--quick] [--sizes 124M XL] [--soak 100000]

Random weights: speed does not depend on them. Decode goes on from a context of 256 tokens, takes
the likeliest token, and is timed from the caller's view: the host's clock around a loop that gets
each token (tripy), or that waits at its end (the peers, whose tokens stay on the GPU). Prefill
reads 8 x 1024 tokens. The peers' cache is 512 positions long, tripy's is 1024. The KL divergence is
to the same weights in float32.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TRIPY_DEVICE", "gpu")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "nanogpt")]

import common  # noqa: E402
import torch  # noqa: E402
from gpt2_peers import STEPS, Peer, largest_inputs, measure_peers  # noqa: E402
from gpu_common import Timing, copy_bandwidth, on_the_gpu, timed  # noqa: E402
from model import GPT, QUANT_MODES, GPTConfig, compile_steps  # noqa: E402

import tripy as tp  # noqa: E402

T = torch.Tensor
MODES = ("none", "int8", "int8-weight-only", "int4-weight-only", "float8")
VOCABULARY, CAPACITY, CONTEXT = 50257, 1024, 256
PREFILL = (8, 1024)
SECONDS_FOR_PEERS = 90


class Size(NamedTuple):
    layers: int
    heads: int
    width: int
    batches: tuple[int, ...]


SIZES = {"124M": Size(12, 12, 768, (1, 8)), "XL": Size(48, 25, 1600, (1,))}


def random_state(size: Size) -> dict[str, T]:
    """Tensors by GPT-2's names, matrices [out, in], float32 on the GPU."""
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> T:
        return torch.randn(shape, generator=generator, device="cuda") * 0.02

    width = size.width
    state = {"wte.weight": normal(VOCABULARY, width), "wpe.weight": normal(CAPACITY, width)}
    shapes = {"attn.c_attn": (3 * width, width), "attn.c_proj": (width, width),
              "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}  # fmt: skip
    norms = ["ln_f"]
    for i in range(size.layers):
        for layer, shape in shapes.items():
            state[f"h.{i}.{layer}.weight"] = normal(*shape)
            state[f"h.{i}.{layer}.bias"] = normal(shape[0])
        norms += [f"h.{i}.ln_1", f"h.{i}.ln_2"]
    for norm in norms:
        state[f"{norm}.weight"] = torch.ones(width, device="cuda")
        state[f"{norm}.bias"] = torch.zeros(width, device="cuda")
    return state


def tripy_model(size: Size, mode: str, state: dict[str, T], inputs: dict[str, float]) -> GPT:
    """The example's model: scales are the largest magnitudes, of blocks of 64 for int4."""
    config = GPTConfig(VOCABULARY, CAPACITY, size.layers, size.heads, size.width,
                       quant_mode=mode, dtype=tp.float16)  # fmt: skip
    model, tensors = GPT(config), {name: t.half() for name, t in state.items()}
    kind, _, static = QUANT_MODES[mode]
    if kind is not None:
        tensors["lm_head.weight"] = tensors["wte.weight"]
        tensors["lm_head.weight_scale"] = state["wte.weight"].abs().amax(1) / 127
    for name in inputs if kind is not None else ():
        weight, high = state[f"{name}.weight"], {tp.int8: 127, tp.int4: 7}.get(kind, 448)
        if kind is tp.int4:
            scale = weight.view(weight.shape[0], -1, 64).abs().amax(2) / high
        else:
            scale = (weight.abs().amax(1) if kind is tp.int8 else weight.abs().max()) / high
        tensors[f"{name}.weight_scale"] = scale
        if static:
            tensors[f"{name}.input_scale"] = torch.tensor(inputs[name] / high, device="cuda")
    model.load_state_dict({name: tp.Tensor(t.half()) for name, t in tensors.items()}, strict=False)
    return model


# ------------------------------------------------------------------------------------------------
# Contestants.


class Ours:
    """A model of tripy, compiled for one batch."""

    def __init__(self, model: GPT, batch: int) -> None:
        self.prefill, self.decode = compile_steps(model, batch)
        self.caches, self.batch = model.new_caches(batch), batch

    def decode_timing(self, prompts: T, rounds: int) -> Timing:
        """A token, in the loop of tp.generate; prefill and the first steps are not counted."""
        rows, found, first = prompts.tolist(), [], 8
        for number in range(rounds + 1):
            stamps = []
            for _ in tp.generate(self.decode, rows, self.caches, prefill=self.prefill,
                                 max_new_tokens=STEPS + first):  # fmt: skip
                stamps.append(time.perf_counter())
            if number:  # The first one compiles kernels and records the step.
                found.append((stamps[-1] - stamps[first - 1]) / STEPS)
        return Timing(found)

    def replay_timing(self, rounds: int) -> Timing:
        """One call of the compiled function, which replays a CUDA graph."""
        token, place = (tp.Tensor(torch.full((self.batch,), n, dtype=torch.int32, device="cuda"))
                        for n in (5, CONTEXT))  # fmt: skip
        for _ in range(4):
            self.decode(token, place, self.caches)
        return on_the_gpu(lambda: self.decode(token, place, self.caches), rounds, 20)

    def prefill_timing(self, tokens: T, rounds: int) -> Timing:
        given = tp.Tensor(tokens.int())
        lengths = tp.Tensor(torch.full((len(tokens),), tokens.shape[1], device="cuda").int())
        self.prefill(given, lengths, self.caches)
        return timed(lambda: self.prefill(given, lengths, self.caches), rounds)

    def logits(self, tokens: T, lengths: T) -> T:
        given = tp.Tensor(tokens.int()), tp.Tensor(lengths.int())
        return self.prefill(*given, self.caches)[0].torch().float()


def divergence(reference: T, logits: T) -> float:
    """The mean KL divergence, in nats."""
    p, q = (torch.log_softmax(t.double(), -1) for t in (reference, logits))
    return float((p.exp() * (p - q)).sum(-1).mean())


def step_bytes(size: Size, mode: str, batch: int) -> float:
    """Bytes that a step must move: all weights with their scales, and the keys and values."""
    each = {"none": 2, "int4-weight-only": 0.5 + 2 / 64}.get(mode, 1)
    blocks, head = 12 * size.layers * size.width**2, VOCABULARY * size.width
    scales = 0 if mode == "none" else 2 * VOCABULARY + 2 * 9 * size.layers * size.width
    cache = 2 * 2 * size.layers * CONTEXT * size.width * batch
    return blocks * each + head * (2 if mode == "none" else 1) + scales + cache


def measure(name: str, bandwidth: float, rounds: int, quick: bool) -> list[dict]:
    """All contestants of one size."""
    size, state = SIZES[name], random_state(SIZES[name])
    exact = Peer(state, size.layers, size.heads)
    tokens = torch.randint(0, VOCABULARY, PREFILL, device="cuda")
    inputs = largest_inputs(exact, tokens[:2, :256])
    # The last position of each row, in rows of other lengths.
    ends = [torch.randint(1, 257, (PREFILL[0],), device="cuda") for _ in range(2)]
    rows = torch.arange(PREFILL[0], device="cuda")
    references = [exact.every(tokens[:, :256])[rows, end - 1] for end in ends]
    del exact
    batches, ours = size.batches[: 1 if quick else None], []
    for mode in ("none", "int8") if quick else MODES:
        model = tripy_model(size, mode, state, inputs)
        wide = Ours(model, PREFILL[0])
        kl = [divergence(r, wide.logits(tokens[:, :256], end)) for r, end in zip(references, ends)]
        accuracy = {"KL": sum(kl) / len(kl)}
        for batch in batches:
            steps = wide if batch == PREFILL[0] else Ours(model, batch)
            timing = steps.decode_timing(tokens[:batch, :CONTEXT], rounds)
            moved = step_bytes(size, mode, batch)
            more = {"replay us": steps.replay_timing(rounds).middle * 1e6, "MB": moved / 1e6,
                    "of bandwidth": moved / timing.middle / bandwidth}  # fmt: skip
            ours.append((f"decode, batch {batch}", f"tripy {mode}", timing, accuracy | more))
        if not quick:
            ours.append(("prefill", f"tripy {mode}", wide.prefill_timing(tokens, 5), accuracy))
        del model, wide, steps
        gc.collect()
    # Last: a compiler that is stopped may leave the GPU unusable.
    peers = measure_peers(
        state, size.layers, size.heads, batches, None if quick else tokens, CONTEXT, rounds,
        25 if quick else SECONDS_FOR_PEERS, quick,
    )  # fmt: skip
    rows = [(what, label, timing, {}) for what, group in peers.items()
            for label, timing in group.items()]  # fmt: skip
    results = []
    for what, label, timing, more in sorted(rows + ours, key=lambda row: row[0]):
        others = [t.middle for t in peers.get(what, {}).values()]
        ratio = {"x best peer": min(others) / timing.middle} if others else {}
        results.append({"size": name, "what": what, "contestant": label, "text": timing.text(),
                        "us": timing.middle * 1e6, **ratio, **more})  # fmt: skip
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
        new = measure(name, bandwidth, options.rounds, options.quick)
        show(new)
        results += new
        gc.collect()
        torch.cuda.empty_cache()
    bits = {} if options.quick else demo_bits()
    common.finish("gpu_gpt2", {**known, "copy TB/s": bandwidth / 1e12, "rows": results,
                               "demo bits a byte": bits})  # fmt: skip


if __name__ == "__main__":
    with torch.inference_mode():
        main()
