"""Linear layers with packed weights for few rows of input, in the library built from ``csrc``.

What ``weight_only`` computes with Triton, at the speed of memory on compute capability 9.0. There
are two kernels: in ``csrc/weight_only.cuh`` x stays in shared memory, of which up to 16 rows have
room there; in ``csrc/weight_stream.cuh`` it comes with the weights, which takes up to 64 rows at
once as they are in memory. A row's result is the same, bit for bit, whatever other rows a kernel
multiplies, how many, and with every configuration; the two differ by the order of sums, so the
second one has no fewer than 17 rows.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Optional

import torch

from tripy.backends.torch.kernels.cuda import native
from tripy.backends.torch.kernels.cuda.native_weight_cuts import (
    MOST_RESIDENT_ROWS,
    MOST_ROWS,
    MULTIPROCESSORS,
    Config,
    choose,
)

if TYPE_CHECKING:
    from tripy.backends.torch.kernels.cuda.packing import GpuWeight
    from tripy.device import device

T = torch.Tensor
_KINDS = {"int8": 0, "int4": 1, "float8": 2}
_ROW, _EIGHT = 16, 8
SMALLEST_BLOCK = 32
_MANY_OUTPUTS = 6400  # As many have enough tiles of 128 for `native_mixed_gemm`, of 65 rows too.
MOST_COLUMNS = 2**18  # Up to here one row fits a cluster's shared memory, whatever the rest.


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
        *((name, ctypes.c_int) for name in ("rows_at_once", "warps", "streams_x", "passes")),
        ("early_launch", ctypes.c_int),
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
    return why or native.other_version(native.library(), "tripy_weight_only_size", _WeightOnly)


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


def streams(kind: str, x_type: torch.dtype, rounded: bool) -> bool:
    """Whether x can come with the weights: it is multiplied as it is in memory."""
    return not rounded and compute_type(kind, x_type, rounded) is x_type


def most_rows(
    kind: str, shape: tuple[int, int], blocks: bool, x_type: torch.dtype, rounded: bool
) -> int:
    """Up to how many rows this is the fastest way.

    Others are Triton's kernel and, beyond 64 rows, products of many rows, `native_mixed_gemm`.
    Measured on an H100 with layers of 3072x768 to 50304x768 and 8192x8192.

    Args:
        kind: The weight's.
        shape: Its outputs and columns.
        blocks: Whether scales vary along the columns.
        x_type: Type of the input.
        rounded: Whether the input is rounded first.
    """
    outputs, columns = shape
    short = columns < 2048 and outputs > 2 * 64 * MULTIPROCESSORS  # Many blocks, soon at their end.
    if not streams(kind, x_type, rounded) or short or (blocks and outputs < 4096):
        return MOST_RESIDENT_ROWS
    return MOST_ROWS if outputs >= _MANY_OUTPUTS else 2 * MOST_ROWS


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
    used = [
        None if t is None else native.aligned(t) for t in (x, packed.data, scale, bias, residual)
    ]
    # Launched early, it reads these before it waits for the launch in front: no copies of now.
    early = pdl and all(a is b for a, b in zip((packed.data, scale, bias), used[1:4]))
    rounds = -1
    if in_scale is not None:
        rounds = native.TYPES[torch.float8_e4m3fn if packed.kind == "float8" else torch.int8]
    problem = _WeightOnly(
        *(None if t is None else t.data_ptr() for t in used), out.data_ptr(),
        1.0 if in_scale is None else in_scale, factor,
        1.0 if out_scale is None else out_scale, m, n, k, packed.data.shape[1], group,
        packed.window, _KINDS[packed.kind], native.TYPES[x.dtype], native.TYPES[out_type],
        0 if bias is None else native.TYPES[bias.dtype], native.TYPES[dtype], rounds,
        native.TYPES[compute], native.ACTIVATIONS[activation], *config, early,
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
