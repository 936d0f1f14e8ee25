"""The schemas of all operations, one family a file."""

from tripy.graph.operations import (
    convolution,
    create,
    elementwise,
    fused,
    linear_algebra,
    movement,
    plugins,
    quantization,
    reduction,
    spatial,
)

__all__ = [
    "convolution", "create", "elementwise", "fused", "linear_algebra", "movement", "plugins",
    "quantization", "reduction", "spatial",
]  # fmt: skip
