"""What the machine has, and what that means for data types: facts for ``python -m tripy``."""

from __future__ import annotations

import platform
import re
from typing import Optional

import torch

from tripy.backends.torch.kernels.cpu_int8 import int8_products_are_exact
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


def data_types(where: device) -> dict[str, str]:
    """How each data type's matrix products run on a device: natively or emulated."""
    if where.kind == "gpu":
        plain = "native"
        quantized = "emulated: no quantized kernels for GPUs in this version"
        return {"float32": plain, "float16": plain, "bfloat16": plain, "int8": quantized,
                "int4": quantized, "float8": quantized}  # fmt: skip
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
