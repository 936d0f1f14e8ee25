"""The end of a residual block: an int8 convolution, an int8 residual added, int8 out of it.

oneDNN adds the residual in the call that rounds the result, so that nothing of float32's size is
written. That is worth it for results as large as the inputs of a network's first blocks; where the
residual or the result is float32, adding in oneDNN took as long as adding afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

import torch

from tripy import dtypes
from tripy.backends.torch.kernels.base import Kernel
from tripy.backends.torch.kernels.cpu_int8_convolution import Int8Kernel, StaticInt8Convolution
from tripy.backends.torch.kernels.layer import activate
from tripy.backends.torch.lowering.quantization import rounded
from tripy.graph import Node, make_node

T = torch.Tensor


class ResidualInt8Convolution(StaticInt8Convolution):
    """``activation(convolution(x, w) * x_scale * w_scale + bias + r * r_scale)``, rounded."""

    def __init__(
        self, weight: Int8Kernel, w_scale: T, x_scale: float, bias: Optional[T], r_scale: float,
        out_scale: float, activation: Optional[str],
    ) -> None:  # fmt: skip
        super().__init__(weight, w_scale, x_scale, bias, out_scale, activation, torch.int8)
        self._r_scale = r_scale

    def add(self, x: T, residual: T) -> T:
        """The layer's result; the residual stays as it is."""
        flat = x.dim() == 3
        if flat:
            x, residual = x.unsqueeze(2), residual.unsqueeze(2)
        # oneDNN adds into this tensor, and only into one with the channels last.
        total = residual.clone(memory_format=torch.channels_last)
        weight = self._weight
        result = torch.ops.onednn.qconv2d_pointwise.binary(
            weight.prepare(x), self._x_scale, 128, weight.data, self._w_scale, self._w_zero, total,
            self._bias, *weight.geometry, self._out_scale, 0, torch.int8, self._r_scale, 0, "sum",
            1.0, self._post, [], "",
        )  # fmt: skip
        return result.squeeze(2) if flat else result


def prepare(node: Node, convolution: Callable[[Node], Kernel], sizes: Sequence[int]) -> Kernel:
    """The kernel of a convolution with a residual, from that of the same one without.

    Args:
        node: Has a residual, and an output scale.
        convolution: Gives the kernel of a convolution without.
        sizes: The input's usual shape.
    """
    attrs = {**node.attrs, "activation": None, "dtype": dtypes.float32}
    where = node.output.device
    plain = make_node(node.op, [*node.inputs[:5], None], attrs, node.location, where)
    plain.output.name = node.output.name
    kernel = convolution(plain)
    node.inputs[1] = plain.inputs[1]  # Packed.
    values = (*node.inputs[2:6], node.inputs[7])
    fused = _fused(node, [None if value is None else value.data for value in values], sizes)
    if fused is not None:
        function, inputs, how = fused.add, [node.inputs[0], node.inputs[6]], "residual"
    else:
        function = _unfused(node, kernel.function, len(kernel.inputs))
        inputs = [*kernel.inputs, node.inputs[6], node.inputs[7], node.inputs[5]]
        how = "residual by itself"
    words = [f"{kernel.row.kernel} + {how}", node.attrs["activation"], f"→ {node.attrs['dtype']}"]
    return Kernel(function, inputs, kernel.row._replace(kernel=" ".join(filter(None, words))))


def _unfused(node: Node, convolution: Callable, count: int) -> Callable:
    """One operation after the other, after the convolution with its ``count`` inputs."""

    def run(*inputs: T) -> T:
        residual, r_scale, out_scale = inputs[count:]
        result = convolution(*inputs[:count]) + residual.to(r_scale.dtype) * r_scale
        return rounded(activate(result, node.attrs["activation"]) / out_scale, node.attrs["dtype"])

    return run


def _fused(
    node: Node, scales: Sequence[Optional[T]], sizes: Sequence[int]
) -> Optional[ResidualInt8Convolution]:
    """oneDNN's call for it, if the convolution itself is one of oneDNN's and this one is right."""
    w_scale, x_scale, bias, out_scale, r_scale = scales
    weight = node.inputs[1].data  # type: ignore[union-attr]
    if not isinstance(weight, Int8Kernel) or len(node.output.shape) > 4:
        return None
    if w_scale is None or x_scale is None or out_scale is None or r_scale is None:
        return None
    if not _is_exact(weight, sizes):
        return None
    return ResidualInt8Convolution(
        weight, w_scale, x_scale.item(), bias, r_scale.item(), out_scale.item(),
        node.attrs["activation"],
    )  # fmt: skip


def _is_exact(weight: Int8Kernel, sizes: Sequence[int]) -> bool:
    """Whether oneDNN's sum gives what adding does, tried where nothing but the result is rounded.

    The convolution by itself has been tried by then (see quantized_convolution.py).
    """
    random = torch.Generator().manual_seed(0)
    shape = (min(sizes[0], 1), *sizes[1:])
    x = torch.randint(-128, 128, shape, dtype=torch.int8, generator=random)
    # Sums of n products of two int8 numbers are about 2**12 sqrt(n): made as large as the residual.
    step = 2.0 ** -(6 + (weight.taps.numel() * weight.channels // weight.groups).bit_length() // 2)
    args = (weight, torch.tensor(step), 1.0, None)
    convolved = StaticInt8Convolution(*args, None, None, torch.float32)(x, ())
    residual = torch.randint(-128, 128, convolved.shape, dtype=torch.int8, generator=random)
    wanted = rounded(activate(convolved + residual * 0.5, "relu") / 2, dtypes.int8)
    try:
        found = ResidualInt8Convolution(*args, 0.5, 2.0, "relu").add(x, residual)
    except RuntimeError:  # This torch has none.
        return False
    return torch.equal(found, wanted)
