"""Sampling, sliding windows, and what happens to bad prompts."""

import numpy as np
import pytest
from generate import Generator, make_sampler
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
    assert list(generator.stream([1, 2, 3], 30, make_sampler(temperature=0))) == expected
    # 3 + 8 tokens, then 5 + 6 and so on: reads after 8, 14, 20 and 26 tokens.
    assert generator.slides == 4
    assert generator.tokens == {"prefill": 3 + 4 * 5, "decode": 30 - 5}
    assert set(generator.seconds) == {"prefill", "decode"}


def test_tokens_come_one_by_one(model):
    generator = Generator(model)
    stream = generator.stream([1], 1000, make_sampler())
    for _ in range(3):
        next(stream)
    assert sum(generator.tokens.values()) == 3
    assert list(generator.stream([5, 6], 4, make_sampler(0))) == list(
        Generator(model).stream([5, 6], 4, make_sampler(0))
    )


def test_a_prompt_of_the_whole_block(model):
    generator = Generator(model)
    assert len(list(generator.stream(list(range(10)), 1, make_sampler()))) == 1
    assert len(list(generator.stream(list(range(10)), 3, make_sampler()))) == 3
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
        next(Generator(model).stream(prompt, 1, make_sampler()))


def test_sampling():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    assert {make_sampler(0, seed=seed)(logits) for seed in range(5)} == {0}

    def shares(**options):
        sample = make_sampler(**options)
        return np.bincount([sample(logits) for _ in range(4000)], minlength=4) / 4000

    # 4000 draws: three standard deviations are at most 0.024.
    np.testing.assert_allclose(shares(), [0.5, 0.3, 0.15, 0.05], atol=0.024)
    np.testing.assert_allclose(shares(top_k=2), [0.625, 0.375, 0, 0], atol=0.024)
    np.testing.assert_allclose(shares(top_k=9), [0.5, 0.3, 0.15, 0.05], atol=0.024)
    squares = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(shares(temperature=0.5), squares / squares.sum(), atol=0.024)
    first, second = make_sampler(seed=7), make_sampler(seed=7)
    assert [first(logits) for _ in range(50)] == [second(logits) for _ in range(50)]
    assert make_sampler(1e-6)(np.array([1e4, 0.0], dtype=np.float32)) == 0
