"""Weights of a decode step's linear layers: which kinds there are, and each row's record.

A record comes with its row of the weight: scale and bias in float32, and for int4 the scales of the
row's blocks of columns in the activations' type, which has them exactly.
"""

from __future__ import annotations

from typing import Any, Optional

import torch

from tripy.backends.torch.kernels.cuda import native_decode as native
from tripy.backends.torch.kernels.cuda.linear import GpuLinear

T = torch.Tensor
_SMALLEST_BLOCK = 32  # Columns that a group of lanes multiplies at once.
_SCALES = 4  # Scales of a record: a multiple of 8 bytes.
_ONE_BLOCK = 31  # Any column, divided by two so many times, is 0.


def why_not(kernel: GpuLinear) -> Optional[str]:
    """Why a layer's weight is none that the kernel reads."""
    weight, blocks = kernel.weight, _blocks(kernel)
    if weight.kind != "int4":
        return None if kernel.scale.dim() == 1 else "the weight has a scale for each block"
    if kernel.static or kernel.out_scale is not None:
        return "the weight is int4, and the input or the result int8"
    columns = weight.shape[1]
    if columns % (2 * weight.window):
        return f"{columns} inputs: not a multiple of {2 * weight.window}"
    block = columns // blocks
    if blocks > 1 and (block < _SMALLEST_BLOCK or block & (block - 1)):
        return f"a scale for {block} inputs: not a power of two from {_SMALLEST_BLOCK} on"
    return None


def _blocks(kernel: GpuLinear) -> int:
    return 1 if kernel.scale.dim() == 1 else kernel.scale.shape[1]


def record_bytes(kernel: GpuLinear) -> int:
    """Bytes of a row's record."""
    if kernel.weight.kind != "int4":
        return native.RECORD_BYTES
    scales = -(-_blocks(kernel) // _SCALES) * _SCALES
    return native.RECORD_BYTES + scales * kernel.dtype.itemsize


def records(kernel: GpuLinear, where: torch.device) -> T:
    """The records of all rows and, where their number is odd, of one more."""
    outputs, blocks = kernel.weight.shape[0], _blocks(kernel)
    scale = kernel.both_scales if kernel.static else kernel.scale
    found = torch.zeros(
        outputs + outputs % 2, record_bytes(kernel), dtype=torch.uint8, device=where
    )
    numbers = found.view(torch.float32)
    numbers[:outputs, 0] = scale.reshape(-1) if blocks == 1 else 1.0
    if kernel.bias is not None:
        numbers[:outputs, 1] = kernel.bias
    if kernel.weight.kind == "int4":
        own = found.view(kernel.dtype)[:outputs, native.RECORD_BYTES // kernel.dtype.itemsize :]
        own[:, :blocks] = scale if blocks > 1 else 1.0
    return found


def fields(kernel: GpuLinear) -> dict[str, Any]:
    """What a step says of its weight, other than sizes and addresses."""
    weight, blocks = kernel.weight, _blocks(kernel)
    block = weight.shape[1] // blocks
    return {
        "weights": native.WEIGHTS[weight.kind], "record_bytes": record_bytes(kernel),
        "integers": int(kernel.static and weight.kind == "int8"),
        "float8": int(kernel.static and weight.kind == "float8"),
        "window": weight.window,
        "block_bits": _ONE_BLOCK if blocks == 1 else block.bit_length() - 1,
    }  # fmt: skip
