"""Engines kept in the folder ``tp.config.engine_cache_path``, so that none is built twice."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import safetensors
import safetensors.torch

from tripy import config, files
from tripy.backends.tensorrt.build import Engine
from tripy.backends.tensorrt.distribution import Distribution
from tripy.backends.tensorrt.lower import Names
from tripy.backends.torch import storage
from tripy.graph import Graph
from tripy.graph.serialize import graph_to_json
from tripy.logger import logger


@functools.cache
def _written_by() -> str:
    """The backend's own code: when that is mended, engines of before are built again."""
    files_of_it = sorted(Path(__file__).parent.rglob("*.py"))
    return files.digest(b"".join(path.read_bytes() for path in files_of_it))


class EngineCache:
    """Finds and keeps an engine by all that it depends on.

    That is the graph with its constants, the targets, the optimization level, TensorRT's version,
    the format of the files and how this package writes networks. Each engine is a file that appears
    at once, so several processes may use one folder; two that build the same engine keep the later
    one's.
    """

    FORMAT = 1

    def __init__(
        self,
        distribution: Distribution,
        graph: Graph,
        targets: Sequence[str],
        optimization_level: int,
    ) -> None:
        self._path: Optional[str] = None
        folder = config.engine_cache_path
        if folder is None:
            return
        described, constants = graph_to_json(graph)
        key = [
            self.FORMAT, _written_by(), distribution.name, distribution.version, list(targets),
            optimization_level, described,
            [files.digest(storage.bytes_of(c.data.cpu()).numpy()) for c in constants],
        ]  # fmt: skip
        name = files.digest(json.dumps(key, sort_keys=True).encode())
        self._path = os.path.join(os.fspath(folder), f"{name}.engine")

    def read(self) -> Optional[Engine]:
        """The engine, if it is there; a damaged file is built again."""
        if self._path is None or not os.path.exists(self._path):
            return None
        try:
            with safetensors.safe_open(self._path, "pt") as file:
                described = json.loads(file.metadata()["engine"])
                plan = file.get_tensor("plan")
            if files.digest(plan.numpy()) != described["digest"]:
                raise ValueError("its checksum is another")
            layers = [(name, kind, place) for name, kind, place in described["layers"]]
            engine = Engine(plan, Names(*described["names"]), layers, described["weight_bytes"])
        except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            logger.warning(f"the cached engine {self._path} is damaged ({error}) and built again")
            return None
        logger.verbose(f"engine read from {self._path}")
        return engine

    def store(self, engine: Engine) -> None:
        """Keep an engine that was built."""
        if self._path is None:
            return
        described = {
            "digest": files.digest(engine.plan.numpy()),
            "names": list(engine.names),
            "layers": engine.layers,
            "weight_bytes": engine.weight_bytes,
        }
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with files.replacing(self._path) as temporary:
                safetensors.torch.save_file(
                    {"plan": engine.plan}, temporary, {"engine": json.dumps(described)}
                )
        except (OSError, safetensors.SafetensorError) as error:
            logger.warning(f"the engine cannot be kept as {self._path}: {error}")
