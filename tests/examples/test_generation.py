"""Sliding windows, and what happens to bad prompts; tests/test_generation.py has the rest."""

import numpy as np
import pytest
from generate import Generator
from model import GPT, GPTConfig

import tripy as tp

CONFIG = GPTConfig(vocab_size=40, block_size=10, n_layer=2, n_head=2, n_embd=16)


@pytest.fixture(scope="module")
def model():
    model, random = GPT(CONFIG), np.random.default_rng(0)
    state = {name: random.normal(size=p.shape) / 2 for name, p in model.state_dict().items()}
    del state["lm_head.weight"]
    state = {name: tp.Tensor(value.astype(np.float32)) for name, value in state.items()}
    model.load_state_dict(state)
    return model


def test_greedy_and_sliding(model):
    """When the context is full, its last half is read again: 5 of 11 tokens."""
    generator, context, expected = Generator(model), [1, 2, 3], []
    for _ in range(30):
        context = context[-5:] if len(context) > 10 else context
        logits = model(tp.Tensor([context], dtype=tp.int32)).numpy()
        context = [*context, int(logits[0, -1].argmax())]
        expected.append(context[-1])
    assert list(generator.stream([1, 2, 3], 30)) == expected
    # 3 + 8 tokens, then 5 + 6 and so on: reads after 8, 14, 20 and 26 tokens.
    assert generator.slides == 4
    assert generator.tokens == {"prefill": 3 + 4 * 5, "decode": 30 - 5}
    assert set(generator.seconds) == {"prefill", "decode"}


def test_tokens_come_one_by_one(model):
    generator = Generator(model)
    stream = generator.stream([1], 1000, temperature=1.0)
    for _ in range(3):
        next(stream)
    assert sum(generator.tokens.values()) == 3
    assert list(generator.stream([5, 6], 4)) == list(Generator(model).stream([5, 6], 4))


def test_a_prompt_of_the_whole_block(model):
    generator = Generator(model)
    assert len(list(generator.stream(list(range(10)), 1))) == 1
    assert len(list(generator.stream(list(range(10)), 3))) == 3
    assert generator.slides == 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], r"got a prompt of 0 tokens; expected 1 to 10 tokens"),
        ([1] * 11, r"got a prompt of 11 tokens; expected 1 to 10 tokens \(the block size\)"),
        ([3, 40, 2, 99, 40], r"got the tokens \[40, 99\]; .* 0 to 39 \(the vocabulary\)"),
        ([-1], r"got the tokens \[-1\]"),
    ],
)
def test_bad_prompts(model, prompt, message):
    with pytest.raises(ValueError, match=message):
        next(Generator(model).stream(prompt, 1))


def test_sampling(model):
    """Each window has noise of its own, and a seed gives the same text again."""
    options = {"temperature": 3.0, "top_k": 30}

    def text(seed):
        return list(Generator(model).stream([1, 2, 3], 40, seed=seed, **options))

    assert text(1) == text(1) != text(2)
    # A model that knows nothing: what is drawn is the noise alone.
    blank = GPT(CONFIG)
    blank.load_state_dict(
        {n: tp.zeros(tuple(p.shape)) for n, p in blank.state_dict().items()}, strict=False
    )
    drawn = list(Generator(blank).stream([1] * 10, 1 + 6 + 6, temperature=1.0))
    assert drawn[1:7] != drawn[7:13]


def test_warming_up(model):
    generator = Generator(model)
    generator.warm_up([1, 2, 3])
    assert not generator.tokens and not generator.seconds and not generator.slides
    generator.warm_up(list(range(10)))
    assert not generator.slides
    assert list(generator.stream([5, 6], 4)) == list(Generator(model).stream([5, 6], 4))
    with pytest.raises(ValueError, match="got a prompt of 0 tokens"):
        generator.warm_up([])
