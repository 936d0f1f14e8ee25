"""Programs on a GPU, recorded as CUDA graphs: one launch instead of one for each kernel.

A program is recorded for each set of shapes when it is run with them for the second time; the first
run compiles kernels. What a recording reads is copied to a place of its own before each replay,
but for the caches that the program writes: those are recorded where they lie, and another cache is
another recording. Results are copied out, so that they last beyond the next replay.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

import torch

from tripy.errors import TripyException

T = torch.Tensor
Execute = Callable[[Sequence[T], Mapping[str, int]], list[T]]
# Recordings kept; and how many may be made in a row, without a replay, before no more are.
_KEPT = 16
_WASTED = 32


class _View(NamedTuple):
    """A result that lies in an argument."""

    argument: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Optional[T]]  # None for what is recorded where it lies.
    results: list[Union[T, _View]]


def why(error: Exception) -> str:
    """In one line, why something could not be recorded: what ended it, not what that entailed."""
    first = error.__context__
    if isinstance(first, Exception) and not isinstance(error, TripyException):
        error = first
    return str(error).partition("\n")[0]


def nothing_recordable() -> str:
    """Why no program can be recorded in this process; "" where some can."""
    if os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING", "0") in ("", "0"):
        return ""
    return "PYTORCH_NO_CUDA_MEMORY_CACHING is set, so that a recording cannot take memory"


class GraphRecorder:
    """Runs a program, from recordings where it can.

    Args:
        execute: Runs it kernel by kernel.
        written: The positions of the arguments that it writes.
    """

    def __init__(self, execute: Execute, written: Sequence[int]) -> None:
        self._execute, self._written = execute, frozenset(written)
        self._recordings: OrderedDict[tuple, _Recording] = OrderedDict()
        self._seen: OrderedDict[tuple, None] = OrderedDict()
        self._lock = threading.Lock()
        self._last: Optional[tuple[Any, torch.cuda.Event]] = None
        self._pool: Any = None
        self._stream: Any = None
        self._wasted = 0
        self.refused = nothing_recordable()

    def describe(self) -> tuple[str, str]:
        """What the report says: how it is run, and why not otherwise."""
        if self.refused:
            return "launched kernel by kernel", self.refused
        if self._recordings:
            return f"CUDA graph, recorded for {len(self._recordings)} sets of shapes", ""
        return "CUDA graph, to be recorded at the second run", ""

    def run(self, arguments: Sequence[T], sizes: Mapping[str, int]) -> list[T]:
        """The results, as ``execute`` gives them."""
        if self.refused or torch.cuda.is_current_stream_capturing():
            return self._execute(arguments, sizes)
        with self._lock:
            key = self._key(arguments, sizes)
            recording = self._recordings.get(key)
            if recording is not None:
                self._recordings.move_to_end(key)
                self._wasted = 0
                return self._replay(recording, arguments)
            if key not in self._seen:
                self._remember(key)
                return self._execute(arguments, sizes)
            recording = self._record(arguments, sizes)
            if recording is None:
                return self._execute(arguments, sizes)
            self._recordings[key] = recording
            if len(self._recordings) > _KEPT:
                self._recordings.popitem(last=False)
            return self._replay(recording, arguments)

    def _key(self, arguments: Sequence[T], sizes: Mapping[str, int]) -> tuple:
        places = tuple((arguments[i].data_ptr(), arguments[i].stride()) for i in self._written)
        return tuple(sizes.values()), tuple(a.shape for a in arguments), places

    def _remember(self, key: tuple) -> None:
        self._seen[key] = None
        if len(self._seen) > 4 * _KEPT:
            self._seen.popitem(last=False)

    def _record(self, arguments: Sequence[T], sizes: Mapping[str, int]) -> Optional[_Recording]:
        self._wasted += 1
        if self._wasted > _WASTED:
            self.refused = f"{_WASTED} recordings for other shapes or caches were never used again"
            self._recordings.clear()
            return None
        if any(not a.is_cuda for a in arguments):
            self.refused = "an argument is not on the GPU"
            return None
        with torch.inference_mode(False):  # Written at replays, perhaps outside of that mode.
            inputs = [
                None if i in self._written else a.clone(memory_format=torch.contiguous_format)
                for i, a in enumerate(arguments)
            ]
        if self._pool is None:
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        graph, options = torch.cuda.CUDAGraph(), {"pool": self._pool, "stream": self._stream}
        try:
            # Compiles what other alignments need, without touching the caches; and makes what
            # kernels keep for each stream, which the graph would else make again in each replay.
            copies = [a.clone() if i is None else i for i, a in zip(inputs, arguments)]
            current = torch.cuda.current_stream(copies[0].device if copies else None)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                self._execute(copies, sizes)
            # The outer one: torch stays in the stream of a recording that has failed at its end.
            with (
                torch.cuda.stream(current),
                torch.cuda.graph(graph, capture_error_mode="thread_local", **options),
            ):
                results = self._execute(
                    [a if i is None else i for i, a in zip(inputs, arguments)], sizes
                )
        except (RuntimeError, TripyException) as error:  # CUDA says what cannot be recorded.
            self.refused = f"it could not be recorded: {why(error)}"
            self._recordings.clear()
            return None
        found = [self._view(result, arguments) for result in results]
        return _Recording(graph, inputs, found)

    def _view(self, result: T, arguments: Sequence[T]) -> Union[T, _View]:
        for i in self._written:
            argument = arguments[i]
            if result.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr():
                offset = int(result.storage_offset()) - int(argument.storage_offset())
                return _View(i, tuple(result.shape), result.stride(), offset)
        return result

    def _replay(self, recording: _Recording, arguments: Sequence[T]) -> list[T]:
        device = arguments[0].device if arguments else None
        stream = torch.cuda.current_stream(device)
        if self._last is not None and self._last[0] != stream:
            stream.wait_event(self._last[1])
        for place, given in zip(recording.inputs, arguments):
            if place is not None:
                place.copy_(given)
        recording.graph.replay()
        results = []
        for result in recording.results:
            if isinstance(result, _View):
                own = arguments[result.argument]
                offset = own.storage_offset() + result.offset
                same = (tuple(own.shape), own.stride(), own.storage_offset()) == (
                    result.shape, result.strides, offset,
                )  # fmt: skip
                results.append(
                    own if same else own.as_strided(result.shape, result.strides, offset)
                )
            else:
                results.append(result.clone())
        event = torch.cuda.Event() if self._last is None else self._last[1]
        event.record(stream)
        self._last = (stream, event)
        return results
