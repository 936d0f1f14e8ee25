"""Kernels of fused operations: each node chooses one when its program is made."""

from __future__ import annotations

from collections.abc import Callable

from tripy.backends.torch.kernels.attention import attention
from tripy.backends.torch.kernels.base import Kernel, PackedWeight
from tripy.backends.torch.kernels.linear import float_linear
from tripy.backends.torch.kernels.quantized_linear import quantized_linear
from tripy.graph import Node

KERNELS: dict[str, Callable[[Node], Kernel]] = {
    "linear": float_linear,
    "quantized_linear": quantized_linear,
    "scaled_dot_product_attention": attention,
}

__all__ = ["KERNELS", "Kernel", "PackedWeight"]
