"""How the library's kernels for few rows are cut: see ``native_weight_only``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from tripy.backends.torch.kernels.cuda.packing import GpuWeight

_CHUNK = 128  # Bytes of a row that a warp takes at once.
MEMORY = 232448  # Bytes of shared memory that a block can have.
MULTIPROCESSORS = 132
_ARRIVALS = 4  # Parts of x.
_MANY = 48 * MULTIPROCESSORS  # Outputs that have work for all of them.
_SIXTEEN_WARPS = 4096  # Outputs that are enough for blocks of sixteen warps.
_STAGES = 12
HALF = 115712  # Bytes of shared memory with which two blocks share a multiprocessor.
MOST_ROWS = 64  # At once, where x is multiplied as it is; more are done one part after the other.
MOST_RESIDENT_ROWS = 16  # Where x is rounded or converted first.


class Config(NamedTuple):
    """How a layer is cut: see ``csrc/weight_only.cuh`` and ``csrc/weight_stream.cuh``.

    Attributes:
        row_tiles: Tiles of 16 outputs of a warp: 2, or, for up to 8 rows and a scale an output or
            for all, 1.
        cluster: Blocks that share the columns, each with its part of x: 1, 2, 4 or 8; 1 where x is
            streamed.
        slots: Places of a warp for 128 bytes of each of its outputs: 1 to 8. Where x is streamed,
            stages of a block: 2 or more.
        rows: Rows of x that a block takes: 1 to 16, or 17 to 64 that are streamed.
        warps: Of a block, that multiply: 8 or, but for one tile or where x is streamed, 16.
        streams: Whether x comes with the weights.
        passes: Of a block over x, each for other outputs; 1 where x is streamed.
    """

    row_tiles: int
    cluster: int
    slots: int
    rows: int
    warps: int = 8
    streams: bool = False
    passes: int = 1


def shared_bytes(config: Config, packed: GpuWeight, compute: torch.dtype, group: int = 1) -> int:
    """Bytes of shared memory of a block, as ``WeightLayout`` in the source has them."""
    chunks = -(-packed.data.shape[1] // _CHUNK)
    columns = _CHUNK * (2 if packed.window else 1)
    tiles = next(n for n in (1, 2, 4, 8) if config.rows <= 8 * n)
    if config.streams:
        scales = _blocks_in_chunk(group, columns // 32) * 64 * 4 if group > 1 else 0
        stages = config.slots * (64 * _CHUNK + columns * compute.itemsize * 8 * tiles)
        return max(stages, 8192 * tiles) + config.slots * (scales + 16)
    copy_rows = min(16 * config.row_tiles, 32)
    scales = _blocks_in_chunk(group, columns // 32) * copy_rows * 4 if group > 1 else 0
    slots = config.warps * config.slots
    x = -(-chunks // config.cluster) * columns * config.rows * compute.itemsize
    sums = config.warps * config.row_tiles * tiles * 512
    both = max(x, sums) if tiles > 1 and config.passes == 1 else x + sums
    return slots * (copy_rows * _CHUNK + scales) + both + (slots + _ARRIVALS + 1) * 8


def _blocks_in_chunk(group: int, units: int) -> int:
    """How many blocks of columns a chunk of so many units of 32 can touch."""
    of_block = group // 32
    if units % of_block == 0 or of_block % units == 0:
        return max(units // of_block, 1)
    return (units + of_block - 2) // of_block + 1


def choose(
    rows: int, packed: GpuWeight, compute: torch.dtype, group: int, streamed: bool = False
) -> Config:
    """The table: measured on an H100, layers of 768x768 to 50304x768 and 8192x8192, 1 to 256 rows.

    Args:
        rows: Of x.
        packed: The weight.
        compute: See `compute_type`.
        group: Columns that share a scale; 0 or 1 where all of an output do.
        streamed: What `streams` says.
    """
    outputs, blocks = packed.shape[0], group > 1
    # Up to 16 rows the other kernel, also where this one is faster: a row is then the same, bit for
    # bit, beside any other 15.
    if streamed and rows > MOST_RESIDENT_ROWS:
        # Fewer at once where that keeps more multiprocessors busy.
        few = -(-outputs // 64) * -(-rows // 32) <= MULTIPROCESSORS
        config = Config(2, 1, _STAGES, min(rows, 32 if few else MOST_ROWS), 8, True)
        while shared_bytes(config, packed, compute, group) > MEMORY:
            config = config._replace(slots=config.slots - 1)
        return config
    at_once = min(rows, MOST_RESIDENT_ROWS)
    while True:
        for limit, config in _cuts(outputs, at_once, blocks, packed.kind):
            if shared_bytes(config, packed, compute, group) <= limit:
                return config
        at_once = -(-at_once // 2)


def _cuts(outputs: int, rows: int, blocks: bool, kind: str) -> Iterator[tuple[int, Config]]:
    """Cuts, the best first, each with the bytes of shared memory that it may take.

    A larger cluster reads less of x, but clusters of four and eight leave a tenth of the
    multiprocessors without work.
    """
    if outputs < _MANY:
        tiles = 1 if rows <= 8 and not blocks and outputs <= 24 * MULTIPROCESSORS else 2
        slots = 2 if blocks else 8 if tiles == 1 and outputs <= 8 * MULTIPROCESSORS else 4
        if blocks:
            for cluster in (1, 2):
                yield HALF, Config(tiles, cluster, slots, rows)
            if outputs >= _SIXTEEN_WARPS and rows > 8:
                yield HALF, Config(2, 8, 1, rows)
        for cluster in (1, 2):
            yield MEMORY, Config(tiles, cluster, slots, rows)
        if outputs >= _SIXTEEN_WARPS:
            for slots_of_many in (2, 1):
                yield MEMORY, Config(2, 8, slots_of_many, rows, 16)
        for cluster in (4, 8):
            yield MEMORY, Config(tiles, cluster, slots, rows)
    else:
        # Two blocks of eight warps a multiprocessor or one of sixteen: eight would wait too often.
        two = Config(2, 1 if rows == 1 and not blocks and kind == "int4" else 2, 2, rows)
        if _passes(outputs, two) > 1:
            for cluster in (two.cluster, 4, 8):
                slots = 1 if blocks and rows > 8 else 2
                config = two._replace(cluster=cluster, slots=slots)
                yield HALF, config._replace(passes=_passes(outputs, config))
        yield HALF, two
        for cluster, slots in itertools.product((2, 4, 8), (2, 1)):
            config = Config(2, cluster, slots, rows, 16)
            yield MEMORY, config._replace(passes=_passes(outputs, config))
            yield MEMORY, config
    yield MEMORY, Config(2, 8, 1, rows)


def _passes(outputs: int, config: Config) -> int:
    """Of blocks that all find room at once.

    Blocks that have to wait for others begin with nothing in shared memory, and the last of them
    have a part of the multiprocessors.
    """
    of_cluster = 16 * config.row_tiles * config.cluster * (config.warps // 8)
    blocks = -(-outputs // of_cluster) * config.cluster
    return -(-blocks // (MULTIPROCESSORS * (2 if config.warps == 8 else 1)))
