"""How each operation runs on torch tensors."""

from tripy.backends.torch.lowering import (
    convolution,
    create,
    elementwise,
    linear_algebra,
    movement,
    quantization,
    reduction,
    spatial,
)
from tripy.backends.torch.lowering.table import LOWERINGS

__all__ = [
    "LOWERINGS", "convolution", "create", "elementwise", "linear_algebra", "movement",
    "quantization", "reduction", "spatial",
]  # fmt: skip
