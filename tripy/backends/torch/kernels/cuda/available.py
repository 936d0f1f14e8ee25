"""Whether this machine can run the kernels for NVIDIA GPUs, and why not."""

from __future__ import annotations

import functools
import importlib.util
from typing import Optional

import torch

from tripy.device import device

# Tests run the kernels through Triton's interpreter on tensors of the CPU.
EMULATED = False


def missing(where: device) -> Optional[str]:
    """None where the kernels run on a device, else the reason."""
    return None if EMULATED else _missing(where)


@functools.cache
def _missing(where: device) -> Optional[str]:
    if where.kind != "gpu":
        return "the device is no GPU"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if capability(where) < (8, 0):
        return "compute capability {}.{} is below 8.0".format(*capability(where))
    return None


@functools.cache
def capability(where: device) -> tuple[int, int]:
    """The GPU's compute capability; the interpreter computes what Hopper does."""
    return (9, 0) if EMULATED else torch.cuda.get_device_capability(where.index)


def launches_early(where: device) -> bool:
    """Whether kernels may start before the one in front has ended (Hopper and later)."""
    return not EMULATED and capability(where) >= (9, 0)
