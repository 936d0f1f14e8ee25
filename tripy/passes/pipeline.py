"""Running passes in order: what backends do with the lists of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from tripy import config
from tripy.graph import Graph
from tripy.graph.printer import graph_text
from tripy.graph.verifier import verify
from tripy.logger import logger
from tripy.passes.folding import Evaluate, check_scales, fold_constants
from tripy.passes.rewrite import Rule, apply_rules

# A pass rewrites a graph in place and says how much it has changed.
Pass = Callable[[Graph], int]


def run_passes(graph: Graph, passes: Sequence[tuple[str, Pass]]) -> None:
    """Rewrite a graph by each pass in turn; show it, and verify it, where that is asked for."""
    _show("trace" if logger.enabled("trace") else "ir", graph, "as recorded")
    for name, run in passes:
        start = time.perf_counter()
        changes = run(graph)
        milliseconds = (time.perf_counter() - start) * 1e3
        logger.timing(f"{name}: {milliseconds:.1f} ms, {len(graph.nodes())} nodes left")
        if changes:
            _show("ir", graph, f"after {name}")
        if config.verify:
            verify(graph, name)


def _show(topic: str, graph: Graph, stage: str) -> None:
    logger.log(topic, lambda: f"# {stage}\n{graph_text(graph)}")


def fold(evaluate: Evaluate) -> Pass:
    """The pass that computes what depends on constants only."""
    return lambda graph: fold_constants(graph, evaluate)


def check(usable: Callable[[Any], bool]) -> Pass:
    """The pass that refuses scales that are no scales."""

    def run(graph: Graph) -> int:
        check_scales(graph, usable)
        return 0

    return run


def rules(table: Sequence[Rule]) -> Pass:
    """The pass that applies rewrite rules until none matches."""

    def run(graph: Graph) -> int:
        log = apply_rules(graph, table)
        for name, value in log:
            logger.trace(f"rewrite '{name}' makes {value}")
        return len(log)

    return run
