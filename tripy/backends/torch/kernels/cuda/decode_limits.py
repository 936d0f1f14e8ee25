"""What the kernel of ``csrc/decode_step.cuh`` takes, and how its steps share shared memory."""

from __future__ import annotations

import math
from typing import Optional

import torch

from tripy.backends.torch.kernels.cuda import native_decode as native
from tripy.backends.torch.kernels.cuda.linear import GpuLinear
from tripy.graph import Node, Value

WEIGHTS = ("int8", "float8")
_WIDTHS = (32, 64, 128)


def rows_of(value: Value) -> int:
    """Rows of a value's matrix, 0 where they are not known."""
    sizes = [n for n in value.shape[:-1] if isinstance(n, int)]
    return math.prod(sizes) if len(sizes) == len(value.shape) - 1 else 0


def why_not_linear(kernel: GpuLinear, node: Node) -> Optional[str]:
    """Why a layer cannot be a step."""
    weight, rows = kernel.weight, rows_of(node.output)
    if weight.kind not in WEIGHTS or kernel.scale.dim() > 1:
        return "the weight is int4 or has scales a block"
    if kernel.dtype not in (torch.float16, torch.bfloat16):
        return "computed in float32"
    if rows not in native.ROWS:
        return f"rows are not one of {native.ROWS}"
    size, row_bytes = weight.shape[1], weight.data.shape[1]
    operand = up(size if integers(kernel) else 2 * size, 128) + 64
    again = kernel.norm is not None or integers(kernel)
    if rows * (operand + 4 * size * again) > native.INPUT_BYTES:
        return "the input does not fit shared memory"
    if size % 2 or stride(row_bytes) > native.RING_BYTES:
        return f"a row of {size} weights does not fit a stage"
    return None


def why_not_attention(node: Node) -> Optional[str]:
    """Why an attention cannot be a step."""
    cache = node.inputs[0]
    sizes = cache.shape if cache is not None else ()
    if not all(isinstance(n, int) for n in sizes) or sizes[3] not in _WIDTHS:
        return f"a head's size is not one of {_WIDTHS}"
    if cache.dtype.name not in ("float16", "bfloat16") or sizes[0] not in native.ROWS:  # type: ignore[union-attr]
        return "the cache's type or rows"
    return None


def integers(kernel: GpuLinear) -> bool:
    """Whether a layer multiplies int8 with int8."""
    return kernel.static and kernel.weight.kind == "int8"


def up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def quads(rows: int, size: int, norm: bool) -> int:
    """Fours of columns that a thread holds of a single row; 0 where the row goes through memory."""
    quads = -(-size // (4 * native.WORKERS))
    return 0 if rows > 1 or size % 4 or (norm and quads > 4) else min(quads, 4)


def stride(row_bytes: int) -> int:
    """Of rows in a stage of the ring: half of the banks further each time."""
    return row_bytes + (64 - row_bytes) % 128


def stage_rows(each: int, row_bytes: int) -> int:
    """Rows of a stage: as few stages as fit, of whole tiles where that makes no more of them."""
    most = min(native.RING_BYTES // stride(row_bytes), native.MOST_TILES * native.TILE_ROWS)
    stages = -(-each // most)
    even = up(-(-each // stages), native.TILE_ROWS)
    return even if even <= most else -(-each // stages)
