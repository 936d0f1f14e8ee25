"""How each operation is said in TensorRT's layers."""

from tripy.backends.tensorrt.lowering import (
    convolution,
    create,
    elementwise,
    linear_algebra,
    movement,
    plugins,
    quantization,
    reduction,
    spatial,
)
from tripy.backends.tensorrt.lowering.table import LOWERINGS, Unsupported

__all__ = [
    "LOWERINGS", "Unsupported", "convolution", "create", "elementwise", "linear_algebra",
    "movement", "plugins", "quantization", "reduction", "spatial",
]  # fmt: skip
