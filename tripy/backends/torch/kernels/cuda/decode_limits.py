"""What the kernel of ``csrc/decode_step.cuh`` takes, and how its steps share shared memory."""

from __future__ import annotations

import math
from typing import Optional

import torch

from tripy.backends.torch.kernels.cuda import native_decode as native
from tripy.backends.torch.kernels.cuda.linear import GpuLinear
from tripy.graph import Node, Value

_WIDTHS = (32, 64, 128)
# Beyond, the parts of an attention are more than what they are made of.
_MOST_CHUNKS = 64


def rows_of(value: Value) -> int:
    """Rows of a value's matrix, 0 where they are not known."""
    sizes = [n for n in value.shape[:-1] if isinstance(n, int)]
    return math.prod(sizes) if len(sizes) == len(value.shape) - 1 else 0


def why_not_linear(kernel: GpuLinear, node: Node) -> Optional[str]:
    """Why a layer cannot be a step."""
    weight = kernel.weight
    if weight.kind != "int8" or kernel.scale.dim() > 1:
        return "the weight is not int8 with a scale for each output"
    if kernel.dtype not in (torch.float16, torch.bfloat16):
        return "computed in float32"
    if rows_of(node.output) != 1:
        return "there are several rows"
    rounded = kernel.out_scale is not None
    if rounded and (kernel.out is not torch.int8 or not kernel.static):
        return "the result is float8, or int8 without an int8 input"
    (outputs, size), row_bytes = weight.shape, weight.data.shape[1]
    rows = group(rounded)
    most = native.INPUT_BYTES // (1 if kernel.static else 2)
    if kernel.norm is not None:
        most = min(most, native.MOST_NORMALIZED)
    if size % 8 or size > most:
        return f"{size} inputs: they are not a multiple of 8, or more than {most}"
    if rounded and outputs % rows:
        return f"{outputs} outputs: they are not a multiple of {rows}"
    if rows * row_bytes > native.RING_BYTES:
        return f"{rows} rows of {size} weights do not fit a stage"
    return None


def why_not_attention(node: Node) -> Optional[str]:
    """Why an attention cannot be a step."""
    cache = node.inputs[0]
    sizes = cache.shape if cache is not None else ()
    if not all(isinstance(n, int) for n in sizes) or sizes[3] not in _WIDTHS:
        return f"a head's size is not one of {_WIDTHS}"
    if cache.dtype.name not in ("float16", "bfloat16") or sizes[0] != 1:  # type: ignore[union-attr]
        return "the cache's type, or several rows"
    if sizes[2] > _MOST_CHUNKS * keys_of_chunk(sizes[3]):  # type: ignore[arg-type,operator]
        return f"the cache is longer than {_MOST_CHUNKS} chunks"
    return None


def group(rounded: bool) -> int:
    """Rows of a weight whose results are one unit of the exchange."""
    return 4 if rounded else 2


def keys_of_chunk(width: int) -> int:
    """Keys that a block attends to: 2 of each group of ``width`` / 16 lanes."""
    return native.WARPS * 1024 // width


def stage_groups(each: int, group_bytes: int) -> int:
    """Groups of a stage of the ring: as few stages as fit, about equally large."""
    most = native.RING_BYTES // group_bytes
    stages = -(-each // most)
    return -(-each // stages)
