"""The loop of a generation on a GPU, with stand-ins for streams, events and graphs on the CPU.

A stand-in for a graph runs what it has recorded again. So this shows when steps are recorded, that
recordings are kept and used again, and who waits for whom; tests/test_generation_gpu.py runs it.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

from tripy.backends.torch import generation

pytest.importorskip("triton")
from tests.backends.cuda.test_generation import next_logits, options_of


class Stream:
    made = 0

    def __init__(self, *_):
        Stream.made += 1
        self.waited = []

    def wait_stream(self, other):
        self.waited.append(other)

    def synchronize(self):
        self.waited.append("host")


class Event:
    def record(self, stream):
        self.stream = stream

    def synchronize(self):
        assert self.stream is not None


class Graph:
    """``choose`` is put off while it records; a replay makes up for it."""

    recording = None
    made = replays = 0

    def __init__(self):
        Graph.made += 1

    def replay(self):
        Graph.replays += 1
        self.body()


class Program:
    """Stands for a compiled function: it lives, and can be forgotten."""


class Model:
    """Decode steps, counted, whose logits depend on the token and its position alone."""

    def __init__(self):
        self.program, self.cache, self.runs = Program(), torch.zeros(3), 0
        self.tokens = torch.tensor([1, 2, 3], dtype=torch.int32)
        self.position = torch.tensor([0, 5, 1], dtype=torch.int32)

    def prefill(self):
        logits = next_logits(self.tokens, self.position)
        return generation.Step(lambda: [logits, self.cache], 0, [(self.cache, 1)])

    def decode(self, tokens, position):
        def run():
            self.runs += 1
            return [next_logits(tokens, position), self.cache]

        self.step = generation.Step(run, 0, [(self.cache, 1)])
        return self.step

    def on_host(self, options):
        tokens, position = self.tokens.clone(), self.position.clone()
        step = self.decode(tokens, position)
        return list(
            generation.on_host(
                self.prefill(), step, tokens, position, options, contextlib.nullcontext
            )
        )

    def on_gpu(self, options, why_not=""):
        return generation.on_gpu(
            self.prefill(), self.decode, self.tokens, self.position, options,
            contextlib.nullcontext, self.program, 20, why_not,
        )  # fmt: skip

    @property
    def idle(self):
        return generation._of_programs[self.program].idle


@pytest.fixture
def model(monkeypatch, device):
    if device.type == "cuda":
        pytest.skip("for machines without a GPU")
    model, current = Model(), Stream()

    @contextlib.contextmanager
    def record(graph, *, stream, capture_error_mode):
        assert capture_error_mode == "thread_local" and isinstance(stream, Stream)
        Graph.recording = graph
        try:
            yield
        finally:
            Graph.recording = None

    choose = generation._Recording.choose

    def choose_or_record(self, logits, options):
        if Graph.recording is None:
            return choose(self, logits, options)
        step = model.step
        Graph.recording.body = lambda: choose(self, step(), options)

    class Recording(generation._Recording):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.events = [Event() for _ in range(len(self.ring))]

    Graph.made = Graph.replays = 0
    monkeypatch.setattr(generation._Recording, "choose", choose_or_record)
    monkeypatch.setattr(generation, "_Recording", Recording)
    monkeypatch.setattr(generation, "launches_early", lambda _: False)
    monkeypatch.setattr(generation, "device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: current)
    model.current = current
    return model


@pytest.mark.parametrize("lookahead", [1, 3, 20])
def test_steps_are_recorded_and_replayed(model, lookahead):
    options = options_of(lookahead=lookahead)
    expected, model.runs = model.on_host(options), 0
    assert list(model.on_gpu(options)) == expected
    # Nine steps: one runs, the second is recorded, and it and all others are replayed.
    assert (Graph.made, Graph.replays, model.runs) == (1, 8, 10)
    for _ in range(2):
        assert list(model.on_gpu(options)) == expected
    assert (Graph.made, Graph.replays) == (1, 8 + 2 * 9)
    other = options._replace(seed=options.seed + 1, stop_tokens=[], row_ids=[5, 6, 7])
    assert list(model.on_gpu(other)) == model.on_host(other) != expected
    assert Graph.made == 1 and len(model.idle) == 1


def test_recordings_for_other_choices_and_caches(model):
    """A few are kept; before the oldest goes, its work is waited for."""
    changes = [{}, {"temperature": 0.5}, {"top_k": 3}, {"stop_tokens": [1, 2]}, {"lookahead": 4}]
    for change in changes:
        options = options_of(**change)
        assert list(model.on_gpu(options)) == model.on_host(options)
    assert Graph.made == len(changes) and len(model.idle) == generation._KEPT
    own = generation._of_programs[model.program].stream
    assert own.waited.count("host") == 1
    list(model.on_gpu(options_of(lookahead=4)))
    assert Graph.made == len(changes)
    model.cache = torch.zeros(3)
    list(model.on_gpu(options_of(lookahead=4)))
    assert Graph.made == len(changes) + 1


def test_two_at_once_do_not_share_a_recording(model):
    options = options_of()
    expected = model.on_host(options)
    list(model.on_gpu(options))
    first, second = model.on_gpu(options), model.on_gpu(options)
    found = [(next(first), next(second)) for _ in range(len(expected))]
    assert found == [(row, row) for row in expected]
    assert list(first) == list(second) == []


def test_left_early(model):
    """Whoever comes next waits for the steps under way; the recording is kept."""
    options = options_of()
    expected = model.on_host(options)
    for taken in (1, 4):
        stopped = model.on_gpu(options)
        assert [next(stopped) for _ in range(taken)] == expected[:taken]
        del model.current.waited[:]
        stopped.close()
        assert model.current.waited == [generation._of_programs[model.program].stream]
        assert len(model.idle) == 1
    assert list(model.on_gpu(options)) == expected and Graph.made == 1


def test_all_rows_have_stopped(model):
    options = options_of(stop_tokens=list(range(20)))
    for _ in range(3):
        rows = list(model.on_gpu(options))
        assert len(rows) == 1 and None not in rows[0]


def test_an_error_is_passed_on(model):
    """And what it has left behind is not used again."""

    class Broken(Exception):
        pass

    def fails():
        raise Broken

    model.decode = lambda *_: generation.Step(fails, 0, [])
    with pytest.raises(Broken):
        list(model.on_gpu(options_of()))
    assert not model.idle
    assert generation._of_programs[model.program].stream.waited[-1] == "host"


def test_recorded_in_inference_mode(model):
    """And used again outside of it, where torch lets nobody write into what was made inside."""
    options = options_of()
    with torch.inference_mode():
        expected = list(model.on_gpu(options))
    assert list(model.on_gpu(options)) == expected and Graph.made == 1


def test_a_recording_is_not_used_where_none_is_wanted(model):
    options = options_of()
    expected = list(model.on_gpu(options))
    replays = Graph.replays
    assert list(model.on_gpu(options, "tp.config.cuda_graphs is False")) == expected
    assert Graph.replays == replays
    assert list(model.on_gpu(options)) == expected and Graph.made == 1


def test_steps_that_cannot_be_recorded(model, monkeypatch, capsys):
    @contextlib.contextmanager
    def refuse(graph, **_):
        raise RuntimeError("operation not permitted\nwhen the stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    options = options_of()
    expected = model.on_host(options)
    for _ in range(2):
        assert list(model.on_gpu(options)) == expected
    told = capsys.readouterr().err
    assert told.count("could not be recorded: operation not permitted") == 1
    assert "when the stream" not in told and Graph.replays == 0
    assert list(model.on_gpu(options_of(seed=1), "the function has a plugin")) is not None
    assert Graph.made == 1


def test_programs_can_be_forgotten(model):
    list(model.on_gpu(options_of()))
    count = len(generation._of_programs)
    model.program = None
    assert len(generation._of_programs) == count - 1
