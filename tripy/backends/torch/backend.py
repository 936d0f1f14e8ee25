"""The torch backend: which passes run, in which order, and what follows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Optional, final

import torch

from tripy import config
from tripy.backends.base import AbstractBackend
from tripy.backends.torch import storage
from tripy.backends.torch.eager import run_node
from tripy.backends.torch.kernels import KERNELS
from tripy.backends.torch.program import TorchProgram
from tripy.device import device
from tripy.graph import Graph, Node
from tripy.graph.printer import graph_text
from tripy.graph.verifier import verify
from tripy.logger import logger
from tripy.passes import (
    CONVOLUTION_RULES,
    LINEAR_RULES,
    QUANTIZATION_RULES,
    Rule,
    apply_rules,
    check_scales,
    fold_constants,
)

# A pass rewrites a graph in place and says how much it has changed.
Pass = Callable[[Graph], int]


def _fold(graph: Graph) -> int:
    return fold_constants(graph, _evaluate)


def _evaluate(node: Node, arguments: list) -> tuple:
    if node.op not in KERNELS:
        return run_node(node, arguments)
    kernel = KERNELS[node.op](node)
    return (kernel.function(*(None if v is None else v.data for v in kernel.inputs)),)


def _usable(scale: Any) -> bool:
    return bool(((scale > 0) & torch.isfinite(scale)).all())


def _check(graph: Graph) -> int:
    check_scales(graph, _usable)
    return 0


def _rules(rules: Sequence[Rule]) -> Pass:
    def run(graph: Graph) -> int:
        log = apply_rules(graph, rules)
        for name, value in log:
            logger.trace(f"rewrite '{name}' makes {value}")
        return len(log)

    return run


def _show(topic: str, graph: Graph, stage: str) -> None:
    logger.log(topic, lambda: f"# {stage}\n{graph_text(graph)}")


# The order matters: scales have to be known before layers are fused, and a layer that is
# quantized must not become a floating-point one first. Nodes that nothing needs are dropped by
# construction: a graph is what its outputs reach.
PASSES: tuple[tuple[str, Pass], ...] = (
    ("constant folding", _fold),
    ("scale check", _check),
    ("quantization fusion", _rules(QUANTIZATION_RULES)),
    ("quantized convolution fusion", _rules(CONVOLUTION_RULES)),
    ("linear fusion", _rules(LINEAR_RULES)),
    ("constant folding, again", _fold),
)


@final
class TorchBackend(AbstractBackend):
    """CPU and CUDA through torch."""

    name = "torch"

    def unusable(self, where: device) -> Optional[str]:
        if where.kind == "gpu" and not torch.cuda.is_available():
            return "torch sees no CUDA device"
        return None

    def compile(self, graph: Graph, where: device, optimization_level: int) -> TorchProgram:
        _show("trace" if logger.enabled("trace") else "ir", graph, "as recorded")
        for name, run in PASSES if optimization_level > 0 else PASSES[:2]:
            start = time.perf_counter()
            changes = run(graph)
            milliseconds = (time.perf_counter() - start) * 1e3
            logger.timing(f"{name}: {milliseconds:.1f} ms, {len(graph.nodes())} nodes left")
            if changes:
                _show("ir", graph, f"after {name}")
            if config.verify:
                verify(graph, name)
        return self.load(graph, where)

    def load(self, graph: Graph, where: device) -> TorchProgram:
        start = time.perf_counter()
        program = TorchProgram(graph)
        storage.give_memory_back()
        logger.timing(f"kernels: {(time.perf_counter() - start) * 1e3:.1f} ms")
        for row in program.report():
            logger.verbose(f"{row.name}: {row.operation} by {row.kernel} {row.reason}".rstrip())
        return program


TORCH = TorchBackend()
