"""Floating-point linear layers."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F

from tripy.backends.base import ReportRow
from tripy.backends.torch.kernels.base import Kernel, node_name
from tripy.graph import Node


def _run(x: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor]) -> torch.Tensor:
    return F.linear(x, weight, bias)


def prepare(node: Node) -> Kernel:
    """torch's linear in the data type of the node."""
    weight = node.inputs[1]
    size = 0
    if weight is not None and weight.data is not None:
        size = weight.data.numel() * weight.data.element_size()
    row = ReportRow(node_name(node), node.op, f"torch linear, {node.output.dtype} GEMM", "", size)
    return Kernel(_run, node.inputs, row)
