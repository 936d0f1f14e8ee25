"""Linear layers with packed weights for few rows of input, in the library built from ``csrc``.

What ``weight_only`` computes with Triton, at the speed of memory on compute capability 9.0. There
are two kernels: in ``csrc/weight_only.cuh`` x stays in shared memory, of which up to 16 rows have
room there; in ``csrc/weight_stream.cuh`` it comes with the weights, which takes up to 64 rows as
they are in memory. A row's result is the same, bit for bit, whatever other rows a kernel
multiplies, how many, and with every configuration; the two differ by the order of sums, so the
second one has no fewer than 17 rows.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Optional

import torch

from tripy.backends.torch.kernels.cuda import native

if TYPE_CHECKING:
    from tripy.backends.torch.kernels.cuda.packing import GpuWeight
    from tripy.device import device

T = torch.Tensor
_TYPES = {
    torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3, torch.float8_e4m3fn: 4,
}  # fmt: skip
_KINDS = {"int8": 0, "int4": 1, "float8": 2}
_ACTIVATIONS = {None: 0, "relu": 1, "silu": 2, "gelu": 3, "gelu_tanh": 4}
_CHUNK = 128  # Bytes of a row that a warp takes at once.
MEMORY = 232448  # Bytes of shared memory that a block can have.
_MULTIPROCESSORS = 132
_ARRIVALS = 4  # Parts of x.
_MANY = 48 * _MULTIPROCESSORS  # Outputs that have work for all of them.
_STAGES = 12
_HALF = 115712  # Bytes of shared memory with which two blocks share a multiprocessor.
_ROW, _EIGHT = 16, 8
MOST_ROWS = 64  # At once, where x is multiplied as it is; more are done one part after the other.
_MOST_RESIDENT_ROWS = 16  # Where x is rounded or converted first.
SMALLEST_BLOCK = 32
MOST_COLUMNS = 2**18  # Up to here one row fits a cluster's shared memory, whatever the rest.


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
    """

    row_tiles: int
    cluster: int
    slots: int
    rows: int
    warps: int = 8
    streams: bool = False


class _WeightOnly(ctypes.Structure):
    """``struct WeightOnly`` of ``csrc/weight_only.h``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "scale", "bias", "residual")),
        ("out", ctypes.c_void_p),
        *((name, ctypes.c_float) for name in ("in_scale", "factor", "out_scale")),
        *((name, ctypes.c_int) for name in ("m", "n", "k", "row_bytes", "group", "window")),
        *((name, ctypes.c_int) for name in ("weight_kind", "x_type", "out_type")),
        *((name, ctypes.c_int) for name in ("param_type", "result_type", "round_type")),
        ("compute_type", ctypes.c_int),
        *((name, ctypes.c_int) for name in ("activation", "row_tiles", "cluster", "slots")),
        *((name, ctypes.c_int) for name in ("rows_at_once", "warps", "streams_x", "early_launch")),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = native.library()
    library.tripy_weight_only.argtypes = [ctypes.POINTER(_WeightOnly), ctypes.c_void_p]
    return library


@functools.cache
def available(where: device) -> Optional[str]:
    """Why a device cannot run it; None where it can."""
    why = native.available(where)
    if why is not None:
        return why
    try:
        size = _library().tripy_weight_only_size()
    except AttributeError:
        size = 0
    if size != ctypes.sizeof(_WeightOnly):
        return "the native library is of another version: build it again (see CMakeLists.txt)"
    return None


def compute_type(kind: str, x_type: torch.dtype, rounded: bool) -> Optional[torch.dtype]:
    """The type in which tensor cores multiply, or None where they cannot.

    Args:
        kind: The weight's.
        x_type: Type of the input.
        rounded: Whether the input is rounded first, to float8 beside a float8 weight, else to int8.
    """
    if rounded and x_type.is_floating_point and x_type.itemsize > 1:
        return torch.float16 if kind == "float8" else torch.int8
    if x_type is torch.float32 or rounded:
        return None
    if x_type is torch.int8:
        return torch.float16 if kind == "float8" else torch.int8
    return torch.float16 if x_type is torch.float8_e4m3fn else x_type


def reason(
    kind: str, columns: int, group: int, x_type: torch.dtype, rounded: bool
) -> Optional[str]:
    """Why `weight_only` does not take a layer; None where it does.

    Args:
        kind: The weight's.
        columns: K.
        group: Columns that share a scale; 0 or 1 where all of an output do.
        x_type: Type of the input.
        rounded: Whether the input is rounded first.
    """
    if compute_type(kind, x_type, rounded) is None:
        return f"{x_type} input that is not rounded"
    if columns % (_ROW if x_type.itemsize == 1 else _EIGHT):
        return f"rows of {columns} {x_type} values; expected a multiple of 16 bytes"
    if columns > MOST_COLUMNS:
        return f"rows of {columns} values; expected at most {MOST_COLUMNS}"
    if group > 1 and group % SMALLEST_BLOCK:
        return f"a scale for {group} columns; expected a multiple of {SMALLEST_BLOCK}"
    return None


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
    both = x + sums if tiles == 1 else max(x, sums)
    return slots * (copy_rows * _CHUNK + scales) + both + (slots + _ARRIVALS + 1) * 8


def _blocks_in_chunk(group: int, units: int) -> int:
    """How many blocks of columns a chunk of so many units of 32 can touch."""
    of_block = group // 32
    if units % of_block == 0 or of_block % units == 0:
        return max(units // of_block, 1)
    return (units + of_block - 2) // of_block + 1


def streams(kind: str, x_type: torch.dtype, rounded: bool) -> bool:
    """Whether x can come with the weights: it is multiplied as it is in memory."""
    return not rounded and compute_type(kind, x_type, rounded) is x_type


def most_rows(kind: str, outputs: int, x_type: torch.dtype, rounded: bool) -> int:
    """Up to how many rows this is faster than Triton's kernel, as far as that was measured."""
    streamed = outputs >= _MANY and streams(kind, x_type, rounded)
    return MOST_ROWS if streamed else _MOST_RESIDENT_ROWS


def choose(
    rows: int, packed: GpuWeight, compute: torch.dtype, group: int, streamed: bool = False
) -> Config:
    """The table: measured on an H100, with layers of 768x768 to 8192x8192 and 1 to 64 rows.

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
    if streamed and rows > _MOST_RESIDENT_ROWS:
        config = Config(2, 1, _STAGES, min(rows, MOST_ROWS), 8, True)
        while shared_bytes(config, packed, compute, group) > MEMORY:
            config = config._replace(slots=config.slots - 1)
        return config
    at_once = min(rows, _MOST_RESIDENT_ROWS)
    while True:
        alone = at_once == 1 and not blocks and packed.kind == "int4"
        for limit, tiles, cluster, slots, warps in _cuts(outputs, at_once, blocks, alone):
            config = Config(tiles, cluster, slots, at_once, warps)
            if shared_bytes(config, packed, compute, group) <= limit:
                return config
        at_once = -(-at_once // 2)


def _cuts(
    outputs: int, rows: int, blocks: bool, alone: bool
) -> Iterator[tuple[int, int, int, int, int]]:
    """Bytes of shared memory, tiles, cluster, slots and warps, the best first.

    A larger cluster reads less of x, but clusters of four and eight leave a tenth of the
    multiprocessors without work. ``alone``: whether blocks without a cluster are better.
    """
    if outputs >= _MANY:
        # Two blocks of eight warps a multiprocessor or one of sixteen: eight would wait too often.
        yield from ((_HALF, 2, cluster, 2, 8) for cluster in ((1, 2) if alone else (2,)))
        yield from ((MEMORY, 2, cluster, slots, 16) for cluster in (2, 4, 8) for slots in (2, 1))
    else:
        tiles = 1 if rows <= 8 and not blocks and outputs <= 24 * _MULTIPROCESSORS else 2
        slots = 2 if blocks else 8 if tiles == 1 and outputs <= 8 * _MULTIPROCESSORS else 4
        if blocks:
            yield from ((_HALF, tiles, cluster, slots, 8) for cluster in (1, 2))
        yield from ((MEMORY, tiles, cluster, slots, 8) for cluster in (1, 2, 4, 8))
    yield MEMORY, 2, 8, 1, 8


def _aligned(tensor: T) -> T:
    """Itself, or a copy that begins at a multiple of 16 bytes."""
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def weight_only(
    x: T, packed: GpuWeight, scale: T, *, x_scale: Optional[float] = None,
    bias: Optional[T] = None, residual: Optional[T] = None, activation: Optional[str] = None,
    in_scale: Optional[float] = None, dtype: torch.dtype, out_scale: Optional[float] = None,
    out_dtype: Optional[torch.dtype] = None, out: Optional[T] = None, pdl: bool = False,
    config: Optional[Config] = None,
) -> T:  # fmt: skip
    """A linear layer; arguments as those of ``weight_only.weight_only_gemm``, which has more types.

    The residual is of type ``dtype``. With ``out_scale`` the result, rounded to ``dtype``, is
    divided by it and rounded to ``out_dtype``, int8 or float8_e4m3fn. With ``pdl`` the weight, its
    scale and the bias must be older than every launch that may still run.

    Returns:
        ``[M, N]`` of ``dtype``, or of ``out_dtype``.

    Raises:
        RuntimeError: What CUDA says where it refuses the launch.
    """
    out_type = dtype if out_scale is None or out_dtype is None else out_dtype
    (m, k), n = x.shape, packed.shape[0]
    if out is None:
        out = torch.empty(m, n, dtype=out_type, device=x.device)
    group = 0 if scale.numel() == 1 else 1
    if scale.dim() == 2 and scale.shape[1] > 1:
        group = k // scale.shape[1]
    compute = compute_type(packed.kind, x.dtype, in_scale is not None)
    assert compute is not None, reason(packed.kind, k, group, x.dtype, in_scale is not None)
    if config is None:
        streamed = streams(packed.kind, x.dtype, in_scale is not None)
        config = choose(m, packed, compute, group, streamed)
    factor = (1.0 if x_scale is None else x_scale) * (1.0 if in_scale is None else in_scale)
    if compute is torch.int8 and packed.kind == "int4":
        factor /= 16  # Its int8 form is 16 times the weight.
    # Held until the launch: some may be copies.
    used = [None if t is None else _aligned(t) for t in (x, packed.data, scale, bias, residual)]
    # Launched early, it reads these before it waits for the launch in front: no copies of now.
    early = pdl and all(a is b for a, b in zip((packed.data, scale, bias), used[1:4]))
    rounds = -1
    if in_scale is not None:
        rounds = _TYPES[torch.float8_e4m3fn if packed.kind == "float8" else torch.int8]
    problem = _WeightOnly(
        *(None if t is None else t.data_ptr() for t in used), out.data_ptr(),
        1.0 if in_scale is None else in_scale, factor,
        1.0 if out_scale is None else out_scale, m, n, k, packed.data.shape[1], group,
        packed.window, _KINDS[packed.kind], _TYPES[x.dtype], _TYPES[out_type],
        0 if bias is None else _TYPES[bias.dtype], _TYPES[dtype], rounds, _TYPES[compute],
        _ACTIVATIONS[activation], *config, early,
    )  # fmt: skip
    with torch.cuda.device(x.device):
        stream = torch.cuda.current_stream().cuda_stream
        error = _library().tripy_weight_only(ctypes.byref(problem), stream)
    if error:
        raise RuntimeError(
            f"[weight_only] got {m}x{n}x{k} {packed.kind} {config}; CUDA says: "
            f"{native.text_of(error)}"
        )
    return out
