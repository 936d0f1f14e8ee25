"""Every tile of the native matrix products on small sizes, for tools/sanitize.sh."""

import itertools
import sys
import time

import torch

import tripy as tp
from tripy.backends.torch.kernels.cuda import native

F8 = torch.float8_e4m3fn
# One tile and several, tails in each dimension, more tiles than blocks.
SHAPES = [(1, 16, 16), (70, 336, 80), (300, 528, 656), (2000, 1040, 144)]
FLOATING = (torch.float32, torch.float16, torch.bfloat16)


def values(shape: tuple[int, int], kind: torch.dtype) -> torch.Tensor:
    if kind == torch.int8:
        return torch.randint(-128, 128, shape, dtype=kind).cuda()
    return torch.randn(shape).to(kind).cuda()


def run(m: int, n: int, k: int, kind: torch.dtype) -> int:
    x, weight = values((m, k), kind), values((n, k), kind)
    scale, bias, row_scale = torch.rand(n).cuda(), torch.randn(n).cuda(), torch.rand(m).cuda()
    launches = 0
    for tile, dtype in itertools.product(range(native.TILES), (*FLOATING, kind)):
        one_byte = dtype == kind
        residual = None if one_byte else torch.randn(m, n).to(dtype).cuda()
        native.scaled_gemm(
            x, weight, scale, row_scale=row_scale, bias=bias, activation="gelu_tanh",
            residual=residual, out_scale=0.05 if one_byte else None, dtype=dtype, tile=tile,
        )  # fmt: skip
        launches += 1
    torch.cuda.synchronize()
    return launches


def main() -> None:
    reason = native.available(tp.device("gpu"))
    if reason:
        sys.exit(f"sanitize_cases: {reason}")
    torch.manual_seed(0)
    start = time.time()
    launches = sum(run(*shape, kind) for shape in SHAPES for kind in (torch.int8, F8))
    print(f"{launches} launches in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
