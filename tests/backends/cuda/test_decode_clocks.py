"""Clocks in the decode step's kernel, which only libraries for development have."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from tests.backends.cuda.decode_models import GPT, Model, compiled, runs
from tripy.backends.torch.kernels.cuda import native_decode

ROOT = Path(__file__).parents[3]


@pytest.fixture
def decode_clocks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("decode_clocks")
    for name in ("decode_clocks", "gpu_kernels", "gpu_common", "common"):
        sys.modules.pop(name, None)


@pytest.fixture
def compiler(tmp_path):
    """Compiles the int8 kernel for so many quads, with options; what nvcc says of it."""
    if not shutil.which("nvcc"):
        pytest.skip("needs nvcc")

    def run(quads, *options):
        source = tmp_path / "kernel.cu"
        source.write_text(
            '#include "decode_kernel.cuh"\n'
            f"template __global__ void tripy::decode_step<__half, kInt8Weights, 64, {quads}>(\n"
            "    const __grid_constant__ DecodeLaunch);\n"
        )
        done = subprocess.run(
            ["nvcc", "-std=c++17", f"-I{ROOT / 'csrc'}", *options, source],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stderr

    return run


@pytest.mark.parametrize("quads", [1, 2, native_decode.MOST_QUADS])
def test_no_register_is_spilled(compiler, tmp_path, quads):
    """Of 88 bytes that were, each step of GPT-2 XL took 800 cycles longer, a fifth of all."""
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    if "release 13.0" not in version:
        pytest.skip("counts registers as CUDA 13.0 hands them out")
    said = compiler(quads, "-arch=sm_90a", "-Xptxas=-v", "-cubin", "-o", tmp_path / "kernel.cubin")
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in said


def test_a_kernel_with_clocks_builds(compiler, tmp_path):
    built = {}
    for options in ((), ("-DTRIPY_CLOCKS",)):
        to = "--generate-code=arch=compute_90a,code=[compute_90a]"
        compiler(1, to, *options, "-ptx", "-o", tmp_path / "kernel.ptx")
        built[options] = (tmp_path / "kernel.ptx").read_text().count("%clock;")
    without, moments = built.values()
    assert without == 0 and moments >= 8


def test_phases_are_those_of_the_noted_moments(planning, decode_clocks):
    (run,) = runs(compiled(Model(GPT)))
    table = native_decode.table([native_decode.DecodeStep(**s) for s in run.steps], run.where)
    names = decode_clocks.kinds(table)
    assert len(names) == len(run.steps)
    assert names[:2] == [f"{GPT.size} to {3 * GPT.size}", "attention"]
    # Two blocks: each moment of a step is 10 cycles after the last one, in the other block 30. The
    # first one of the next step is twice that. One clock is about to begin anew.
    clocks = torch.arange(8) + 9 * torch.arange(len(names))[:, None]
    clocks = clocks.repeat(2, 1, 1) * torch.tensor([10, 30])[:, None, None]
    clocks += torch.tensor([5, 2**32 - 100])[:, None, None]
    clocks %= 2**32
    clocks[:, [i for i, n in enumerate(names) if n == "attention"]] *= torch.tensor(
        [1, 0, 0, 1, 0, 1, 0, 1]
    )
    clocks[1, 0] = 0  # This block has nothing of the first step.
    said = decode_clocks.phases(clocks, names).splitlines()
    rows = {line.split("  ")[0]: line.split() for line in said[1:]}
    assert rows["attention"][1:] == [
        str(GPT.layers), "60,", "90", "40,", "60", "40,", "60", "40",
    ]  # fmt: skip
    first = rows[names[0]]
    assert first[:4] == [*names[0].split(), str(GPT.layers)]
    # (10 + 10 + 30) / 3; the slowest ones: 10 and 30. Twice as long until the next step.
    assert first[4:] == [*["17,", "20"] * 7, "33"]
