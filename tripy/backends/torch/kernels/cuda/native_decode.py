"""A decode step in one kernel: the structures of ``csrc/decode_step.h`` and the launch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch

from tripy.backends.torch.kernels.cuda import native
from tripy.device import device

T = torch.Tensor
MOST_TENSORS = 256
# Of csrc/decode_step.cuh.
RING_BYTES, MOST_STAGES, INPUT_BYTES, MOST_NORMALIZED = 199680, 12, 16384, 4096
WARPS, COPIES, MOST_QUADS = 7, 4, 5
RECORD_BYTES = 8
LINEAR, ATTENTION = range(2)
WEIGHTS = {"int8": 0, "float8": 1, "int4": 2}
FROM_TENSOR, FROM_PAIRS, FROM_BYTES, FROM_PARTS = range(4)
NORMS = {None: 0, "layer": 1, "rms": 2}


class DecodeStep(ctypes.Structure):
    """``struct DecodeStep``; what is not set is absent."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("kind", "source", "in_", "integers", "float8")),
        *((name, ctypes.c_int) for name in ("k", "n", "row_bytes")),
        *((name, ctypes.c_int) for name in ("rows", "row_groups", "groups_each", "stage_groups")),
        ("weight", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("weights", "record_bytes")),
        ("parameters", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("window", "block_bits")),
        *((name, ctypes.c_void_p) for name in ("norm_weight", "norm_bias")),
        ("norm", ctypes.c_int),
        *((name, ctypes.c_float) for name in ("eps", "inverse_k", "in_scale", "inverse_in_scale")),
        *((name, ctypes.c_int) for name in ("activation", "residual", "residual_tensor")),
        *((name, ctypes.c_int) for name in ("out", "out_tensor")),
        ("inverse_out_scale", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("cache", "position", "lengths")),
        *((name, ctypes.c_int) for name in ("heads", "groups", "width", "capacity")),
        *((name, ctypes.c_int) for name in ("chunk", "chunks")),
        *((name, ctypes.c_float) for name in ("inverse_heads", "inverse_group", "inverse_chunk")),
        ("score_scale", ctypes.c_float),
    )

    def __init__(self, **values: Any) -> None:
        absent = ("residual", "residual_tensor", "out", "out_tensor")
        super().__init__(**{**dict.fromkeys(absent, -1), **values})


class DecodeLaunch(ctypes.Structure):
    """``struct DecodeLaunch``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("steps", "exchange", "launches", "clocks")),
        *((name, ctypes.c_int) for name in ("count", "type", "blocks")),
        *((name, ctypes.c_int) for name in ("weights", "width", "quads")),
        *((name, ctypes.c_int) for name in ("stage_bytes", "stages", "in_flight", "copy_units")),
        ("tensors", ctypes.c_void_p * MOST_TENSORS),
    )


@functools.cache
def available(where: device) -> Optional[str]:
    """Why the kernel cannot be used on a device; None where it can."""
    reason = native.available(where)
    if reason is None and not agrees(native.library()):
        reason = "the native library is of another version: build it again (see CMakeLists.txt)"
    return reason


def agrees(library: ctypes.CDLL) -> bool:
    """Whether a library has been built for these structures and sizes."""
    sizes = library.tripy_decode_step_size(), library.tripy_decode_launch_size()
    wanted = ctypes.sizeof(DecodeStep), ctypes.sizeof(DecodeLaunch)
    counts = library.tripy_decode_warps(), library.tripy_decode_copies()
    return sizes == wanted and counts == (WARPS, COPIES)


def blocks(where: torch.device) -> int:
    """Blocks of a launch: one a multiprocessor."""
    return torch.cuda.get_device_properties(where).multi_processor_count


def table(steps: Sequence[DecodeStep], where: torch.device) -> T:
    """The steps as bytes on a GPU."""
    data = b"".join(bytes(step) for step in steps)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(where)


class Exchange:
    """Where the blocks of a launch meet. Launches that may run at the same time need their own."""

    def __init__(self, units: int, where: torch.device) -> None:
        units += units % 2  # Two are read at once, in every copy.
        self.units = torch.zeros(COPIES, units, 2, dtype=torch.int32, device=where)
        self.launches = torch.zeros(blocks(where), dtype=torch.int32, device=where)


class Settings(NamedTuple):
    """Which kernel a launch is of, and how it streams weights.

    Attributes:
        weights: One of ``WEIGHTS``, which steps may have beside int8.
        width: Of a head: 32, 64 or 128.
        quads: Four columns of a normalized input that a thread has, at most: 1, 2 or MOST_QUADS.
        stage_bytes: Of the ring, a multiple of 128.
        stages: How many it has.
        in_flight: How many of them are on their way at once.
    """

    weights: int
    width: int
    quads: int
    stage_bytes: int
    stages: int
    in_flight: int


def launch_of(
    steps: T, count: int, settings: Settings, exchange: Exchange, tensors: Sequence[T]
) -> DecodeLaunch:
    """The launch of a table of steps.

    Args:
        steps: From ``table``.
        count: How many there are.
        settings: Of all of them.
        exchange: With as many units as the steps have offsets for.
        tensors: What the steps number; contiguous, aligned to 16 bytes.
    """
    kinds = {torch.float16: 1, torch.bfloat16: 2}  # enum Type of csrc/api.h
    kind = next(kinds[t.dtype] for t in tensors if t.dtype in kinds)
    launch = DecodeLaunch(
        steps.data_ptr(), exchange.units.data_ptr(), exchange.launches.data_ptr(), None, count,
        kind, len(exchange.launches), *settings, exchange.units.shape[1],
    )  # fmt: skip
    for i, tensor in enumerate(tensors):
        launch.tensors[i] = tensor.data_ptr()
    return launch


def run(launch: DecodeLaunch, where: torch.device) -> None:
    """Launch on the current stream of a GPU.

    Raises:
        RuntimeError: What CUDA says where it refuses the launch.
    """
    with torch.cuda.device(where):
        stream = torch.cuda.current_stream().cuda_stream
        error = native.library().tripy_decode_step(ctypes.byref(launch), ctypes.c_void_p(stream))
    if error:
        raise RuntimeError(
            f"[decode step] got {launch.count} steps; CUDA says: {native.text_of(error)}"
        )
