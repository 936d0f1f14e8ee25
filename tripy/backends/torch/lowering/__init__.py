"""How each operation runs on torch tensors."""

from tripy.backends.torch.lowering import (
    create,
    elementwise,
    linear_algebra,
    movement,
    quantization,
    reduction,
)
from tripy.backends.torch.lowering.table import LOWERINGS

__all__ = [
    "LOWERINGS", "create", "elementwise", "linear_algebra", "movement", "quantization", "reduction",
]  # fmt: skip
