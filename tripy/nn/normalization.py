"""Normalization over the last dimensions: one operation each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from tripy import dtypes
from tripy.errors import TripyException
from tripy.nn import checks
from tripy.nn.module import Module
from tripy.nn.parameter import Declaration, Parameter
from tripy.ops import arguments
from tripy.tensor import Tensor, apply


def _shape(layer: str, value: Any) -> tuple[int, ...]:
    sizes = value if isinstance(value, (list, tuple)) else (value,)
    if not sizes:
        raise TripyException(
            f"{layer}: normalized_shape is empty.", got=repr(value), expected="one size or more"
        )
    return tuple(checks.size(layer, size, "normalized_shape") for size in sizes)


def _check_input(layer: str, x: Tensor, shape: tuple[int, ...], dtype: dtypes.dtype) -> None:
    text = f"[..., {', '.join(map(str, shape))}]: these are the last dimensions"
    arguments.tensor(layer, x, "the input")
    for offset, size in enumerate(reversed(shape), 1):
        checks.layer_input(layer, x, dtype, -offset, size, len(shape), text)


class LayerNorm(Module):
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last dimensions.

    (Ba et al., "Layer Normalization", 2016.) The variance is that of the population.

    Args:
        normalized_shape: The sizes of the last dimensions, or of the last one.
        dtype: float32, float16 or bfloat16.
        eps: What is added to the variance.

    Attributes:
        weight: ``normalized_shape``.
        bias: ``normalized_shape``.

    Raises:
        TripyException: For sizes below 1, other data types, or an unusable ``eps``.

    Example:
        >>> import tripy as tp
        >>> norm = tp.LayerNorm(2, eps=0.0)
        >>> norm.initialize_dummy_parameters()
        >>> norm(tp.Tensor([[1.0, 3.0]])).tolist()
        [[0.0, 2.0]]
    """

    weight: Parameter
    bias: Parameter

    def __init__(
        self,
        normalized_shape: Union[int, Sequence[int]],
        dtype: dtypes.dtype = dtypes.float32,
        eps: float = 1e-5,
    ) -> None:
        self.normalized_shape = _shape("LayerNorm", normalized_shape)
        self.dtype = checks.floating("LayerNorm", dtype)
        self.eps = checks.epsilon("LayerNorm", eps)
        self._declare("weight", Declaration(self.normalized_shape, (dtype,)))
        self._declare("bias", Declaration(self.normalized_shape, (dtype,)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize.

        Args:
            x: [..., *normalized_shape] of ``dtype``.

        Returns:
            A tensor of the same shape.

        Raises:
            TripyException: For an input of another data type or other last dimensions.

        Example:
            >>> import tripy as tp
            >>> norm = tp.LayerNorm((2, 3))
            >>> norm.initialize_dummy_parameters()
            >>> norm(tp.ones((4, 2, 3))).shape
            (4, 2, 3)
        """
        _check_input("LayerNorm", x, self.normalized_shape, self.dtype)
        return apply("layer_norm", [x, self.weight, self.bias], {"eps": self.eps})


class RMSNorm(Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimensions.

    (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.)

    Args:
        normalized_shape: The sizes of the last dimensions, or of the last one.
        dtype: float32, float16 or bfloat16.
        eps: What is added to the mean square.

    Attributes:
        weight: ``normalized_shape``.

    Raises:
        TripyException: For sizes below 1, other data types, or an unusable ``eps``.

    Example:
        >>> import tripy as tp
        >>> norm = tp.RMSNorm(2, eps=0.0)
        >>> norm.initialize_dummy_parameters()
        >>> [round(x, 6) for x in norm(tp.Tensor([3.0, 3.0])).tolist()]
        [1.0, 1.0]
    """

    weight: Parameter

    def __init__(
        self,
        normalized_shape: Union[int, Sequence[int]],
        dtype: dtypes.dtype = dtypes.float32,
        eps: float = 1e-5,
    ) -> None:
        self.normalized_shape = _shape("RMSNorm", normalized_shape)
        self.dtype = checks.floating("RMSNorm", dtype)
        self.eps = checks.epsilon("RMSNorm", eps)
        self._declare("weight", Declaration(self.normalized_shape, (dtype,)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize.

        Args:
            x: [..., *normalized_shape] of ``dtype``.

        Returns:
            A tensor of the same shape.

        Raises:
            TripyException: For an input of another data type or other last dimensions.

        Example:
            >>> import tripy as tp
            >>> norm = tp.RMSNorm(3)
            >>> norm.initialize_dummy_parameters()
            >>> norm(tp.ones((4, 3))).shape
            (4, 3)
        """
        _check_input("RMSNorm", x, self.normalized_shape, self.dtype)
        return apply("rms_norm", [x, self.weight], {"eps": self.eps})
