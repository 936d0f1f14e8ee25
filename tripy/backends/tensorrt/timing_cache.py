"""Measured timings of kernels, kept between builds in ``tp.config.timing_cache_file_path``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Optional

from tripy import config, files
from tripy.backends.tensorrt.distribution import Distribution
from tripy.logger import logger


class TimingCache:
    """Reads timings before a build, and adds the new ones to the file after it.

    Several processes may do so at once: each adds to what is in the file at that moment, one after
    the other, and the file is replaced as a whole. A file for another version is left alone.
    """

    def __init__(self, distribution: Distribution, options: Any) -> None:
        self._options = options
        path = os.fspath(config.timing_cache_file_path)
        self._path = f"{path}.{distribution.name}-{distribution.version}" if path else ""
        self._cache: Optional[Any] = None
        # TensorRT-RTX has none: it compiles kernels where they run, and times nothing here.
        if self._path and distribution.name == "tensorrt":
            self._cache = options.create_timing_cache(self._read())
            options.set_timing_cache(self._cache, ignore_mismatch=False)

    def _read(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            logger.warning(f"the timing cache {self._path} cannot be read: {error}")
            return b""

    def store(self) -> None:
        """Add the timings of this build to the file."""
        if self._cache is None:
            return
        try:
            with _alone(f"{self._path}.lock"):
                others = self._options.create_timing_cache(self._read())
                self._cache.combine(others, ignore_mismatch=True)
                files.write_bytes(self._path, bytes(self._cache.serialize()))
        except OSError as error:
            logger.warning(f"the timing cache {self._path} cannot be written: {error}")


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Only one process at a time is inside."""
    try:
        import fcntl  # noqa: PLC0415  (Windows has none; there the last writer wins.)
    except ImportError:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
