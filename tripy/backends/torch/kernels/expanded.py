"""Quantized weights that are expanded to floating point, layer by layer, at each call.

What is kept is the small weight; its expanded form lives for one product. Where one scale belongs
to each output, it is applied to the result, which is smaller than the weight.
"""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F

from tripy.backends.torch.kernels.base import PackedWeight
from tripy.graph.operations.quantization import block_axis

T = torch.Tensor


class PlainWeight(PackedWeight):
    """int8 or float8 as it is."""

    def __init__(self, weight: T) -> None:
        self.data = weight

    def unpack(self) -> T:
        return self.data

    def expand(self, dtype: torch.dtype) -> tuple[T, float]:
        """The values in a floating-point type, and what to multiply the scale with."""
        return self.data.to(dtype), 1.0

    @property
    def nbytes(self) -> int:
        return self.data.numel()


class Int4Weight(PackedWeight):
    """int4, two to a byte: the low half belongs to the first half of a row, the high to the second.

    Expanding shifts neither half down: both come out multiplied by 16, and the scale is divided
    by 16 instead, which is exact.
    """

    def __init__(self, weight: T) -> None:
        self.shape = weight.shape
        if weight.shape[1] % 2:
            weight = F.pad(weight, (0, 1))
        low, high = weight.chunk(2, 1)
        self.data = (low & 15) | (high << 4)

    def unpack(self) -> T:
        both = torch.cat([(self.data << 4) >> 4, self.data >> 4], 1)
        return both[:, : self.shape[1]].contiguous()

    def expand(self, dtype: torch.dtype) -> tuple[T, float]:
        """The values times 16 in a floating-point type, and 1 / 16 for the scale."""
        rows, half = self.data.shape
        out = torch.empty(rows, 2, half, dtype=dtype)
        out[:, 0].copy_(self.data << 4)
        out[:, 1].copy_(self.data & -16)
        return out.view(rows, 2 * half)[:, : self.shape[1]], 1 / 16

    @property
    def nbytes(self) -> int:
        return self.data.numel()


class Expanded:
    """``activation(x @ (w * w_scale).T + bias)`` with the weight expanded for each call."""

    def __init__(
        self, weight: PlainWeight | Int4Weight, w_scale: T, dim: Optional[int], bias: Optional[T],
    ) -> None:  # fmt: skip
        self._weight, self._bias, self._scale = weight, bias, w_scale
        # One scale a result, or one for all: applied after the product. Not in float16, where
        # sums of unscaled integers can leave the range.
        one = w_scale.dim() == 0 or dim == 0
        self._after = one and w_scale.dtype is not torch.float16
        self._dim = dim

    def __call__(self, x: T) -> T:
        expanded, unit = self._weight.expand(x.dtype)
        if self._after:
            result = F.linear(x, expanded).mul_(self._scale * unit)
            return result if self._bias is None else result.add_(self._bias)
        return F.linear(x, self._scaled(expanded, self._scale * unit), self._bias)

    def _scaled(self, expanded: T, scale: T) -> T:
        rows, columns = expanded.shape
        if self._dim == 1 or scale.dim() == 0:
            return expanded.mul_(scale)
        if self._dim == 0:
            return expanded.mul_(scale[:, None])
        if block_axis((rows, columns), tuple(scale.shape)) == 0:
            blocks = scale.shape[0]
            view = expanded.unflatten(0, (blocks, rows // blocks) if blocks else (0, 0))
            return view.mul_(scale[:, None, :]).flatten(0, 1)
        blocks = scale.shape[1]
        view = expanded.unflatten(1, (blocks, columns // blocks))
        return view.mul_(scale[:, :, None]).flatten(1, 2)
