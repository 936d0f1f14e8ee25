"""Compiles Triton's kernels for a GPU that need not be here: python compile_kernels.py 90

For tests/backends/cuda/test_compiles.py, in a process without the interpreter. A line for each
kernel: its name, its bytes of shared memory, and whether it waits for the launch in front.
"""

import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from tripy.backends.torch.kernels.cuda import (
    advance,
    decode_attention,
    normalization,
    packing,
    sampling,
    weight_only,
)

ARCH = int(sys.argv[1])
EARLY = {"pdl": ARCH >= 90}


class Driver:
    """What compiling asks a GPU's driver."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", ARCH, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(self, *args, grid, warmup, **options):
    kernel = launch(self, *args, grid=grid, warmup=True, **options)
    kernel = kernel.result() if hasattr(kernel, "result") else kernel
    print(self.fn.__name__, kernel.metadata.shared, "griddepcontrol.wait" in kernel.asm["ptx"])


def integers(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int32)


driver.set_active(Driver())
launch, JITFunction.run = JITFunction.run, compile_only
half, bfloat = torch.zeros(3, 768).half(), torch.zeros(3, 768).bfloat16()
for top_k in (None, 50):
    sampling.sample(
        half, temperature=0.8, top_k=top_k, seed_state=torch.zeros(2, dtype=torch.int64), **EARLY
    )
state = advance.State(*(integers(n) for n in (3, 3, 3, 2, 1)), integers(8, 3))
advance.advance(integers(3), state, **EARLY)
for x in (half, torch.zeros(2, 20000)):
    weight = x[0].clone()
    normalization.normalize(x, weight, weight, 1e-5, residual=x, dynamic=torch.int8, **EARLY)
cache = torch.zeros(3, 4, 1100, 64).half()
decode_attention.append_and_attend(
    half, cache, integers(3), integers(3), heads=8, groups=2, scale=0.1, **EARLY
)
integer = packing.pack_int8(torch.zeros(64, 768, dtype=torch.int8))
packed = packing.pack_int4(torch.zeros(64, 768, dtype=torch.int8))
for x, weight, scale in (
    (half[:1], integer, torch.ones(64)), (bfloat, packed, torch.ones(64, 6)),
):  # fmt: skip
    weight_only.weight_only_gemm(x, weight, scale, dtype=x.dtype, activation="gelu", **EARLY)
weight_only.dequantize(packed, torch.ones(64, 6), torch.bfloat16)
