"""Devices: the CPU and NVIDIA GPUs."""

from __future__ import annotations

import re
from typing import Union

from tripy.errors import TripyException

KINDS = ("cpu", "gpu")


class device:  # noqa: N801  (the public name is lower case, as in torch)
    """A place where tensors live and programs run.

    Args:
        text: ``"cpu"``, ``"gpu"`` or ``"gpu:1"``; the index is 0 where none is given.

    Attributes:
        kind: ``"cpu"`` or ``"gpu"``.
        index: The number of the device among those of its kind.

    Raises:
        TripyException: For an unknown kind, or an index that is missing or negative.

    Example:
        >>> import tripy as tp
        >>> tp.device("gpu:1").index, str(tp.device("cpu"))
        (1, 'cpu:0')
    """

    __slots__ = ("index", "kind")

    kind: str
    index: int

    def __init__(self, text: Union[str, device]) -> None:
        if isinstance(text, device):
            self.kind, self.index = text.kind, text.index
            return
        match = re.fullmatch(r"(\w+)(?::(\d+))?", text) if isinstance(text, str) else None
        if match is None or match[1] not in KINDS:
            raise TripyException(
                "device: not a device.",
                got=repr(text),
                expected='"cpu" or "gpu", with ":" and an index of 0 or more after it if wanted',
                hint='tp.device("cpu") or tp.device("gpu:0")',
            )
        self.kind = match[1]
        self.index = int(match[2] or 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and self.kind == other.kind and self.index == other.index

    def __hash__(self) -> int:
        return hash((self.kind, self.index))

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}"

    def __repr__(self) -> str:
        return f'device("{self}")'


def require_device(op: str, value: object) -> device:
    """An argument that has to be a device."""
    if isinstance(value, device):
        return value
    text = value if isinstance(value, str) else "cpu"
    raise TripyException(
        f"{op}: this is not a device.",
        got=f"{value!r:.80} of type {type(value).__name__}",
        expected="a tp.device",
        hint=f'tp.device("{text}")',
    )


CPU = device("cpu")
