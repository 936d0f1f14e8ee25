"""What the machine has, and what that means for data types: facts for ``python -m tripy``."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from typing import Optional

import torch

from tripy.backends.torch.kernels.cpu_int8 import int8_products_are_exact
from tripy.backends.torch.kernels.cuda import native
from tripy.backends.torch.kernels.cuda.available import capability, missing
from tripy.device import device

# The instructions that matter, by the names that Linux has for them.
_CPU_FLAGS = {
    "AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 VNNI": "avx512_vnni", "AVX VNNI": "avx_vnni",
    "AVX-512 bfloat16": "avx512_bf16", "AMX int8": "amx_int8", "AMX bfloat16": "amx_bf16",
}  # fmt: skip


def _cpu_info() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return file.read()
    except OSError:
        return ""


def cpu_name() -> str:
    """The processor's name."""
    found = re.search(r"^model name\s*: (.+)$", _cpu_info(), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def cpu_features() -> Optional[dict[str, bool]]:
    """Which instructions the processor has; None where the system does not tell."""
    found = re.search(r"^flags\s*: (.+)$", _cpu_info(), re.MULTILINE)
    if found is None:
        return None
    flags = set(found[1].split())
    return {name: flag in flags for name, flag in _CPU_FLAGS.items()}


def gpus() -> list[str]:
    """Name, memory and compute capability of each GPU that torch sees."""
    if not torch.cuda.is_available():
        return []
    rows = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        memory = facts.total_memory / 2**30
        rows.append(
            f"{facts.name}, {memory:.0f} GiB, compute capability {facts.major}.{facts.minor}"
        )
    return rows


def gpu_kernels() -> list[str]:
    """Which makers of kernels for GPUs are installed, and what each GPU can use of them."""
    try:
        triton = f"version {importlib.metadata.version('triton')}"
    except importlib.metadata.PackageNotFoundError:
        triton = "no: Triton is not installed (pip install triton)"
    lines = [
        f"native library, for compute capability 9.0: {_or_reason('built', native.broken())}",
        f"Triton, for compute capability 8.0 and later: {triton}",
    ]
    if not torch.cuda.is_available():
        return [*lines, "on gpu: no: torch sees no CUDA device"]
    for index in range(torch.cuda.device_count()):
        where = device(f"gpu:{index}")
        uses = (("native library", native.available(where)), ("Triton", missing(where)))
        lines += [f"on {where}: {name}: {_or_reason('usable', reason)}" for name, reason in uses]
    return lines


def _or_reason(word: str, reason: Optional[str]) -> str:
    return word if reason is None else f"no: {reason}"


def data_types(where: device) -> dict[str, str]:
    """How each data type's matrix products run on a device: natively or emulated."""
    if where.kind == "gpu":
        return {**dict.fromkeys(("float32", "float16", "bfloat16"), "native"), **_quantized(where)}
    features = cpu_features() or {}
    bfloat16 = any(features.get(name) for name in ("AVX-512 bfloat16", "AMX bfloat16"))
    int8 = int8_products_are_exact()
    return {
        "float32": "native",
        "float16": "emulated: computed in float32",
        "bfloat16": "native" if bfloat16 else "emulated: computed in float32",
        "int8": "native: oneDNN int8 products with int32 sums"
        if int8
        else "emulated in float32: this processor's int8 products saturate (no VNNI or AMX)",
        "int4": "storage: two to a byte, unpacked for each product",
        "float8": "emulated in float32: processors have no float8 instructions",
    }


def _quantized(gpu: device) -> dict[str, str]:
    reason = missing(gpu)
    if reason is not None:
        return dict.fromkeys(("int8", "int4", "float8"), f"emulated: {reason}")
    float8 = capability(gpu) >= (8, 9)
    return {
        "int8": "native: tensor cores, sums in int32",
        "int4": "storage: two to a byte, unpacked inside the product",
        "float8": "native: tensor cores, sums in float32"
        if float8
        else "emulated: needs compute capability 8.9",
    }
