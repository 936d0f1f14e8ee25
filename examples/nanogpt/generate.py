"""Text generation with `tp.generate`, beyond the context; and what a model predicts.

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


class Generator:
    """A model compiled for generation; it counts the tokens and seconds of each of its steps."""

    def __init__(self, model: GPT):
        self.model, self.caches = model, model.new_caches()
        self.steps = dict(zip(("prefill", "decode"), compile_steps(model), strict=True))
        self.tokens, self.seconds, self.slides = Counter(), Counter(), 0

    def check(self, prompt: list[int]) -> None:
        """Refuses, with a ValueError, a prompt that cannot be continued."""
        block, vocabulary = self.model.config.block_size, self.model.config.vocab_size
        unknown = sorted({token for token in prompt if not 0 <= token < vocabulary})
        if unknown or not 1 <= len(prompt) <= block:
            got = f"the tokens {unknown}" if unknown else f"a prompt of {len(prompt)} tokens"
            raise ValueError(
                f"[generate] got {got}; expected 1 to {block} tokens (the block size) from 0 to "
                f"{vocabulary - 1} (the vocabulary); try another --input-text"
            )

    def stream(self, prompt: list[int], count: int, **sampling):
        """Yields `count` tokens that follow the prompt, each as soon as it is known.

        `sampling` goes to tp.generate: temperature, top_k and seed. Each window has its own noise.
        """
        self.check(prompt)
        block, context, window = self.model.config.block_size, list(prompt), 0
        while count > 0:
            if len(context) > block:
                context, window = context[-max(block // 2, 1) :], window + 1
                self.slides += 1
            step, read, start = "prefill", len(context), time.perf_counter()
            new = min(count, block + 1 - read)
            how = {"max_new_tokens": new, "row_ids": [window], **sampling, **self.steps}
            for (token,) in tp.generate(prompts=[context], caches=self.caches, **how):
                now = time.perf_counter()
                self.seconds[step] += now - start
                self.tokens[step] += read
                step, read, start = "decode", 1, now
                context.append(token)
                yield token
            count -= new

    def warm_up(self, prompt: list[int]) -> None:
        """The first steps on a GPU compile kernels and record a graph: they are not counted."""
        list(self.stream(prompt, min(4, self.model.config.block_size + 1 - len(prompt))))
        self.tokens, self.seconds = Counter(), Counter()


def bits(model: GPT, inputs: np.ndarray, targets: np.ndarray) -> float:
    """The bits that a model needs for targets [windows, length], which follow the inputs."""
    windows, length = inputs.shape
    step = max(1, min(16, windows, EVALUATION_LOGITS // (length * model.config.vocab_size)))
    rows, nats = tp.NamedDimension("windows", 1, step, step), 0.0
    tokens = tp.InputInfo((rows, length), tp.int32)
    compiled = tp.compile(lambda tokens: tp.cast(model(tokens), tp.float32), args=[tokens])
    for i in range(0, windows, step):
        logits = compiled(tp.Tensor(inputs[i : i + step].tolist(), dtype=tp.int32)).numpy()
        logits = logits - logits.max(-1, keepdims=True)
        picked = np.take_along_axis(logits, targets[i : i + step, :, None], -1)
        nats += np.log(np.exp(logits).sum(-1)).sum(dtype=float) - picked.sum(dtype=float)
    return nats / math.log(2)
