"""What the kernel of ``csrc/decode_step.cuh`` takes, and how its steps share shared memory."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

import torch

from tripy.backends.torch.kernels.cuda import decode_weights
from tripy.backends.torch.kernels.cuda import native_decode as native
from tripy.backends.torch.kernels.cuda.linear import GpuLinear
from tripy.graph import Node, Value

_WIDTHS = (32, 64, 128)
# Beyond, the parts of an attention are more than what they are made of.
_MOST_CHUNKS = 64
_ROWS_OF_A_GROUP = 2  # What a group costs beside its rows.


def rows_of(value: Value) -> int:
    """Rows of a value's matrix, 0 where they are not known."""
    sizes = [n for n in value.shape[:-1] if isinstance(n, int)]
    return math.prod(sizes) if len(sizes) == len(value.shape) - 1 else 0


def why_not_linear(kernel: GpuLinear, node: Node) -> Optional[str]:
    """Why a layer cannot be a step."""
    weight = kernel.weight
    if reason := decode_weights.why_not(kernel):
        return reason
    if kernel.dtype not in (torch.float16, torch.bfloat16):
        return "computed in float32"
    if rows_of(node.output) != 1:
        return "there are several rows"
    rounded = kernel.out_scale is not None
    if rounded and (kernel.out is not kernel.quantized or not kernel.static):
        return "the result is rounded, and the input not, or to another type"
    (outputs, size), row_bytes = weight.shape, weight.data.shape[1]
    rows = unit_rows(rounded)
    most = native.INPUT_BYTES // (1 if has_integers(kernel) else 2)
    if kernel.norm is not None:
        most = min(most, native.MOST_NORMALIZED)
    if size % 8 or size > most:
        return f"{size} inputs: they are not a multiple of 8, or more than {most}"
    if rounded and outputs % rows:
        return f"{outputs} outputs: they are not a multiple of {rows}"
    if not fits(rows, row_bytes, decode_weights.record_bytes(kernel)):
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


def has_integers(kernel: GpuLinear) -> bool:
    """Whether inputs are int8 too."""
    return kernel.static and kernel.weight.kind == "int8"


def unit_rows(rounded: bool) -> int:
    """Rows of a weight whose results are one unit of the exchange."""
    return 4 if rounded else 2


def group_bytes(rows: int, row_bytes: int, record: int = native.RECORD_BYTES) -> int:
    """Shared memory of a group of rows, each with its record."""
    return rows * (row_bytes + record)


class Split(NamedTuple):
    """Groups of rows that a warp multiplies at once: all, those of a block and of a stage."""

    rows: int
    row_groups: int
    groups_each: int
    stage_groups: int


def split(kernel: GpuLinear, blocks: int) -> Split:
    """How a layer's weight is shared out to the blocks of a launch."""
    (outputs, _), row_bytes = kernel.weight.shape, kernel.weight.data.shape[1]
    integers, rounded = has_integers(kernel), kernel.out_scale is not None
    record = decode_weights.record_bytes(kernel)
    return split_of(outputs, row_bytes, record, integers, rounded, blocks)


def split_of(
    outputs: int, row_bytes: int, record: int, integers: bool, rounded: bool, blocks: int
) -> Split:
    """The same by sizes.

    With int8 inputs, larger groups read less of them for each row, and keep fewer warps busy: they
    are for layers with enough rows. By tensor cores each row of a group costs the same, and each
    group as much as some rows more.
    """
    rows = unit_rows(rounded)
    if not integers:
        choices = [n for n in (2, 4, 8) if n >= rows and fits(n, row_bytes, record)]
        rows = min(choices, key=lambda n: _rounds(outputs, n, blocks) * (n + _ROWS_OF_A_GROUP))
    elif -(-outputs // (rows * blocks)) > native.WARPS and fits(4, row_bytes, record):
        rows = 4
    groups = -(-outputs // rows)
    each = -(-groups // blocks)
    return Split(rows, groups, each, stage_groups(each, group_bytes(rows, row_bytes, record)))


def _rounds(outputs: int, rows: int, blocks: int) -> int:
    """Groups that the first warp of a block multiplies, one after the other."""
    return -(-outputs // (rows * blocks * native.WARPS))


def fits(rows: int, row_bytes: int, record: int = native.RECORD_BYTES) -> bool:
    """Whether a stage of the ring holds a group."""
    return group_bytes(rows, row_bytes, record) <= native.RING_BYTES


def keys_of_chunk(width: int) -> int:
    """Keys that a block attends to: 2 of each group of ``width`` / 16 lanes."""
    return native.WARPS * 1024 // width


def stage_groups(each: int, size: int) -> int:
    """Groups, of so many bytes, of a stage of the ring: few stages, about equally large."""
    most = native.RING_BYTES // size
    stages = -(-each // most)
    return -(-each // stages)
