"""tp.generate on a GPU: a recorded step, launched ahead of what has been read."""

from __future__ import annotations

import pytest
import torch

import tripy as tp
from tests.generations import PROMPTS, columns, generate, living_on, new_counters, new_model
from tripy.backends.torch import generation

from model import compile_steps  # isort: skip

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def on_cpu():
    with living_on("cpu"):
        model = new_model()
        return model, {3: compile_steps(model, 3)}


@pytest.fixture(scope="module")
def on_gpu():
    """The model there, and its steps; new tensors are made there too."""
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    with living_on("gpu"):
        model = new_model()
        yield model, {batch: compile_steps(model, batch) for batch in (1, 3)}


def idle(decode):
    """Recorded steps that are kept for a program."""
    return list(generation._of_programs[decode._program].idle.values())


OPTIONS = [{}, {"temperature": 0.8, "seed": 4}, {"temperature": 0.8, "top_k": 5, "seed": 4}]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_gpu_draws_what_the_cpu_draws(on_cpu, on_gpu, options):
    """First run, run again with another recording, and run again from a recording."""
    there, fast = on_gpu
    found = generate(there, fast, PROMPTS, **options)
    assert found == generate(there, fast, PROMPTS, **options)
    caches, (prefill, decode) = there.new_caches(3), fast[3]
    for lookahead in (1, 2, 8, 8, 8):
        again = tp.generate(
            decode, PROMPTS, caches, prefill=prefill, max_new_tokens=12, lookahead=lookahead,
            **options,
        )  # fmt: skip
        assert columns(again) == found
    assert idle(decode)[-1].graph is not None and not idle(decode)[-1].refused
    alone = [generate(there, fast, [p], row_ids=[i], **options)[0] for i, p in enumerate(PROMPTS)]
    assert alone == found
    with living_on("cpu"):
        assert found == generate(*on_cpu, PROMPTS, **options)


def test_stop_tokens_on_a_gpu(on_gpu):
    model, steps = on_gpu
    whole = generate(model, steps, PROMPTS)
    for stops in ([whole[0][4]], [whole[0][4], whole[2][1], whole[1][7]], {r[0] for r in whole}):
        ends = [next((i for i, t in enumerate(row) if t in stops), 11) for row in whole]
        longest = max(ends) + 1
        expected = [row[: e + 1] + [None] * (longest - e - 1) for row, e in zip(whole, ends)]
        for _ in range(3):
            assert generate(model, steps, PROMPTS, stop_tokens=stops) == expected


def test_several_generations_at_once_on_a_gpu(on_gpu):
    """One program, caches of their own, taking turns; and one that is left in the middle."""
    model, steps = on_gpu
    prefill, decode = steps[1]
    expected = [generate(model, steps, [p])[0] for p in PROMPTS]
    for _ in range(3):
        running = [
            tp.generate(decode, [p], model.new_caches(1), prefill=prefill, max_new_tokens=12)
            for p in PROMPTS
        ]
        left = tp.generate(decode, [[9]], model.new_caches(1), prefill=prefill, max_new_tokens=9)
        next(left)
        assert columns([a + b + c for a, b, c in zip(*running)]) == expected
        left.close()
    assert 0 < len(idle(decode)) <= generation._KEPT


def test_caches_after_a_generation_on_a_gpu(on_gpu):
    """Left early, there may be more in them; whoever uses them next waits for it."""
    model, steps = on_gpu
    prefill, decode = steps[1]
    expected = generate(model, steps, [PROMPTS[0]], 16)[0]
    caches = model.new_caches(1)
    for taken in (1, 3, 6):
        stopped = tp.generate(
            decode, [PROMPTS[0]], caches, prefill=prefill, max_new_tokens=16, lookahead=4
        )
        assert [next(stopped)[0] for _ in range(taken)] == expected[:taken]
        stopped.close()
        read = PROMPTS[0] + expected[:taken]
        following, position = (tp.Tensor([n], dtype=tp.int32) for n in (read[-1], len(read) - 1))
        logits, _ = decode(following, position, caches)
        assert logits.numpy()[0].argmax() == expected[taken]


def test_state_that_is_copied_on_a_gpu(on_gpu):
    prefill, decode = new_counters()
    for _ in range(3):
        state = tp.zeros((2,))
        found = tp.generate(decode, [[3], [0, 1]], state, prefill=prefill, max_new_tokens=4)
        assert list(found) == [[0, 2], [1, 3], [2, 0], [3, 1]]
        assert state.tolist() == [1 + 3, 2 + 3]


def test_memory_stays_as_it_is_on_a_gpu(on_gpu):
    model, steps = on_gpu
    (prefill, decode), caches = steps[3], model.new_caches(3)

    def run(count):
        for _ in range(count):
            options = {"prefill": prefill, "max_new_tokens": 17, "temperature": 1.0}
            for _ in tp.generate(decode, PROMPTS, caches, **options):
                pass
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    assert run(5) == run(200)


def test_without_graphs_on_a_gpu(on_gpu, capsys):
    model, steps = on_gpu
    expected = generate(model, steps, PROMPTS)
    tp.config.cuda_graphs = False
    try:
        assert generate(model, steps, PROMPTS) == expected
    finally:
        tp.config.cuda_graphs = True
    assert "kernel by kernel, not as a CUDA graph: tp.config.cuda_graphs" in capsys.readouterr().err
