"""Small weights as files hold them: int4 values in pairs along out."""

from __future__ import annotations

import torch


def pack_int4(q: torch.Tensor) -> torch.Tensor:
    """Two rows in one: ``byte[i, j] = (q[2i, j] & 15) | (q[2i + 1, j] & 15) << 4``.

    Args:
        q: int8, from -8 to 7, [out, in], out even.

    Returns:
        uint8, [out / 2, in].

    Example:
        >>> import torch, tripy.quantization.checkpoint as checkpoint
        >>> checkpoint.pack_int4(torch.tensor([[1], [-2]], dtype=torch.int8)).tolist()
        [[225]]
    """
    low, high = q[0::2].view(torch.uint8), q[1::2].view(torch.uint8)
    return (low & 15) | (high & 15) << 4


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`pack_int4`: uint8 [out / 2, in] to int8 [out, in].

    Example:
        >>> import torch, tripy.quantization.checkpoint as checkpoint
        >>> checkpoint.unpack_int4(torch.tensor([[225]], dtype=torch.uint8)).tolist()
        [[1], [-2]]
    """
    low = (packed << 4).view(torch.int8) >> 4  # A signed shift brings the sign along.
    high = packed.view(torch.int8) >> 4
    return torch.stack([low, high], 1).flatten(0, 1)
