"""Tiles of the Triton matrix product: every choice fits the GPU that it is for."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from tripy.backends.torch.kernels.cuda.gemm_table import (
    LARGE,
    Hardware,
    choose,
    shared_bytes,
)

ROOT = Path(__file__).parents[3]
# Shared memory that a program can have: NVIDIA's table of technical data by compute capability.
GPUS = {
    "80": Hardware(False, 108, 163 * 1024), "89": Hardware(False, 128, 99 * 1024),
    "90": Hardware(True, 132, 227 * 1024),
}  # fmt: skip
ROWS, COLUMNS = (1, 16, 17, 64, 65, 128, 512, 4096, 16384), (1, 768, 4096, 50257)


@pytest.mark.parametrize("name", GPUS)
def test_every_choice_fits(name):
    gpu = GPUS[name]
    for m, n, size, residual in itertools.product(ROWS, COLUMNS, (1, 2, 4), (False, True)):
        tile = choose(m, n, gpu, size, residual)
        descriptors = gpu.descriptors and tile.m >= 64
        used = shared_bytes(tile, size, descriptors=descriptors, residual=residual)
        assert used <= gpu.shared, (m, n, size, residual, tile)
        assert m > 16 or tile.m == 16


def test_the_largest_tile_where_it_fits():
    assert choose(4096, 4096, GPUS["90"], 2, False) == LARGE
    assert choose(4096, 4096, GPUS["80"], 4, True) == LARGE
    wide, small = choose(4096, 4096, GPUS["90"], 4, True), choose(4096, 4096, GPUS["89"], 2, False)
    for tile in (wide, small):
        assert tile.m == tile.n == 128 and tile.k >= 64


# Compiles kernels for GPUs that need not be here, in a process without the interpreter.
COMPILE = """
import json, sys
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from tripy.backends.torch.kernels.cuda import gemm, gemm_table
from tripy.backends.torch.kernels.cuda.gemm_table import Hardware

def used(arch, gpu, out, residual):
    tile = gemm_table.choose(4096, 4096, gpu, {"i8": 1, "fp16": 2, "fp32": 4}[out], residual)
    kernel = gemm._persistent if gpu.descriptors else gemm._tiled
    constants = {
        "K": 4096, "SCALES": 1, "ACTIVATION": 4, "IMPRECISE": None, "IN_MEMORY": False,
        "BLOCK_M": tile.m, "BLOCK_N": tile.n, "BLOCK_K": tile.k, "GROUP": tile.group,
    }
    if gpu.descriptors:
        kinds = [f"tensordesc<i8[{rows},{tile.k}]>" for rows in (tile.m, tile.n)]
        kinds.append(f"tensordesc<{out}[{tile.m},{tile.n}]>")
    else:
        kinds = ["*i8", "*i8", "*" + out]
    types = dict(zip(("x", "weight", "out"), kinds), scale="*fp32", row_scale="*fp32", bias="*fp32")
    types |= {"residual": kinds[2] if residual else "constexpr", "out_scale": "fp32"}
    types |= {"M": "i32", "N": "i32", **dict.fromkeys(constants, "constexpr")}
    if not residual:
        constants["residual"] = None
    names = kernel.arg_names
    source = ASTSource(
        kernel, {name: types[name] for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(n),): [["tt.divisibility", 16]] for n in names if types[n][0] == "*"},
    )
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return compile(source, target=GPUTarget("cuda", arch, 32), options=options).metadata.shared

arch, gpu, *rest = json.loads(sys.argv[1])
print(used(int(arch), Hardware(*gpu), *rest))
"""


@pytest.mark.parametrize(
    ("name", "out", "residual"),
    [("80", "fp32", True), ("89", "fp16", False), ("90", "fp32", True)],
)
def test_the_compiler_uses_no_more(name, out, residual):
    """What the choice counts on, against what Triton's compiler takes for that GPU."""
    gpu = GPUS[name]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns where it is unset.
    command = [sys.executable, "-c", COMPILE, json.dumps([name, gpu, out, residual])]
    ran = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    size = {"i8": 1, "fp16": 2, "fp32": 4}[out]
    tile = choose(4096, 4096, gpu, size, residual)
    bound = shared_bytes(tile, size, descriptors=gpu.descriptors, residual=residual)
    assert bound // 4 < int(ran.stdout.split()[-1]) <= bound <= gpu.shared
