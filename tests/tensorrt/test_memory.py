"""Memory: what is said where it runs out, and what a build holds on to."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref

import pytest
import torch

import tripy as tp
from tests.helpers import raises
from tests.saving.support import info
from tests.tensorrt.support import ROOT, needs_rtx
from tripy.backends.tensorrt import build, network

pytestmark = needs_rtx

PROGRAM = """
import resource
import sys

import torch
import tripy as tp

size, room = (int(argument) for argument in sys.argv[1:])
weight = tp.Tensor(torch.zeros((size, 4096), dtype=torch.int8))

def product(x):
    return x @ tp.transpose(tp.dequantize(weight, 0.1, tp.float32), 0, 1)

def built(function, width):
    args = [tp.InputInfo((8, width), tp.float32)]
    return tp.compile(function, args=args, backend="tensorrt", target="sm_89")

built(tp.relu, 8)  # The library is there, and what it needs once.
with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (held + room * 2**20, before[1]))
try:
    built(product, 4096)
except tp.TripyException as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, before)
print("afterwards:", built(tp.exp, 8).serialized_tensorrt_engine[1:4])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
@pytest.mark.parametrize(
    ("size", "room", "who"),
    [(4096, 24, "TensorRT says: .*bad_alloc"), (16384, 48, "can't allocate memory")],
    ids=["in TensorRT", "in torch"],
)
def test_out_of_memory_while_building(size, room, who):
    """A process that may not have more is told so, and goes on; weights are 16 and 64 MiB."""
    command = [sys.executable, "-c", PROGRAM, str(size), str(room)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "compile: there is not enough memory to build the engine."
    (got,) = (line for line in lines if line.startswith("  got:"))
    assert re.search(who, got), got
    assert "cudaError" not in got  # TensorRT looks for a driver while it cleans up.
    assert any("a machine with more memory" in line for line in lines)
    assert lines[-1] == "afterwards: b'trt'"


def test_errors_that_are_none_of_memory_pass(monkeypatch):
    def fails(*arguments):
        raise RuntimeError("another one")

    monkeypatch.setattr(build, "draft", fails)
    with pytest.raises(RuntimeError, match="another one"):
        tp.compile(tp.relu, args=[info(2)], backend="tensorrt", target="sm_89")

    def full(*arguments):
        raise MemoryError

    monkeypatch.setattr(build, "draft", full)
    with raises("not enough memory to build the engine[\\s\\S]*MemoryError"):
        tp.compile(tp.relu, args=[info(2)], backend="tensorrt", target="sm_89")


def test_copies_of_weights_end_with_the_build(monkeypatch):
    """A weight that is turned is copied; the executable does not keep the copy."""
    copies = []
    real = network.Network.constant

    def constant(self, data, kind):
        result = real(self, data, kind)
        if data.numel() == 64 * 32:
            copies.append(weakref.ref(self._kept[-1]))
        return result

    monkeypatch.setattr(network.Network, "constant", constant)
    weight = tp.Tensor(torch.ones((64, 32), dtype=torch.int8))

    def product(x):
        return x @ tp.transpose(tp.dequantize(weight, 0.1, tp.float32), 0, 1)

    gc.disable()  # It ends by itself, not once somebody looks for cycles.
    try:
        engine = tp.compile(product, args=[info(2, 32)], backend="tensorrt", target="sm_89")
        assert len(copies) == 1
        assert copies[0]() is None
    finally:
        gc.enable()
    assert engine.layers()
