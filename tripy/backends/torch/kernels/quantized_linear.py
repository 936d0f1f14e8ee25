"""Quantized linear layers: which kernel runs one, and the definition they all agree with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch
import torch.nn.functional as F

from tripy import dtypes
from tripy.backends.torch.kernels import cpu_bfloat16
from tripy.backends.torch.kernels.base import Kernel, PackedWeight
from tripy.backends.torch.kernels.cpu_int8 import (
    DigitsInt8,
    Int8Weight,
    StaticInt8,
    int8_products_are_exact,
    integer_product,
)
from tripy.backends.torch.kernels.cuda import prepare_linear
from tripy.backends.torch.kernels.cuda.available import missing
from tripy.backends.torch.kernels.expanded import Expanded, Int4Weight, PlainWeight
from tripy.backends.torch.kernels.layer import Choice, Layer, activate, choose
from tripy.backends.torch.lowering.quantization import rounded
from tripy.graph import Node

T = torch.Tensor
_NO_VNNI = "this processor's int8 products saturate (no VNNI or AMX instructions)"


def prepare(node: Node) -> Kernel:
    """Choose a kernel by data types, scales and processor, and pack the weight for it."""
    if node.output.device.kind == "gpu" or not missing(node.output.device):
        return prepare_linear(node)
    return choose(node, _static, _weight_only, _product)


def _channel_scale(layer: Layer) -> bool:
    """Whether the weight has one scale, or one for each output."""
    return layer.w_scale.dim() == 0 or layer.dim == 0


def _static(layer: Layer) -> Choice:
    """Input and weight are quantized."""
    assert layer.x_scale is not None
    if layer.kind is dtypes.int8 and int8_products_are_exact():
        run = StaticInt8(
            layer.pack(Int8Weight), layer.w_scale, layer.x_scale.item(), layer.bias,
            None if layer.out_scale is None else layer.out_scale.item(), layer.activation,
            layer.dtype,
        )  # fmt: skip
        return run, "oneDNN int8 GEMM (int8 x int8, int32 sums)", ""
    if layer.kind is dtypes.int8:
        return _integers(layer, layer.pack(PlainWeight)), "float32 GEMM of the integers", _NO_VNNI
    if layer.kind is dtypes.int4:
        weight = layer.pack(Int4Weight)
        return (
            _integers(layer, weight),
            "float32 GEMM of the integers",
            "the CPU has no int8 x int4 instruction: the weight is unpacked each time",
        )
    weight = layer.pack(PlainWeight)
    product = Expanded(weight, (layer.w_scale * layer.x_scale).float(), layer.dim, None)
    return (
        _finish(layer, lambda x: product(x.float())),
        "float8, emulated in float32",
        ("the CPU has no float8 instructions"),
    )


def _integers(layer: Layer, weight: Any) -> Callable:
    assert layer.x_scale is not None
    scale = (layer.w_scale * layer.x_scale).double()
    if isinstance(weight, PlainWeight):
        return _finish(layer, lambda x: (integer_product(x, weight.data) * scale).float())
    return _finish(layer, lambda x: (integer_product(x, weight.unpack()) * scale).float())


def _finish(layer: Layer, product: Callable[[T], T]) -> Callable[[T], T]:
    """Bias, activation and rounding after a scaled float32 product."""
    bias = None if layer.bias is None else layer.bias.float()
    out_scale = None if layer.out_scale is None else layer.out_scale.float()

    def run(x: T) -> T:
        result = product(x)
        if bias is not None:
            result = result + bias
        result = activate(result, layer.activation)
        if out_scale is not None:
            return rounded(result / out_scale, layer.node.attrs["dtype"])
        return result.to(layer.dtype)

    return run


def _weight_only(layer: Layer) -> Choice:
    """Only the weight is quantized; the result has the input's data type."""
    run, name, reason = _weight_only_product(layer)
    if layer.activation is None:
        return run, name, reason
    return (lambda x: activate(run(x), layer.activation)), name, reason


def _weight_only_product(layer: Layer) -> Choice:
    blocks = layer.w_scale.dim() == 2
    if layer.kind is dtypes.int8 and not blocks:
        columns = layer.node.inputs[1].shape[1]  # type: ignore[union-attr]
        # torch's kernel reads 16 columns at a time, also beyond the end.
        if layer.dtype is torch.bfloat16 and _channel_scale(layer) and columns % 16 == 0:
            run: Callable = cpu_bfloat16.Bfloat16Int8(
                layer.pack(PlainWeight), layer.w_scale, layer.bias
            )
            return run, "int8 weight, bfloat16 GEMM (torch's int8 kernel for few rows)", ""
        if int8_products_are_exact():
            run = DigitsInt8(
                layer.pack(Int8Weight), layer.w_scale, layer.bias, scale_input=layer.dim == 1
            )
            return run, "int8 weight, float32 input as three int8 digits (oneDNN int8 GEMM)", ""
        return _expanded(layer, PlainWeight), "int8 weight expanded, float GEMM", _NO_VNNI
    if layer.kind is dtypes.int4:
        tiles = _int4_tiles(layer)
        if tiles is not None:
            return tiles, "int4 weight, bfloat16 GEMM (torch's int4 kernel for few rows)", ""
        return (
            _expanded(layer, Int4Weight),
            "int4 weight expanded, float GEMM",
            ("torch has a fast int4 kernel for bfloat16 input only, blocks along the input"),
        )
    reason = "the CPU has no float8 instructions" if layer.kind is dtypes.float8 else (
        "one scale a block: there is no int8 kernel for it"
    )  # fmt: skip
    return _expanded(layer, PlainWeight), f"{layer.kind} weight expanded, float GEMM", reason


def _expanded(layer: Layer, layout: type) -> Expanded:
    return Expanded(layer.pack(layout), layer.w_scale, layer.dim, layer.bias)


def _int4_tiles(layer: Layer) -> Optional[Callable]:
    """torch's int4 kernel, where type, shape and scales fit it."""
    plain = layer.node.inputs[1].data  # type: ignore[union-attr]
    if isinstance(plain, PackedWeight):
        plain = plain.unpack()
    columns = plain.shape[1]
    scale = layer.w_scale
    if _channel_scale(layer) and columns % 32 == 0:
        scale = scale.expand(plain.shape[0])[:, None]
    if layer.dtype is not torch.bfloat16 or scale.dim() != 2 or scale.shape[0] != plain.shape[0]:
        return None
    if columns % scale.shape[1] or (columns // scale.shape[1]) % 32:
        return None
    if not cpu_bfloat16.tiles_fit(plain):
        return None
    return cpu_bfloat16.Bfloat16Int4(layer.pack(cpu_bfloat16.Int4Tiles), scale, layer.bias)


def _product(attrs: dict[str, Any], x: T, weight: T, bias: Optional[T]) -> T:
    return F.linear(x, weight, bias)
