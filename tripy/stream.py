"""Streams: the order in which a device works."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Optional

import torch

from tripy import config
from tripy.backends.torch import storage
from tripy.device import device, require_device
from tripy.errors import TripyException


class Stream:
    """A queue of work on a device. The CPU has one, which is always empty.

    Args:
        priority: On a GPU, smaller numbers run first.

    Example:
        >>> import tripy as tp
        >>> stream = tp.Stream()
        >>> stream.synchronize()
        >>> stream == tp.Stream()
        False
    """

    def __init__(self, priority: int = 0) -> None:
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise TripyException(
                "Stream: the priority is not an integer.",
                got=repr(priority),
                expected="an int; on a GPU, smaller ones run first",
            )
        self._torch: Optional[Any] = None
        if config.default_device.kind == "gpu":
            self._torch = torch.cuda.Stream(priority=priority)

    @classmethod
    def _of(cls, stream: Optional[Any]) -> Stream:
        wrapped = object.__new__(cls)
        wrapped._torch = stream
        return wrapped

    def synchronize(self) -> None:
        """Wait until all work in the stream is done."""
        if self._torch is not None:
            self._torch.synchronize()

    @property
    def ptr(self) -> int:
        """The CUDA stream's address; 0 on the CPU."""
        return self._torch.cuda_stream if self._torch is not None else 0

    def _current(self) -> AbstractContextManager:
        return torch.cuda.stream(self._torch) if self._torch is not None else nullcontext()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stream):
            return False
        return self is other or (self._torch is not None and self._torch == other._torch)

    def __hash__(self) -> int:
        return hash(self._torch) if self._torch is not None else id(self)


@functools.cache
def _default_stream(where: device) -> Stream:
    if where.kind == "cpu":
        return Stream._of(None)
    return Stream._of(torch.cuda.default_stream(storage.torch_device(where)))


def default_stream(device: device = device("cpu")) -> Stream:  # noqa: B008  (immutable)
    """The stream that a device's work is put in unless another one is set.

    Args:
        device: The device.

    Returns:
        The same stream for every call with one device.

    Example:
        >>> import tripy as tp
        >>> tp.default_stream() == tp.default_stream(tp.device("cpu"))
        True
    """
    return _default_stream(require_device("default_stream", device))
