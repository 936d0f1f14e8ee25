"""The torch backend: which passes run, in which order, and what follows them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Optional, final

import torch

from tripy.backends.base import AbstractBackend
from tripy.backends.torch import storage
from tripy.backends.torch.eager import run_node
from tripy.backends.torch.kernels import KERNELS
from tripy.backends.torch.kernels.cuda.available import missing
from tripy.backends.torch.lowering.quantization import is_usable_scale
from tripy.backends.torch.plugins import require
from tripy.backends.torch.program import TorchProgram
from tripy.device import device
from tripy.graph import Graph, Node
from tripy.logger import logger
from tripy.passes import (
    CONVOLUTION_RULES,
    GPU_RULES,
    LINEAR_RULES,
    QUANTIZATION_RULES,
    fuse_decode_attention,
)
from tripy.passes.pipeline import Pass, check, fold, rules, run_passes


def evaluate(node: Node, arguments: list) -> tuple:
    """Compute a node of a rewritten graph from its inputs' data."""
    if node.op not in KERNELS:
        return run_node(node, arguments)
    kernel = KERNELS[node.op](node)
    return (kernel.function(*(None if v is None else v.data for v in kernel.inputs)),)


# The order matters: scales have to be known before layers are fused, and a layer that is
# quantized must not become a floating-point one first. Nodes that nothing needs are dropped by
# construction: a graph is what its outputs reach.
PASSES: tuple[tuple[str, Pass], ...] = (
    ("constant folding", fold(evaluate)),
    ("scale check", check(is_usable_scale)),
    ("quantization fusion", rules(QUANTIZATION_RULES)),
    ("quantized convolution fusion", rules(CONVOLUTION_RULES)),
    ("linear fusion", rules(LINEAR_RULES)),
    ("constant folding, again", fold(evaluate)),
)
GPU_PASSES: tuple[tuple[str, Pass], ...] = (
    *PASSES,
    ("GPU fusion", rules(GPU_RULES)),
    ("decode attention fusion", fuse_decode_attention),
)


@final
class TorchBackend(AbstractBackend):
    """CPU and CUDA through torch."""

    name = "torch"

    def unusable(self, where: device) -> Optional[str]:
        if where.kind == "gpu" and not torch.cuda.is_available():
            return "torch sees no CUDA device"
        if where.kind == "gpu" and where.index >= torch.cuda.device_count():
            return f"torch sees {torch.cuda.device_count()} CUDA devices; {where} is not there"
        return None

    def compile(
        self, graph: Graph, where: device, optimization_level: int, target: Any = None
    ) -> TorchProgram:
        passes = PASSES if missing(where) else GPU_PASSES
        run_passes(graph, passes if optimization_level > 0 else PASSES[:2])
        return self._prepare(graph)

    def load(
        self, graph: Graph, where: device, described: Mapping[str, Any], tensors: Mapping[str, Any]
    ) -> TorchProgram:
        require(graph.nodes())
        return self._prepare(graph)

    def _prepare(self, graph: Graph) -> TorchProgram:
        start = time.perf_counter()
        program = TorchProgram(graph)
        storage.give_memory_back()
        for where in {value.device for value in graph.outputs if value.device.kind == "gpu"}:
            torch.cuda.synchronize(storage.torch_device(where))  # Any stream may read constants.
        logger.timing(f"kernels: {(time.perf_counter() - start) * 1e3:.1f} ms")
        for row in program.report():
            logger.verbose(f"{row.name}: {row.operation} by {row.kernel} {row.reason}".rstrip())
        return program


TORCH = TorchBackend()
