"""What quantized linear layers and convolutions share: their parts, and how a kernel is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F

from tripy import dtypes
from tripy.backends.base import ReportRow
from tripy.backends.torch.kernels.base import Kernel, PackedWeight, node_name, pack_weight
from tripy.backends.torch.lowering.quantization import aligned_scale, rounded
from tripy.backends.torch.storage import TORCH_TYPES
from tripy.graph import Node

T = torch.Tensor
Choice = tuple[Callable, str, str]  # Function, name of the kernel, reason.


class Layer(NamedTuple):
    """A fused node's parts: constants as tensors, None where there is none."""

    node: Node
    w_scale: T
    x_scale: Optional[T]
    bias: Optional[T]
    out_scale: Optional[T]

    @property
    def attrs(self) -> dict[str, Any]:
        return self.node.attrs

    @property
    def dim(self) -> Optional[int]:
        """The dimension of the weight that its scale belongs to."""
        return self.node.attrs["dim"]

    @property
    def activation(self) -> Optional[str]:
        return self.node.attrs["activation"]

    @property
    def kind(self) -> dtypes.dtype:
        """The weight's data type."""
        return self.node.inputs[1].dtype  # type: ignore[union-attr]

    @property
    def dtype(self) -> torch.dtype:
        """The result's data type."""
        return TORCH_TYPES[self.node.attrs["dtype"]]

    def pack(self, layout: Callable, name: str = "") -> Any:
        """The weight in a kernel's layout, which takes the plain one's place in the graph."""
        return pack_weight(self.node, 1, f"{self.node.op}.{name or layout.__name__}", layout)


def choose(
    node: Node,
    static: Callable[[Layer], Choice],
    weight_only: Callable[[Layer], Choice],
    product: Callable[[dict[str, Any], T, T, Optional[T]], T],
) -> Kernel:
    """The kernel of a node: one that computes with its constants, or operation by operation.

    Args:
        node: A fused node.
        static: Chooses where input and weight are quantized.
        weight_only: Chooses where the weight alone is.
        product: ``product(attrs, x, weight, bias)``, the floating-point operation.
    """
    weight, *parts = node.inputs[1:6]
    if any(v is not None and v.data is None for v in [weight, *parts]):
        reason = "a weight, scale or bias is computed at run time"
    elif weight.device.kind != "cpu":  # type: ignore[union-attr]
        reason = "there is no quantized kernel for this device yet"
    elif not weight.data.shape.numel():  # type: ignore[union-attr]
        reason = "the weight has no elements"
    else:
        constants: list[Any] = [None if v is None else v.data for v in parts]
        layer = Layer(node, *constants)
        chosen = static if layer.x_scale is not None else weight_only
        return _kernel(node, node.inputs[:1], *chosen(layer))
    function = _unfused(node.attrs, product)
    return _kernel(node, node.inputs[:6], function, "torch, operation by operation", reason)


def _unfused(attrs: dict[str, Any], product: Callable) -> Callable:
    """The unfused operations, one after the other."""

    def run(
        x: T, weight: Any, w_scale: T, x_scale: Optional[T], bias: Optional[T],
        out_scale: Optional[T],
    ) -> T:  # fmt: skip
        if isinstance(weight, PackedWeight):
            weight = weight.unpack()
        if x_scale is not None:
            x = x.to(x_scale.dtype) * x_scale
        result = product(attrs, x, expand(weight, w_scale, attrs["dim"]), bias)
        result = activate(result, attrs["activation"])
        return result if out_scale is None else rounded(result / out_scale, attrs["dtype"])

    return run


def expand(weight: T, scale: T, dim: Optional[int]) -> T:
    """A quantized weight in its scale's floating-point type."""
    return weight.to(scale.dtype) * aligned_scale(scale, weight.shape, dim)


def _kernel(node: Node, inputs: Any, function: Callable, name: str, reason: str) -> Kernel:
    data = node.inputs[1].data  # type: ignore[union-attr]
    extras = [] if node.attrs["activation"] is None else [node.attrs["activation"]]
    if node.inputs[5] is not None:
        extras.append(f"→ {node.attrs['dtype']}")
    name = " ".join([name, *extras])
    size = 0 if data is None else data.nbytes
    return Kernel(function, inputs, ReportRow(node_name(node), node.op, name, reason, size))


def activate(x: T, activation: Optional[str]) -> T:
    """The activation of a fused node."""
    if activation is None:
        return x
    if activation == "relu":
        return F.relu(x)
    if activation == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
