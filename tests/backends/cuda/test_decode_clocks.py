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


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_a_kernel_with_clocks_builds(tmp_path):
    source = tmp_path / "kernel.cu"
    source.write_text(
        '#include "decode_kernel.cuh"\n'
        "template __global__ void tripy::decode_step<__half, kInt8Weights, 64, 1>(\n"
        "    const __grid_constant__ DecodeLaunch);\n"
    )
    built = {}
    for options in ((), ("-DTRIPY_CLOCKS",)):
        subprocess.run(
            ["nvcc", "-std=c++17", "--generate-code=arch=compute_90a,code=[compute_90a]",
             f"-I{ROOT / 'csrc'}", *options, "-ptx", source, "-o", tmp_path / "kernel.ptx"],
            check=True,
        )  # fmt: skip
        built[options] = (tmp_path / "kernel.ptx").read_text().count("%clock;")
    without, moments = built.values()
    assert without == 0 and moments >= 8


def test_phases_are_those_of_the_noted_moments(planning, decode_clocks):
    (run,) = runs(compiled(Model(GPT)))
    table = native_decode.table([native_decode.DecodeStep(**s) for s in run.steps], run.where)
    names = decode_clocks.kinds(table)
    assert len(names) == len(run.steps)
    assert names[:2] == [f"{GPT.size} to {3 * GPT.size}", "attention"]
    # Two blocks: each moment of a step is 10 cycles after the one before, in the other block 30;
    # their clocks differ, and the second one's is about to begin anew.
    clocks = torch.arange(8).repeat(2, len(names), 1) * torch.tensor([10, 30])[:, None, None]
    clocks += torch.tensor([5, 2**32 - 100])[:, None, None]
    clocks %= 2**32
    clocks[:, [i for i, n in enumerate(names) if n == "attention"]] *= torch.tensor(
        [1, 0, 0, 1, 0, 1, 0, 1]
    )
    clocks[1, 0] = 0  # This block has nothing of the first step.
    said = decode_clocks.phases(clocks, names).splitlines()
    rows = {line.split("  ")[0]: line.split() for line in said[1:]}
    assert rows["attention"] == [
        "attention",
        str(GPT.layers),
        "60,",
        "90",
        "40,",
        "60",
        "40,",
        "60",
    ]
    first = rows[names[0]]
    assert first[:4] == [*names[0].split(), str(GPT.layers)]
    assert first[4:] == ["17,", "20"] * 7  # (10 + 10 + 30) / 3; the slowest ones: 10 and 30.
