"""Lazy tensors: the class, its operators, sizes of dimensions, and recording."""

from tripy.tensor.base import Tensor, current_device, depends_on_input, method, tracing
from tripy.tensor.operators import Operand
from tripy.tensor.recording import apply, binary, scalar, sizes_as
from tripy.tensor.sizes import DimensionSize, size_of

__all__ = [
    "DimensionSize", "Operand", "Tensor", "apply", "binary", "current_device", "depends_on_input",
    "method", "scalar", "size_of", "sizes_as", "tracing",
]  # fmt: skip
