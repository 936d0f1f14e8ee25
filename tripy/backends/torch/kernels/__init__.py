"""Kernels of fused operations: each node chooses one when its program is made."""

from __future__ import annotations

from collections.abc import Callable

from tripy.backends.torch.kernels import (
    attention,
    cuda,
    linear,
    quantized_convolution,
    quantized_linear,
)
from tripy.backends.torch.kernels.base import Kernel, PackedWeight
from tripy.graph import Node

KERNELS: dict[str, Callable[[Node], Kernel]] = {
    "gather_rows": cuda.prepare_rows,
    "linear": linear.prepare,
    "quantized_convolution": quantized_convolution.prepare,
    "normalize_quantize": cuda.prepare_norm,
    "normalized_linear": cuda.prepare_linear,
    "quantized_linear": quantized_linear.prepare,
    "scaled_dot_product_attention": attention.prepare,
}

__all__ = ["KERNELS", "Kernel", "PackedWeight"]
