"""Weights in the layouts that the weight-only kernels read.

All are [N, bytes] with rows of a multiple of 16 bytes, so that every load is 16 bytes wide; columns
beyond K are zeros. int8 and float8 stay as they are. int4 goes two to a byte within windows of the
row: in a window of 2 * W columns, byte j holds column j in its low half and column W + j in its
high half. A load of consecutive bytes is then two runs of consecutive columns, and unpacking moves
no value from one place to another: it is a shift and a mask.

int4 values are kept plus 8 (0 … 15), which is what the bit patterns of float16 numbers want.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tripy.backends.torch.kernels.base import PackedWeight

T = torch.Tensor
_ROW_BYTES = 16
_INT4_OFFSET = 8
# Half a window, the widest that divides the row wins: tiles of a block scale lie in one half.
_WINDOWS = (128, 64, 32)


class GpuWeight(PackedWeight):
    """A packed [N, K] weight.

    Attributes:
        kind: "int8", "int4" or "float8".
        data: Its bytes, [N, bytes of a row]; int8, or uint8 for int4, or float8_e4m3fn.
        window: For int4, half of the columns of a window; else 0.
        shape: (N, K) of the plain weight.
    """

    def __init__(self, kind: str, data: T, window: int, shape: torch.Size) -> None:
        self.kind = kind
        self.data = data
        self.window = window
        self.shape = shape

    def unpack(self) -> T:
        """The plain [N, K] weight, exactly."""
        if not self.window:
            return self.data[:, : self.shape[1]].contiguous()
        halves = self.data.view(self.shape[0], -1, 1, self.window)
        both = torch.cat([halves & 15, halves >> 4], 2).view(self.shape[0], -1)
        return both[:, : self.shape[1]].to(torch.int8) - _INT4_OFFSET

    @property
    def nbytes(self) -> int:
        return self.data.numel()


def pack_int8(weight: T) -> GpuWeight:
    """Pack [N, K] int8."""
    return _pack_bytes("int8", weight)


def pack_fp8(weight: T) -> GpuWeight:
    """Pack [N, K] float8_e4m3fn."""
    return _pack_bytes("float8", weight)


def pack_int4(weight: T) -> GpuWeight:
    """Pack [N, K] int8 that holds -8 … 7."""
    rows, columns = weight.shape
    fits = [w for w in _WINDOWS if columns % (2 * w) == 0]
    window = fits[0] if fits else _WINDOWS[-1]
    padded = F.pad(weight, (0, -columns % (2 * window)))
    low, high = (padded + _INT4_OFFSET).view(torch.uint8).view(rows, -1, 2, window).unbind(2)
    data = (low | (high << 4)).reshape(rows, -1)
    return GpuWeight("int4", data, window, weight.shape)


def _pack_bytes(kind: str, weight: T) -> GpuWeight:
    padding = -weight.shape[1] % _ROW_BYTES
    # Padding knows no float8, and zero has the same bits.
    data = F.pad(weight.contiguous().view(torch.int8), (0, padding)).view(weight.dtype)
    return GpuWeight(kind, data.contiguous(), 0, weight.shape)
