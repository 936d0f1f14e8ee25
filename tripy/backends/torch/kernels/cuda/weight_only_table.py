"""Configurations of the weight-only kernels, by shape: measured on an NVIDIA H200."""

from __future__ import annotations

from typing import NamedTuple

# Shared memory for exchanges between warps, of which Triton alone knows.
_RESERVE = 16 << 10


class Rows(NamedTuple):
    """Configuration of ``rows_kernel``: tile and warps of a program."""

    block_m: int
    block_n: int
    block_k: int
    warps: int


class Tiles(NamedTuple):
    """Configuration of ``tiles_kernel``: tile (``block_k`` in bytes of a row), stages, 2 warps or
    more.
    """

    block_m: int
    block_n: int
    block_k: int
    stages: int
    warps: int


def _power(value: int) -> int:
    """The smallest power of two that is not below a number."""
    return 1 << (value - 1).bit_length()


def choose_rows(rows: int, outputs: int, row_bytes: int, weights_a_byte: int) -> Rows:
    """One row of weights at a time where it is short enough, in registers."""
    block_m = min(_power(rows), 4)
    block_k = max(256, min(_power(row_bytes), 4096 if block_m == 1 else 1024))
    warps = 4 if block_k * block_m <= 2048 else 8
    block_n = max(1, min(4, 32 * 32 * warps // (block_k * block_m * weights_a_byte)))
    return Rows(block_m, block_n, block_k, warps)


def choose_tiles(
    rows: int, outputs: int, row_bytes: int, block: int, x_bytes: int, memory: int
) -> Tiles:
    """The tiles of a layer, with as many stages as shared memory holds.

    Args:
        rows: Of x.
        outputs: N.
        row_bytes: Bytes of a packed row of the weight.
        block: Bytes of a row that a tile must not exceed, for scales a block; else 0.
        x_bytes: Bytes of x, all columns, for a byte of the weight.
        memory: Bytes of shared memory that a program can have.
    """
    block_m = max(8, min(_power(rows), 64))
    block_n = 64 if outputs >= 4096 else 32 if outputs >= 2048 else 16
    block_k = min(128 if block_m <= 32 else 64, block or 128, _power(max(row_bytes, 32)))
    # x is there twice: as it is loaded, and as what is multiplied.
    stage, once = block_k * (block_n + block_m * x_bytes), block_k * block_m * x_bytes
    stages = max(1, min(5, (memory - once - _RESERVE) // stage))
    return Tiles(block_m, block_n, block_k, stages, 4 if block_n == 64 else 2)
