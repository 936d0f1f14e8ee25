"""GPT-2 124M on two CPU threads, beside PyTorch in the same process.

    python benchmarks/cpu_gpt2.py [--rounds 15] [--layers 12]

Random weights: speed and memory do not depend on them. Every contestant reads 512 tokens (prefill)
or one token after 512 (decode), and computes the logits of the last position only. The peers are
plain PyTorch, eager, with the key/value cache written in place.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("TRIPY_DEVICE", "cpu")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "nanogpt")]

import common  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from model import GPT, compile_steps  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from weight_loader import load_quant_weights_from_hf, read_config  # noqa: E402

import tripy as tp  # noqa: E402

TOKENS, WIDTH, HEADS, BLOCK, VOCABULARY = 512, 768, 12, 1024, 50257
MODES = ("none", "int8-weight-only", "int8", "int4-weight-only")


def checkpoint(folder: Path, layers: int) -> dict[str, torch.Tensor]:
    """A random GPT-2 in Hugging Face's layout."""
    torch.manual_seed(0)
    shapes = {"c_attn": (WIDTH, 3 * WIDTH), "c_proj": (WIDTH, WIDTH)}
    mlp = {"c_fc": (WIDTH, 4 * WIDTH), "c_proj": (4 * WIDTH, WIDTH)}
    state = {"wte.weight": torch.randn(VOCABULARY, WIDTH) * 0.02}
    state["wpe.weight"] = torch.randn(BLOCK, WIDTH) * 0.02
    norms = ["ln_f"]
    for i in range(layers):
        for part, layer_shapes in (("attn", shapes), ("mlp", mlp)):
            for name, shape in layer_shapes.items():
                state[f"h.{i}.{part}.{name}.weight"] = torch.randn(shape) * 0.02
                state[f"h.{i}.{part}.{name}.bias"] = torch.zeros(shape[1])
        norms += [f"h.{i}.ln_1", f"h.{i}.ln_2"]
    for norm in norms:
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(
        f'{{"vocab_size": {VOCABULARY}, "n_layer": {layers}, "n_head": {HEADS}, '
        f'"n_embd": {WIDTH}, "n_positions": {BLOCK}}}'
    )
    return state


class Peer:
    """GPT-2 in plain PyTorch, eager."""

    def __init__(self, state: dict[str, torch.Tensor], layers: int, dtype: torch.dtype) -> None:
        self.state = {
            name: (t.t() if ".c_" in name and t.dim() == 2 else t).to(dtype).contiguous()
            for name, t in state.items()
        }
        self.layers = layers
        head = WIDTH // HEADS
        self.caches = [torch.zeros(2, 1, HEADS, BLOCK, head, dtype=dtype) for _ in range(layers)]

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    @torch.inference_mode()
    def __call__(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        count = tokens.shape[1]
        end = start + count
        x = self.state["wte.weight"][tokens] + self.state["wpe.weight"][start:end]
        for i in range(self.layers):
            qkv = self.linear(self.norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
            q, k, v = (t.view(1, count, HEADS, -1).transpose(1, 2) for t in qkv.split(WIDTH, dim=2))
            cache = self.caches[i]
            cache[0, :, :, start:end], cache[1, :, :, start:end] = k, v
            y = F.scaled_dot_product_attention(
                q, cache[0, :, :, :end], cache[1, :, :, :end], is_causal=count > 1
            )
            y = y.transpose(1, 2).reshape(1, count, WIDTH)
            x = x + self.linear(y, f"h.{i}.attn.c_proj")
            h = self.linear(self.norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
            x = x + self.linear(F.gelu(h, approximate="tanh"), f"h.{i}.mlp.c_proj")
        return F.linear(self.norm(x[:, -1], "ln_f"), self.state["wte.weight"])


class Contestant:
    """The nanoGPT example's model, compiled."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.model = GPT(read_config(folder, mode))
        random = np.random.default_rng(0)
        load_quant_weights_from_hf(
            self.model, folder, mode, encode=lambda text: random.integers(0, VOCABULARY, 4096)
        )
        self.prefill, self.decode = compile_steps(self.model)
        self.caches = self.model.new_caches()

    def run_prefill(self, tokens: tp.Tensor) -> tp.Tensor:
        lengths = tp.Tensor([TOKENS], dtype=tp.int32)
        return self.prefill(tokens, lengths, self.caches)[0].eval()

    def run_decode(self, token: tp.Tensor, position: tp.Tensor) -> tp.Tensor:
        return self.decode(token, position, self.caches)[0].eval()


def compare_speed(folder: Path, state: dict, layers: int, rounds: int) -> dict[str, object]:
    """Prefill and decode of all contestants, interleaved."""
    peers = {
        "torch float32 eager": Peer(state, layers, torch.float32),
        "torch bfloat16 eager": Peer(state, layers, torch.bfloat16),
    }
    ours = {f"tripy {mode}": Contestant(folder, mode) for mode in MODES}
    ids = torch.randint(0, VOCABULARY, (1, TOKENS), dtype=torch.int32)
    tokens, token = tp.Tensor(ids), tp.Tensor(ids[0, :1])
    position = tp.Tensor([TOKENS], dtype=tp.int32)
    prefill = {n: (lambda p=p: p(ids.long(), 0)) for n, p in peers.items()}
    prefill |= {n: (lambda c=c: c.run_prefill(tokens)) for n, c in ours.items()}
    decode = {n: (lambda p=p: p(ids[:, :1].long(), TOKENS)) for n, p in peers.items()}
    decode |= {n: (lambda c=c: c.run_decode(token, position)) for n, c in ours.items()}
    reference = prefill["torch float32 eager"]()
    error = float((prefill["tripy none"]().torch() - reference).abs().max())
    results: dict[str, object] = {"float32 logits, largest difference to torch": error}
    weights = sum(t.numel() for name, t in state.items() if ".c_" in name and t.dim() == 2)
    for name, contestants, count in (
        (f"prefill of {TOKENS} tokens", prefill, rounds),
        (f"decode, context {TOKENS}", decode, rounds * 3),
    ):
        seconds = common.interleaved(contestants, count)
        base, half = (median(seconds[p]) for p in peers)
        rows, figures = [], {}
        for contestant, times in seconds.items():
            middle = median(times)
            figures[contestant] = {
                "ms": middle * 1e3, "x float32": base / middle, "x bfloat16": half / middle
            }  # fmt: skip
            rows.append([contestant, common.spread(times), f"{base / middle:.2f}",
                         f"{half / middle:.2f}"])  # fmt: skip
        flops = 2 * weights * (TOKENS if "prefill" in name else 1)
        print(f"\n{name}: {flops / 1e9:.1f} Gflop in the blocks' linear layers")
        print(common.table(["", "ms, median (middle half)", "x float32", "x bfloat16"], rows))
        results[name] = figures
    int8 = ours["tripy int8"]
    small = sum(r.weight_bytes for r in int8.decode.report().rows if "quantized" in r.operation)
    large = 4 * (weights + VOCABULARY * WIDTH)
    print(f"\nquantized layers' weights, int8: {small:,} bytes, {small / large:.4f} x float32")
    results["int8 weights / float32 weights"] = small / large
    path = folder / "decode.tripy"
    int8.decode.save(path)
    results["file bytes"] = path.stat().st_size
    return results


LOAD = """
import sys, gc
sys.path.insert(0, {root!r})
import tripy as tp, torch
def resident():
    with open("/proc/self/status") as file:
        sizes = dict(line.split(":") for line in file if line.startswith("Vm"))
    return [int(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")]
torch.ones(8, 8) @ torch.ones(8, 8)
before = resident()
program = tp.Executable.load({path!r}, tp.device("cpu"))
gc.collect()
after = resident()
print(after[0] - before[0], after[1] - before[0])
"""


def load_memory(folder: Path) -> dict[str, object]:
    """What a saved program takes in a new process, over the imports."""
    path = folder / "decode.tripy"
    code = LOAD.format(root=str(ROOT), path=str(path))
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    taken, peak = map(int, out.stdout.split())
    weights = path.stat().st_size
    print(
        f"\na saved int8 program, loaded: {taken / 2**20:.0f} MiB over the imports (peak "
        f"{peak / 2**20:.0f}); its weights are {weights / 2**20:.0f} MiB, so "
        f"{(taken - weights) / 2**20:+.0f} MiB beside them"
    )
    return {"loaded bytes": taken, "peak bytes": peak, "bytes beside weights": taken - weights}


def overheads() -> dict[str, object]:
    """A small eager operation, and importing tripy once torch is there."""
    x = tp.ones((4,)).eval()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(1000):
            (x + x).eval()
        times.append((time.perf_counter() - start) / 1000)
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); import torch; "
        "start = time.perf_counter(); import tripy; print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", code]
    imports = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(5)
    ]
    print(f"\na small eager operation: {median(times) * 1e6:.1f} us")
    print(f"import tripy, after import torch: {median(imports):.3f} s")
    return {"eager us": median(times) * 1e6, "import s": median(imports)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tp.config.default_device = tp.device("cpu")
    print("  ".join(f"{key}: {value}" for key, value in common.machine().items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = checkpoint(folder, options.layers)
        results = compare_speed(folder, state, options.layers, options.rounds)
        results |= load_memory(folder)
    results |= overheads()
    common.finish("cpu_gpt2", results)


if __name__ == "__main__":
    main()
