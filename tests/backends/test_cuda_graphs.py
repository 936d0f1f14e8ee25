"""Recording programs as CUDA graphs: when, for what, and that nobody can tell.

On the CPU a stand-in records and replays: what is called while it records is called again, with the
same tensors, and its results are written over the old ones, which is what a CUDA graph does.
"""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
import torch

import tripy as tp
from tests.passes.support import info
from tripy.backends.torch import cuda_graphs
from tripy.backends.torch.cuda_graphs import GraphRecorder

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class OnGpu(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    is_cuda = True


def tensor(*values):
    return torch.tensor(values, dtype=torch.float32).as_subclass(OnGpu)


class Stream:
    def __init__(self, name="current"):
        self.name, self.waited = name, []

    def wait_stream(self, other):
        self.waited.append(other)

    def wait_event(self, event):
        self.waited.append(event)


class Graph:
    """What runs while it records is run again by ``replay``."""

    made = 0

    def __init__(self):
        self.calls = []
        Graph.made += 1

    def replay(self):
        for function, arguments, results in self.calls:
            for old, new in zip(results, function(arguments)):
                if old.data_ptr() != new.data_ptr():
                    with torch.inference_mode():  # A graph asks nobody.
                        old.copy_(new)


class Recording(threading.local):
    """The graph that records, if one does: each thread has its own, and sees no other's."""

    graph = None


recording = Recording()


class Event:
    def record(self, stream):
        self.stream = stream


@pytest.fixture
def stand_in(monkeypatch):
    """The parts of torch.cuda that recording needs."""

    @contextlib.contextmanager
    def record(graph, **options):
        assert options["capture_error_mode"] == "thread_local" and options["stream"].name == "own"
        recording.graph = graph
        try:
            yield
        finally:
            recording.graph = None

    stream, Graph.made = Stream(), 0
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: Stream("own"))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: stream)
    monkeypatch.setattr(
        torch.cuda, "is_current_stream_capturing", lambda: recording.graph is not None
    )
    return stream


class Program:
    """A function with a recorder; it counts how often it is really run."""

    def __init__(self, function, written=()):
        self.function, self.runs = function, 0
        self.recorder = GraphRecorder(self.execute, written)

    def execute(self, arguments, sizes):
        self.runs += 1
        if recording.graph is None:
            return self.function(arguments)
        # While it records nothing happens, to the caches either.
        before = [a.clone() for a in arguments]
        results = self.function(arguments)
        for argument, old in zip(arguments, before):
            argument.copy_(old)
        recording.graph.calls.append((self.function, arguments, results))
        return results

    def __call__(self, *arguments, **sizes):
        return self.recorder.run(arguments, sizes or {"n": len(arguments[0])})


def double(arguments):
    return [arguments[0] * 2]


def test_recorded_at_the_second_run(stand_in):
    program = Program(double)
    says = [program.recorder.describe()]
    for i in range(5):
        assert program(tensor(i, 1))[0].tolist() == [2 * i, 2]
        says.append(program.recorder.describe())
    # Run once; then once more to compile and once to record; then replayed.
    assert program.runs == 3 and Graph.made == 1
    assert says[0] == says[1] == ("CUDA graph, to be recorded at the second run", "")
    assert set(says[2:]) == {("CUDA graph, recorded for 1 sets of shapes", "")}


def test_results_and_inputs_are_not_those_of_the_recording(stand_in):
    """A result lasts beyond the next replay; what is replayed reads the new input."""
    program = Program(double)
    given = [tensor(i, i) for i in range(5)]
    results = [program(g)[0] for g in given]
    assert [r.tolist() for r in results] == [[2 * i, 2 * i] for i in range(5)]
    results[3].zero_()
    assert program(tensor(7, 7))[0].tolist() == [14, 14]
    assert [g.tolist() for g in given] == [[i, i] for i in range(5)]


def test_each_set_of_shapes_has_its_own(stand_in):
    program = Program(double)
    for _ in range(2):
        for length in (1, 2, 3):
            for _ in range(2):
                assert program(tensor(*range(length)))[0].tolist() == [2 * i for i in range(length)]
    assert Graph.made == 3
    assert program.recorder.describe()[0] == "CUDA graph, recorded for 3 sets of shapes"
    # Equal shapes, another size that only the host knows.
    program(tensor(1), n=5)
    assert Graph.made == 3
    program(tensor(1), n=5)
    assert Graph.made == 4


def test_the_oldest_recording_makes_room(stand_in):
    program = Program(double)
    for length in range(1, cuda_graphs._KEPT + 4):
        for _ in range(3):
            program(tensor(*range(length)))
    kept = f"CUDA graph, recorded for {cuda_graphs._KEPT} sets of shapes"
    assert program.recorder.describe() == (kept, "")
    assert program(tensor(0))[0].tolist() == [0]


def push(arguments):
    """Adds to a cache in place and returns it, a part of it, and a sum."""
    cache, x = arguments
    cache += x
    return [cache, cache[1:], cache.sum() + x]


def test_caches_are_written_where_they_lie(stand_in):
    program, first, second = Program(push, [0]), tensor(0, 10), tensor(5, 5)
    for i in range(1, 5):
        cache, part, total = program(first, tensor(1, 1))
        assert cache.data_ptr() == first.data_ptr() and first.tolist() == [i, 10 + i]
        assert part.data_ptr() == first[1:].data_ptr() and part.tolist() == [10 + i]
        assert total.tolist() == [10 + 2 * i + 1] * 2
    assert Graph.made == 1
    # Another cache is another recording; the first is not touched.
    for _ in range(2):
        assert program(second, tensor(1, 1))[0].data_ptr() == second.data_ptr()
    assert Graph.made == 2 and second.tolist() == [7, 7] and first.tolist() == [4, 14]
    assert program(first, tensor(1, 2))[0].tolist() == [5, 16]


def test_recordings_that_are_never_used_again(stand_in):
    """As with a new cache for each text: after a while no more are made."""
    program, caches = Program(push, [0]), []
    for i in range(cuda_graphs._WASTED + 3):
        caches.append(tensor(i, 0))
        for _ in range(2):
            program(caches[-1], tensor(1, 1))
        assert caches[-1].tolist() == [i + 2, 2]
    how, why = program.recorder.describe()
    assert how == "launched kernel by kernel"
    assert (
        why == f"{cuda_graphs._WASTED} recordings for other shapes or caches were never used again"
    )
    assert Graph.made == cuda_graphs._WASTED
    runs = program.runs
    program(caches[0], tensor(1, 1))
    assert program.runs == runs + 1 and caches[0].tolist() == [3, 3]


def test_a_replay_between_is_not_waste(stand_in):
    program = Program(push, [0])
    for i in range(cuda_graphs._WASTED + 3):
        cache = tensor(i, 0)
        for _ in range(3 if i % 8 == 0 else 2):
            program(cache, tensor(1, 1))
    assert not program.recorder.refused


@pytest.mark.parametrize(("value", "recorded"), [("1", 0), ("0", 1), ("", 1)])
def test_without_torchs_cache_of_memory(stand_in, monkeypatch, value, recorded):
    """A recording may not call CUDA's allocator, and one that fails leaves torch unusable."""
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", value)
    program = Program(push, [0])
    cache = tensor(1, 0)
    for _ in range(3):
        program(cache, tensor(1, 1))
    assert cache.tolist() == [4, 3] and Graph.made == recorded
    assert ("PYTORCH_NO_CUDA_MEMORY_CACHING" in program.recorder.describe()[1]) == (not recorded)


@pytest.mark.parametrize("kind", [RuntimeError, tp.TripyException])
def test_what_cannot_be_recorded(stand_in, kind):
    def function(arguments):
        if recording.graph is not None:
            raise kind("operation not permitted\nwhen the stream is capturing")
        return double(arguments)

    program = Program(function)
    for i in range(4):
        assert program(tensor(i))[0].tolist() == [2 * i]
    assert program.recorder.describe() == (
        "launched kernel by kernel", "it could not be recorded: operation not permitted",
    )  # fmt: skip


def test_the_stream_after_a_recording_that_failed(stand_in, monkeypatch):
    """torch leaves the recording's stream the current one where the end of it fails."""
    streams, used = [stand_in], []

    @contextlib.contextmanager
    def within(stream):
        before = len(streams)
        streams.append(stream)
        try:
            yield
        finally:
            del streams[before:]

    class Failing:
        def __init__(self, graph, stream, **_):
            self.stream = stream

        def __enter__(self):
            streams.append(self.stream)

        def __exit__(self, *_):
            raise RuntimeError("capture invalidated")

    def function(arguments):
        used.append(streams[-1].name)
        if len(used) == 3:
            raise RuntimeError("not permitted\nwhile recording")
        return double(arguments)

    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "graph", Failing)
    program = Program(function)
    for i in range(3):
        assert program(tensor(i))[0].tolist() == [2 * i]
    assert used == ["current", "own", "own", "current", "current"]
    assert program.recorder.describe()[1] == "it could not be recorded: not permitted"


def test_a_program_without_arguments(stand_in):
    """Its results are known when it is compiled; nobody may change those of the program."""
    program, constant = Program(lambda _: [constant.clone()]), tensor(1, 2)
    for _ in range(4):
        (result,) = program.recorder.run([], {})
        assert result.tolist() == [1, 2]
        result.zero_()
    assert Graph.made == 1 and not program.recorder.refused


def test_recorded_in_inference_mode(stand_in):
    """And replayed outside of it, where torch lets nobody write into what was made inside."""
    program = Program(double)
    with torch.inference_mode():
        for i in range(3):
            assert program(tensor(i))[0].tolist() == [2 * i]
    assert program(tensor(4))[0].tolist() == [8] and Graph.made == 1


def test_arguments_elsewhere(stand_in):
    program = Program(double)
    for i in range(3):
        assert program(torch.tensor([float(i)]))[0].tolist() == [2 * i]
    assert program.recorder.describe()[1] == "an argument is not on the GPU"


def test_inside_another_recording(stand_in):
    """Whoever records the caller records this too."""
    program = Program(double)
    for i in range(3):
        program(tensor(i))
    runs, recording.graph = program.runs, Graph()
    try:
        assert program(tensor(4))[0].tolist() == [8]
        assert program.runs == runs + 1 and len(recording.graph.calls) == 1
    finally:
        recording.graph = None


def test_other_streams_wait_for_each_other(stand_in, monkeypatch):
    program, other = Program(double), Stream()
    for i in range(3):
        program(tensor(i))
    assert not stand_in.waited
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: other)
    program(tensor(1))
    (event,) = other.waited
    assert isinstance(event, Event) and event.stream is other


def test_several_threads(stand_in):
    program, wrong = Program(double), []

    def work(number):
        for i in range(50):
            given = tensor(*range(number, number + 1 + i % 3))
            if program(given)[0].tolist() != (given * 2).tolist():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and Graph.made == 3


# ------------------------------------------------------------------------------------------------
# Through the public API, on a GPU.


@pytest.fixture
def on_gpu():
    before, tp.config.default_device = tp.config.default_device, tp.device("gpu")
    yield
    tp.config.default_device = before


def launch(fast):
    """What the report says of the whole program."""
    return next((r.kernel, r.reason) for r in fast.report().rows if r.operation == "launch")


def plus(x, y):
    return tp.exp(x) + y * 2.0


@GPU
@pytest.mark.gpu
def test_a_program_is_recorded(on_gpu):
    rows = tp.NamedDimension("rows", 1, 4, 8)
    fast = tp.compile(plus, args=[info(rows, 3), info(rows, 3)], backend="torch")
    random = np.random.default_rng(0)
    kept = []
    for turn in range(4):
        for count in (1, 4, 8):
            x, y = (random.normal(size=(count, 3)).astype(np.float32) for _ in range(2))
            found = fast(*(tp.Tensor(torch.tensor(v).cuda()) for v in (x, y)))
            kept.append((found, np.exp(x) + y * 2))
        expected = ("CUDA graph, to be recorded at the second run", "")
        if turn:
            expected = ("CUDA graph, recorded for 3 sets of shapes", "")
        assert launch(fast) == expected
    for found, expected in kept:
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@GPU
@pytest.mark.gpu
def test_graphs_can_be_turned_off(on_gpu):
    tp.config.cuda_graphs = False
    try:
        fast = tp.compile(plus, args=[info(2), info(2)], backend="torch")
    finally:
        tp.config.cuda_graphs = True
    assert not [row for row in fast.report().rows if row.operation == "launch"]
    assert fast(tp.zeros((2,)), tp.ones((2,))).tolist() == [3, 3]


@GPU
@pytest.mark.gpu
def test_threads_with_streams_of_their_own(on_gpu):
    """One executable; each thread sees its own results."""
    fast = tp.compile(plus, args=[info(1000), info(1000)], backend="torch")
    wrong = []

    def work(number):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for i in range(200):
                x = torch.full((1000,), number + i / 100, device="cuda")
                nothing = x * 0
                stream.synchronize()  # It runs in its own stream, which waits for no other.
                got = fast(tp.Tensor(nothing), tp.Tensor(x))
                fast.stream.synchronize()
                if not torch.allclose(got.torch().cpu(), 1 + 2 * x.cpu()):
                    wrong.append((number, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert launch(fast)[0].startswith("CUDA graph, recorded for")
