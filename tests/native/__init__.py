"""Kernels of ``csrc/`` compiled for the CPU, where ``emulator.h`` is their GPU."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_CSRC = _HERE.parents[1] / "csrc"


def headers() -> str:
    """Where CUDA's headers are; the test is skipped where there are none, or no compiler."""
    if not shutil.which("nvcc") or not shutil.which("g++"):
        pytest.skip("needs CUDA's headers (nvcc) and g++")
    said = subprocess.run(
        ["nvcc", "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=True
    )
    found = re.search(r'INCLUDES="-I(.*?)"', said.stderr)
    if found is None:
        pytest.skip("nvcc does not say where CUDA's headers are")
    return found[1]


def build(name: str, folders: pytest.TempPathFactory) -> ctypes.CDLL:
    """Compile ``NAME.cpp`` of this folder with the emulator, once for all tests; load it."""
    folder = folders.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    library = folder / f"{name}.so"
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            made = library.with_suffix(".made")
            subprocess.run(
                ["g++", "-std=c++17", "-O2", "-fPIC", "-shared", "-fno-strict-aliasing", "-w",
                 f'-DTRIPY_EMULATOR="{_HERE / "emulator.h"}"', f"-I{headers()}", f"-I{_CSRC}",
                 _HERE / "emulator.cpp", _HERE / f"{name}.cpp", "-o", made],
                check=True,
            )  # fmt: skip
            made.rename(library)
    return ctypes.CDLL(str(library))
