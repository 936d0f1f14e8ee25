"""Quantized linear layers on NVIDIA GPUs: which kernel runs one, by its types and rows.

Few rows (a decode step) read the packed weight once, at the speed of memory, with the normalization
in front and the residual behind in the same kernel. Many rows multiply small integers or float8 on
the tensor cores; where only the weight is quantized, for a product in floating point, it is
converted on its way there, or expanded in memory first where that is not slower or the only way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Optional, cast

import torch
import torch.nn.functional as F

from tripy import dtypes
from tripy.backends.base import ReportRow
from tripy.backends.torch.kernels.base import Kernel, PackedWeight, node_name, pack_weight
from tripy.backends.torch.kernels.cuda import (
    native,
    native_mixed_gemm,
    native_weight_only,
    packing,
)
from tripy.backends.torch.kernels.cuda.available import capability, launches_early, missing
from tripy.backends.torch.kernels.layer import activate, expand
from tripy.backends.torch.lowering.quantization import rounded
from tripy.backends.torch.storage import TORCH_TYPES
from tripy.graph import Node, Value
from tripy.graph.operations.quantization import block_axis

if TYPE_CHECKING:
    from tripy.backends.torch.kernels.cuda.packing import GpuWeight

T = torch.Tensor
# Up to here one kernel normalizes and multiplies: each of its programs normalizes all rows.
_ROWS_WITH_NORM, _WIDTH_WITH_NORM = 8, 8192
# Up to here the weight is what a product has to read: beyond, tensor cores are kept busy.
_FEW_ROWS = {"static": 8, "weight only": 64}
_SMALLEST_BLOCK = 16
_FIELDS = {
    "quantized_linear": (
        "x", "weight", "w_scale", "x_scale", "bias", "out_scale", "residual"),
    "normalized_linear": (
        "x", "norm_weight", "norm_bias", "x_scale", "weight", "w_scale", "bias", "out_scale",
        "residual"),
}  # fmt: skip


class Layer(NamedTuple):
    """A fused node's inputs by name."""

    node: Node
    position: int  # of the weight among the node's inputs
    x: Value
    weight: Value
    w_scale: Value
    x_scale: Optional[Value]
    bias: Optional[Value]
    out_scale: Optional[Value]
    residual: Optional[Value]
    norm_weight: Optional[Value] = None
    norm_bias: Optional[Value] = None

    @property
    def constants(self) -> list[Optional[Value]]:
        return [
            self.weight, self.w_scale, self.x_scale, self.bias, self.out_scale, self.norm_weight,
            self.norm_bias,
        ]  # fmt: skip


def _layer(node: Node) -> Layer:
    names = _FIELDS[node.op]
    values: dict[str, Any] = dict(zip(names, node.inputs))
    values.setdefault("residual", None)  # Files of earlier versions have none.
    return Layer(node, names.index("weight"), **values)


def prepare(node: Node) -> Kernel:
    """The kernels of a quantized linear layer on a GPU, or its operations one by one."""
    layer = _layer(node)
    reason = _why_not(layer)
    if reason is not None:
        return _one_by_one(layer, reason)
    run = GpuLinear(layer)
    row = ReportRow(node_name(node), node.op, run.describe(), run.why_not_native, run.weight.nbytes)
    return Kernel(run, [v for v in (layer.x, layer.residual) if v is not None], row)


def _why_not(layer: Layer) -> Optional[str]:
    where = missing(layer.weight.device)
    if where is not None:
        return where
    if any(v is not None and v.data is None for v in layer.constants):
        return "a weight, scale or bias is computed at run time"
    if not layer.weight.data.shape.numel():
        return "the weight has no elements"
    scale, shape = layer.w_scale.data, tuple(layer.weight.shape)
    if scale.dim() == 2:
        if block_axis(shape, tuple(scale.shape)) != 1:  # type: ignore[arg-type]
            return "blocks of the scale lie along the outputs"
        if shape[1] // scale.shape[1] < _SMALLEST_BLOCK:  # type: ignore[operator]
            return f"blocks of the scale are smaller than {_SMALLEST_BLOCK}"
    elif scale.dim() == 1 and layer.node.attrs["dim"] != 0:
        return "the weight has a scale for each input"
    float8 = layer.weight.dtype is dtypes.float8
    if float8 and capability(layer.weight.device) < (8, 9):
        return "float8 needs compute capability 8.9"
    return None


def _one_by_one(layer: Layer, reason: str) -> Kernel:
    attrs = layer.node.attrs
    held: list[Value] = [v for v in layer[2:] if v is not None]

    def run(*inputs: Any) -> T:
        data = {id(value): data for value, data in zip(held, inputs)}
        found: list[Any] = [None if v is None else data[id(v)] for v in layer[2:]]
        x, weight, w_scale, x_scale, bias, out_scale, residual, norm_weight, norm_bias = found
        if norm_weight is not None:
            x = _normalized(attrs, x, norm_weight, norm_bias)
            if x_scale is not None:
                kind = layer.weight.dtype if layer.weight.dtype is dtypes.float8 else dtypes.int8
                x = rounded(x.float() / x_scale.float(), kind)
        if x_scale is not None:
            x = x.to(x_scale.dtype) * x_scale
        plain = weight.unpack() if isinstance(weight, PackedWeight) else weight
        result = F.linear(x, expand(plain, w_scale, attrs["dim"]), bias)
        result = activate(result, attrs["activation"])
        if residual is not None:
            result = result + residual
        return result if out_scale is None else rounded(result / out_scale, attrs["dtype"])

    data = layer.weight.data
    size = 0 if data is None else data.nbytes
    name = "torch, operation by operation"
    return Kernel(run, held, ReportRow(node_name(layer.node), layer.node.op, name, reason, size))


def _normalized(attrs: dict[str, Any], x: T, weight: T, bias: Optional[T]) -> T:
    if attrs["kind"] == "rms":
        return F.rms_norm(x, weight.shape, weight, attrs["eps"])
    return F.layer_norm(x, weight.shape, weight, bias, attrs["eps"])


def _number(value: Optional[Value]) -> Optional[float]:
    return None if value is None else float(value.data)


class GpuLinear:
    """``activation(norm(x) @ (weight * scale).T + bias) + residual``, divided by a scale, rounded.

    Called with x [..., K] and, if the layer has one, the residual [..., N].
    """

    def __init__(self, layer: Layer) -> None:
        from tripy.backends.torch.kernels.cuda import (  # noqa: PLC0415  (Triton is optional)
            gemm,
            normalization,
            weight_only,
        )

        self._gemm, self._norms, self._few = gemm, normalization, weight_only
        attrs = self._attrs = layer.node.attrs
        kind = layer.weight.dtype
        packers = {
            "int8": packing.pack_int8, "int4": packing.pack_int4, "float8": packing.pack_fp8,
        }  # fmt: skip
        pack = packers[kind.name]
        name = f"cuda.{pack.__name__}"
        self.weight = cast("GpuWeight", pack_weight(layer.node, layer.position, name, pack))
        self.kind = kind
        self.quantized = torch.float8_e4m3fn if kind is dtypes.float8 else torch.int8
        # What is computed in, and what comes out.
        self.dtype = TORCH_TYPES[layer.w_scale.dtype]
        self.out = TORCH_TYPES[attrs["dtype"]]
        self.scale = layer.w_scale.data.float().reshape(-1) if layer.w_scale.rank < 2 else (
            layer.w_scale.data.float().contiguous()
        )  # fmt: skip
        self.x_scale, self.out_scale = _number(layer.x_scale), _number(layer.out_scale)
        self.bias = None if layer.bias is None else layer.bias.data
        self.norm = None
        if layer.norm_weight is not None:
            bias = None if layer.norm_bias is None else layer.norm_bias.data
            self.norm = weight_only.Norm(attrs["kind"], layer.norm_weight.data, bias, attrs["eps"])
        self.static = self.x_scale is not None
        self.by_integers = self.static and kind is not dtypes.int4 and layer.w_scale.rank < 2
        self.no_native = native_weight_only.available(layer.weight.device)
        if self.x_scale is not None and self.by_integers:
            both = self.scale * self.x_scale
            self.both_scales = both.expand(self.weight.shape[0]).contiguous()
        self.why_not_native = self._why_not_native_few(TORCH_TYPES[layer.x.dtype]) or ""
        self.most_native = self._most_native(TORCH_TYPES[layer.x.dtype])
        self.bias32 = None if self.bias is None else self.bias.float().contiguous()
        self.why_not_mixed = native_mixed_gemm.why_not(
            layer.weight.device, self.weight.shape[1], self.scale, self.dtype
        )
        self.few = _FEW_ROWS["static" if self.by_integers else "weight only"]
        if not self.by_integers and not self.why_not_native:
            self.few = max(self.few, self.most_native)
        self.pdl = launches_early(layer.weight.device)

    def describe(self) -> str:
        """For the report."""
        few = f"Triton, {self.kind} weight read once, to {self.few} rows"
        if not self.why_not_native:
            most = min(self.few, self.most_native)
            few = f"native to {most} rows, {few}" if most < self.few else f"native{few[6:]}"
        maker = "Triton" if self.no_native else "native"
        many = (
            f"{maker} {self.kind} tensor-core GEMM" if self.by_integers
            else f"{self._plain()}, {str(self.dtype).removeprefix('torch.')} GEMM"
        )  # fmt: skip
        parts = ["norm + "] if self.norm else []
        parts += [f"{few}; {many} beyond"]
        parts += [f" {self._attrs['activation']}"] if self._attrs["activation"] else []
        parts += [f" → {self._attrs['dtype']}"] if self.out_scale is not None else []
        return "".join(parts)

    def _plain(self) -> str:
        """Where the weight of many rows gets the type in which it is multiplied."""
        return f"weight {'' if self.why_not_mixed else 'converted in registers or '}expanded"

    def __call__(self, x: T, residual: Optional[T] = None) -> T:
        outputs = self.weight.shape[0]
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        added = None if residual is None else residual.reshape(-1, outputs).contiguous()
        if not rows.shape[0]:
            return x.new_empty((*x.shape[:-1], outputs), dtype=self.out)
        run = self._few_rows if rows.shape[0] <= self.few else self._many_rows
        return run(rows, added).view(*x.shape[:-1], outputs)

    def _fits_norm(self, x: T) -> bool:
        return x.shape[0] <= _ROWS_WITH_NORM and x.shape[1] <= _WIDTH_WITH_NORM

    def _rounds(self, x_type: torch.dtype) -> bool:
        """Whether x is rounded by the kernel that multiplies it."""
        return self.static and x_type.is_floating_point and x_type is not self.quantized

    def _why_not_native_few(self, x_type: torch.dtype) -> Optional[str]:
        """Why few rows of a type are multiplied by Triton's kernel; None where by the library's."""
        if self.no_native is not None:
            return self.no_native
        columns = self.weight.shape[1]
        group = columns // self.scale.shape[1] if self.scale.dim() == 2 else 1
        return native_weight_only.reason(
            self.weight.kind, columns, group, x_type, self._rounds(x_type)
        )

    def _most_native(self, x_type: torch.dtype) -> int:
        """Up to how many rows of a type the library's kernel is the faster one."""
        shape, blocks = self.weight.shape, self.scale.dim() == 2 and self.scale.shape[1] > 1
        return native_weight_only.most_rows(
            self.weight.kind, (shape[0], shape[1]), blocks, x_type, self._rounds(x_type)
        )

    def _few_rows(self, x: T, residual: Optional[T]) -> T:
        norm = None
        # The library's kernel is behind a launch of its own for the normalization, which was faster
        # from 1 to 16 rows: each block would do it again.
        if self.no_native is None or not self._fits_norm(x):
            x = self._normalize(x)
        else:
            norm = self.norm
        rounds = self._rounds(x.dtype)
        options: dict[str, Any] = {
            "bias": self.bias, "residual": residual, "dtype": self.dtype,
            "activation": self._attrs["activation"], "in_scale": self.x_scale if rounds else None,
            "x_scale": self.x_scale if self.static and not rounds else None, "pdl": self.pdl,
        }  # fmt: skip
        few = x.shape[0] <= self._most_native(x.dtype)  # Beyond, Triton's is faster.
        if few and self._why_not_native_few(x.dtype) is None:
            return native_weight_only.weight_only(
                x, self.weight, self.scale, out_scale=self.out_scale, out_dtype=self.out, **options
            )
        product = self._few.weight_only_gemm(x, self.weight, self.scale, norm=norm, **options)
        return self._rounded(product)

    def _many_rows(self, x: T, residual: Optional[T]) -> T:
        x = self._normalize(x)
        activation = self._attrs["activation"]
        if self.by_integers:
            weight = self.weight.data
            if weight.shape[1] != x.shape[1]:  # Its rows are padded; zeros add nothing.
                pad = (0, weight.shape[1] - x.shape[1])
                x = F.pad(x.view(torch.int8), pad).view(x.dtype)  # Padding knows no float8.
            fits = not self.no_native and not native.reason(x.shape, weight.shape, self.out)
            product = native.scaled_gemm if fits else self._gemm.scaled_gemm
            return product(
                x, weight, self.both_scales, bias=self.bias32, activation=activation,
                residual=residual, out_scale=self.out_scale, dtype=self.out,
            )  # fmt: skip
        if self.x_scale is not None:
            x = x.to(self.dtype)
        blocks = self.scale.dim() == 2 and self.scale.shape[1] > 1
        tile = native_mixed_gemm.choose(x.shape[0], self.weight.shape, blocks)
        if self.why_not_mixed is None and tile is not None and x.dtype is self.dtype:
            result = native_mixed_gemm.mixed_gemm(
                x, self.weight, self.scale, bias=self.bias32,
                residual=residual, activation=activation, dtype=self.dtype, tile=tile,
                factor=1.0 if self.x_scale is None else self.x_scale,
            )  # fmt: skip
            return self._rounded(result)
        if self.x_scale is not None:
            x = x * self.x_scale
        weight = self._few.dequantize(self.weight, self.scale, self.dtype)
        result = activate(F.linear(x, weight, self.bias), activation)
        return self._rounded(result if residual is None else result + residual)

    def _normalize(self, x: T) -> T:
        if self.norm is None:
            return x
        kind = self.quantized if self.static else x.dtype
        return self._norms.normalize(
            x, self.norm.weight, self.norm.bias, self.norm.eps, kind=self.norm.kind,
            scale=self.x_scale, dtype=kind, pdl=self.pdl,
        )[1]  # fmt: skip

    def _rounded(self, result: T) -> T:
        if self.out_scale is None:
            return result
        return self._norms.quantize_rows(result, scale=self.out_scale, dtype=self.out)[0]
