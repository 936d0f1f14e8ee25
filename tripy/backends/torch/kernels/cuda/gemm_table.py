"""Tiles of the int8 and float8 matrix product in Triton, by shape and by what a GPU has.

The order of preference was measured on NVIDIA's H100 and H200. Other GPUs have the same order, from
which their smaller shared memory strikes what does not fit; it was not measured there.
"""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """How one product is cut into programs.

    Attributes:
        m, n, k: Rows and columns of the result, and elements of the sum, that are held at once.
        warps: Warps in a program.
        stages: Pairs of tiles of x and weight in flight.
        group: Tiles along M whose programs run together, to share weights in the L2 cache.
    """

    m: int
    n: int
    k: int
    warps: int = 4
    stages: int = 4
    group: int = 8


class Hardware(NamedTuple):
    """What the choice of a tile asks of a GPU.

    Attributes:
        descriptors: Whether tiles travel through tensor descriptors (Hopper and later).
        multiprocessors: How many there are.
        shared: Bytes of shared memory that a program can have.
    """

    descriptors: bool
    multiprocessors: int
    shared: int


LARGE = Tile(128, 256, 128, warps=8, stages=3)
_SQUARE = Tile(128, 128, 128)
_NARROW = Tile(128, 64, 128)
# For results or GPUs with which none of these fits; every GPU has the 48 KiB of the last one.
_SMALLER = (
    Tile(128, 128, 128, warps=8, stages=3), Tile(128, 128, 64, warps=8, stages=3),
    Tile(64, 64, 128, stages=3), Tile(64, 64, 64, stages=3),
)  # fmt: skip
_BARRIERS = 2048
_SUM_BYTES = 4


def shared_bytes(tile: Tile, out_size: int, *, descriptors: bool, residual: bool) -> int:
    """At least the shared memory that Triton gives a program, which grows with its version.

    Args:
        tile: The tile.
        out_size: Bytes of one element of the result.
        descriptors: Whether the kernel is the one with tensor descriptors.
        residual: Whether a residual is added.
    """
    loads = (tile.m + tile.n) * tile.k * tile.stages
    if descriptors:
        return loads + tile.m * tile.n * out_size * (1 + residual) + _BARRIERS
    # Sums change places between threads on their way out, after the last load.
    return max(loads, tile.m * tile.n * _SUM_BYTES) + _BARRIERS


def choose(m: int, n: int, hardware: Hardware, out_size: int, residual: bool) -> Tile:
    """The tile for a result of [m, n], of ``out_size`` bytes an element."""
    wanted = _by_shape(m, n, hardware.multiprocessors)
    for tile in (wanted, *_SMALLER):
        size = shared_bytes(
            tile, out_size, descriptors=hardware.descriptors and tile.m >= 64, residual=residual
        )
        if size <= hardware.shared:
            return tile
    return _SMALLER[-1]


def _by_shape(m: int, n: int, multiprocessors: int) -> Tile:
    if m <= 16:
        return Tile(16, 32, 256)
    if m <= 64:
        return Tile(64, 64, 128)
    tiles = -(-m // 128) * -(-n // 128)
    if tiles <= multiprocessors:
        return _NARROW if tiles <= multiprocessors // 2 else _SQUARE
    return LARGE
