"""The schemas of all operations, one family a file."""

from tripy.graph.operations import (
    create,
    elementwise,
    fused,
    linear_algebra,
    movement,
    quantization,
    reduction,
)

__all__ = [
    "create", "elementwise", "fused", "linear_algebra", "movement", "quantization", "reduction",
]  # fmt: skip
