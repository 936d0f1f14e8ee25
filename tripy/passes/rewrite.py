"""The rewrite engine: rules are rows of a pattern and a replacement.

A pattern is a tree of operations with captured values at its leaves::

    Rule("name", op("add", op("linear", any_value("x"), ...), any_value("bias")), build)

A rule fires on a node when the tree matches, every inner result is used by the tree alone (so that
nothing is computed twice), and ``build(match)`` returns a node in place of the root instead of
None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, Union

from tripy.graph import Graph, Node, Value, make_node


class Capture(NamedTuple):
    """Matches any value, or only constants, and remembers it under a name."""

    name: str
    constant: bool = False
    optional: bool = False


class Pattern(NamedTuple):
    """Matches an operation whose inputs match in turn; remembers its node under a name."""

    op: str
    inputs: tuple[Union[Pattern, Capture], ...]
    name: str
    shared: bool  # Whether other nodes may use the result too: it is then computed for them.
    attrs: dict[str, Any]


def op(
    op: str,
    *inputs: Union[Pattern, Capture],
    name: str = "",
    shared: bool = False,
    **attrs: Any,
) -> Pattern:
    """A pattern for one operation; ``attrs`` are attributes it has to have."""
    return Pattern(op, inputs, name or op, shared, attrs)


def any_value(name: str, optional: bool = False) -> Capture:
    """A leaf that matches every value; an optional one also matches an input left out."""
    return Capture(name, optional=optional)


def constant(name: str) -> Capture:
    """A leaf that matches values which are known at compile time."""
    return Capture(name, constant=True)


class Match:
    """What a pattern found: nodes by ``node[name]`` and values by ``value[name]``."""

    def __init__(self) -> None:
        self.node: dict[str, Node] = {}
        # Values, or None for an optional input left out; a rule knows which of its own may be.
        self.value: dict[str, Any] = {}
        self.root: Node = None  # type: ignore[assignment]

    def make(self, op: str, inputs: Sequence[Optional[Value]], **attrs: Any) -> Node:
        """A node in place of the root, with the root's place in the user's program."""
        return make_node(op, inputs, attrs, self.root.location, self.root.outputs[0].device)


def layer_name(weight: Optional[Value]) -> Optional[str]:
    """What reports call a layer: the name of its weight without the last part."""
    if weight is None or weight.name is None:
        return None
    return weight.name.removesuffix(".weight")


class Rule(NamedTuple):
    """A row: where the pattern matches, the replacement stands instead of its root."""

    name: str
    pattern: Pattern
    replacement: Callable[[Match], Optional[Node]]


class EndlessRewrite(Exception):
    """Rules that never stop firing: an error of tripy, not of its user."""


class RewriteLog(list):
    """The names of the rules that fired, with the values they made."""


COMMUTATIVE = {"add", "mul", "maximum", "minimum"}


def _match(
    pattern: Union[Pattern, Capture],
    value: Optional[Value],
    uses: dict[Value, int],
    match: Match,
    root: bool,
) -> bool:
    if isinstance(pattern, Capture):
        if value is None:
            match.value[pattern.name] = None
            return pattern.optional
        if pattern.constant and value.data is None:
            return False
        match.value[pattern.name] = value
        return True
    if value is None or value.data is not None or value.node is None:
        return False
    node = value.node
    if node.op != pattern.op or len(node.outputs) != 1:
        return False
    if not root and not pattern.shared and uses.get(value, 0) != 1:
        return False
    if any(node.attrs.get(key) != wanted for key, wanted in pattern.attrs.items()):
        return False
    match.node[pattern.name] = node
    orders = [node.inputs]
    if node.op in COMMUTATIVE:
        orders.append(node.inputs[::-1])
    return any(
        len(inputs) == len(pattern.inputs)
        and all(_match(p, v, uses, match, False) for p, v in zip(pattern.inputs, inputs))
        for inputs in orders
    )


def apply_rules(graph: Graph, rules: Sequence[Rule]) -> RewriteLog:
    """Rewrite a graph in place until no rule fires any more.

    Args:
        graph: The graph.
        rules: Rows, tried in order at each node.

    Returns:
        A list of (rule name, replacement value).

    Raises:
        EndlessRewrite: For rules that make what they match, again and again.
    """
    log = RewriteLog()
    limit = 100 + 10 * len(graph.nodes())
    while True:
        fired = _sweep(graph, rules)
        if not fired:
            return log
        log += fired
        if len(log) > limit:
            names = ", ".join(sorted({name for name, _ in fired}))
            raise EndlessRewrite(f"rewriting does not come to an end: {names} fired again")


def _sweep(graph: Graph, rules: Sequence[Rule]) -> RewriteLog:
    """One walk over the graph from inputs to outputs."""
    log = RewriteLog()
    uses = use_counts(graph)
    replaced: dict[Value, Value] = {}
    for node in graph.nodes():
        # Nodes come after what they need, so replacements made so far are in place here.
        node.inputs = [replaced.get(v, v) if v is not None else None for v in node.inputs]
        for rule in rules:
            match = Match()
            match.root = node
            if not _match(rule.pattern, node.outputs[0], uses, match, True):
                continue
            new = rule.replacement(match)
            if new is None:
                continue
            old = node.outputs[0]
            if new.output.name is None:
                inner = (n.output.name for n in match.node.values() if n.output.name)
                new.output.name = old.name or next(inner, None)
            replaced[old] = new.output
            uses[new.output] = uses.get(old, 0)
            log.append((rule.name, new.output))
            break
    graph.outputs = [replaced.get(v, v) for v in graph.outputs]
    return log


def use_counts(graph: Graph) -> dict[Value, int]:
    """How often each value is read; being an output counts twice, so it is never fused away."""
    counts: dict[Value, int] = {}
    for node in graph.nodes():
        for value in node.inputs:
            if value is not None:
                counts[value] = counts.get(value, 0) + 1
    for value in graph.outputs:
        counts[value] = counts.get(value, 0) + 2
    return counts
