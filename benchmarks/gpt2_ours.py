"""GPT-2 as the example has it, with random weights: what ``gpu_gpt2`` measures of tripy."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from gpt2_peers import STEPS
from gpu_common import Timing, on_the_gpu, timed
from model import GPT, QUANT_MODES, GPTConfig, compile_steps

import tripy as tp

T = torch.Tensor
VOCABULARY, CAPACITY, CONTEXT = 50257, 1024, 256
PREFILL = (8, 1024)


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
