"""The TensorRT backend: from a graph to a program that runs an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, final

import torch

from tripy.backends.base import AbstractBackend
from tripy.backends.tensorrt.build import Engine, build
from tripy.backends.tensorrt.distribution import for_device, for_targets, present_capability
from tripy.backends.tensorrt.engine_cache import EngineCache
from tripy.backends.tensorrt.lower import Names
from tripy.backends.tensorrt.passes import PASSES
from tripy.backends.tensorrt.program import TensorRTProgram, misfit
from tripy.device import device
from tripy.errors import TripyException
from tripy.graph import Graph
from tripy.passes.pipeline import run_passes


@final
class TensorRTBackend(AbstractBackend):
    """NVIDIA GPUs through TensorRT or TensorRT-RTX."""

    name = "tensorrt"

    def unusable(self, where: device) -> Optional[str]:
        found = for_device(where)
        return found if isinstance(found, str) else None

    def check_target(self, target: Any) -> None:
        for_targets(target)

    def compile(
        self, graph: Graph, where: device, optimization_level: int, target: Any = None
    ) -> TensorRTProgram:
        targets: Sequence[str]
        if target is not None:
            distribution, targets = for_targets(target)
        else:
            found = for_device(where)
            if isinstance(found, str):
                raise TripyException("compile: TensorRT cannot be used.", got=found)
            distribution, targets = found, ()
        run_passes(graph, PASSES)
        own = present_capability(where)
        built_for = targets or ((own,) if own is not None else ())
        cache = EngineCache(distribution, graph, built_for, optimization_level)
        engine = cache.read()
        if engine is None:
            engine = build(distribution, graph, targets, optimization_level)
            cache.store(engine)
        built_by = (distribution.name, distribution.version)
        return TensorRTProgram(graph, engine, built_by, built_for, where)

    def misfit(self, described: Mapping[str, Any], where: device) -> Optional[str]:
        name, version = described["built_by"]
        return misfit((name, version), described["targets"], where)

    def load(
        self,
        graph: Graph,
        where: device,
        described: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
    ) -> TensorRTProgram:
        engine = Engine(
            tensors["engine"],
            Names(*described["names"]),
            [(name, kind, place) for name, kind, place in described["layers"]],
            described["weight_bytes"],
        )
        name, version = described["built_by"]
        return TensorRTProgram(graph, engine, (name, version), described["targets"], where)


TENSORRT = TensorRTBackend()
