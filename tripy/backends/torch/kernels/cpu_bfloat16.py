"""Weight-only products with bfloat16 input on the CPU: torch's own kernels for few rows.

torch's int8 and int4 weight-only kernels are vectorised for bfloat16 only and win for few rows;
for more, the weight is expanded and torch's bfloat16 product runs.
"""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F

from tripy.backends.torch.kernels.base import PackedWeight
from tripy.backends.torch.kernels.expanded import PlainWeight

T = torch.Tensor
# Rows up to which the weight-only kernel is the faster one (768 x 3072, two cores of Zen 4).
INT8_ROWS = 4
INT4_ROWS = 8
INT4_BLOCKS = (256, 128, 64, 32)


class Bfloat16Int8:
    """``x @ (w * w_scale).T + bias`` with one scale for each output."""

    def __init__(self, weight: PlainWeight, w_scale: T, bias: Optional[T]) -> None:
        self._weight, self._bias = weight.data, bias
        self._scale = w_scale.expand(weight.data.shape[0]).contiguous()

    def __call__(self, x: T) -> T:
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] <= INT8_ROWS:
            result = torch._weight_int8pack_mm(rows, self._weight, self._scale)
        else:
            result = F.linear(rows, self._weight.to(x.dtype)).mul_(self._scale)
        if self._bias is not None:
            result = result + self._bias
        return result.view(*x.shape[:-1], -1)


class Int4Tiles(PackedWeight):
    """int4 in the tiles that torch's kernel reads with AVX-512: [out / 64, in, 2, 16] bytes."""

    def __init__(self, weight: T) -> None:
        self.shape = weight.shape
        unsigned = (weight.to(torch.int32) + 8).contiguous()
        self.data = torch.ops.aten._convert_weight_to_int4pack_for_cpu(unsigned, 1)

    def unpack(self) -> T:
        rows, columns = self.shape
        tiles = self.data.view(rows // 64, columns, 2, 16)
        halves = torch.stack([tiles & 15, tiles >> 4], 2)
        plain = halves.permute(0, 2, 3, 4, 1).reshape(rows, columns)
        return plain.to(torch.int8) - 8

    @property
    def nbytes(self) -> int:
        return self.data.numel()


def tiles_fit(weight: T) -> bool:
    """Whether the kernel's layout is the one that we can read back, found out by trying.

    torch chooses the layout by the processor's instruction set.
    """
    if weight.shape[0] % 64 or weight.shape[1] % 32:
        return False
    sample = weight[:64].contiguous()
    try:
        return torch.equal(Int4Tiles(sample).unpack(), sample)
    except RuntimeError:
        return False


class Bfloat16Int4:
    """``x @ (w * w_scale).T + bias`` with scales [out, blocks] along the input dimension."""

    def __init__(self, weight: Int4Tiles, w_scale: T, bias: Optional[T]) -> None:
        self._weight, self._bias, self._scale = weight, bias, w_scale
        columns = weight.shape[1]
        block = columns // w_scale.shape[1]
        self._block = max(b for b in INT4_BLOCKS if block % b == 0)
        scale = w_scale.repeat_interleave(block // self._block, 1)
        pairs = torch.stack([scale, torch.zeros_like(scale)], -1)  # Scale and zero.
        self._pairs = pairs.transpose(0, 1).contiguous()

    def __call__(self, x: T) -> T:
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] <= INT4_ROWS:
            result = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rows, self._weight.data, self._block, self._pairs
            )
        else:
            plain = self._weight.unpack().to(x.dtype)
            blocks = self._scale.shape[1]
            plain = plain.unflatten(1, (blocks, -1)).mul_(self._scale[:, :, None]).flatten(1, 2)
            result = F.linear(rows, plain)
        if self._bias is not None:
            result = result + self._bias
        return result.view(*x.shape[:-1], -1)
