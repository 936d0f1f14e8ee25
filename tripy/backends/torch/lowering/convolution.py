"""Lowerings of convolutions."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Optional

import torch
import torch.nn.functional as F

from tripy.backends.torch.lowering.table import Attrs, T, lowering

_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def _full_precision(x: T) -> AbstractContextManager:
    """cuDNN would round float32 inputs to TF32, with 10 bits of mantissa, unless told not to."""
    if x.device.type != "cuda" or x.dtype is not torch.float32:
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


@lowering("convolution")
def _convolution(attrs: Attrs, x: T, weight: T, bias: Optional[T] = None) -> T:
    padding = [before for before, _ in attrs["padding"]]
    if any(before != after for before, after in attrs["padding"]):
        # torch.nn.functional pads the same on both sides; its pad counts from the last dimension.
        x = F.pad(x, [width for pair in reversed(attrs["padding"]) for width in pair])
        padding = [0] * len(padding)
    with _full_precision(x):
        return _CONVOLUTIONS[x.dim()](
            x, weight, bias, attrs["stride"], padding, attrs["dilation"], attrs["groups"]
        )


@lowering("conv_transpose")
def _conv_transpose(attrs: Attrs, x: T, weight: T, bias: Optional[T] = None) -> T:
    # Where the two sides differ, the smaller is left to torch and the rest of the larger cut off.
    padding = [min(pair) for pair in attrs["padding"]]
    with _full_precision(x):
        result = _TRANSPOSED[x.dim()](
            x, weight, bias, attrs["stride"], padding, 0, attrs["groups"], attrs["dilation"]
        )
    for axis, (both, (before, after)) in enumerate(zip(padding, attrs["padding"]), 2):
        if before != after:
            size = result.shape[axis] - (before - both) - (after - both)
            result = result.narrow(axis, before - both, size)
    return result
