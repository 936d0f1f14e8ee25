"""Which TensorRT is installed, and which GPUs it builds for.

NVIDIA ships two with one Python API. ``tensorrt`` builds for the GPU that is present.
``tensorrt_rtx`` builds for RTX GPUs, also on a machine without any, and refuses others.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

import torch

from tripy.device import device
from tripy.errors import TripyException

INSTALL = "pip install tensorrt-rtx-cu13 (RTX GPUs, and ahead of time for them) or " \
    "pip install tensorrt-cu13 (all GPUs that TensorRT supports)"  # fmt: skip


class Distribution(NamedTuple):
    """An installed TensorRT.

    Attributes:
        name: The module's name.
        module: The module.
        version: Its version.
        ahead_of_time: The compute capabilities that it builds for without such a GPU, as
            ``"sm_89"``; empty where it builds for the present GPU only.
    """

    name: str
    module: Any
    version: str
    ahead_of_time: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@functools.cache
def installed(name: str) -> Union[Distribution, str]:
    """A distribution by its module's name, or why it cannot be used."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        return "not installed"
    except (ImportError, OSError, RuntimeError) as error:  # A library of it is missing or broken.
        return f"cannot be imported: {str(error).splitlines()[0]}"
    kinds = getattr(module, "ComputeCapability", None)
    names = kinds.__members__ if kinds is not None else ()
    targets = tuple(f"sm_{n[2:]}" for n in names if re.fullmatch(r"SM\d+", n))
    return Distribution(name, module, module.__version__, targets)


def present_capability(where: device) -> Optional[str]:
    """The compute capability of a GPU that is there, as ``"sm_90"``; None without one."""
    if where.kind != "gpu" or not torch.cuda.is_available():
        return None
    if where.index >= torch.cuda.device_count():
        return None
    major, minor = torch.cuda.get_device_capability(where.index)
    return f"sm_{major}{minor}"


def for_device(where: device) -> Union[Distribution, str]:
    """The distribution that builds for a device and runs there, or why there is none."""
    if where.kind != "gpu":
        return (
            "TensorRT runs on NVIDIA GPUs only; an engine for a GPU that is elsewhere is built "
            'with target="sm_89"'
        )
    capability = present_capability(where)
    if capability is None:
        return f"there is no {where}"
    full, rtx = installed("tensorrt"), installed("tensorrt_rtx")
    if isinstance(full, Distribution):
        return full
    if isinstance(rtx, str):
        return f"tensorrt is {full}, tensorrt_rtx is {rtx}; {INSTALL}"
    if capability not in rtx.ahead_of_time:
        supported = ", ".join(rtx.ahead_of_time)
        return (
            f"{rtx} does not support this GPU's compute capability {capability} (it supports "
            f"{supported}); the full TensorRT does: pip install tensorrt-cu13"
        )
    return rtx


def for_targets(target: Any) -> tuple[Distribution, tuple[str, ...]]:
    """The distribution that builds ahead of time, and the targets in the usual spelling.

    Args:
        target: ``"sm_89"``, or a list of such names.

    Raises:
        TripyException: For something else, an unknown target, or no distribution for it.
    """
    targets = [target] if isinstance(target, str) else target
    usable = isinstance(targets, Sequence) and targets and all(isinstance(t, str) for t in targets)
    if not usable:
        raise TripyException(
            "compile: target is not a compute capability.",
            got=f"target={target!r}",
            expected='a name such as "sm_89", or a list of them',
        )
    rtx = installed("tensorrt_rtx")
    if isinstance(rtx, str):
        raise TripyException(
            "compile: no TensorRT that builds ahead of time can be used.",
            got=f"tensorrt_rtx is {rtx}",
            expected="TensorRT-RTX, which builds engines for GPUs that are not there",
            hint="pip install tensorrt-rtx-cu13",
        )
    unknown = [t for t in targets if t not in rtx.ahead_of_time]
    if unknown:
        raise TripyException(
            "compile: an engine cannot be built ahead of time for a target.",
            got=f"target={', '.join(map(repr, unknown))}",
            expected=f"one or several of {', '.join(rtx.ahead_of_time)} with {rtx}",
            hint="on a machine with that GPU, the full TensorRT: pip install tensorrt-cu13"
            if unknown[0].startswith("sm_")
            else None,
        )
    return rtx, tuple(dict.fromkeys(targets))
