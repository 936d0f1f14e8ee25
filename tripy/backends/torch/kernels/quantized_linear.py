"""Quantized linear layers: which kernel runs one, and the definition they all agree with."""

from __future__ import annotations

from typing import Any, Optional

import torch
import torch.nn.functional as F

from tripy.backends.base import ReportRow
from tripy.backends.torch.kernels.base import Kernel, node_name
from tripy.backends.torch.lowering.quantization import aligned_scale, rounded
from tripy.graph import Node

T = torch.Tensor


def activate(x: T, activation: Optional[str]) -> T:
    """The activation of a fused node."""
    if activation is None:
        return x
    if activation == "relu":
        return F.relu(x)
    if activation == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def reference(
    attrs: dict[str, Any], x: T, weight: T, w_scale: T, x_scale: Optional[T],
    bias: Optional[T], out_scale: Optional[T],
) -> T:  # fmt: skip
    """The unfused operations, one after the other."""
    if x_scale is not None:
        x = x.to(x_scale.dtype) * x_scale
    expanded = weight.to(w_scale.dtype) * aligned_scale(w_scale, weight.shape, attrs["dim"])
    result = activate(F.linear(x, expanded, bias), attrs["activation"])
    return result if out_scale is None else rounded(result / out_scale, attrs["dtype"])


def quantized_linear(node: Node) -> Kernel:
    """Choose a kernel by data types, scales and the processor."""
    attrs = node.attrs
    row = ReportRow(node_name(node), node.op, "torch, dequantized", "no kernel", 0)
    return Kernel(lambda *inputs: reference(attrs, *inputs), node.inputs, row)
