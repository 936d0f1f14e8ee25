"""Settings that the user may change: ``tp.config.name = value``.

Example:
    >>> import tripy as tp
    >>> tp.config.default_device = tp.device("cpu")
    >>> tp.ones((2,)).device
    device("cpu:0")
    >>> tp.config.default_device = None
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
import tempfile
from types import ModuleType
from typing import Any, Optional

import torch

from tripy import errors
from tripy.device import device

# Whether operations check their arguments' types and devices. Off saves about a microsecond an
# operation; wrong arguments then fail later and less clearly.
enable_input_validation: bool = True

# Where TensorRT's measured timings are kept between builds (each version adds its name); "" for
# nowhere.
timing_cache_file_path: str = os.path.join(tempfile.gettempdir(), "tripy-timing-cache")

# A folder where built engines are kept, so that none is built twice; None for nowhere. It grows:
# nothing is taken out of it.
engine_cache_path: Optional[str] = None

# Extra sections of error messages: [] or ["frames"], the calls inside tripy that led to the error.
extra_error_information: list[str] = []

# Whether compiled functions that run on a GPU are recorded as CUDA graphs, when they run for the
# second time with the same shapes. Read when a function is compiled or loaded.
cuda_graphs: bool = True

# Where new tensors live: the GPU where torch sees one, else the CPU. The environment variable
# TRIPY_DEVICE overrides that choice, and setting it here overrides both; None undoes that.
default_device: device

# Whether every graph is checked after every pass; TRIPY_VERIFY=1 in the environment turns it on.
verify: bool = os.environ.get("TRIPY_VERIFY", "0") not in ("", "0")

# What TRIPY_DEBUG said in the environment when tripy was imported: 1 to 4 show stages, graphs,
# rewrites and kernels of everything that is compiled. Later on, tp.logger.verbosity does that.
debug: int = int(os.environ.get("TRIPY_DEBUG", "0") or 0)

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "enable_input_validation": ((bool,), "True or False"),
    "timing_cache_file_path": ((str, os.PathLike), "a path"),
    "engine_cache_path": ((str, os.PathLike, type(None)), "a path, or None"),
    "cuda_graphs": ((bool,), "True or False"),
    "extra_error_information": ((list, tuple), '[] or ["frames"]'),
    "default_device": ((device, str, type(None)), "a tp.device, or None for the usual choice"),
    "verify": ((bool,), "True or False"),
    "debug": ((int,), "an int from 0 to 4"),
}


_chosen_device: Optional[device] = None


@functools.cache
def _found_device() -> device:
    chosen = os.environ.get("TRIPY_DEVICE")
    return device(chosen or ("gpu" if torch.cuda.is_available() else "cpu"))


class _Settings(ModuleType):
    """The module itself, so that a wrong name or value is refused when it is assigned."""

    @property
    def default_device(self) -> device:
        return self.__dict__["_chosen_device"] or _found_device()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _TYPES and not name.startswith("__"):
            near = difflib.get_close_matches(name, _TYPES, n=1)
            raise errors.TripyException(
                f"tp.config has no setting '{name}'.",
                got=f"tp.config.{name} = {value!r:.80}",
                expected=f"one of {', '.join(_TYPES)}",
                hint=f"tp.config.{near[0]}" if near else None,
            )
        if name in _TYPES and not isinstance(value, _TYPES[name][0]):
            raise _refused(name, value)
        if name == "default_device":
            name, value = "_chosen_device", None if value is None else device(value)
        if name == "extra_error_information":
            if not set(value) <= {"frames"}:
                raise _refused(name, value)
            value = errors.extra_information = list(value)
        super().__setattr__(name, value)


def _refused(name: str, value: Any) -> errors.TripyException:
    return errors.TripyException(
        f"tp.config.{name}: the value is not accepted.",
        got=f"{value!r:.80}",
        expected=_TYPES[name][1],
    )


sys.modules[__name__].__class__ = _Settings
