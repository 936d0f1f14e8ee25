"""Text generation, a prompt in one step and then a token at a time; and what a model predicts.

When the context is full, the window slides: its last half is read again from position 0, which is
what learned positions need. Keeping more would read again more often, keeping less forgets more.
"""

import math
import time
from collections import Counter

import numpy as np
from model import GPT, compile_steps

import tripy as tp

EVALUATION_LOGITS = 2**26  # elements of the logits of one evaluation step: 256 MiB


def make_sampler(temperature: float = 1.0, top_k: int | None = None, seed: int = 0):
    """A function that picks a token from logits; temperature 0 takes the likeliest."""
    random = np.random.default_rng(seed)

    def sample(logits: np.ndarray) -> int:
        if temperature == 0:
            return int(logits.argmax())
        count = min(top_k or len(logits), len(logits))
        tokens = np.argpartition(logits, -count)[-count:]
        weights = np.exp((logits[tokens].astype(np.float64) - logits.max()) / temperature)
        return int(random.choice(tokens, p=weights / weights.sum()))

    return sample


class Generator:
    """A model compiled for generation; it counts the tokens and seconds of each of its steps."""

    def __init__(self, model: GPT):
        self.config, self.caches = model.config, model.new_caches()
        self.steps = dict(zip(("prefill", "decode"), compile_steps(model), strict=True))
        self.tokens, self.seconds, self.slides = Counter(), Counter(), 0

    def check(self, prompt: list[int]) -> None:
        """Refuses, with a ValueError, a prompt that cannot be continued."""
        block, vocabulary = self.config.block_size, self.config.vocab_size
        unknown = sorted({token for token in prompt if not 0 <= token < vocabulary})
        if unknown or not 1 <= len(prompt) <= block:
            got = f"the tokens {unknown}" if unknown else f"a prompt of {len(prompt)} tokens"
            raise ValueError(
                f"[generate] got {got}; expected 1 to {block} tokens (the block size) from 0 to "
                f"{vocabulary - 1} (the vocabulary); try another --input-text"
            )

    def stream(self, prompt: list[int], count: int, sample):
        """Yields `count` tokens that follow the prompt, each as soon as it is known."""
        self.check(prompt)
        block, context, cached = self.config.block_size, list(prompt), False
        for _ in range(count):
            if len(context) > block:
                context, cached = context[-max(block // 2, 1) :], False
                self.slides += 1
            length = len(context)
            if cached:
                last, position = (tp.Tensor([n], dtype=tp.int32) for n in (context[-1], length - 1))
                logits = self._run("decode", 1, last, position, length)
            else:
                logits = self._run("prefill", length, tp.Tensor([context], dtype=tp.int32))
            context.append(sample(logits))
            cached = True
            yield context[-1]

    def _run(self, step, count, *arguments):
        start = time.perf_counter()
        logits, self.caches = self.steps[step](*arguments, self.caches)
        logits = logits.numpy()[0]  # Waits for a GPU.
        self.seconds[step] += time.perf_counter() - start
        self.tokens[step] += count
        return logits


def bits(model: GPT, inputs: np.ndarray, targets: np.ndarray) -> float:
    """The bits that a model needs for targets [windows, length], which follow the inputs."""
    windows, length = inputs.shape
    step = max(1, min(16, windows, EVALUATION_LOGITS // (length * model.config.vocab_size)))
    rows, nats = tp.NamedDimension("windows", 1, step, step), 0.0
    compiled = tp.compile(model, args=[tp.InputInfo((rows, length), tp.int32)])
    for i in range(0, windows, step):
        logits = compiled(tp.Tensor(inputs[i : i + step].tolist(), dtype=tp.int32)).numpy()
        logits = logits - logits.max(-1, keepdims=True)
        picked = np.take_along_axis(logits, targets[i : i + step, :, None], -1)
        nats += np.log(np.exp(logits).sum(-1)).sum(dtype=float) - picked.sum(dtype=float)
    return nats / math.log(2)
