"""Linear layers with packed weights for many rows of input, in the library built from ``csrc``.

The weights are converted on their way to the tensor cores, in registers (``csrc/mixed_gemm.cuh``):
nobody writes them to memory as float16 first, which may take longer than the product itself. A
row's result is the same, bit for bit, whatever other rows a launch has, and with every tile that
does not split K.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, NamedTuple, Optional

import torch

from tripy.backends.torch.kernels.cuda import native

if TYPE_CHECKING:
    from tripy.backends.torch.kernels.cuda.packing import GpuWeight
    from tripy.device import device

T = torch.Tensor
_KINDS = {"int8": 0, "int4": 1, "float8": 2}
_EIGHT = 8  # Values of 16 bits: the copy engine's rows begin at multiples of 16 bytes.
_STAGE_COLUMNS, _OUTPUTS = 64, 128
SMALLEST_BLOCK = 32
MOST_COLUMNS = 2**18
_LARGEST = 2**31 - 2**10  # Rounded up to whole tiles, an int still holds it.


class Tile(NamedTuple):
    """How a product is cut.

    Attributes:
        rows: Of x, in a tile; it has 128 outputs.
        cluster: Blocks with tiles side by side, which fetch their common rows of x together.
        split: Blocks with parts of one tile's columns, for where there are few tiles.
    """

    rows: int
    cluster: int
    split: int


# The table in csrc/mixed_launch.cuh.
TILES = (
    Tile(256, 2, 1), Tile(192, 2, 1), Tile(128, 2, 1), Tile(256, 1, 1), Tile(128, 1, 1),
    Tile(256, 1, 2), Tile(192, 1, 2), Tile(128, 1, 2), Tile(128, 1, 4),
)  # fmt: skip


class _MixedGemm(ctypes.Structure):
    """``struct MixedGemm`` of ``csrc/mixed_gemm.h``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "scale", "bias", "residual")),
        ("out", ctypes.c_void_p),
        ("factor", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("m", "n", "k", "row_bytes", "group", "window")),
        *((name, ctypes.c_int) for name in ("weight_kind", "x_type", "out_type", "activation")),
        *((name, ctypes.c_int) for name in ("tile", "multiprocessors")),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = native.library()
    library.tripy_mixed_gemm.argtypes = [ctypes.POINTER(_MixedGemm), ctypes.c_void_p]
    return library


@functools.cache
def available(where: device) -> Optional[str]:
    """Why a device cannot run it; None where it can."""
    why = native.available(where)
    return why or native.other_version(native.library(), "tripy_mixed_gemm_size", _MixedGemm)


def reason(columns: int, group: int, x_type: torch.dtype) -> Optional[str]:
    """Why `mixed_gemm` does not take a layer; None where it does.

    Args:
        columns: K.
        group: Columns that share a scale; 0 or 1 where all of an output do.
        x_type: Type of the input.

    Example:
        >>> reason(1024, 48, torch.float16)
        'a scale for 48 columns; expected a multiple of 32'
    """
    if x_type not in (torch.float16, torch.bfloat16):
        return f"{x_type} input; expected float16 or bfloat16"
    if columns % _EIGHT:
        return f"rows of {columns} {x_type} values; expected a multiple of 16 bytes"
    if columns > MOST_COLUMNS:
        return f"rows of {columns} values; expected at most {MOST_COLUMNS}"
    if group > 1 and group % SMALLEST_BLOCK:
        return f"a scale for {group} columns; expected a multiple of {SMALLEST_BLOCK}"
    return None


def _group(scale: T, columns: int) -> int:
    """Columns that share a scale: 0 for one scale, 1 for one an output, else a block's."""
    if scale.dim() == 2 and scale.shape[1] > 1:
        return columns // scale.shape[1]
    return 0 if scale.numel() == 1 else 1


def why_not(where: device, columns: int, scale: T, x_type: torch.dtype) -> Optional[str]:
    """Why a layer on a device never runs here: `available` and `reason`; None where it may."""
    return available(where) or reason(columns, _group(scale, columns), x_type)


# Microseconds on an H100: of a stage of 64 columns, by the rows of a tile; of what else a tile
# takes; of adding up the parts of one; of a launch. With the weight expanded: of a launch, of a
# million products and of a million weights (the second number: with scales of blocks).
_STAGE = {256: 0.62, 192: 0.51, 128: 0.39}
_OTHER = {256: 2.65, 192: 1.2, 128: 1.0}
_PARTS = {(256, 2): 7.0, (192, 2): 7.0, (128, 2): 5.0, (128, 4): 12.0}
_LAUNCH, _EXPANDED_LAUNCH = 5.05, 4.5
_EXPANDED_PRODUCTS, _EXPANDED_WEIGHTS = 2.67e-3, (1.0, 1.4)
_BLOCKS = 1.22  # How much longer a stage takes with scales of blocks.
_MULTIPROCESSORS = 132


def _microseconds(tile: Tile, rows: int, shape: tuple[int, ...], blocks: bool) -> float:
    outputs, columns = shape
    stages = -(-columns // _STAGE_COLUMNS)
    clusters = -(-outputs // (_OUTPUTS * tile.cluster)) * -(-rows // tile.rows)
    rounds = -(-clusters // (_MULTIPROCESSORS // (tile.cluster * tile.split)))
    stage = _STAGE[tile.rows] * (_BLOCKS if blocks else 1.0)
    other = _OTHER[tile.rows] + _PARTS.get((tile.rows, tile.split), 0.0)
    return rounds * (-(-stages // tile.split) * stage + other) + _LAUNCH


def _expanded_microseconds(rows: int, shape: tuple[int, ...], blocks: bool) -> float:
    weights = shape[0] * shape[1] / 1e6
    products = -(-rows // _OUTPUTS) * _OUTPUTS * weights
    return (
        _EXPANDED_LAUNCH
        + products * _EXPANDED_PRODUCTS
        + weights * _EXPANDED_WEIGHTS[1 if blocks else 0]
    )


@functools.lru_cache(maxsize=4096)
def choose(rows: int, shape: tuple[int, ...], blocks: bool) -> Optional[Tile]:
    """The fastest tile; None where expanding the weight is faster.

    That is so where nothing is long: for 1,000 rows of small layers, and for thousands of rows of
    some others, beside whose product the expansion takes no time.

    Args:
        rows: Of x.
        shape: Outputs and columns of the weight.
        blocks: Whether scales vary along the columns.

    Example:
        >>> choose(2048, (8192, 8192), blocks=False)
        Tile(rows=256, cluster=2, split=1)
    """
    stages = -(-shape[1] // _STAGE_COLUMNS)
    times = {t: _microseconds(t, rows, shape, blocks) for t in TILES if t.split <= stages}
    best = min(times, key=lambda tile: times[tile])
    return best if times[best] <= _expanded_microseconds(rows, shape, blocks) else None


def mixed_gemm(
    x: T, packed: GpuWeight, scale: T, *, factor: float = 1.0, bias: Optional[T] = None,
    residual: Optional[T] = None, activation: Optional[str] = None, dtype: torch.dtype,
    tile: Tile, out: Optional[T] = None,
) -> T:  # fmt: skip
    """``activation(x @ (weight * scale).T * factor + bias) + residual``, in one kernel.

    Products are summed in float32. Scales of blocks are rounded to x's type and multiplied with the
    weights in it, as `weight_only.dequantize` does where they are of that type already; a scale an
    output is multiplied with the sum.

    Args:
        x: ``[M, K]``, float16 or bfloat16, contiguous; K a multiple of 8.
        packed: The weight.
        scale: float32 of ``[1]``, ``[N]`` or ``[N, K / block]``, blocks of a multiple of 32.
        factor: What x is multiplied with.
        bias: float32 ``[N]``.
        residual: ``[M, N]`` of type ``dtype``, contiguous.
        activation: None, ``"relu"``, ``"silu"``, ``"gelu"`` or ``"gelu_tanh"``.
        dtype: Type of the result: float16, bfloat16 or float32.
        tile: One of `TILES`; K has at least 64 columns for each of its ``split``.
        out: Where to write, ``[M, N]`` contiguous of ``dtype``.

    Returns:
        ``[M, N]`` of ``dtype``.

    Raises:
        RuntimeError: What CUDA says where it refuses the launch.
    """
    (m, k), n = x.shape, packed.shape[0]
    if out is None:
        out = torch.empty(m, n, dtype=dtype, device=x.device)
    group = _group(scale, k)
    why = reason(k, group, x.dtype)
    if why is not None or max(m, n) >= _LARGEST:
        why = why or f"{max(m, n)} rows; expected less than {_LARGEST}"
        raise ValueError(f"[mixed_gemm] got {why}; try the weight expanded")
    # Held until the launch: some may be copies.
    used = [
        None if t is None else native.aligned(t) for t in (x, packed.data, scale, bias, residual)
    ]
    problem = _MixedGemm(
        *(None if t is None else t.data_ptr() for t in used), out.data_ptr(), factor, m, n, k,
        packed.data.shape[1], group, packed.window, _KINDS[packed.kind], native.TYPES[x.dtype],
        native.TYPES[dtype], native.ACTIVATIONS[activation], TILES.index(tile),
        native.multiprocessors(x.device),
    )  # fmt: skip
    with torch.cuda.device(x.device):
        stream = torch.cuda.current_stream().cuda_stream
        error = _library().tripy_mixed_gemm(ctypes.byref(problem), stream)
    if error:
        raise RuntimeError(
            f"[mixed_gemm] got {m}x{n}x{k} {packed.kind} {tile}; CUDA says: {native.text_of(error)}"
        )
    return out
