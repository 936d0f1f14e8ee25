"""A decode step in one kernel: the structures of ``csrc/decode_step.h`` and the launch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, Optional

import torch

from tripy.backends.torch.kernels.cuda import native
from tripy.device import device

T = torch.Tensor
MOST_TENSORS = 256
ROWS = (1, 2, 4, 8)
# Of csrc/decode_step.cuh.
RING_BYTES, INPUT_BYTES, TILE_ROWS, MOST_TILES, WORKERS = 20480, 49152, 8, 8, 256
LINEAR, ATTENTION = range(2)
FROM_TENSOR, FROM_EXCHANGE, FROM_PARTS = range(3)
NORMS = {None: 0, "layer": 1, "rms": 2}


class DecodeStep(ctypes.Structure):
    """``struct DecodeStep``; what is not set is absent."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
        *((name, ctypes.c_void_p) for name in ("norm_weight", "norm_bias")),
        *(
            (name, ctypes.c_int)
            for name in ("kind", "source", "in_", "quads", "k", "n", "row_bytes")
        ),
        ("stride", ctypes.c_int),
        *((name, ctypes.c_int) for name in ("weight_type", "norm")),
        ("eps", ctypes.c_float),
        ("in_scale", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("in_type", "activation", "residual")),
        ("residual_tensor", ctypes.c_int),
        ("inverse_out_scale", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("out_type", "out", "out_tensor", "rows_each")),
        *((name, ctypes.c_int) for name in ("stage_rows", "cache", "position")),
        *((name, ctypes.c_int) for name in ("lengths", "heads", "groups", "width", "capacity")),
        *((name, ctypes.c_int) for name in ("chunk", "chunks")),
        ("score_scale", ctypes.c_float),
        ("partial", ctypes.c_int),
    )

    def __init__(self, **values: Any) -> None:
        absent = ("in_type", "residual", "residual_tensor", "out_type", "out", "out_tensor")
        super().__init__(**{**dict.fromkeys(absent, -1), **values})


class _DecodeLaunch(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("steps", "exchange", "launches")),
        *((name, ctypes.c_int) for name in ("count", "rows", "type", "blocks")),
        ("tensors", ctypes.c_void_p * MOST_TENSORS),
    )


@functools.cache
def available(where: device) -> Optional[str]:
    """Why the kernel cannot be used on a device; None where it can."""
    reason = native.available(where)
    if reason is None and not _sizes_agree():
        reason = "the native library is of another version: build it again (see CMakeLists.txt)"
    return reason


def _sizes_agree() -> bool:
    library = native.library()
    sizes = library.tripy_decode_step_size(), library.tripy_decode_launch_size()
    return sizes == (ctypes.sizeof(DecodeStep), ctypes.sizeof(_DecodeLaunch))


def blocks(where: torch.device) -> int:
    """Blocks of a launch: one a multiprocessor."""
    return torch.cuda.get_device_properties(where).multi_processor_count


def table(steps: Sequence[DecodeStep], where: torch.device) -> T:
    """The steps as bytes on a GPU."""
    data = b"".join(bytes(step) for step in steps)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(where)


class Exchange:
    """Where the blocks of a launch meet. Launches that may run at the same time need their own."""

    def __init__(self, values: int, where: torch.device) -> None:
        self.values = torch.zeros(values, 2, dtype=torch.int32, device=where)
        self.launches = torch.zeros(blocks(where), dtype=torch.int32, device=where)


def run(steps: T, count: int, rows: int, exchange: Exchange, tensors: Sequence[T]) -> None:
    """Launch a table of steps on the current stream.

    Args:
        steps: From ``table``.
        count: How many there are.
        rows: Rows of every input; one of ``ROWS``.
        exchange: With as many values as the steps have offsets for.
        tensors: What the steps number; contiguous, aligned to 16 bytes.

    Raises:
        RuntimeError: What CUDA says where it refuses the launch.
    """
    kinds = {torch.float16: 1, torch.bfloat16: 2}
    kind = next(kinds[t.dtype] for t in tensors if t.dtype in kinds)
    launch = _DecodeLaunch(
        steps.data_ptr(), exchange.values.data_ptr(), exchange.launches.data_ptr(), count, rows,
        kind, len(exchange.launches),
    )  # fmt: skip
    for i, tensor in enumerate(tensors):
        launch.tensors[i] = tensor.data_ptr()
    with torch.cuda.device(steps.device):
        stream = torch.cuda.current_stream().cuda_stream
        error = native.library().tripy_decode_step(ctypes.byref(launch), ctypes.c_void_p(stream))
    if error:
        raise RuntimeError(f"[decode step] got {count} steps; CUDA says: {native.text_of(error)}")
