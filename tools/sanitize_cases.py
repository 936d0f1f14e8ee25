"""Every kernel on small sizes, for tools/sanitize.sh.

python tools/sanitize_cases.py [GROUP ...]

Groups are named after their functions; the first four need the native library.
"""

import itertools
import sys
import time

import torch

import tripy as tp
from tripy.backends.torch.kernels.cuda import (
    advance,
    cache,
    decode_attention,
    gemm,
    native,
    native_mixed_gemm,
    native_weight_cuts,
    native_weight_only,
    normalization,
    packing,
    rows,
    sampling,
    weight_only,
)

INT8, F8 = torch.int8, torch.float8_e4m3fn
FLOATING = (torch.float32, torch.float16, torch.bfloat16)
# One tile and several, tails in each dimension, more tiles than blocks.
SHAPES = [(1, 16, 16), (70, 336, 80), (300, 528, 656), (2000, 1040, 144)]
PACK = {"int8": packing.pack_int8, "int4": packing.pack_int4, "float8": packing.pack_fp8}
EARLY = {"pdl": True}  # Launches that may begin before the one in front has ended.


def values(shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
    if kind == INT8:
        return torch.randint(-128, 128, shape, dtype=kind).cuda()
    return torch.randn(shape).to(kind).cuda()


def weight_of(kind: str, n: int, k: int) -> packing.GpuWeight:
    plain = values((n, k), F8 if kind == "float8" else INT8)
    return PACK[kind](plain >> 4 if kind == "int4" else plain)


def integers(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32).cuda()


def products() -> int:
    """The native matrix product: every tile and type."""
    launches = 0
    for (m, n, k), kind in itertools.product(SHAPES, (INT8, F8)):
        x, weight = values((m, k), kind), values((n, k), kind)
        scale, bias, row_scale = torch.rand(n).cuda(), torch.randn(n).cuda(), torch.rand(m).cuda()
        for tile, dtype in itertools.product(range(native.TILES), (*FLOATING, kind)):
            one_byte = dtype == kind
            residual = None if one_byte else torch.randn(m, n).to(dtype).cuda()
            native.scaled_gemm(
                x, weight, scale, row_scale=row_scale, bias=bias, activation="gelu_tanh",
                residual=residual, out_scale=0.05 if one_byte else None, dtype=dtype, tile=tile,
            )  # fmt: skip
            launches += 1
    return launches


def few_rows() -> int:
    """The native kernels for few rows: every kind, cut and cluster, with scales of every form."""
    launches, n, k = 0, 300, 832
    cuts = native_weight_cuts
    resident = [
        cuts.Config(tiles, cluster, 1 + (tiles + cluster) % 3, 0, warps, passes=passes)
        for tiles, warps in ((1, 8), (2, 8), (2, 16))
        for cluster, passes in ((1, 2), (2, 3), (4, 1), (8, 2))
    ]  # fmt: skip
    streamed = [cuts.Config(2, 1, slots, 0, 8, streams=True) for slots in (2, 4)]
    for kind, x_type, m in itertools.product(
        PACK, (torch.float16, torch.bfloat16, INT8), (1, 11, 30, 61)
    ):
        packed, x = weight_of(kind, n, k), values((m, k), x_type)
        compute = native_weight_only.compute_type(kind, x_type, rounded=False)
        dtype = torch.float16 if x_type is INT8 else x_type
        for cut in resident if m <= 16 else streamed:
            config = cut._replace(rows=m)
            if (config.row_tiles == 1 and m > 8) or compute is None:
                continue
            if config.streams and compute is not x_type:
                continue
            for groups in (None,) if config.row_tiles == 1 else (1, 26):
                if cuts.shared_bytes(config, packed, compute, k // (groups or k)) > cuts.MEMORY:
                    continue
                scale = torch.rand(*((1,) if groups is None else (n, groups))).cuda()
                native_weight_only.weight_only(
                    x, packed, scale, bias=values((n,), dtype), residual=values((m, n), dtype),
                    activation="gelu", dtype=dtype, config=config, **EARLY,
                )  # fmt: skip
                launches += 1
        if x_type is not INT8 and m <= 16:
            native_weight_only.weight_only(
                x, packed, torch.rand(n).cuda(), in_scale=0.1, dtype=dtype, out_scale=0.1,
                out_dtype=INT8,
            )  # fmt: skip
            launches += 1
    # Blocks of 128 columns and more, for which scales are applied less often.
    for kind, m in itertools.product(PACK, (3, 13, 40)):
        packed, x = weight_of(kind, n, 1024), values((m, 1024), torch.float16)
        for cut in resident[5:10:4] if m <= 16 else streamed:
            config = cut._replace(rows=m)
            if cuts.shared_bytes(config, packed, torch.float16, 128) <= cuts.MEMORY:
                scale = torch.rand(n, 8).cuda()
                native_weight_only.weight_only(
                    x, packed, scale, dtype=torch.float16, config=config, **EARLY
                )
                launches += 1
    return launches


def many_rows() -> int:
    """The native kernels that convert weights in registers: every kind, tile and end of a tile."""
    launches = 0
    for kind, tile, (m, n, k) in itertools.product(
        PACK, native_mixed_gemm.TILES, ((1, 24, 8), (270, 200, 320), (70, 133, 256))
    ):
        if -(-k // 64) < tile.split:
            continue
        packed, forms = weight_of(kind, n, k), ((1,), (n,), (n, 4))
        for x_type, form in zip((torch.float16, torch.bfloat16), forms[1:] if k == 256 else forms):
            dtype = torch.float32 if m == 1 else x_type
            native_mixed_gemm.mixed_gemm(
                values((m, k), x_type), packed, torch.rand(*form).cuda(),
                bias=torch.randn(n).cuda(), activation="silu", residual=values((m, n), dtype),
                dtype=dtype, tile=tile,
            )  # fmt: skip
            launches += 1
    return launches


def layers() -> int:
    """Triton's products: packed weights of few rows and of many, int8 and float8."""
    launches = 0
    for kind, x_type, m in itertools.product(PACK, (torch.float16, torch.float32), (1, 3, 33)):
        for (n, k), groups in itertools.product(((100, 48), (2064, 832)), (1, 2, 0)):
            packed = weight_of(kind, n, k)
            scale = torch.rand(*((n, groups) if groups else (1,))).cuda()
            norm = None
            if groups == 1:
                norm = weight_only.Norm("layer", values((k,), x_type), values((k,), x_type), 1e-5)
            weight_only.weight_only_gemm(
                values((m, k), x_type), packed, scale, bias=values((n,), x_type),
                residual=values((m, n), x_type), activation="silu", norm=norm,
                in_scale=None if groups else 0.1, dtype=x_type, **EARLY,
            )  # fmt: skip
            weight_only.dequantize(packed, scale, x_type)
            launches += 2
    for (m, n, k), kind in itertools.product([*SHAPES, (100, 37, 33)], (INT8, F8)):
        x, weight, scale = values((m, k), kind), values((n, k), kind), torch.rand(n).cuda()
        for dtype in (torch.float16, kind):
            step = 0.05 if dtype is kind else None
            gemm.scaled_gemm(x, weight, scale, bias=scale, out_scale=step, dtype=dtype)
            launches += 1
    return launches


def norms() -> int:
    """Normalization and rounding, of rows in registers and of long ones."""
    launches = 0
    for dtype, width, kind in itertools.product(FLOATING, (5, 768, 20000), ("layer", "rms", None)):
        x, residual = values((7, width), dtype), values((7, width), dtype)
        weight = None if kind is None else values((width,), dtype)
        bias = values((width,), dtype) if kind == "layer" else None
        for rounding in ({}, {"scale": 0.1, "dtype": INT8}, {"dynamic": F8}):
            normalization.normalize(
                x, weight, bias, 1e-5, kind=kind, residual=residual, **rounding, **EARLY
            )
            launches += 1
    return launches


def attention() -> int:
    """One token over a cache: one chunk and several, heads that share keys, narrow caches."""
    launches = 0
    for dtype, narrow in itertools.product(FLOATING, (None, INT8, F8)):
        for heads, groups, width, capacity in ((2, 2, 64, 24), (8, 2, 80, 1100), (33, 1, 16, 700)):
            cache = values((2, 2 * groups, capacity, width), narrow or dtype)
            qkv = values((2, (heads + 2 * groups) * width), dtype)
            position = integers(capacity - 1, 3)
            decode_attention.append_and_attend(
                qkv, cache, position, position + 1, heads=heads, groups=groups, scale=0.1
            )
            query, lengths = values((2, heads, 1, width), dtype), integers(0, capacity + 5)
            decode_attention.decode_attention(
                query, cache[:, :groups], cache[:, groups:], lengths, scale=0.1
            )
            launches += 2
    return launches


def rows_of_tables() -> int:
    """Rows picked from tables, and rows written into caches; some out of range."""
    launches = 0
    for dtype, width in itertools.product(FLOATING, (5, 64, 1600)):
        tables = values((7, width), dtype), values((3, width), dtype)
        index, other = integers(0, -7, 6, 7, 2**30), integers(2, -3, 0, -4, 1)
        rows.gather_rows(tables[0], index)
        rows.gather_rows(tables[0], index, tables[1], other)
        new = values((2, 9, 3, width), dtype).transpose(1, 2)
        cache.write_rows(values((2, 3, 12, width), dtype), new, integers(3, 8))
        launches += 3
    return launches


def generation() -> int:
    """Sampling and the move to the next token."""
    launches, batch = 0, 3
    for dtype, vocabulary in itertools.product(FLOATING, (40, 5000, 70001)):
        space = sampling.workspace(batch, vocabulary, torch.device("cuda"))
        seed, ids = torch.tensor([5, 0]).cuda(), integers(*range(batch))
        for temperature, top_k in ((0.0, None), (0.8, None), (0.8, 1), (0.8, 50)):
            drawn = sampling.sample(
                values((batch, vocabulary), dtype), temperature=temperature, top_k=top_k,
                seed_state=seed, row_ids=ids, space=space, **EARLY,
            )  # fmt: skip
            ring = torch.zeros(4, batch, dtype=torch.int32, pin_memory=True)
            state = advance.State(
                integers(1, 2, 3), integers(0, 0, 0), integers(0, 1, 0), integers(7, -1),
                integers(5), ring,
            )  # fmt: skip
            advance.advance(drawn, state, **EARLY)
            launches += 2
    return launches


def decode_step() -> int:
    """A whole decode step in one kernel, of the models that its tests have.

    Nothing is compared: racecheck reports cuBLAS, and fails if told to leave that out.
    """
    from tests.backends.cuda import test_decode_step as of_step  # noqa: PLC0415  (needs pytest)

    tp.config.default_device = tp.device("gpu")
    launches = 0
    for sizes in (of_step.GPT, *of_step.OTHERS.values()):
        fast = of_step.compiled(of_step.Model(sizes))
        for position in (0, sizes.capacity - 1):
            x, where, caches = of_step.inputs(sizes, position, torch.device("cuda"))
            for _ in range(3):  # The second one in the same caches is recorded.
                fast(x, where, [tp.Tensor(cache) for cache in caches])
                launches += 1
    return launches


NATIVE = {"products": products, "few_rows": few_rows, "many_rows": many_rows,
          "decode_step": decode_step}  # fmt: skip
GROUPS = {**NATIVE, "layers": layers, "norms": norms, "attention": attention,
          "rows_of_tables": rows_of_tables, "generation": generation}  # fmt: skip


def main() -> None:
    wanted = sys.argv[1:] or list(GROUPS)
    if unknown := [name for name in wanted if name not in GROUPS]:
        sys.exit(f"sanitize_cases: got {', '.join(unknown)}; expected some of {', '.join(GROUPS)}")
    if not torch.cuda.is_available():
        sys.exit("sanitize_cases needs an NVIDIA GPU")
    missing = native_weight_only.available(tp.device("gpu"))
    torch.manual_seed(0)
    for name in wanted:
        if missing and name in NATIVE:
            sys.exit(f"sanitize_cases: {name}: {missing}")
        start = time.time()
        launches = GROUPS[name]()
        torch.cuda.synchronize()
        print(f"{name}: {launches} launches in {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
