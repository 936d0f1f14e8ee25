"""Quantized convolutions: which kernel runs one, and the definition they all agree with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy import dtypes
from tripy.backends.torch.kernels import residual_convolution
from tripy.backends.torch.kernels.base import Kernel, PackedWeight
from tripy.backends.torch.kernels.cpu_int8_convolution import (
    POST,
    Int8Kernel,
    StaticInt8Convolution,
    why_not_int8,
)
from tripy.backends.torch.kernels.expanded import Int4Weight, PlainWeight
from tripy.backends.torch.kernels.layer import Choice, Layer, activate, choose, expand
from tripy.backends.torch.lowering import LOWERINGS
from tripy.backends.torch.lowering.quantization import rounded
from tripy.graph import Node, dims

T = torch.Tensor
# As many products of two int8 numbers (up to 2**14 each) sum exactly in float32's 24 bits.
_FLOAT32_PRODUCTS = 1024
_NO_INT4 = "the CPU has no int4 instructions"


class Int4Kernel(PackedWeight):
    """An int4 kernel, two numbers to a byte."""

    def __init__(self, weight: T) -> None:
        self.shape, self._rows = weight.shape, Int4Weight(weight.flatten(1))

    def unpack(self) -> T:
        return self._rows.unpack().view(self.shape)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes


def prepare(node: Node) -> Kernel:
    """Choose a kernel by data types and processor, and pack the weight for it."""
    if len(node.inputs) > 6:
        return residual_convolution.prepare(node, prepare, _usual_sizes(node))
    return choose(node, _static, _weight_only, _convolve)


def _pack_small(layer: Layer) -> PackedWeight:
    """The weight as small as its type is."""
    return layer.pack(Int4Kernel if layer.kind is dtypes.int4 else PlainWeight)


def _static(layer: Layer) -> Choice:
    """Input and weight are quantized."""
    if layer.kind is dtypes.float8:
        run = _in_floats(layer, _pack_small(layer), torch.float32)
        return run, "float8, emulated in float32", "the CPU has no float8 instructions"
    reason = why_not_int8()
    if not reason:
        return _int8(layer)
    return _exact_floats(layer, f"{_NO_INT4}; {reason}" if layer.kind is dtypes.int4 else reason)


def _exact_floats(layer: Layer, reason: str) -> Choice:
    """The integers convolved in a floating-point type that holds their sums."""
    products = layer.node.inputs[1].shape[1:]  # type: ignore[union-attr]
    if layer.attrs["transposed"]:
        products = (layer.node.inputs[0].shape[1], *products[1:])  # type: ignore[union-attr]
    few = dims.product(products) <= _FLOAT32_PRODUCTS  # type: ignore[operator]
    kind = torch.float32 if few else torch.float64
    name = f"{'float32' if few else 'float64'} convolution of the integers"
    return _in_floats(layer, _pack_small(layer), kind), name, reason


def _int8(layer: Layer) -> Choice:
    node, attrs = layer.node, layer.attrs
    assert layer.x_scale is not None
    sizes = _usual_sizes(node)
    geometry = [attrs[n] for n in ("stride", "padding", "dilation", "groups", "transposed")]
    plain = _plain(node)
    weight = layer.pack(lambda w: Int8Kernel(w, attrs, sizes), f"Int8Kernel{geometry}{sizes}")
    if not _is_exact(layer, weight, plain, sizes):
        return _exact_floats(layer, "oneDNN's int8 convolution is wrong for this shape, as tried")
    # oneDNN may do the activation and the rounding too, if it has the activation.
    fused = attrs["activation"] is None or (attrs["activation"] in POST and len(sizes) < 5)
    whole = fused and layer.out_scale is not None
    run = StaticInt8Convolution(
        weight, layer.w_scale, layer.x_scale.item(), layer.bias,
        layer.out_scale.item() if whole and layer.out_scale is not None else None,
        attrs["activation"] if fused else None, torch.int8 if whole else torch.float32,
    )  # fmt: skip
    function = _sized(node, run)
    if not whole:
        function = _followed(function, layer, None if fused else attrs["activation"])
    name, notes = "oneDNN int8 convolution (int8 x int8, int32 sums)", []
    if layer.kind is dtypes.int4:
        notes.append(f"int4 weight held as int8: {_NO_INT4}")
    if attrs["transposed"]:
        name = "oneDNN int8 convolution, transposed (int8 x int8, int32 sums)"
        notes.append(_how_transposed(weight))
    return function, name, "; ".join(notes)


def _usual_sizes(node: Node) -> tuple[int, ...]:
    """The input's shape; a dynamic size is taken as the one to be fast for."""
    known = node.inputs[0].shape  # type: ignore[union-attr]
    usual = {s.name: s.optimum for size in known for s in dims.symbols(size)}
    return tuple(dims.evaluate(size, usual) for size in known)


def _plain(node: Node) -> T:
    """The weight, unpacked."""
    data = node.inputs[1].data  # type: ignore[union-attr]
    return data.unpack() if isinstance(data, PackedWeight) else data


def _is_exact(layer: Layer, weight: Int8Kernel, plain: T, sizes: tuple[int, ...]) -> bool:
    """Whether oneDNN's kernel gives the sums that it should, tried on random numbers.

    Releases of oneDNN differ by processor in the shapes that they get wrong, and a wrong number
    must never come out: each layer is tried once, when its program is made.
    """
    random = torch.Generator().manual_seed(0)
    shape = (min(sizes[0], 1), *sizes[1:])
    x = torch.randint(-128, 128, shape, dtype=torch.int8, generator=random)
    try:
        kernel = StaticInt8Convolution(
            weight, torch.tensor(1.0), 1.0, None, None, None, torch.float32
        )
        found = _sized(layer.node, kernel)(x)
    except RuntimeError:  # Nothing comes out of it either.
        return False
    wanted = _convolve(layer.attrs, x.double(), plain.double(), None).float()
    return torch.equal(found, wanted) and torch.equal(weight.unpack(), plain)


def _how_transposed(weight: Int8Kernel) -> str:
    spread = any(axis.spread > 1 for axis in weight.axes)
    results = torch.Size([axis.results for axis in weight.axes]).numel()
    if spread:
        return "stride and dilation: zeros are put between the inputs, and multiplied too"
    if results > 1:
        return f"an ordinary convolution with {results} results a position, then interleaved"
    return "an ordinary convolution with the kernel turned around"


def _sized(node: Node, run: StaticInt8Convolution) -> Callable[[T], T]:
    """Only transposed convolutions have to be told the size of their result."""
    if not node.attrs["transposed"]:
        return lambda x: run(x, ())
    extents = node.inputs[1].shape[2:]  # type: ignore[union-attr]
    axes = list(zip(extents, node.attrs["padding"], node.attrs["stride"], node.attrs["dilation"]))

    def function(x: T) -> T:
        sizes = [
            (n - 1) * stride + dilation * (extent - 1) + 1 - sum(padding)
            for n, (extent, padding, stride, dilation) in zip(x.shape[2:], axes)
        ]
        return run(x, sizes)

    return function


def _followed(product: Callable[[T], T], layer: Layer, activation: Optional[str]) -> Callable:
    """What follows a scaled float32 convolution: activation, and rounding or the result's type."""
    out_scale = None if layer.out_scale is None else layer.out_scale.float()
    if activation is None and out_scale is None and layer.dtype is torch.float32:
        return product

    def run(x: T) -> T:
        result = activate(product(x), activation)
        if out_scale is not None:
            return rounded(result / out_scale, layer.attrs["dtype"])
        return result.to(layer.dtype)

    return run


def _in_floats(layer: Layer, weight: PackedWeight, kind: torch.dtype) -> Callable:
    """Quantized numbers convolved in a floating-point type that holds their sums exactly."""
    assert layer.x_scale is not None
    rank = len(layer.node.output.shape)
    scale = (layer.w_scale * layer.x_scale).to(kind)
    if scale.dim():
        groups = layer.attrs["groups"] if layer.attrs["transposed"] else 1
        scale = _per_channel(scale.repeat(groups), rank)
    bias = None if layer.bias is None else _per_channel(layer.bias.float(), rank)

    def product(x: T) -> T:
        sums = _convolve(layer.attrs, x.to(kind), weight.unpack().to(kind), None)
        result = sums.mul_(scale).float()
        return result if bias is None else result.add_(bias)

    return _followed(product, layer, layer.attrs["activation"])


def _per_channel(values: T, rank: int) -> T:
    return values.view(-1, *[1] * (rank - 2))


def _weight_only(layer: Layer) -> Choice:
    """Only the weight is quantized; the result has the input's data type."""
    weight, attrs = _pack_small(layer), layer.attrs

    def run(x: T) -> T:
        expanded = expand(weight.unpack(), layer.w_scale, attrs["dim"])
        return activate(_convolve(attrs, x, expanded, layer.bias), attrs["activation"])

    reason = "input not quantized: the weight is kept small and expanded at each call"
    return run, f"{layer.kind} weight expanded, float convolution", reason


def _convolve(attrs: dict[str, Any], x: T, weight: T, bias: Optional[T]) -> T:
    return LOWERINGS["conv_transpose" if attrs["transposed"] else "convolution"](
        attrs, x, weight, bias
    )
