"""The torch backend: which passes run, in which order, and what follows them."""

from __future__ import annotations

from typing import Optional, final

import torch

from tripy import config
from tripy.backends.base import AbstractBackend
from tripy.backends.torch.eager import run_node
from tripy.backends.torch.program import TorchProgram
from tripy.device import device
from tripy.graph import Graph
from tripy.graph.printer import graph_text
from tripy.graph.verifier import verify
from tripy.passes import (
    LINEAR_RULES,
    QUANTIZATION_RULES,
    apply_rules,
    check_scales,
    fold_constants,
)


def _fold(graph: Graph) -> None:
    fold_constants(graph, run_node)


def _check(graph: Graph) -> None:
    check_scales(graph, lambda data: bool(((data > 0) & torch.isfinite(data)).all()))


def _rules(rules: tuple):
    def run(graph: Graph) -> None:
        log = apply_rules(graph, rules)
        if config.debug >= 3:
            for name, value in log:
                print(f"tripy: rewrite '{name}' makes {value}")

    return run


# The order matters: scales have to be known before layers are fused, and a layer that is
# quantized must not become a floating-point one first. Nodes that nothing needs are dropped by
# construction: a graph is what its outputs reach.
PASSES = (
    ("constant folding", _fold),
    ("scale check", _check),
    ("quantization fusion", _rules(QUANTIZATION_RULES)),
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
        if config.debug >= 2:
            print(graph_text(graph, "traced"))
        for name, run in PASSES if optimization_level > 0 else PASSES[:2]:
            run(graph)
            if config.verify:
                verify(graph, name)
            if config.debug >= 1:
                print(f"tripy: pass '{name}' leaves {len(graph.nodes())} nodes")
        if config.debug >= 2:
            print(graph_text(graph, "rewritten"))
        return self.load(graph, where)

    def load(self, graph: Graph, where: device) -> TorchProgram:
        program = TorchProgram(graph)
        if config.debug >= 4:
            for row in program.report():
                print(f"tripy: {row.name}: {row.kernel} {row.reason}")
        return program


TORCH = TorchBackend()
