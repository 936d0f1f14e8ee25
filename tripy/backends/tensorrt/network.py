"""A TensorRT network under construction: small helpers that the lowerings are written with.

Tensors here are TensorRT's ITensors. Helpers take sizes as tripy has them: a number where a size is
known, a symbolic expression where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch

from tripy import dtypes
from tripy.backends.tensorrt.sizes import Sizes, is_static
from tripy.backends.torch import storage
from tripy.graph import Node, Value
from tripy.graph.dims import Dim

# Elements that TensorRT only quantizes, dequantizes and moves whole.
OPAQUE = (dtypes.float8, dtypes.int4)
QUANTIZED = (dtypes.int8, *OPAQUE)


class LayerRefused(Exception):
    """TensorRT does not accept a layer; the message is its own."""


class Network:
    """Wraps an INetworkDefinition.

    Attributes:
        trt: The TensorRT module.
        raw: The INetworkDefinition.
        sizes: Makes shape tensors of symbolic sizes.
        layers: The node that each layer was made for, by the layer's name.
        in_place: The cache updates that may write into an input of the network.
        query_scales: What the queries of attentions have been multiplied by.
    """

    def __init__(self, trt: Any, raw: Any, errors: list[str]) -> None:
        self.trt, self.raw = trt, raw
        self.sizes = Sizes(self)
        self.layers: dict[str, Optional[Node]] = {}
        self.in_place: set[Node] = set()
        self.query_scales: dict[Value, set[float]] = {}
        self._errors = errors
        self._node: Optional[Node] = None
        self._kept: list[torch.Tensor] = []
        self._constants: dict[tuple[Value, bool], Any] = {}
        self.types: dict[dtypes.dtype, Any] = {
            dtypes.float32: trt.float32, dtypes.float16: trt.float16,
            dtypes.bfloat16: trt.bfloat16, dtypes.float8: trt.fp8, dtypes.int4: trt.int4,
            dtypes.int8: trt.int8, dtypes.int32: trt.int32, dtypes.int64: trt.int64,
            dtypes.bool: trt.bool,
        }  # fmt: skip

    def let_go(self) -> None:
        """Free the copies of constants. The network cannot be built any more."""
        self._kept.clear()

    def begin(self, node: Optional[Node]) -> None:
        """Layers from here on belong to a node."""
        self._node = node

    def finish(self, layer: Any) -> Any:
        """Name a new layer after the node that it belongs to, and check it.

        Raises:
            LayerRefused: If TensorRT does not accept it.
        """
        if layer is None:
            raise LayerRefused(self._refusal())
        node = self._node
        layer.name = f"{node.op if node is not None else 'shape'}_{len(self.layers)}"
        self.layers[layer.name] = node
        if node is not None and node.location is not None:
            layer.metadata = node.location.place()
        return layer

    def add(self, layer: Any, index: int = 0) -> Any:
        """The output of a new layer."""
        return self.checked(self.finish(layer).get_output(index))

    def checked(self, tensor: Any) -> Any:
        """A layer's output, once TensorRT has inferred its shape without complaint."""
        try:
            rank = len(tensor.shape)
        except (ValueError, RuntimeError):  # It has no shape where a layer is refused.
            rank = -1
        if rank < 0 or self._errors:
            raise LayerRefused(self._refusal())
        return tensor

    def _refusal(self) -> str:
        return self._errors[0] if self._errors else "TensorRT gives no reason"

    def constant(self, data: torch.Tensor, kind: dtypes.dtype) -> Any:
        """A constant that shares the memory of a tensor on the host."""
        shape = tuple(data.shape)
        data = data.detach().cpu()
        if kind is dtypes.int4:
            data = storage.pack_int4(data)
        data = data.contiguous()
        self._kept.append(data)
        count = 1
        for size in shape:
            count *= size
        weights = self.trt.Weights(self.types[kind], data.data_ptr(), count)
        return self.add(self.raw.add_constant(shape, weights))

    def value(self, value: Value, dequantized: bool = False) -> Any:
        """A constant of the graph; ``dequantized`` where a dequantize layer reads it.

        Only such layers may read small constants. For others they are made from larger ones.
        """
        small = value.dtype in QUANTIZED and not dequantized
        key = (value, small)
        if key not in self._constants:
            if small:
                self._constants[key] = self._plain(value.data, value.dtype)
            else:
                self._constants[key] = self.constant(value.data, value.dtype)
        return self._constants[key]

    def _plain(self, data: torch.Tensor, kind: dtypes.dtype) -> Any:
        """A small constant that any layer may read."""
        if kind is dtypes.int8:
            return self.cast(self.constant(data.to(torch.int32), dtypes.int32), kind)
        wide = self.constant(data.to(torch.float16), dtypes.float16)
        return self.quantize(wide, dtypes.float16, kind)

    def number(self, number: Any, kind: dtypes.dtype, rank: int) -> Any:
        """A number as a tensor of the given rank, whose sizes are 1."""
        data = storage.filled((1,) * rank, number, kind, storage.device_of(torch.empty(0)))
        return self._plain(data, kind) if kind in QUANTIZED else self.constant(data, kind)

    def quantize(
        self, tensor: Any, source: dtypes.dtype, target: dtypes.dtype, apart: bool = False
    ) -> Any:
        """Rounded to a quantized type, with a scale of 1; ``apart`` from the layers before it."""
        shape = tuple(tensor.shape)
        if not shape or not (apart or target is dtypes.int4):
            return self._by_one(self.raw.add_quantize, tensor, source, target)
        # TensorRT-RTX 1.7 pairs the int4 elements of a row, and fails over many rows; not over one.
        # Nor does it fuse that with layers before it, some of which leave a thread an odd element.
        flat = self._by_one(self.raw.add_quantize, self._shuffled(tensor, (-1,)), source, target)
        if -1 not in shape:
            return self._shuffled(flat, shape)
        layer = self.raw.add_shuffle(flat)
        layer.zero_is_placeholder = False
        layer.set_input(1, self.add(self.raw.add_shape(tensor)))
        return self.add(layer)

    def _shuffled(self, tensor: Any, shape: tuple[int, ...]) -> Any:
        layer = self.raw.add_shuffle(tensor)
        layer.zero_is_placeholder = False
        layer.reshape_dims = shape
        return self.add(layer)

    def dequantize(self, tensor: Any, target: dtypes.dtype) -> Any:
        """The values of a quantized tensor, with a scale of 1."""
        return self._by_one(self.raw.add_dequantize, tensor, target, target)

    def _by_one(self, add: Any, tensor: Any, scale: dtypes.dtype, target: dtypes.dtype) -> Any:
        rank = len(tensor.shape)
        if not rank:  # TensorRT's layers want a dimension.
            tensor = self.reshape(tensor, (1,))
        result = self.add(add(tensor, self.number(1.0, scale, 0), self.types[target]))
        return result if rank else self.reshape(result, ())

    def binary(self, operation: str, left: Any, right: Any) -> Any:
        """An elementwise operation, broadcast by numpy's rules."""
        left, right = self.aligned(left, right)
        kind = getattr(self.trt.ElementWiseOperation, operation)
        return self.add(self.raw.add_elementwise(left, right, kind))

    def with_number(self, operation: str, tensor: Any, number: Any, kind: dtypes.dtype) -> Any:
        """An elementwise operation of a tensor and a number on its right."""
        return self.binary(operation, tensor, self.number(number, kind, len(tensor.shape)))

    def unary(self, operation: str, tensor: Any) -> Any:
        kind = getattr(self.trt.UnaryOperation, operation)
        if not len(tensor.shape):  # Some of TensorRT's layers want a dimension.
            flat = self.reshape(tensor, (1,))
            return self.reshape(self.add(self.raw.add_unary(flat, kind)), ())
        return self.add(self.raw.add_unary(tensor, kind))

    def activation(self, operation: str, tensor: Any) -> Any:
        kind = getattr(self.trt.ActivationType, operation)
        if not len(tensor.shape):
            flat = self.reshape(tensor, (1,))
            return self.reshape(self.add(self.raw.add_activation(flat, kind)), ())
        return self.add(self.raw.add_activation(tensor, kind))

    def cast(self, tensor: Any, kind: dtypes.dtype) -> Any:
        """TensorRT's cast, where one is needed; see lowering.elementwise for tripy's."""
        if tensor.dtype == self.types[kind]:
            return tensor
        return self.add(self.raw.add_cast(tensor, self.types[kind]))

    def select(self, condition: Any, chosen: Any, other: Any) -> Any:
        return self.add(self.raw.add_select(*self.aligned(condition, chosen, other)))

    def aligned(self, *tensors: Any) -> list[Any]:
        """Tensors with leading dimensions of 1 added, so that all have the largest rank."""
        rank = max(len(t.shape) for t in tensors)
        return [self.unsqueeze(t, range(rank - len(t.shape))) for t in tensors]

    def unsqueeze(self, tensor: Any, axes: Sequence[int]) -> Any:
        """Dimensions of 1 added, so that they are at ``axes`` of the result."""
        if not len(axes):
            return tensor
        at = self.constant(torch.tensor(list(axes), dtype=torch.int32), dtypes.int32)
        return self.add(self.raw.add_unsqueeze(tensor, at))

    def squeeze(self, tensor: Any, axes: Sequence[int]) -> Any:
        """Dimensions of 1 taken away."""
        if not len(axes):
            return tensor
        at = self.constant(torch.tensor(list(axes), dtype=torch.int32), dtypes.int32)
        return self.add(self.raw.add_squeeze(tensor, at))

    def reshape(self, tensor: Any, shape: Sequence[Dim]) -> Any:
        layer = self.raw.add_shuffle(tensor)
        layer.zero_is_placeholder = False
        if is_static(shape):
            layer.reshape_dims = tuple(shape)
        else:
            layer.set_input(1, self.sizes.vector(shape))
        return self.add(layer)

    def permute(self, tensor: Any, perm: Sequence[int]) -> Any:
        if tuple(perm) == tuple(range(len(perm))):
            return tensor
        layer = self.raw.add_shuffle(tensor)
        layer.first_transpose = self.trt.Permutation(list(perm))
        return self.add(layer)

    def concatenate(self, tensors: Sequence[Any], axis: int) -> Any:
        layer = self.raw.add_concatenation(list(tensors))
        layer.axis = axis
        return self.add(layer)

    def slice(
        self,
        tensor: Any,
        starts: Sequence[Dim],
        sizes: Sequence[Dim],
        steps: Sequence[Dim],
        mode: str = "STRICT_BOUNDS",
        fill: Any = None,
    ) -> Any:
        """Element i of a dimension is element ``starts + i * steps`` of the tensor's."""
        if not len(starts):
            return tensor
        given = (starts, sizes, steps)
        known = [tuple(g) if is_static(g) else (0,) * len(g) for g in given]
        layer = self.raw.add_slice(tensor, *known)
        layer.mode = getattr(self.trt.SampleMode, mode)
        for position, sequence in enumerate(given, 1):
            if not is_static(sequence):
                layer.set_input(position, self.sizes.vector(sequence))
        if fill is not None:
            layer.set_input(4, fill)
        return self.add(layer)

    def expand(self, tensor: Any, own: Sequence[Dim], sizes: Sequence[Dim]) -> Any:
        """A tensor of shape ``own`` repeated along dimensions of 1, and along new ones."""
        extra = len(sizes) - len(own)
        tensor = self.unsqueeze(tensor, range(extra))
        own = [1] * extra + list(own)
        if tuple(own) == tuple(sizes):
            return tensor
        steps: list[Dim] = [1] * len(own)
        for axis, (size, wanted) in enumerate(zip(own, sizes)):
            if not isinstance(size, int) and size != wanted:  # It may be 1, and is then repeated.
                return self._expand_by_size(tensor, own, sizes)
            steps[axis] = int(size != 1)  # A known size is 1, or the one that is wanted.
        return self.slice(tensor, [0] * len(own), sizes, steps)

    def _expand_by_size(self, tensor: Any, own: Sequence[Dim], sizes: Sequence[Dim]) -> Any:
        """Steps are 0 for a size of 1 and 1 for others: what a size less 1 is, at most 1."""
        ones = self.sizes.vector((1,) * len(own))
        less = self.binary("SUB", self.sizes.vector(own), ones)
        layer = self.raw.add_slice(tensor, *([(0,) * len(own)] * 3))
        layer.set_input(2, self.sizes.vector(sizes))
        layer.set_input(3, self.binary("MIN", less, ones))
        return self.add(layer)

    def reduce(self, operation: str, tensor: Any, axes: Sequence[int], keep: bool) -> Any:
        if not axes:
            return tensor
        kind = getattr(self.trt.ReduceOperation, operation)
        return self.add(self.raw.add_reduce(tensor, kind, self.mask(axes), keep))

    @staticmethod
    def mask(axes: Sequence[int]) -> int:
        """Dimensions as TensorRT counts them: bit i for dimension i."""
        return sum(1 << axis for axis in axes)

    def flags(self, condition: Any) -> Any:
        """Bools as int32 of 0 and 1."""
        return self.cast(condition, dtypes.int32)

    def range(self, size: Dim) -> Any:
        """0 to size - 1 as int32, in one dimension."""
        if isinstance(size, int):
            return self.constant(torch.arange(size, dtype=torch.int32), dtypes.int32)
        kind = self.trt.FillOperation.LINSPACE
        layer = self.raw.add_fill((0,), kind, self.types[dtypes.int32])
        layer.set_input(0, self.sizes.vector((size,)))
        layer.set_input(1, self.constant(torch.tensor(0, dtype=torch.int32), dtypes.int32))
        layer.set_input(2, self.constant(torch.tensor([1], dtype=torch.int32), dtypes.int32))
        return self.add(layer)

    def along(self, size: Dim, axis: int, rank: int) -> Any:
        """0 to size - 1 along one of several dimensions, the others of which are 1."""
        return self.unsqueeze(self.range(size), [a for a in range(rank) if a != axis])
