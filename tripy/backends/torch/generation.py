"""Generation, a step at a time: on the host, or on a GPU that never waits for the host.

A step is the compiled function, the choice of the next token, and moving on to it. On a GPU these
are one CUDA graph. The host launches it again and again, a few steps ahead, and reads the tokens
from its own memory, into which the graph writes them.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Optional

import numpy as np
import torch

from tripy.backends.torch.cuda_graphs import why
from tripy.backends.torch.kernels import sampling
from tripy.backends.torch.kernels.cuda.available import launches_early
from tripy.device import device
from tripy.errors import TripyException
from tripy.logger import logger

T = torch.Tensor
Tokens = list[Optional[int]]
# Recorded steps kept for each decode program, to be used again with the same caches.
_KEPT = 4


class Step(NamedTuple):
    """A compiled function with its arguments, which stay in place.

    Attributes:
        run: Gives the results.
        logits: The number of the result that holds the logits.
        caches: Each cache, with the number of the result that is its new state.
    """

    run: Callable[[], Sequence[T]]
    logits: int
    caches: Sequence[tuple[T, int]]

    def __call__(self) -> T:
        """The logits ``[batch, vocabulary]``; the caches hold their new state."""
        results = self.run()
        moved = [(c, results[i]) for c, i in self.caches if results[i].data_ptr() != c.data_ptr()]
        if len(moved) > 1:  # One's new state may lie in another, which is written before it.
            places = {cache.untyped_storage().data_ptr() for cache, _ in moved}
            moved = [
                (c, new.clone() if new.untyped_storage().data_ptr() in places else new)
                for c, new in moved
            ]
        for cache, new in moved:
            cache.copy_(new)
        return results[self.logits]


class Options(NamedTuple):
    """How tokens are chosen, and when it ends; see ``tripy.generate``."""

    steps: int
    temperature: float
    top_k: Optional[int]
    seed: int
    row_ids: Sequence[int]
    stop_tokens: Sequence[int]
    lookahead: int


def on_host(
    prefill: Step,
    decode: Step,
    tokens: T,
    position: T,
    options: Options,
    stream: Callable[[], AbstractContextManager],
) -> Iterator[Tokens]:
    """The tokens of each step, which the host chooses: a step begins when the last one is known.

    Args:
        prefill: The first step.
        decode: All others.
        tokens: ``[batch]``, int32: what decode reads; here the last tokens of the prompts.
        position: ``[batch]``, int32: where decode puts them.
        options: How tokens are chosen.
        stream: Makes the stream of the functions the current one.
    """
    last, place = (t.cpu().numpy().copy() for t in (tokens, position))
    row_ids, stopped = np.array(options.row_ids, np.int32), np.zeros(len(last), bool)
    for step in range(options.steps):
        with stream():
            logits = (decode if step else prefill)().float().cpu().numpy()
        drawn = sampling.sample(
            logits, temperature=options.temperature, top_k=options.top_k, seed=options.seed,
            step=step, row_ids=row_ids,
        )  # fmt: skip
        new: Tokens = [None if end else token for token, end in zip(drawn.tolist(), stopped)]
        stopped |= np.isin(drawn, options.stop_tokens)
        last, place = np.where(stopped, last, drawn), place + ~stopped
        with stream():
            tokens.copy_(torch.from_numpy(last))
            position.copy_(torch.from_numpy(place))
        yield new
        if stopped.all():
            return


class _Recording:
    """A step's state on the device, and the step as a CUDA graph once it is recorded."""

    def __init__(self, tokens: T, position: T, options: Options, wide: int, pdl: bool) -> None:
        # Optional, like Triton itself.
        from tripy.backends.torch.kernels.cuda import advance, sampling  # noqa: PLC0415

        self._sampling, self._advance = sampling, advance
        self.pdl, batch = pdl, len(tokens)

        def integers(*shape: int) -> T:
            return torch.zeros(shape, dtype=torch.int32, device=tokens.device)

        slots = options.lookahead
        ring = torch.zeros((slots, batch), dtype=torch.int32, pin_memory=tokens.is_cuda)
        self.state = advance.State(
            tokens, position, integers(batch), integers(stop_slots(options)), integers(1), ring
        )
        self.ring = ring.numpy()
        self.events = [torch.cuda.Event() for _ in range(slots)] if tokens.is_cuda else []
        self.seed_state = torch.zeros(2, dtype=torch.int64, device=tokens.device)
        self.row_ids, self.drawn = integers(batch), integers(batch)
        self.space = sampling.workspace(batch, wide, tokens.device)
        self.graph: Optional[torch.cuda.CUDAGraph] = None
        self.refused = False

    def begin(self, tokens: T, position: T, options: Options) -> None:
        """Forget an earlier generation."""
        state = self.state
        stops = [*options.stop_tokens, *[-1] * (len(state.stops) - len(options.stop_tokens))]
        state.tokens.copy_(tokens)
        state.position.copy_(position)
        state.stopped.zero_()
        state.stops.copy_(torch.tensor(stops, dtype=torch.int32))
        state.done.zero_()
        self.seed_state.copy_(torch.tensor([options.seed, 0]))
        self.row_ids.copy_(torch.tensor(options.row_ids, dtype=torch.int32))

    def choose(self, logits: T, options: Options) -> None:
        """The next token of each row, and on to it."""
        self._sampling.sample(
            logits if logits.stride(1) == 1 else logits.contiguous(),
            temperature=options.temperature, top_k=options.top_k, seed_state=self.seed_state,
            row_ids=self.row_ids, out=self.drawn, space=self.space, pdl=self.pdl,
        )  # fmt: skip
        self._advance.advance(self.drawn, self.state, pdl=self.pdl)


def stop_slots(options: Options) -> int:
    """Room for stop tokens: a power of two, as kernels want it."""
    return 1 << max(0, len(options.stop_tokens) - 1).bit_length()


class _Recordings:
    """Of one program: the stream they run in, one at a time, and those that nobody uses now."""

    def __init__(self, where: torch.device) -> None:
        # Entered again by a generation that is thrown away while another one works.
        self.lock = threading.RLock()
        self.stream = torch.cuda.Stream(where)
        self.idle: OrderedDict[tuple, _Recording] = OrderedDict()

    def keep(self, key: tuple, recording: _Recording) -> None:
        self.idle[key] = recording
        if len(self.idle) > _KEPT:
            self.stream.synchronize()  # A graph that is running must not be destroyed.
            self.idle.popitem(last=False)


_of_programs: weakref.WeakKeyDictionary[Any, _Recordings] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def on_gpu(
    prefill: Step,
    make_decode: Callable[[T, T], Step],
    tokens: T,
    position: T,
    options: Options,
    stream: Callable[[], AbstractContextManager],
    program: Any,
    wide: int,
    why_not: str,
) -> Iterator[Tokens]:
    """As ``on_host``; the GPU chooses, and is told of each step before the last one has ended.

    Args:
        prefill: The first step.
        make_decode: All others, given where tokens and position are.
        tokens: As for ``on_host``.
        position: As for ``on_host``.
        options: How tokens are chosen.
        stream: Makes the stream of the functions the current one.
        program: What recorded steps are kept for, as long as it lives.
        wide: The vocabulary.
        why_not: Why the step cannot be recorded as a CUDA graph; "" if it can.
    """
    where = tokens.device
    with _lock:
        if program not in _of_programs:
            _of_programs[program] = _Recordings(where)
        own = _of_programs[program]
    key = (
        why_not, len(tokens), options.temperature, options.top_k, options.lookahead,
        stop_slots(options), tuple((c.data_ptr(), c.shape, c.stride()) for c, _ in prefill.caches),
    )  # fmt: skip
    with own.lock, stream():
        torch.cuda.current_stream(where).wait_stream(own.stream)
        recording = own.idle.pop(key, None)
        if recording is None:
            pdl = launches_early(device(f"gpu:{where.index}"))
            with torch.inference_mode(False):  # Written later, perhaps outside of that mode.
                recording = _Recording(tokens.clone(), position.clone(), options, wide, pdl)
        recording.begin(tokens, position, options)
    decode = make_decode(recording.state.tokens, recording.state.position)

    def launch(step: int) -> None:
        with own.lock, stream():
            current = torch.cuda.current_stream(where)
            if step == 0:
                recording.choose(prefill(), options)
                own.stream.wait_stream(current)
            else:
                with torch.cuda.stream(own.stream):
                    _decode(recording, decode, options, own.stream, step, why_not)
                current = own.stream
            recording.events[step % options.lookahead].record(current)

    failed = False
    try:
        yield from _launched(launch, recording, options)
    except Exception:
        failed = True
        raise
    finally:
        with own.lock, stream():  # Whoever uses the caches next waits for what is under way.
            torch.cuda.current_stream(where).wait_stream(own.stream)
            if failed:
                own.stream.synchronize()  # Steps under way write into what is let go of here.
            else:
                own.keep(key, recording)


def _decode(
    recording: _Recording,
    decode: Step,
    options: Options,
    stream: torch.cuda.Stream,
    step: int,
    why_not: str,
) -> None:
    """One step: its first run compiles kernels, the second is recorded, all others replayed."""
    if recording.graph is None and step > 1 and not why_not and not recording.refused:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                recording.choose(decode(), options)
            recording.graph = graph
        except (RuntimeError, TripyException) as error:
            recording.refused = True
            logger.warning(
                f"generate: launched kernel by kernel, it could not be recorded: {why(error)}"
            )
    if recording.graph is None:
        recording.choose(decode(), options)
    else:
        recording.graph.replay()


def _launched(
    launch: Callable[[int], None], recording: _Recording, options: Options
) -> Iterator[Tokens]:
    """Launches steps ahead of what has been read."""
    launched, stopped = 0, np.zeros(recording.ring.shape[1], bool)
    for step in range(options.steps):
        while launched < min(options.steps, step + options.lookahead):
            launch(launched)
            launched += 1
        recording.events[step % options.lookahead].synchronize()
        drawn = recording.ring[step % options.lookahead]
        stopped |= np.isin(drawn, options.stop_tokens)
        yield [None if token < 0 else token for token in drawn.tolist()]
        if stopped.all():
            return
