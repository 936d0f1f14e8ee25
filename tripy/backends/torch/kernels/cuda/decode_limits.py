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
_STAGES = (16640, 24960)  # Bytes of a stage; the second where a group does not fit the first.
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
    """Groups of rows that a warp multiplies at once: all, and those of a block."""

    rows: int
    row_groups: int
    groups_each: int


def split_of(
    outputs: int,
    row_bytes: int,
    record: int,
    integers: bool,
    rounded: bool,
    blocks: int,
    most: int = 8,
) -> Split:
    """How a layer's weight is shared out to the blocks of a launch.

    With int8 inputs, larger groups (of ``most`` rows) read less of them for each row, and keep
    fewer warps busy: they are for layers with enough rows. By tensor cores each row of a group
    costs the same, and each group as much as some rows more.
    """
    rows = unit_rows(rounded)
    larger = [n for n in (4, 8) if n > rows and fits(n, row_bytes, record, _STAGES[0])]
    if not integers:
        choices = [rows, *larger]
        rows = min(choices, key=lambda n: _rounds(outputs, n, blocks) * (n + _ROWS_OF_A_GROUP))
    else:
        for n in larger:
            if n <= most and _rounds(outputs, rows, blocks) > 1:
                rows = n
    groups = -(-outputs // rows)
    return Split(rows, groups, -(-groups // blocks))


def _rounds(outputs: int, rows: int, blocks: int) -> int:
    """Groups that the first warp of a block multiplies, one after the other."""
    return -(-outputs // (rows * blocks * native.WARPS))


def fits(
    rows: int, row_bytes: int, record: int = native.RECORD_BYTES, stage: int = _STAGES[-1]
) -> bool:
    """Whether a stage of the ring, the largest unless told, holds a group."""
    return group_bytes(rows, row_bytes, record) <= stage


def keys_of_chunk(width: int) -> int:
    """Keys that a block attends to: 2 of each group of ``width`` / 16 lanes."""
    return native.WARPS * 1024 // width


class Stages(NamedTuple):
    """How the ring of weights is cut."""

    stage_bytes: int
    stages: int
    in_flight: int


def stages(largest: int, moved: float) -> Stages:
    """The ring for a model.

    What is on its way holds up what other warps wait for, so there is one stage of it, where that
    suffices: GPT-2 124M takes 118 microseconds with one and 121 with two; GPT-2 XL, whose steps
    are 49 KB a block, 876 and 861.

    Args:
        largest: Bytes of the largest group of rows, with its records.
        moved: Bytes of weights that a block has of a step, on the average.
    """
    size = min(n for n in _STAGES if n >= largest)
    return Stages(size, native.RING_BYTES // size, 1 if moved <= size else 2)


def stage_groups(each: int, size: int, stage: int) -> int:
    """Groups, of so many bytes, of a stage of the ring: few stages, about equally large."""
    most = stage // size
    count = -(-each // most)
    return -(-each // count)


def quads(columns: int) -> int:
    """Four columns that a thread has of a normalized input: what kernels there are for."""
    wanted = -(-columns // (4 * 32 * native.WARPS))
    return min(n for n in (1, 2, native.MOST_QUADS) if n >= wanted)
