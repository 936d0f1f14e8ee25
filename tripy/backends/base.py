"""What a backend has to provide: graphs in, programs out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from tripy.device import device
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
        """A constant of that graph as a torch tensor, laid out as its type and shape say."""


class AbstractBackend(ABC):
    """A way to run graphs. Subclasses are final."""

    name: str

    @abstractmethod
    def unusable(self, where: device) -> Optional[str]:
        """Why the backend cannot run on a device; None if it can."""

    @abstractmethod
    def compile(self, graph: Graph, where: device, optimization_level: int) -> Program:
        """Rewrite a graph (its nodes are the backend's to change) and prepare it to run."""

    @abstractmethod
    def load(self, graph: Graph, where: device) -> Program:
        """Prepare a graph from a saved file, which has been rewritten already."""
