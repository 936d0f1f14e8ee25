"""Names for what functions take, for annotations in user code.

Example:
    >>> import tripy as tp
    >>> def double(x: tp.types.TensorLike) -> tp.Tensor:
    ...     return tp.ones((2,)) * x * 2
    >>> double(3).tolist()
    [6.0, 6.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from tripy.tensor import DimensionSize, Tensor

TensorLike = Union[Tensor, int, float, bool]
IntLike = Union[int, DimensionSize]
ShapeLike = Sequence[IntLike]
