"""How each operation runs on torch tensors."""

from tripy.backends.torch.lowering import (
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
from tripy.backends.torch.lowering.table import EAGER_CHECKS, LOWERINGS

__all__ = [
    "EAGER_CHECKS", "LOWERINGS", "convolution", "create", "elementwise", "linear_algebra",
    "movement", "plugins", "quantization", "reduction", "spatial",
]  # fmt: skip
