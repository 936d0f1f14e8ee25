"""What a backend has to provide: graphs in, programs out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from tripy.device import device
from tripy.errors import TripyException
from tripy.graph import Graph, Value


class ReportRow(NamedTuple):
    """How one fused or quantized node runs.

    Attributes:
        name: The node's output, or its place in the user's program.
        operation: The node's operation.
        kernel: What runs it.
        reason: Why it is that kernel, where a faster one might be expected; else "".
        weight_bytes: Memory that the node's weight takes; 0 for a node without one.
    """

    name: str
    operation: str
    kernel: str
    reason: str
    weight_bytes: int


class LayerInfo(NamedTuple):
    """One layer of a program.

    Attributes:
        name: Its name.
        kind: What it does.
        detail: The user's line that it comes from, or what the backend tells of it.
    """

    name: str
    kind: str
    detail: str


class Program(ABC):
    """A compiled graph, ready to run; safe to call from several threads at once."""

    @abstractmethod
    def run(self, arguments: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
        """Compute the outputs' data from the inputs' data and the dynamic sizes."""

    @abstractmethod
    def report(self) -> list[ReportRow]:
        """How each fused or quantized node runs."""

    @abstractmethod
    def portable_graph(self) -> Graph:
        """The graph as it runs, for a saved file."""

    @abstractmethod
    def constant(self, value: Value) -> Any:
        """A constant of that graph as a torch tensor, laid out as its type and shape say.

        None where it is in what ``saved_parts`` gives.
        """

    @abstractmethod
    def layers(self) -> list[LayerInfo]:
        """What runs, in order."""

    def made_by(self) -> str:
        """What has made it, where that is more than the backend's name; else ""."""
        return ""

    def require_usable(self) -> None:
        """Raise a TripyException if the program cannot run on this machine."""
        return

    def saved_parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a saved file holds beside the graph: JSON data, and torch tensors by name."""
        return {}, {}

    def engine_bytes(self) -> int:
        """Bytes that an engine's weights take; 0 of a program without one."""
        return 0

    def serialized_engine(self) -> Optional[bytes]:
        """The TensorRT engine; None of a program that has none."""
        return None


class AbstractBackend(ABC):
    """A way to run graphs. Subclasses are final."""

    name: str

    @abstractmethod
    def unusable(self, where: device) -> Optional[str]:
        """Why the backend cannot run on a device; None if it can."""

    def misfit(self, described: Mapping[str, Any], where: device) -> Optional[str]:
        """Why a saved program cannot run on a device; None if it can.

        ``described`` is what its ``saved_parts`` gave.
        """
        return self.unusable(where)

    def check_target(self, target: Any) -> None:
        """Raise a TripyException if programs cannot be made for hardware that is not there."""
        raise TripyException(
            f"compile: the backend {self.name} does not compile ahead of time.",
            got=f"target={target!r}",
            expected='backend="tensorrt"',
        )

    @abstractmethod
    def compile(
        self, graph: Graph, where: device, optimization_level: int, target: Any = None
    ) -> Program:
        """Rewrite a graph (its nodes are the backend's to change) and prepare it to run.

        ``target`` names hardware that is not there; only some backends can compile for it.
        """

    @abstractmethod
    def load(
        self, graph: Graph, where: device, described: Mapping[str, Any], tensors: Mapping[str, Any]
    ) -> Program:
        """Prepare a graph from a saved file, with what the program's ``saved_parts`` gave."""
