"""``python -m tripy``: what a bug report needs to say about the machine."""

from __future__ import annotations

import os
import platform
import sys

import numpy
import safetensors
import torch

import tripy
from tripy.backends.tensorrt.backend import TENSORRT
from tripy.backends.tensorrt.distribution import installed
from tripy.backends.torch import hardware
from tripy.backends.torch.backend import TORCH
from tripy.device import CPU, device


def _versions() -> list[str]:
    return [
        f"tripy {tripy.__version__}",
        f"Python {platform.python_version()} on {platform.platform()}",
        f"torch {torch.__version__}, numpy {numpy.__version__}, "
        f"safetensors {safetensors.__version__}",
    ]


def _processor() -> list[str]:
    features = hardware.cpu_features()
    cores = os.cpu_count()
    lines = [f"{hardware.cpu_name()}, {cores} cores, torch uses {torch.get_num_threads()} threads"]
    if features is None:
        lines.append(f"instructions: {torch.backends.cpu.get_cpu_capability()}, by torch")
    else:
        for word, wanted in (("has", True), ("lacks", False)):
            names = [name for name, present in features.items() if present is wanted]
            lines.append(f"{word} {', '.join(names) or 'nothing'}")
    return lines


def _backends() -> list[str]:
    lines = []
    for where in (CPU, device("gpu")):
        reason = TORCH.unusable(where)
        lines.append(f"torch on {where.kind}: " + ("usable" if reason is None else f"no: {reason}"))
    for name in ("tensorrt", "tensorrt_rtx"):
        found = installed(name)
        if isinstance(found, str):
            lines.append(f"{name}: no: {found}")
            continue
        ahead = f"; builds ahead of time for {', '.join(found.ahead_of_time)}"
        lines.append(f"{name}: {found.version}{ahead if found.ahead_of_time else ''}")
    reason = TENSORRT.unusable(device("gpu"))
    lines.append("tensorrt on gpu: " + ("usable" if reason is None else f"no: {reason}"))
    return lines


def _data_types() -> list[str]:
    where = tripy.config.default_device
    rows = hardware.data_types(where).items()
    return [f"on {where}, where new tensors go:", *(f"{n:<9} {text}" for n, text in rows)]


def _settings() -> list[str]:
    set_ = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("TRIPY_")]
    return sorted(set_) or ["no TRIPY_ variables are set"]


def main() -> int:
    """Print the report."""
    sections = {
        "versions": _versions(),
        "processor": _processor(),
        "GPUs": hardware.gpus() or ["none that torch sees"],
        "backends": _backends(),
        "kernels for GPUs": hardware.gpu_kernels(),
        "matrix products": _data_types(),
        "environment": _settings(),
    }
    for name, lines in sections.items():
        print(f"{name}\n" + "".join(f"  {line}\n" for line in lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
