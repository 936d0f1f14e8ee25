"""A TensorRT library in this process: its one logger, and its one builder.

TensorRT keeps the first logger that it is given for the whole process, and making and destroying
builders from within its callbacks can lock up. So there is one of each, and what it says goes to
whoever listens.
"""

from __future__ import annotations

import functools
import re
import threading
from typing import Any

from tripy.backends.tensorrt.distribution import INSTALL, installed
from tripy.errors import TripyException
from tripy.logger import logger


class Messages:
    """What a library has said.

    Attributes:
        errors: The errors, in order.
        weight_bytes: Memory that an engine's weights take, once the builder has told it; else 0.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.weight_bytes = 0


class Library:
    """A TensorRT module with its logger and builder.

    Attributes:
        trt: The module.
        receiver: The ILogger.
        lock: Held while the builder is used.
    """

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self._builder: Any = None
        self._messages = Messages()
        self.lock = threading.RLock()
        library, levels = self, trt.ILogger

        class Receiver(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                library._take(message, severity in (levels.ERROR, levels.INTERNAL_ERROR))
                if severity != levels.VERBOSE:
                    logger.verbose(f"tensorrt: {message}")

        self.receiver = Receiver()

    def _take(self, message: str, is_error: bool) -> None:
        if is_error:
            self._messages.errors.append(message)
        found = re.search(r"Total Weights Memory: (\d+)", message)
        if found:
            self._messages.weight_bytes = int(found.group(1))

    def listen(self) -> Messages:
        """What is said from now on."""
        self._messages = Messages()
        return self._messages

    def builder(self) -> Any:
        """The IBuilder."""
        if self._builder is None:
            self._builder = self.trt.Builder(self.receiver)
        return self._builder


@functools.cache
def library(name: str) -> Library:
    """The library of a module that is installed."""
    found = installed(name)
    if isinstance(found, str):
        raise TripyException(f"{name} cannot be used.", got=found, expected=INSTALL)
    return Library(found.module)
