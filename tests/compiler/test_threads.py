"""Several threads: calling one function, computing one lazy graph, compiling at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tripy as tp
from tests.compiler.support import same

THREADS = 6


@pytest.fixture(autouse=True)
def quick_switches():
    """Threads take turns often, so that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], Any]) -> list[Any]:
    """The results of ``work(0)``, ``work(1)``, … all started at once, each in its thread."""
    gate = threading.Barrier(THREADS)
    results: list[Any] = [None] * THREADS
    failures: list[BaseException] = []

    def run(number: int) -> None:
        gate.wait()
        try:
            results[number] = work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def model() -> tp.Module:
    rng = np.random.default_rng(0)
    layers = [tp.Linear(8, 16, quant_dtype=tp.int8), tp.gelu, tp.Linear(16, 8)]
    module = tp.Sequential(*layers)
    for layer in (module[0], module[2]):
        layer.weight = tp.Tensor(rng.normal(size=layer.weight.shape).astype(np.float32))
        layer.bias = tp.Tensor(rng.normal(size=layer.bias.shape).astype(np.float32))
    module[0].weight_scale, module[0].input_scale = 0.02, 0.02
    return module


def batch(number: int, rows: int) -> tp.Tensor:
    values = np.random.default_rng(number).normal(size=(rows, 8)).astype(np.float32)
    return tp.Tensor(values)


def test_one_function_called_with_many_shapes():
    fast = tp.compile(model(), args=[tp.InputInfo(((1, 4, 40), 8), tp.float32)])
    expected = {(n, r): fast(batch(n, r)) for n in range(THREADS) for r in range(1, 12)}

    def work(number):
        for _ in range(5):
            for rows in range(1, 12):
                same(fast(batch(number, rows)), expected[number, rows])

    together(work)


def test_each_thread_has_its_own_cache():
    shape = (1, 1, 16, 4)
    fast = tp.compile(
        tp.kv_cache_update,
        args=[
            tp.InputInfo(shape, tp.float32),
            tp.InputInfo((1, 1, 1, 4), tp.float32),
            tp.InputInfo((1,), tp.int32),
        ],
    )

    def work(number):
        cache = tp.Tensor(np.zeros(shape, np.float32))
        for step in range(16):
            row = tp.full((1, 1, 1, 4), float(100 * number + step)).eval()
            cache = fast(cache, row, tp.Tensor([step], dtype=tp.int32))
        return cache.numpy()[0, 0, :, 0]

    for number, got in enumerate(together(work)):
        assert got.tolist() == [100.0 * number + step for step in range(16)]


def chain() -> list[tp.Tensor]:
    x = tp.Tensor(np.arange(64, dtype=np.float32).reshape(8, 8) / 64)
    steps = [x]
    for _ in range(40):
        steps.append(tp.tanh(steps[-1] @ x + steps[len(steps) // 2]))
    return steps


@pytest.mark.parametrize("round_", range(5))
def test_one_lazy_graph_computed_by_all(round_):
    expected = [step.tolist() for step in chain()]
    shared = chain()
    # Threads start at different tensors of the one graph.
    for number, got in enumerate(together(lambda n: shared[40 - 5 * n].tolist())):
        assert got == expected[40 - 5 * number]
    assert [step.tolist() for step in shared] == expected


@pytest.mark.parametrize("round_", range(3))
def test_compiling_in_all_threads_from_one_module(round_):
    module = model()
    lazy = tp.exp(tp.ones((8,)) * 0.5)
    reference = tp.compile(model(), args=[tp.InputInfo((3, 8), tp.float32)])

    def work(number):
        rows = number % 3 + 1
        fast = tp.compile(
            lambda x: module(x) * lazy, args=[tp.InputInfo(((1, rows, 8), 8), tp.float32)]
        )
        if number % 2:
            lazy.eval()
        return fast(batch(1, 3))

    results = together(work)
    for result in results:
        same(result, reference(batch(1, 3)) * lazy)


def test_compiling_in_one_thread_does_not_trace_another():
    inside, done = threading.Event(), threading.Event()
    shapes = []

    def slow(x):
        inside.set()
        assert done.wait(10)
        return x

    def look():
        assert inside.wait(10)
        shapes.extend(tp.ones((2, 3)).shape)
        done.set()

    other = threading.Thread(target=look)
    other.start()
    tp.compile(slow, args=[tp.InputInfo((2,), tp.float32)])
    other.join()
    assert [type(size) for size in shapes] == [int, int]
