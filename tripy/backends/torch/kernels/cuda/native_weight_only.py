"""Linear layers with packed weights for few rows of input, in the library built from ``csrc``.

What ``weight_only`` computes with Triton, at the speed of memory on compute capability 9.0; how
stands in ``csrc/weight_only.cuh``. A row's result is the same, bit for bit, whatever other rows
there are and how many, and with every configuration.
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
_TYPES = {
    torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3, torch.float8_e4m3fn: 4,
}  # fmt: skip
_KINDS = {"int8": 0, "int4": 1, "float8": 2}
_NORMS = {"layer": 1, "rms": 2}
_ACTIVATIONS = {None: 0, "relu": 1, "silu": 2, "gelu": 3, "gelu_tanh": 4}
_CHUNK = 128  # Bytes of a row that a warp takes at once.
MEMORY = 232448  # Bytes of shared memory that a block can have.
_WARPS, _MULTIPROCESSORS = 8, 132
_STATISTICS = 640  # Bytes.
_HALF = 115712  # Bytes of shared memory with which two blocks share a multiprocessor.
_ROW, _EIGHT = 16, 8
MOST_ROWS = 16  # At once; more are done one part after the other.
SMALLEST_BLOCK = 32
MOST_COLUMNS = 2**18  # Up to here one row fits a cluster's shared memory, whatever the rest.


class Norm(NamedTuple):
    """A normalization of each row of x before the product, with statistics in float32.

    Attributes:
        kind: "layer" or "rms".
        weight: ``[K]``, any float type.
        bias: ``[K]`` or None.
        eps: Added to the variance, or to the mean of squares.
    """

    kind: str
    weight: T
    bias: Optional[T]
    eps: float


class Config(NamedTuple):
    """How a layer is cut: see ``csrc/weight_only.cuh``.

    Attributes:
        row_tiles: Tiles of 16 outputs of a warp: 2 with scales that vary along the columns; else 4,
            2, or, for up to 8 rows, 1.
        cluster: Blocks that share the columns, each with its part of x: 1, 2, 4 or 8.
        slots: Places of a warp for 128 bytes of each of up to 32 outputs: 1 to 8.
        rows: Rows of x that a block takes.
    """

    row_tiles: int
    cluster: int
    slots: int
    rows: int


class _WeightOnly(ctypes.Structure):
    """``struct WeightOnly`` of ``csrc/weight_only.h``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "scale", "bias", "residual")),
        *((name, ctypes.c_void_p) for name in ("norm_weight", "norm_bias", "out")),
        *((name, ctypes.c_float) for name in ("in_scale", "factor", "eps", "out_scale")),
        *((name, ctypes.c_int) for name in ("m", "n", "k", "row_bytes", "group", "window")),
        *((name, ctypes.c_int) for name in ("weight_kind", "norm_kind", "x_type", "out_type")),
        *((name, ctypes.c_int) for name in ("param_type", "result_type", "round_type")),
        ("compute_type", ctypes.c_int),
        *((name, ctypes.c_int) for name in ("activation", "row_tiles", "cluster", "slots")),
        *((name, ctypes.c_int) for name in ("rows_at_once", "early_launch")),
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


def shared_bytes(
    config: Config, packed: GpuWeight, compute: torch.dtype, blocks: bool = False
) -> int:
    """Bytes of shared memory of a block, as ``WeightLayout`` in the source has them."""
    outputs = 16 * config.row_tiles
    chunks = -(-packed.data.shape[1] // _CHUNK)
    columns = _CHUNK * (2 if packed.window else 1)
    x = -(-chunks // config.cluster) * columns * config.rows * compute.itemsize
    sums = _WARPS * config.rows * (outputs + 4) * 4
    ring = _WARPS * config.slots * (min(outputs, 32) * _CHUNK + (1024 if blocks else 0))
    barriers = _WARPS * config.slots * 8
    return -(-max(ring + x, sums) // 16) * 16 + _STATISTICS + barriers


def choose(rows: int, packed: GpuWeight, compute: torch.dtype, blocks: bool) -> Config:
    """The table: measured on an H100, with layers of 768x768 to 8192x8192 and 1 to 16 rows.

    Enough tiles for each multiprocessor; then the smallest cluster whose part of x fits beside the
    slots, as every other one reads less of x, but costs an exchange of sums. Weights with blocks of
    scales take longer to unpack than to load: they have fewer slots, and two blocks of threads
    a multiprocessor where a cluster of two allows that.
    """
    outputs = packed.shape[0]
    at_once = min(rows, MOST_ROWS)
    while True:
        tiles = _row_tiles(outputs, at_once, blocks)
        slots = {1: 8 if outputs <= 16 * _MULTIPROCESSORS // 2 else 4, 2: 4, 4: 3}[tiles]
        limits = [(_HALF, 1), (_HALF, 2)] if blocks else []
        for limit, cluster in (*limits, *((MEMORY, cluster) for cluster in (1, 2, 4, 8))):
            config = Config(tiles, cluster, 2 if blocks else slots, at_once)
            if shared_bytes(config, packed, compute, blocks) <= limit:
                return config
        at_once = -(-at_once // 2)


def _row_tiles(outputs: int, rows: int, blocks: bool) -> int:
    if blocks:
        return 2
    if outputs > 54 * _MULTIPROCESSORS or (rows > 8 and outputs > 32 * _MULTIPROCESSORS):
        return 4
    return 2 if outputs > 24 * _MULTIPROCESSORS or rows > 8 else 1


def _aligned(tensor: T) -> T:
    """Itself, or a copy that begins at a multiple of 16 bytes."""
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def weight_only(
    x: T, packed: GpuWeight, scale: T, *, x_scale: Optional[float] = None,
    bias: Optional[T] = None, residual: Optional[T] = None, activation: Optional[str] = None,
    norm: Optional[Norm] = None, in_scale: Optional[float] = None, dtype: torch.dtype,
    out_scale: Optional[float] = None, out_dtype: Optional[torch.dtype] = None,
    out: Optional[T] = None, pdl: bool = False, config: Optional[Config] = None,
) -> T:  # fmt: skip
    """A linear layer; arguments as those of ``weight_only.weight_only_gemm``, which has more types.

    The residual is of type ``dtype``. What is normalized is rounded to the type of x before it goes
    on, as the result of a layer of its own would be. With ``out_scale`` the result, rounded to
    ``dtype``, is divided by it and rounded to ``out_dtype``, int8 or float8_e4m3fn. With ``pdl``
    the weight, its scale and the bias must be older than every launch that may still run.

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
        config = choose(m, packed, compute, group > 1)
    factor = (1.0 if x_scale is None else x_scale) * (1.0 if in_scale is None else in_scale)
    if compute is torch.int8 and packed.kind == "int4":
        factor /= 16  # Its int8 form is 16 times the weight.
    params = given = [bias, *((None, None) if norm is None else (norm.weight, norm.bias))]
    kinds = {p.dtype for p in params if p is not None}
    if len(kinds) > 1:
        params = [None if p is None else p.float() for p in params]
        kinds = {torch.float32}
    # Held until the launch: some may be copies.
    used = [
        None if t is None else _aligned(t)
        for t in (x, packed.data, scale, params[0], residual, params[1], params[2])
    ]
    # Launched early, it reads these before it waits for the launch in front: no copies of now.
    constants, read = [packed.data, scale, *given], [*used[1:4], *used[5:]]
    early = pdl and all(a is b for a, b in zip(constants, read))
    rounds = -1
    if in_scale is not None:
        rounds = _TYPES[torch.float8_e4m3fn if packed.kind == "float8" else torch.int8]
    problem = _WeightOnly(
        *(None if t is None else t.data_ptr() for t in used), out.data_ptr(),
        1.0 if in_scale is None else in_scale, factor, 0.0 if norm is None else norm.eps,
        1.0 if out_scale is None else out_scale, m, n, k, packed.data.shape[1], group,
        packed.window, _KINDS[packed.kind],
        0 if norm is None else _NORMS[norm.kind], _TYPES[x.dtype], _TYPES[out_type],
        _TYPES[kinds.pop()] if kinds else 0, _TYPES[dtype], rounds, _TYPES[compute],
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
