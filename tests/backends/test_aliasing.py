"""The operations whose results may share memory with their inputs are known."""

from __future__ import annotations

import torch

from tests import fuzz
from tripy.backends.torch import eager
from tripy.backends.torch.aliasing import VIEWS, merged, unshared


def test_no_operation_shares_memory_that_is_not_known_to(monkeypatch):
    found = set()
    run = eager.run_node

    def watched(node, arguments):
        results = run(node, arguments)
        inputs = [a.untyped_storage() for a in arguments if isinstance(a, torch.Tensor)]
        taken = {memory.data_ptr() for memory in inputs if memory.nbytes()}
        if any(r.untyped_storage().data_ptr() in taken for r in results if r.numel()):
            found.add(node.op)
        return results

    monkeypatch.setattr(eager, "run_node", watched)
    for seed in range(150):
        fuzz.program_of(seed)
    assert found <= VIEWS
    assert found >= {"reshape", "permute", "expand", "slice", "split"}


def copied(arguments, written, fixed=()):
    results = unshared(arguments, written, fixed)
    return [i for i, (a, b) in enumerate(zip(arguments, results)) if a is not b]


def test_overlaps_are_found_in_any_order():
    memory = torch.arange(40.0)
    a, b, c, d = memory[:10], memory[10:20], memory[15:30], memory[30:]
    assert copied([a, b, c, d], [0, 1, 2, 3]) == [1, 2]
    assert copied([d, c, b, a], [0, 1, 2, 3]) == [1, 2]
    assert copied([a, b, c, d], [0, 3]) == []
    assert copied([memory, b], [1]) == [1]
    assert copied([memory, a, b, c, d], [4]) == [4]
    assert copied([a, a], [0]) == [0]
    assert copied([a, memory[:0]], [0]) == []


def test_overlaps_with_constants_are_found():
    memory = torch.arange(40.0)
    start, size = memory.data_ptr(), memory.element_size()
    fixed = merged([(start + 10 * size, start + 20 * size), (start + 5 * size, start + 12 * size)])
    assert fixed == [start + 5 * size, start + 20 * size]
    assert copied([memory[:5], memory[20:]], [0, 1], fixed) == []
    assert copied([memory[:6]], [0], fixed) == [0]
    assert copied([memory[19:]], [0], fixed) == [0]
    assert copied([memory], [0], fixed) == [0]
    assert copied([memory[7:9]], [0], fixed) == [0]
