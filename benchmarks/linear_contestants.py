"""Who takes part in `gpu_linear`: tripy's kernels and PyTorch's libraries, all called alike."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F

import tripy as tp

T = torch.Tensor
HALF, INT8, F8 = torch.float16, torch.int8, torch.float8_e4m3fn
# Operations a second, dense: NVIDIA's data sheet of H100 and H200 SXM.
PEAK = {HALF: 989e12, INT8: 1979e12, F8: 1979e12}
KERNELS = "tripy.backends.torch.kernels.cuda."
# Beyond these rows a weight-only layer expands its weight and multiplies in floating point.
FEW_ROWS = 64


class Contestant(NamedTuple):
    """``call(x, i)`` computes ``x @ weight[i].T * scale + bias`` for an x of type ``takes``."""

    call: Callable[[T, int], T]
    takes: torch.dtype
    # A part of the work only, to compare with.
    part: bool = False


class Case(NamedTuple):
    """One layer at one number of rows, with everything that contestants read."""

    m: int
    n: int
    k: int
    copies: int
    half: list[T]
    int8: list[T]
    float8: list[T]
    scale: T
    bias: T


def random(kind: torch.dtype, *shape: int) -> T:
    if kind is INT8:
        return torch.randint(-128, 128, shape, dtype=INT8, device="cuda")
    return torch.randn(shape, device="cuda", dtype=HALF).to(kind)


def new_case(m: int, n: int, k: int) -> Case:
    """Enough copies of the weight that the cache has none of the next one; not beside many rows."""
    copies = max(1, min(64, 128 * 2**20 // (n * k))) if m <= 1024 else 1
    weights = [[random(kind, n, k) for _ in range(copies)] for kind in (HALF, INT8, F8)]
    scale = torch.rand(n, device="cuda") * 1e-4
    return Case(m, n, k, copies, *weights, scale, random(HALF, n))


def weight_of(case: Case, kind: str) -> T:
    """The first weight of a kind of layer, as float32."""
    if kind == "int4 weight":
        return (case.int8[0] >> 4).float()
    return (case.float8 if kind == "float8" else case.int8)[0].float()


def limit(case: Case, kind: str, bandwidth: float) -> float:
    """The least seconds that bytes and operations take."""
    only_weight = kind.endswith("weight")
    inputs = case.m * case.k * (2 if only_weight else 1)
    size = weight_bytes(case, kind) + inputs + case.m * case.n * 2
    peak = PEAK[HALF if only_weight else INT8]
    return max(size / bandwidth, 2 * case.m * case.n * case.k / peak)


def weight_bytes(case: Case, kind: str) -> float:
    return case.n * case.k * (0.5 if kind.startswith("int4") else 1)


@functools.cache
def kernel(name: str) -> Optional[Any]:
    """A module with kernels, or None where it cannot be imported, which is said once."""
    try:
        return importlib.import_module(KERNELS + name)
    except ImportError as error:
        print(f"left out: {error}")
        return None


def ours(case: Case, only_native: bool) -> dict[str, Contestant]:
    """By ``"kind: maker"``; without Triton where the native library has the same if wished."""
    result: dict[str, Contestant] = {}
    wide, gpu = case.bias.float(), tp.device("gpu")
    native, triton = kernel("native"), kernel("gemm")
    usable = native is not None and native.available(gpu) is None

    def product(scaled_gemm: Callable[..., T], weights: list[T]) -> Callable[[T, int], T]:
        return lambda x, i: scaled_gemm(x, weights[i], case.scale, bias=wide, dtype=HALF)

    for name, kind, weights in (("int8", INT8, case.int8), ("float8", F8, case.float8)):
        runs = usable and native.reason((case.m, case.k), (case.n, case.k), HALF) is None
        if runs:
            result[f"{name}: native"] = Contestant(product(native.scaled_gemm, weights), kind)
        if triton is not None and not (runs and only_native):
            result[f"{name}: Triton"] = Contestant(product(triton.scaled_gemm, weights), kind)
    return {**result, **_weight_only(case, only_native)}


def _weight_only(case: Case, only_native: bool) -> dict[str, Contestant]:
    packing, triton, native, mixed = (
        kernel(n) for n in ("packing", "weight_only", "native_weight_only", "native_mixed_gemm")
    )
    if packing is None or triton is None:
        return {}
    result: dict[str, Contestant] = {}
    usable = native is not None and native.available(tp.device("gpu")) is None
    few, wide = case.m <= FEW_ROWS, case.bias.float()
    for kind in ("int8", "int4"):
        pack = packing.pack_int8 if kind == "int8" else packing.pack_int4
        packed = [pack(w if kind == "int8" else w >> 4) for w in case.int8]
        most = native.most_rows(kind, (case.n, case.k), False, HALF, False) if usable else 0
        chosen = case.m <= most  # The native one is what a layer runs.
        makers = {"native": native.weight_only} if chosen or (usable and few) else {}
        if few and not (chosen and only_native):
            makers["Triton"] = triton.weight_only_gemm
        for maker, run in makers.items():

            def product(x: T, i: int, run: Callable = run, packed: list = packed) -> T:
                return run(x, packed[i], case.scale, bias=case.bias, dtype=HALF)

            result[f"{kind} weight: {maker}"] = Contestant(product, HALF)
        tile = None
        if usable and not chosen and not few:
            tile = mixed.choose(case.m, packed[0].shape, False)
        if tile is not None:

            def converted(x: T, i: int, packed: list = packed, tile: Any = tile) -> T:
                return mixed.mixed_gemm(x, packed[i], case.scale, bias=wide, dtype=HALF, tile=tile)

            result[f"{kind} weight: native, many rows"] = Contestant(converted, HALF)
        if not few and not ((chosen or tile is not None) and only_native):

            def expanded(x: T, i: int, packed: list = packed) -> T:
                weight = triton.dequantize(packed[i], case.scale, HALF)
                return F.linear(x, weight, case.bias)

            result[f"{kind} weight: expanded"] = Contestant(expanded, HALF)
    return result


# ------------------------------------------------------------------------------------------------
# Peers.


@functools.cache
def compiled(function: Callable, dynamic: bool) -> Callable:
    return torch.compile(function, dynamic=dynamic)


def scaled(product: T, scale: T, bias: T) -> T:
    return (product * scale + bias).to(HALF)


def expanded_linear(x: T, weight: T, scale: T, bias: T) -> T:
    return F.linear(x, weight.to(HALF) * scale.to(HALF)[:, None], bias)


def peers(case: Case, with_compile: bool) -> dict[str, dict[str, Contestant]]:
    """By kind of layer, then by name; names in brackets do a part of the work only."""
    scale, bias = case.scale, case.bias
    one = torch.ones((), device="cuda")
    rows, columns = torch.ones(case.m, 1, device="cuda"), scale.view(1, case.n)
    half = {"fp16": Contestant(lambda x, i: F.linear(x, case.half[i], bias), HALF)}

    def multiply(x: T, i: int) -> T:
        return torch._int_mm(x, case.int8[i].t())

    def multiply8(x: T, i: int, **options: Any) -> T:
        by = options or {"scale_a": one, "scale_b": one}
        return torch._scaled_mm(x, case.float8[i].t(), **by, out_dtype=HALF, use_fast_accum=True)

    def multiply8_by_rows(x: T, i: int) -> T:
        return multiply8(x, i, scale_a=rows, scale_b=columns, bias=bias)

    int8 = {"[_int_mm]": Contestant(multiply, INT8, part=True)}
    float8 = {
        "[_scaled_mm]": Contestant(multiply8, F8, part=True),
        "_scaled_mm by rows, bias": Contestant(multiply8_by_rows, F8),
    }
    weight_only: dict[str, Contestant] = {}
    if with_compile:
        after = compiled(scaled, dynamic=True)
        int8["_int_mm, compiled scaling"] = Contestant(
            lambda x, i: after(multiply(x, i), scale, bias), INT8
        )
        float8["_scaled_mm, compiled scaling"] = Contestant(
            lambda x, i: after(multiply8(x, i), scale, bias), F8
        )
        function = compiled(expanded_linear, dynamic=False)
        weight_only["torch.compile, int8"] = Contestant(
            lambda x, i: function(x, case.int8[i], scale, bias), HALF
        )
    return {
        "int8": {**half, **int8}, "float8": {**half, **float8},
        "int8 weight": {**half, **weight_only}, "int4 weight": {**half, **weight_only},
    }  # fmt: skip
