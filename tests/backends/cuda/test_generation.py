"""Generation on the device: the choice of tokens, the end of a step, and running ahead."""

import contextlib

import numpy as np
import pytest
import torch

from tripy.backends.torch import generation
from tripy.backends.torch.kernels import sampling as host

advance = pytest.importorskip("tripy.backends.torch.kernels.cuda.advance")
from tripy.backends.torch.kernels.cuda import sampling  # noqa: E402  (needs Triton)


@pytest.mark.parametrize("top_k", [None, 1, 7])
@pytest.mark.parametrize("seed", [0, 2**63 - 1, 0x123456789ABCDEF])
def test_host_and_device_draw_the_same_tokens(device, top_k, seed):
    """Noise with one definition: in 24 draws no rounding decides."""
    torch.manual_seed(0)
    step = 2**32 + 5
    state = torch.tensor([seed, step], device=device)
    ids = torch.tensor([0, 2**31 - 1, 77], dtype=torch.int32)
    for i in range(8):
        x = torch.randn(3, 1500)
        options = {"temperature": 0.7, "top_k": top_k}
        found = sampling.sample(x.to(device), seed_state=state, row_ids=ids.to(device), **options)
        expected = host.sample(x.numpy(), seed=seed, step=step + i, row_ids=ids.numpy(), **options)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("special", [float("nan"), float("inf"), float("-inf"), -0.0])
@pytest.mark.parametrize("options", [(0.0, None), (1.0, None), (1.0, 3)])
def test_special_logits(device, special, options):
    torch.manual_seed(1)
    x = torch.randn(2, 300)
    x[0, 40:60] = special
    x[1] = special
    temperature, top_k = options
    found = sampling.sample(
        x.to(device), temperature=temperature, top_k=top_k,
        seed_state=torch.tensor([3, 0], device=device),
    )  # fmt: skip
    expected = host.sample(
        x.numpy(), temperature=temperature, top_k=top_k, seed=3, step=0, row_ids=np.arange(2)
    )
    assert found.tolist() == expected.tolist()


def new_state(device, batch, stops, slots):
    def integers(values):
        return torch.tensor(values, dtype=torch.int32, device=device)

    ring = torch.full((slots, batch), 99, dtype=torch.int32, pin_memory=device.type == "cuda")
    return advance.State(
        integers([50 + i for i in range(batch)]), integers(list(range(batch))),
        integers([0] * batch), integers(stops), integers([0]), ring,
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3, 300])
def test_advance(device, batch):
    """Against the rules, row by row; the ring goes round."""
    stops, slots, random = [5, -1, 9, -1], 4, np.random.default_rng(0)
    state = new_state(device, batch, stops, slots)
    tokens, places = [50 + i for i in range(batch)], list(range(batch))
    stopped, rows = [False] * batch, []
    for _ in range(6):
        drawn = random.integers(0, 12, batch)
        rows.append([-1 if end else int(t) for t, end in zip(drawn, stopped)])
        stopped = [end or t in (5, 9) for t, end in zip(drawn, stopped)]
        for i, end in enumerate(stopped):
            if not end:
                tokens[i], places[i] = int(drawn[i]), places[i] + 1
        advance.advance(torch.tensor(drawn, dtype=torch.int32, device=device), state)
    if device.type == "cuda":
        torch.cuda.synchronize()
    assert state.tokens.tolist() == tokens and state.position.tolist() == places
    assert state.stopped.tolist() == [int(end) for end in stopped]
    assert state.done.tolist() == [6]
    assert state.ring.tolist() == [rows[4], rows[5], rows[2], rows[3]]


class Ready:
    """An event of a device that has done all at once; it counts who waits."""

    def __init__(self):
        self.waited = 0

    def synchronize(self):
        self.waited += 1


def options_of(**changed):
    whole = {
        "steps": 10, "temperature": 0.9, "top_k": None, "seed": 5, "row_ids": [0, 1, 2],
        "stop_tokens": [], "lookahead": 3,
    }  # fmt: skip
    return generation.Options(**whole | changed)


def next_logits(tokens, position):
    """Logits that depend on the last token and its position alone."""
    torch.manual_seed(0)
    weights = torch.randn(20, 20).to(tokens.device)
    return weights[tokens.long()] + weights[position.long()]


@pytest.mark.parametrize(
    "changed",
    [{}, {"lookahead": 1}, {"stop_tokens": [3, 4, 7]}, {"temperature": 0.0}, {"top_k": 2}],
    ids=str,
)
def test_running_ahead_yields_what_the_host_would(device, changed):
    options = options_of(**changed)
    tokens = torch.tensor([1, 2, 3], dtype=torch.int32, device=device)
    position = torch.tensor([0, 5, 1], dtype=torch.int32, device=device)
    state = [tokens.clone(), position.clone()]
    step = generation.Step(lambda: [next_logits(*state)], 0, [])
    expected = list(generation.on_host(step, step, *state, options, contextlib.nullcontext))
    recording = generation._Recording(tokens.clone(), position.clone(), options, 20, pdl=False)
    recording.begin(tokens, position, options)
    recording.events = [Ready() for _ in range(options.lookahead)]
    ahead, launched = [], []

    def launch(number):
        launched.append(number)
        recording.choose(next_logits(*recording.state[:2]), options)
        if device.type == "cuda":
            torch.cuda.synchronize()

    for row in generation._launched(launch, recording, options):
        ahead.append(len(launched) - len(expected[: len(ahead) + 1]))
        assert row == expected[len(ahead) - 1]
    assert len(ahead) == len(expected)
    assert launched == list(range(len(launched))) and len(launched) <= options.steps
    assert max(ahead) <= options.lookahead - 1
    assert ahead[0] == min(options.lookahead, options.steps) - 1
    assert sum(event.waited for event in recording.events) == len(expected)
