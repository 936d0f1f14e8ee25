"""What a kernel is, and weights packed for one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional
from weakref import WeakValueDictionary

import torch

from tripy.backends.base import ReportRow
from tripy.graph import Node, Value


class Kernel(NamedTuple):
    """A node's function, chosen and prepared.

    Attributes:
        function: Takes the data of ``inputs`` and gives the node's result.
        inputs: The inputs of the node that are not constants held by the function.
        row: What the report says.
    """

    function: Callable
    inputs: Sequence[Optional[Value]]
    row: ReportRow


class PackedWeight(ABC):
    """A constant in the layout that a kernel reads; the plain layout is not kept beside it."""

    @abstractmethod
    def unpack(self) -> torch.Tensor:
        """The plain layout again, exactly, for a saved file."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that it takes."""


# Programs made from the same weights (a prefill and a decode step, say) share one packed copy.
# Weights are told apart by their content, so a parameter changed in place is packed anew.
_shared: WeakValueDictionary[tuple, PackedWeight] = WeakValueDictionary()


def pack_weight(
    node: Node, position: int, layout: str, pack: Callable[[torch.Tensor], PackedWeight]
) -> PackedWeight:
    """Pack a node's constant input and put the packed one in its place in the graph."""
    value = node.inputs[position]
    assert value is not None
    if isinstance(value.data, PackedWeight):  # A graph that is prepared a second time.
        plain = value.data.unpack()
    else:
        plain = value.data.contiguous()
    digest = hashlib.blake2b(plain.cpu().view(torch.uint8).numpy().data, digest_size=16).digest()
    key = (layout, str(plain.device), value.dtype.name, tuple(plain.shape), digest)
    packed = _shared.get(key)
    if packed is None:
        packed = _shared[key] = pack(plain)
    twin = Value(
        value.dtype, value.shape, value.device, data=packed, name=value.name,
        location=value.location,
    )  # fmt: skip
    node.inputs[position] = twin
    return packed


def node_name(node: Node) -> str:
    """A name for reports: the value's own, or the user's line."""
    return node.output.name or (node.location.place() if node.location else node.op)
