"""Who else sees a tensor's memory, before a cache is written and when a result is returned.

Two questions are answered once, from the graph: which cache updates may write in place, and which
results are the program's own constants. One is answered at each call, from addresses: whether a
cache shares memory with another argument.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import torch

from tripy.graph import Graph, Node, Value

# Operations whose result may share memory with their input.
VIEWS = {"reshape", "permute", "expand", "slice", "split", "cast"}


def shows_constant(value: Value) -> bool:
    """Whether a result is the program's own memory, which its caller might write into."""
    while value.data is None and value.node is not None and value.node.op in VIEWS:
        value = value.node.inputs[0]  # type: ignore[assignment]
    return value.data is not None


def merged(spans: Iterable[tuple[int, int]]) -> list[int]:
    """Where memory begins and ends, in turn and in order: an address is inside at odd places."""
    edges: list[int] = []
    for start, stop in sorted(spans):
        if edges and start <= edges[-1]:
            edges[-1] = max(edges[-1], stop)
        else:
            edges += [start, stop]
    return edges


def unshared(
    arguments: Sequence[torch.Tensor], written: Sequence[int], fixed: Sequence[int]
) -> list[torch.Tensor]:
    """The arguments, with copies of those that are written into and share memory.

    A cache that overlaps another argument, the program's constants (whose memory ``fixed`` tells),
    or itself (as an expanded tensor does), is copied: what else is in its memory has to keep its
    values.
    """
    result = list(arguments)
    # In the order of their addresses only neighbours can be the first to overlap.
    spans = sorted(span(argument, i) for i, argument in enumerate(result))
    end, last, shared = 0, -1, set()
    for start, stop, position in spans:
        if start < end:
            shared |= {last, position}
        if stop > end:
            end, last = stop, position
        inside = bisect_right(fixed, start)
        if inside % 2 or (inside < len(fixed) and fixed[inside] < stop):
            shared.add(position)
    for position in written:
        cache = result[position]
        if position in shared or not (cache.is_contiguous() or _has_own_elements(cache)):
            result[position] = cache.clone(memory_format=torch.contiguous_format)
    return result


def span(tensor: torch.Tensor, position: int) -> tuple[int, int, int]:
    """The addresses from a tensor's first byte to the end of its last one."""
    start, size = tensor.data_ptr(), tensor.nbytes
    if size and not tensor.is_contiguous():
        steps = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()))
        size = (steps + 1) * tensor.element_size()
    return start, start + size, position


def _has_own_elements(tensor: torch.Tensor) -> bool:
    """Whether no two elements have one place in memory."""
    return all(s or n <= 1 for s, n in zip(tensor.stride(), tensor.shape))


def in_place_updates(graph: Graph, nodes: list[Node]) -> set[Node]:
    """Cache updates whose cache is an argument that nobody reads afterwards."""
    order = {node: i for i, node in enumerate(nodes)}
    uses = graph.uses()
    chosen: set[Node] = set()
    for node in nodes:
        if node.op not in ("kv_cache_update", "append_and_attend"):
            continue
        cache = node.inputs[0]
        assert cache is not None
        owned = cache in graph.inputs or (cache.node in chosen)
        if owned and not _read_later(cache, node, order, uses, set(graph.outputs)):
            chosen.add(node)
    return chosen


def _read_later(
    value: Value,
    writer: Node,
    order: dict[Node, int],
    uses: dict[Value, list[Node]],
    outputs: set[Value],
) -> bool:
    """Whether a value, or a view of its memory, is read after a node or returned."""
    stack = [value]
    while stack:
        current = stack.pop()
        if current in outputs:
            return True
        for user in uses.get(current, []):
            if user is writer:
                # What it writes must not be a view of where it writes.
                if current is not value or user.inputs.count(current) > 1:
                    return True
                continue
            if order[user] > order[writer]:
                return True
            if user.op in VIEWS:
                stack += user.outputs
    return False
