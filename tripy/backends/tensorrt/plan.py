"""Serialized engines on their way out of a builder.

A builder holds an engine's weights twice while it serializes it, and a plan is as large again. So
that this is not the most memory that a process ever needs, the plan goes to a temporary file as it
is made, and is read from there: a system that runs short of memory can let go of such pages. Where
the folder for temporary files is itself kept in memory, nothing is gained, and TMPDIR may name
another one.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.logger import logger


def serialized(
    trt: Any, builder: Any, raw: Any, options: Any, run: Callable[[Callable[[], Any]], Any]
) -> Optional[torch.Tensor]:
    """Build a network's engine.

    Args:
        trt: The TensorRT module.
        builder: The IBuilder.
        raw: The INetworkDefinition.
        options: The IBuilderConfig.
        run: Calls the function that it is given, which takes long, and gives what that gives.

    Returns:
        The plan, as bytes in a uint8 tensor; None where TensorRT cannot build it.

    Raises:
        TripyException: If the temporary file cannot be written.
    """
    file = _temporary() if hasattr(builder, "build_serialized_network_to_stream") else None
    if file is None:
        plan = run(lambda: builder.build_serialized_network(raw, options))
        # The tensor shares the plan's memory, and keeps it.
        return None if plan is None else torch.frombuffer(plan, dtype=torch.uint8)
    with file:
        writer = _writer(trt, file)
        done = run(lambda: builder.build_serialized_network_to_stream(raw, options, writer))
        if writer.failure is not None:
            raise TripyException(
                "compile: the engine cannot be written to a temporary file.",
                got=f"{tempfile.gettempdir()}: {writer.failure}",
                expected="a folder for temporary files with room for the engine",
                hint="the environment variable TMPDIR, with the name of another folder",
            ) from writer.failure
        if not done:
            return None
        # Pages that somebody writes to become the tensor's own: it may be used like any other.
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return torch.frombuffer(pages, dtype=torch.uint8)


def _temporary() -> Any:
    """A file without a name, which is gone with the last that reads it; None where none can be."""
    try:
        return tempfile.TemporaryFile(prefix="tripy", buffering=0)
    except OSError as error:
        logger.warning(f"the engine is built in memory: no temporary file can be made: {error}")
        return None


def _writer(trt: Any, file: Any) -> Any:
    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.failure: Optional[OSError] = None

        def write(self, data: bytes) -> int:
            """Write a part; fewer bytes written than given end the build."""
            left = memoryview(data)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                self.failure = error
            return len(data) - len(left)

    return Writer()
