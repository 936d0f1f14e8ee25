"""GPT-2 in plain PyTorch, for benchmarks: eager, compiled, and with int8 weights.

Written as PyTorch's own examples are: a static key/value cache, a mask by position, weights stored
[out, in]. The int8 one multiplies int8 weights with one scale for each output, which torch.compile
fuses into the product.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from gpu_common import Timing, at_most, attempt, timed

T = torch.Tensor
STEPS = 64  # of one timing


class Linear(torch.nn.Module):
    """A linear layer with a weight in floating point, or in int8 with scales."""

    def __init__(self, weight: T, bias: T | None, int8: bool) -> None:
        super().__init__()
        self.register_buffer("scale", None)
        if int8:
            scale = weight.float().abs().amax(1) / 127
            integers = torch.round(weight.float() / scale[:, None]).to(torch.int8)
            self.scale, weight = scale.to(weight.dtype), integers
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: T) -> T:
        if self.scale is None:
            return F.linear(x, self.weight, self.bias)
        y = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return y if self.bias is None else y + self.bias


class Block(torch.nn.Module):
    """One layer, with its cache [2, batch, heads, capacity, head size]."""

    def __init__(self, state: dict[str, T], name: str, heads: int, int8: bool) -> None:
        super().__init__()
        self.heads = heads
        for norm in ("ln_1", "ln_2"):
            for part in ("weight", "bias"):
                self.register_buffer(f"{norm}_{part}", state[f"{name}.{norm}.{part}"])
        layers = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "up": "mlp.c_fc",
                  "down": "mlp.c_proj"}  # fmt: skip
        for own, layer in layers.items():
            weight, bias = (state[f"{name}.{layer}.{part}"] for part in ("weight", "bias"))
            setattr(self, own, Linear(weight, bias, int8))
        self.register_buffer("cache", None)

    def forward(self, x: T, position: T | None, mask: T | None) -> T:
        batch, length, width = x.shape
        h = F.layer_norm(x, (width,), self.ln_1_weight, self.ln_1_bias)
        qkv = self.qkv(h).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        if position is not None:
            self.cache[0].index_copy_(2, position, k)
            self.cache[1].index_copy_(2, position, v)
            k, v = self.cache[0], self.cache[1]
        elif self.cache is not None:
            self.cache[0, :, :, :length], self.cache[1, :, :, :length] = k, v
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, length, width))
        h = F.layer_norm(x, (width,), self.ln_2_weight, self.ln_2_bias)
        return x + self.down(F.gelu(self.up(h), approximate="tanh"))


class Peer(torch.nn.Module):
    """The model.

    Args:
        state: Tensors by GPT-2's names, matrices [out, in].
        layers: How many layers.
        heads: Heads of each.
        int8: Whether weights are int8.
    """

    def __init__(self, state: dict[str, T], layers: int, heads: int, int8: bool = False) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            Block(state, f"h.{i}", heads, int8) for i in range(layers)
        )
        for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"):
            self.register_buffer(name.replace(".", "_"), state[name])
        self.head = Linear(state["wte.weight"], None, int8)

    def set_caches(self, batch: int, capacity: int) -> None:
        """Caches of zeros."""
        width = self.wte_weight.shape[1]
        for block in self.blocks:
            shape = (2, batch, block.heads, capacity, width // block.heads)
            block.cache = torch.zeros(shape, dtype=self.wte_weight.dtype, device="cuda")

    def decode(self, tokens: T, position: T) -> T:
        """tokens [batch] at position [1] -> the next tokens, the likeliest."""
        capacity = self.blocks[0].cache.shape[3]
        mask = (torch.arange(capacity, device=tokens.device) <= position)[None, None, None]
        x = (self.wte_weight[tokens] + self.wpe_weight[position])[:, None]
        for block in self.blocks:
            x = block(x, position, mask)
        return self._logits(x[:, -1]).argmax(-1)

    def prefill(self, tokens: T) -> T:
        """tokens [batch, length] -> logits of the last one."""
        x = self.wte_weight[tokens] + self.wpe_weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, None, None)
        return self._logits(x[:, -1])

    def every(self, tokens: T) -> T:
        """tokens [batch, length] -> logits of all of them."""
        x = self.wte_weight[tokens] + self.wpe_weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, None, None)
        return self._logits(x)

    def _logits(self, x: T) -> T:
        x = F.layer_norm(x, x.shape[-1:], self.ln_f_weight, self.ln_f_bias)
        return self.head(x)


def largest_inputs(peer: Peer, tokens: T) -> dict[str, float]:
    """The largest magnitude that each linear layer of the blocks reads, by the layer's name."""
    found: dict[str, float] = {}
    names = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
    hooks = []
    for i, block in enumerate(peer.blocks):
        for own, layer in names.items():

            def see(module: object, given: tuple[T, ...], name: str = f"h.{i}.{layer}") -> None:
                found[name] = max(found.get(name, 0.0), float(given[0].abs().max()))

            hooks.append(getattr(block, own).register_forward_pre_hook(see))
    peer.prefill(tokens)
    for hook in hooks:
        hook.remove()
    return found


def _decode_timing(peer: Peer, step: Callable, batch: int, context: int, rounds: int) -> Timing:
    """A token: each step's are the next one's input, and stay on the GPU."""
    peer.set_caches(batch, 2 * context)
    positions = [torch.tensor([context + i], device="cuda") for i in range(STEPS)]

    def loop() -> None:
        tokens = torch.full((batch,), 5, device="cuda")
        for position in positions:
            torch.compiler.cudagraph_mark_step_begin()
            tokens = step(tokens, position).clone()

    loop()
    return timed(loop, rounds, STEPS)


def with_torchao(peer: Peer) -> Peer:
    """Its layers as torch.nn.Linear, quantized by torchao: int8 weights."""
    quantization = importlib.import_module("torchao.quantization")
    for module in [*peer.blocks, peer]:
        for name in ("qkv", "proj", "up", "down", "head"):
            if hasattr(module, name):
                old = getattr(module, name)
                new = torch.nn.Linear(*old.weight.shape[::-1], bias=old.bias is not None,
                                      device="cuda", dtype=torch.float16)  # fmt: skip
                parts = {"weight": old.weight, "bias": old.bias}
                new.load_state_dict({k: v for k, v in parts.items() if v is not None})
                setattr(module, name, new)
    quantization.quantize_(peer, quantization.Int8WeightOnlyConfig())
    return peer


def measure_peers(
    state: dict[str, T], layers: int, heads: int, batches: Sequence[int], prefill: T | None,
    context: int, rounds: int, seconds: float, few: bool,
) -> dict[str, dict[str, Timing]]:  # fmt: skip
    """Times of each peer, by what is measured; what fails or takes too long is left out.

    Args:
        state: The weights, float32.
        layers: How many layers.
        heads: Heads of each.
        batches: Of decode.
        prefill: The tokens of prefill; None for no prefill.
        context: Where decode begins; the cache is twice as long.
        rounds: Timings of each.
        seconds: For all of them, compiling included.
        few: Whether to leave out the compiled float16 model.
    """
    half = {n: t.half() for n, t in state.items()}
    end, found = time.perf_counter() + seconds, {}

    def timing_of(label: str, what: str, run: Callable[[], Timing]) -> None:
        def within_time() -> Timing:
            with at_most(end - time.perf_counter()):
                return run()

        timing = attempt(f"{label}, {what}", within_time)
        if timing is not None:
            found.setdefault(what, {})[label] = timing
            print(f"{what}, {label}: {timing.text()} us", flush=True)

    def compiled(peer: Peer, method: str) -> Callable:
        torch._dynamo.reset()
        return torch.compile(getattr(peer, method), mode="reduce-overhead", dynamic=False)

    def decode(make: Callable[[], Peer], batch: int) -> Timing:
        peer = make()
        return _decode_timing(peer, compiled(peer, "decode"), batch, context, rounds)

    eager = Peer(half, layers, heads)
    makers = {
        "torch.compile int8 weights": lambda: Peer(half, layers, heads, True),
        "torch.compile float16": lambda: Peer(half, layers, heads),
    }
    if few:
        del makers["torch.compile float16"]
    if importlib.util.find_spec("torchao") is not None:
        makers["torch.compile torchao int8"] = lambda: with_torchao(Peer(half, layers, heads))
    if prefill is not None:
        label, what = "torch float16, eager", "prefill"
        timing_of(label, what, lambda: timed(lambda: eager.prefill(prefill), 5))
        # A block at a time, which is compiled once for all of them.
        blocks = Peer(half, layers, heads)
        torch._dynamo.reset()
        for block in blocks.blocks:
            block.compile(dynamic=False)
        label = "torch.compile float16, by block"
        timing_of(label, what, lambda: timed(lambda: blocks.prefill(prefill), rounds))
    for batch in batches:
        what = f"decode, batch {batch}"
        timing_of("torch float16, eager", what, partial(_decode_timing, eager, eager.decode, batch,
                                                      context, 5))  # fmt: skip
        for label, make in makers.items():
            timing_of(label, what, partial(decode, make, batch))
    return found
