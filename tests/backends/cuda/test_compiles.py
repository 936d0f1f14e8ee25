"""Triton's kernels compile for GPUs, with no GPU: the interpreter takes more than its compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[3]
KERNELS = {
    "best", "maxima", "best_of_largest", "_advance", "_short_rows", "_long_rows", "attend",
    "rows_kernel", "tiles_kernel", "expand_kernel",
}  # fmt: skip


@pytest.mark.parametrize(("arch", "memory"), [("80", 163 << 10), ("90", 227 << 10)])
def test_kernels_compile(arch, memory):
    """And where they are launched early, they wait before they read or write."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns where it is unset.
    command = [sys.executable, "tests/backends/cuda/compile_kernels.py", arch]
    environment["PYTHONPATH"] = str(ROOT)
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert {name for name, *_ in rows} == KERNELS
    for name, shared, waits in rows:
        assert int(shared) <= memory
        assert waits == str(arch == "90" and name != "expand_kernel")
