"""The library built from ``csrc``: products of int8 or float8 matrices with the layer around them.

It is loaded with ctypes and takes plain pointers, so one build serves every version of Python and
of PyTorch. Which kernel runs what, and why, stands in ``csrc/scaled_gemm.cuh``.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import torch

from tripy.device import device

_FILE = "libtripy_cuda.so"
# Of csrc/api.h and csrc/epilogue.cuh.
TYPES = {
    torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3, torch.float8_e4m3fn: 4,
}  # fmt: skip
ACTIVATIONS = {None: 0, "relu": 1, "silu": 2, "gelu": 3, "gelu_tanh": 4}
_BEST_TILE = -1
_LARGEST = 2**31 - 2**10  # Rounded up to whole tiles, an int still holds it.
TILES = 7


class _ScaledGemm(ctypes.Structure):
    """``struct ScaledGemm`` of ``csrc/api.h``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b", "d", "scale")),
        *((name, ctypes.c_void_p) for name in ("row_scale", "bias", "residual")),
        ("inverse_out_scale", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("activation", "m", "n", "k", "in_type", "out_type")),
        *((name, ctypes.c_int) for name in ("tile", "multiprocessors", "early_launch")),
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The library, loaded; an OSError where it is not there."""
    path = os.environ.get("TRIPY_NATIVE_LIBRARY") or Path(__file__).parent / _FILE
    library = ctypes.CDLL(os.fspath(path))
    library.tripy_scaled_gemm.argtypes = [ctypes.POINTER(_ScaledGemm), ctypes.c_void_p]
    library.tripy_error.restype = ctypes.c_char_p
    return library


@functools.cache
def available(where: device) -> Optional[str]:
    """Why the library cannot be used on a device; None where it can.

    Example:
        >>> available(device("cpu"))
        'the device is no GPU'
    """
    if where.kind != "gpu":
        return "the device is no GPU"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    major, minor = torch.cuda.get_device_capability(where.index)
    if (major, minor) != (9, 0):
        return f"built for compute capability 9.0 (H100, H200); this GPU has {major}.{minor}"
    return broken()


def text_of(error: int) -> str:
    """What CUDA says about an error that the library returned."""
    return library().tripy_error(error).decode()


@functools.cache
def broken() -> Optional[str]:
    """Why the library cannot be loaded, with or without a GPU; None where it can."""
    try:
        loaded = library()
    except OSError as error:
        return f"the native library is not built (see CMakeLists.txt): {error}"
    return other_version(loaded, "tripy_scaled_gemm_size", _ScaledGemm)


def other_version(
    loaded: ctypes.CDLL, size: str, structure: type[ctypes.Structure]
) -> Optional[str]:
    """Why a library is not of this source, by the size that it gives for a structure; else None.

    Args:
        loaded: The library.
        size: Its function that returns the size.
        structure: What has to have that size.
    """
    try:
        agrees = getattr(loaded, size)() == ctypes.sizeof(structure)
    except AttributeError:
        agrees = False
    if agrees:
        return None
    return "the native library is of another version: build it again (see CMakeLists.txt)"


def reason(
    x_shape: Sequence[int], weight_shape: Sequence[int], dtype: torch.dtype
) -> Optional[str]:
    """Why ``scaled_gemm`` does not take these sizes; None where it does.

    The copy engine needs rows that begin at multiples of 16 bytes.

    Args:
        x_shape: ``[M, K]``.
        weight_shape: ``[N, K]``.
        dtype: Type of the result.
    """
    n, k = weight_shape
    if k % 16:
        return f"rows of {k} one-byte values; expected a multiple of 16 bytes"
    if n * dtype.itemsize % 16:
        return f"result's rows of {n} {dtype} values; expected a multiple of 16 bytes"
    if max(x_shape[0], n, k) >= _LARGEST:
        return f"a size of {max(x_shape[0], n, k)}; expected less than {_LARGEST}"
    return None


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Itself, or a copy that begins at a multiple of 16 bytes."""
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


@functools.cache
def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def scaled_gemm(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    *,
    row_scale: Optional[torch.Tensor] = None,
    bias: Optional[torch.Tensor] = None,
    activation: Optional[str] = None,
    residual: Optional[torch.Tensor] = None,
    out_scale: Optional[float] = None,
    dtype: torch.dtype,
    tile: int = _BEST_TILE,
) -> torch.Tensor:
    """``activation(x @ weight.T * row_scale[:, None] * scale + bias) + residual``, in one kernel.

    Row ``i`` of the result is the same whatever other rows are in ``x``, for one tile; int8
    products are exact with every tile (sums in int32, so K up to 131,071), float8 products differ
    between tiles by nothing either, as all add in the same order. Float8 sums have the tensor
    core's own precision (``use_fast_accum=True`` in ``torch._scaled_mm``).

    Args:
        x: ``[M, K]``, int8 or float8_e4m3fn, contiguous.
        weight: ``[N, K]`` of the same type, contiguous.
        scale: float32 ``[N]``: the weight's scale times the input's.
        row_scale: float32 ``[M]``.
        bias: float32 ``[N]``.
        activation: None, ``"relu"``, ``"silu"``, ``"gelu"`` or ``"gelu_tanh"``.
        residual: ``[M, N]`` of type ``dtype``, contiguous; only with floating-point results of more
            than one byte.
        out_scale: With ``dtype`` int8 or float8_e4m3fn: the result is divided by it, rounded to
            nearest even and clamped to the range of the type.
        dtype: float32, float16, bfloat16, or the type of ``x``.
        tile: Row of the table in ``csrc/launch.cuh``.

    Returns:
        A new tensor ``[M, N]``.

    Raises:
        RuntimeError: What CUDA says where it refuses the launch.
    """
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=dtype, device=x.device)
    used = [aligned(t) for t in (x, weight, out, scale)]
    pointers: list[Optional[int]] = [t.data_ptr() for t in used]
    for tensor in (row_scale, bias, residual):
        if tensor is not None:
            used.append(aligned(tensor))
        pointers.append(None if tensor is None else used[-1].data_ptr())
    problem = _ScaledGemm(
        *pointers, 1.0 if out_scale is None else 1.0 / out_scale, ACTIVATIONS[activation],
        m, n, k, TYPES[x.dtype], TYPES[dtype], tile, multiprocessors(x.device), 1,
    )  # fmt: skip
    with torch.cuda.device(x.device):
        stream = torch.cuda.current_stream().cuda_stream
        error = library().tripy_scaled_gemm(ctypes.byref(problem), stream)
    if error:
        got = f"{m}x{n}x{k} {x.dtype} to {dtype}"
        raise RuntimeError(f"[scaled_gemm] got {got}; CUDA says: {text_of(error)}")
    return out
