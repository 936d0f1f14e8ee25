"""tp.generate: what it yields, and what it leaves in the caches."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.generations import (
    PROMPT,
    PROMPTS,
    ROW,
    STATE,
    columns,
    generate,
    last_of,
    new_counters,
    new_model,
    table,
)
from tripy.backends.torch.kernels import sampling

from model import compile_steps  # isort: skip


@pytest.fixture(scope="module")
def model():
    return new_model()


@pytest.fixture(scope="module")
def steps(model):
    return {batch: compile_steps(model, batch) for batch in (1, 3)}


def without_a_cache(model, prompt, count, choose):
    """By definition: the whole text is read again for each token."""
    context = list(prompt)
    for step in range(count):
        logits = model(tp.Tensor([context], dtype=tp.int32)).numpy()[0, -1]
        context.append(choose(logits, step))
    return context[len(prompt) :]


def test_greedy(model, steps):
    expected = [without_a_cache(model, p, 12, lambda x, _: int(x.argmax())) for p in PROMPTS]
    assert generate(model, steps, PROMPTS) == expected
    assert [generate(model, steps, [p])[0] for p in PROMPTS] == expected
    assert len({tuple(row) for row in expected}) == 3


@pytest.mark.parametrize("top_k", [None, 5])
def test_sampled(model, steps, top_k):
    """The largest sum of logit and noise, which depends on seed, step, row id and token alone."""

    def choose(row):
        def chosen(logits, step):
            total = logits + np.float32(0.8) * sampling.noise(7, np.arange(40), row, step)
            least = np.sort(logits)[-(top_k or 40)]
            return int(np.where(logits >= least, total, -np.inf).argmax())

        return chosen

    options = {"temperature": 0.8, "top_k": top_k, "seed": 7}
    expected = [without_a_cache(model, p, 12, choose(i)) for i, p in enumerate(PROMPTS)]
    assert generate(model, steps, PROMPTS, **options) == expected
    assert generate(model, steps, PROMPTS, **options | {"seed": 8}) != expected


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}])
def test_a_row_does_not_depend_on_the_others(model, steps, options):
    """With the same row id it is the same alone, in another row, and beside other prompts."""
    ids = [5, 0, 2**31 - 1]
    together = generate(model, steps, PROMPTS, row_ids=ids, **options)
    for row, prompt in enumerate(PROMPTS):
        assert generate(model, steps, [prompt], row_ids=[ids[row]], **options) == [together[row]]
    turned = generate(
        model, steps, [*PROMPTS[1:], PROMPTS[0]], row_ids=[*ids[1:], ids[0]], **options
    )
    assert turned == [*together[1:], together[0]]
    same = generate(model, steps, [[7, 7]] * 3, **options)
    assert (same[0] == same[1]) == (not options)  # By default each row has its own noise.


def test_equal_seeds_draw_equal_tokens(model, steps):
    first, second = (generate(model, steps, PROMPTS, temperature=2.0, seed=3) for _ in range(2))
    assert first == second
    for lookahead in (1, 3, 1024):
        again = generate(model, steps, PROMPTS, temperature=2.0, seed=3, lookahead=lookahead)
        assert again == first


def test_stop_tokens(model, steps):
    whole = generate(model, steps, PROMPTS)
    stops = [whole[0][4], whole[2][1]]
    expected = []
    for row in whole:
        end = next((i for i, token in enumerate(row) if token in stops), 11)
        expected.append(row[: end + 1] + [None] * (11 - end))
    longest = max(sum(token is not None for token in row) for row in expected)
    found = generate(model, steps, PROMPTS, stop_tokens=stops)
    assert found == [row[:longest] for row in expected]
    # All rows stop at once: it ends there.
    first = {row[0] for row in whole}
    assert generate(model, steps, PROMPTS, stop_tokens=first) == [row[:1] for row in whole]


def test_the_caches_hold_what_was_read(model, steps):
    """After the prompts, all new tokens but the last; of a stopped row, those before it stopped."""
    whole = generate(model, steps, PROMPTS)
    stop = whole[1][2]
    caches, (prefill, decode) = model.new_caches(3), steps[3]
    tokens = columns(
        tp.generate(decode, PROMPTS, caches, prefill=prefill, max_new_tokens=8, stop_tokens=[stop])
    )
    for row, prompt in enumerate(PROMPTS):
        read = prompt + [token for token in tokens[row] if token is not None][:-1]
        alone = model.new_caches(1)
        steps[1][0](
            tp.Tensor([read], dtype=tp.int32), tp.Tensor([len(read)], dtype=tp.int32), alone
        )
        for cache, expected in zip(caches, alone):
            got = cache.numpy()[row, :, : len(read)]
            np.testing.assert_allclose(got, expected.numpy()[0, :, : len(read)], atol=1e-5)


def test_the_capacity(model, steps):
    prefill, decode = steps[1]
    caches, prompt = model.new_caches(1), list(range(20))
    room = {"prefill": prefill, "max_new_tokens": 5}  # 20 + 4: the last token is not written.
    assert len(list(tp.generate(decode, [prompt], caches, **room))) == 5
    before = [cache.numpy().copy() for cache in caches]
    message = (
        r"(?s)no room for so many tokens.*a prompt of 20 tokens and max_new_tokens=6: 25 pos"
        r".*at most 24"
    )
    with pytest.raises(tp.TripyException, match=message):
        tp.generate(decode, [prompt], caches, **room | {"max_new_tokens": 6})
    assert all((a == b.numpy()).all() for a, b in zip(before, caches))
    assert len(list(tp.generate(decode, [list(range(24))], caches, **room | {"max_new_tokens": 1})))
    with pytest.raises(tp.TripyException, match=r"tokens.shape\[1\] is out of bounds"):
        tp.generate(decode, [[1] * 25], caches, **room | {"max_new_tokens": 1})


def test_a_new_generation_in_the_same_caches(model, steps):
    prefill, decode = steps[3]
    caches = model.new_caches(3)
    options = {"prefill": prefill, "max_new_tokens": 10}
    expected = generate(model, steps, PROMPTS[::-1], 10)
    list(tp.generate(decode, PROMPTS, caches, **options))
    stopped = tp.generate(decode, PROMPTS, caches, **options)
    next(stopped)
    stopped.close()
    assert columns(tp.generate(decode, PROMPTS[::-1], caches, **options)) == expected


# ------------------------------------------------------------------------------------------------
# Functions that are no transformers.


@pytest.fixture(scope="module")
def counters():
    return new_counters()


def test_short_prompts_are_padded_and_state_comes_back(counters):
    """The shortest prompt compiled for is 3; the state is not written in place, but copied."""
    prefill, decode = counters
    state = tp.zeros((2,))
    found = list(tp.generate(decode, [[3], [0, 1]], state, prefill=prefill, max_new_tokens=4))
    assert found == [[0, 2], [1, 3], [2, 0], [3, 1]]
    assert state.tolist() == [1 + 3, 2 + 3]


def test_functions_from_files(model, steps, tmp_path):
    expected = generate(model, steps, PROMPTS)
    loaded = []
    for name, step in zip(("prefill", "decode"), steps[3]):
        step.save(tmp_path / name)
        loaded.append(tp.Executable.load(tmp_path / name))
    assert generate(model, {3: loaded}, PROMPTS) == expected


def test_nested_caches():
    """In any structure, and returned in another order of the outputs."""

    def prefill(tokens, lengths, caches):
        caches = {"b": [caches["b"][0] + 1.0], "a": caches["a"] + 2.0}
        return table()[last_of(tokens, lengths)], caches

    def decode(tokens, position, caches):
        return [table()[tokens], {"a": caches["a"] * 2.0, "b": [caches["b"][0] * 3.0]}]

    caches = {"a": STATE, "b": [STATE]}
    functions = [
        tp.compile(prefill, args=[PROMPT, ROW, caches]),
        tp.compile(decode, args=[ROW, ROW, caches]),
    ]
    given = {"a": tp.zeros((2,)), "b": [tp.zeros((2,))]}
    found = tp.generate(functions[1], [[0], [1]], given, prefill=functions[0], max_new_tokens=3)
    assert list(found) == [[1, 2], [2, 3], [3, 0]]
    assert given["a"].tolist() == [8, 8] and given["b"][0].tolist() == [9, 9]


@pytest.mark.parametrize("turned", [False, True])
def test_state_that_moves_from_one_cache_to_another(turned):
    """As in a shift register: what is written into one is what another held before."""

    def move(first, second, new):
        return (new, first) if not turned else (second, new)

    def prefill(tokens, lengths, caches):
        return table()[last_of(tokens, lengths)], move(*caches, tp.cast(lengths, tp.float32))

    def decode(tokens, position, caches):
        return table()[tokens], move(*caches, tp.cast(tokens, tp.float32))

    states = (STATE, STATE)
    prefill = tp.compile(prefill, args=[PROMPT, ROW, states], backend="torch")
    decode = tp.compile(decode, args=[ROW, ROW, states], backend="torch")
    caches = tp.zeros((2,)).eval(), tp.ones((2,)).eval()
    found = tp.generate(decode, [[3], [0, 1]], caches, prefill=prefill, max_new_tokens=3)
    assert list(found) == [[0, 2], [1, 3], [2, 0]]
    # Two decode steps have read the tokens of the first two steps.
    assert [c.tolist() for c in caches] == [[0, 2], [1, 3]][:: 1 if turned else -1]


def test_the_work_begins_with_the_first_step(counters):
    prefill, decode = counters
    state = tp.zeros((2,))
    found = tp.generate(decode, [[0], [0]], state, prefill=prefill, max_new_tokens=4)
    assert state.tolist() == [0, 0]
    assert next(found) == [1, 1] and state.tolist() == [1, 1]
    assert next(found) == [2, 2] and state.tolist() == [2, 2]


def test_tokens_may_be_of_other_kinds(counters):
    prefill, decode = counters
    prompts = [np.array([0, 1]), bytes([3])]
    options = {"prefill": prefill, "max_new_tokens": np.int64(2), "stop_tokens": {3}}
    assert list(tp.generate(decode, prompts, tp.zeros((2,)), **options)) == [[2, 0], [3, 1]]


def choosing(logits):
    """Functions whose logits are always these."""

    def prefill(tokens, lengths, state):
        return logits + tp.cast(tokens[:, :1], tp.float32) * 0.0, state

    def decode(tokens, position, state):
        return logits + tp.cast(tp.unsqueeze(tokens, 1), tp.float32) * 0.0, state

    count = logits.shape[0]
    row, state = tp.InputInfo((count,), tp.int32), tp.InputInfo((1,), tp.float32)
    prompt = tp.InputInfo((count, 1), tp.int32)
    return tp.compile(prefill, args=[prompt, row, state]), tp.compile(
        decode, args=[row, row, state]
    )


def drawn(logits, count, **options):
    prefill, decode = choosing(tp.Tensor(logits))
    prompts = [[0]] * len(logits)
    options = {"prefill": prefill, "max_new_tokens": count, **options}
    return np.array(list(tp.generate(decode, prompts, tp.zeros((1,)), **options)))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 2}])
def test_not_a_number_is_the_largest(options):
    logits = np.zeros((2, 5), np.float32)
    logits[1, 3] = np.nan
    assert (drawn(logits, 4, **options)[:, 1] == 3).all()


def test_equal_logits():
    logits = np.array([[0, 1, 1, 0], [-0.0, -1, -2, -3], [-np.inf] * 4], np.float32)
    assert drawn(logits, 2).tolist() == [[1, 0, 0]] * 2
    # All that equal the second largest may be drawn.
    logits = np.array([[0, 2, 0, 0, -1]], np.float32)
    assert set(drawn(logits, 200, temperature=5.0, top_k=2).ravel()) == {0, 1, 2, 3}
    assert set(drawn(logits, 50, temperature=5.0, top_k=1).ravel()) == {1}


def test_frequencies():
    chances = np.array([0.5, 0.3, 0.15, 0.05])
    logits = np.log(np.tile(chances, (40, 1))).astype(np.float32)

    def shares(**options):
        return np.bincount(drawn(logits, 100, **options).ravel(), minlength=4) / 4000

    # 4000 draws: three standard deviations are at most 0.024.
    np.testing.assert_allclose(shares(temperature=1), chances, atol=0.024)
    np.testing.assert_allclose(shares(temperature=1, top_k=2), [0.625, 0.375, 0, 0], atol=0.024)
    np.testing.assert_allclose(shares(temperature=1, top_k=9), chances, atol=0.024)
    np.testing.assert_allclose(shares(temperature=0.5), chances**2 / (chances**2).sum(), atol=0.024)


def test_large_vocabularies():
    """Tokens that cannot win are left out before their noise is computed: it changes nothing."""
    random = np.random.default_rng(0)
    for spread in (0.1, 3.0, 100.0):
        logits = (random.normal(size=(4, 3000)) * spread).astype(np.float32)
        found = drawn(logits, 3, temperature=1.0, seed=11)
        for (step, row), token in np.ndenumerate(found):
            total = logits[row] + sampling.noise(11, np.arange(3000), row, step)
            assert token == total.argmax()


def test_philox():
    """The known answers of Random123, the authors' own library."""
    known = [
        (0, 0, 0, 0, 0x6627E8D5),
        (2**64 - 1, 2**32 - 1, 2**32 - 1, 2**64 - 1, 0x408F276D),
        (0x299F31D0A4093822, 0x243F6A88, 0x85A308D3, 0x0370734413198A2E, 0xD16CFE09),
    ]
    for key, first, second, rest, expected in known:
        tokens = np.array([first], np.uint64)
        assert sampling.philox(key, tokens, second, rest).tolist() == [expected]
