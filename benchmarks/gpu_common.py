"""What benchmarks on GPUs share: timing by two clocks, and stopping what takes too long."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from statistics import median, quantiles
from typing import NamedTuple, Optional, TypeVar

import torch

R = TypeVar("R")


class Timing(NamedTuple):
    """Seconds of each round."""

    seconds: list[float]

    @property
    def middle(self) -> float:
        return median(self.seconds)

    def text(self) -> str:
        """Microseconds, and the range of the middle half."""
        low, middle, high = (s * 1e6 for s in quantiles(self.seconds, n=4))
        return f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"


def timed(run: Callable[[], object], rounds: int, each: int = 1) -> Timing:
    """Seconds by the host's clock, of one of ``each`` steps that a call makes."""
    run()
    torch.cuda.synchronize()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        found.append((time.perf_counter() - start) / each)
    return Timing(found)


def on_the_gpu(run: Callable[[], object], rounds: int, each: int) -> Timing:
    """Seconds by the GPU's clock, of one of ``each`` calls in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    found = []
    for _ in range(rounds):
        start.record()
        for _ in range(each):
            run()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) * 1e-3 / each)
    return Timing(found)


def copy_bandwidth() -> float:
    """Bytes read and written a second by a large copy; not in a CUDA graph, where it is slower."""
    source = torch.randint(-128, 128, (2**30,), dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / on_the_gpu(lambda: target.copy_(source), 10, 5).middle


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Stops what takes longer, with a TimeoutError."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    if seconds <= 0:
        raise TimeoutError("there was no time left")
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(label: str, run: Callable[[], R]) -> Optional[R]:
    """What a part of a benchmark gives; one that fails is left out, and the others go on."""
    try:
        return run()
    except Exception as error:  # Of compilers and libraries, of any type.
        why = str(error).partition("\n")[0] or type(error).__name__
        print(f"left out: {label}: {why:.200}", flush=True)
        with suppress(Exception):  # It may tell of the same error again.
            torch.cuda.set_stream(torch.cuda.default_stream())  # A failed recording leaves another.
            torch.cuda.synchronize()
        return None
