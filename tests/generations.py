"""What tests of tp.generate share: a small GPT, and functions that only count."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

import tests.demo  # noqa: F401  (makes the example's model known)
import tripy as tp

from model import GPT, GPTConfig  # isort: skip

CONFIG = GPTConfig(vocab_size=40, block_size=24, n_layer=2, n_head=2, n_embd=16)
PROMPTS = [[1, 2, 3], [4], [39, 0, 17, 5, 9, 11, 2]]


@contextmanager
def living_on(where):
    """New tensors live there."""
    chosen = tp.config._chosen_device
    tp.config.default_device = tp.device(where)
    try:
        yield
    finally:
        tp.config.default_device = chosen


def new_model():
    model, random = GPT(CONFIG), np.random.default_rng(0)
    state = {name: random.normal(size=p.shape) / 2 for name, p in model.state_dict().items()}
    del state["lm_head.weight"]
    state = {n: tp.Tensor(v.astype(np.float32).tolist()) for n, v in state.items()}
    model.load_state_dict(state)
    return model


def columns(iterator):
    """The tokens of each row."""
    return [list(column) for column in zip(*iterator)]


def generate(model, steps, prompts, count=12, **options):
    prefill, decode = steps[len(prompts)]
    options = {"prefill": prefill, "max_new_tokens": count, **options}
    return columns(tp.generate(decode, prompts, model.new_caches(len(prompts)), **options))


ROW, STATE = tp.InputInfo((2,), tp.int32), tp.InputInfo((2,), tp.float32)
PROMPT = tp.InputInfo((2, (3, 4, 8)), tp.int32)


def table():
    """The logits after each token: the next one is one more, of 4."""
    return tp.Tensor(np.roll(np.eye(4, dtype=np.float32), 1, 1).tolist())


def last_of(tokens, lengths):
    batch, length = tokens.shape
    places = tp.arange(batch, dtype=tp.int32) * length + lengths - 1
    return tp.gather(tp.flatten(tokens), 0, places)


def counting(tokens, lengths, state):
    return table()[last_of(tokens, lengths)], state + tp.cast(lengths, tp.float32)


def counting_on(tokens, position, state):
    return table()[tokens], state + 1.0


def new_counters():
    """prefill and decode, compiled."""
    prefill = tp.compile(counting, args=[PROMPT, ROW, STATE], backend="torch")
    return prefill, tp.compile(counting_on, args=[ROW, ROW, STATE], backend="torch")
