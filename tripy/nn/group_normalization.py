"""Normalization over groups of channels, written with operations.

16-bit inputs are normalized in float32: a sum of squares over an image leaves float16's range.
"""

from __future__ import annotations

from tripy import dtypes, ops
from tripy.errors import TripyException
from tripy.nn import checks
from tripy.nn.module import Module
from tripy.nn.parameter import Declaration, Parameter
from tripy.tensor import Tensor


def per_channel(parameter: Tensor, rank: int) -> Tensor:
    """A parameter [channels] as float32, so that it broadcasts against [batch, channels, ...]."""
    wide = parameter if parameter.dtype is dtypes.float32 else parameter.cast(dtypes.float32)
    return ops.reshape(wide, (-1, *[1] * (rank - 2)))


def _normalize(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    shape, channels = x.shape, weight._value.shape[0]
    wide = x if x.dtype is dtypes.float32 else x.cast(dtypes.float32)
    grouped = ops.reshape(wide, (shape[0], groups, channels // groups, *shape[2:]))
    inner = tuple(range(2, grouped.rank))
    centered = grouped - ops.mean(grouped, inner, keepdim=True)
    variance = ops.mean(centered * centered, inner, keepdim=True)
    result = ops.reshape(centered * ops.rsqrt(variance + eps), shape)
    result = result * per_channel(weight, x.rank) + per_channel(bias, x.rank)
    return result if x.dtype is dtypes.float32 else result.cast(x.dtype)


class GroupNorm(Module):
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over groups of channels.

    (Wu and He, "Group Normalization", 2018.) Mean and variance, that of the population, are those
    of a group's channels and all their elements, for each batch row. Weight and bias belong to a
    channel.

    Args:
        num_groups: The number of groups.
        num_channels: The number of channels, a multiple of the number of groups.
        dtype: float32, float16 or bfloat16.
        eps: What is added to the variance.

    Attributes:
        weight: [num_channels].
        bias: [num_channels].

    Raises:
        TripyException: For sizes below 1, channels that do not make whole groups, other data types,
            or an unusable ``eps``.

    Example:
        >>> import tripy as tp
        >>> norm = tp.GroupNorm(1, 2, eps=0.0)
        >>> norm.initialize_dummy_parameters()
        >>> norm(tp.Tensor([[[1.0], [3.0]]])).tolist()
        [[[0.0], [2.0]]]
    """

    weight: Parameter
    bias: Parameter

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        dtype: dtypes.dtype = dtypes.float32,
        eps: float = 1e-5,
    ) -> None:
        self.num_groups = checks.size("GroupNorm", num_groups, "num_groups")
        self.num_channels = checks.size("GroupNorm", num_channels, "num_channels")
        self.dtype = checks.floating("GroupNorm", dtype)
        self.eps = checks.epsilon("GroupNorm", eps)
        if num_channels % num_groups:
            raise TripyException(
                "GroupNorm: the channels do not make whole groups.",
                got=f"num_channels={num_channels}, num_groups={num_groups}",
                expected="a number of channels that is a multiple of the number of groups",
            )
        self._declare("weight", Declaration((self.num_channels,), (dtype,)))
        self._declare("bias", Declaration((self.num_channels,), (dtype,)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize.

        Args:
            x: [batch, num_channels, ...] of ``dtype``, of rank 3 or more.

        Returns:
            A tensor of the same shape.

        Raises:
            TripyException: For an input of another data type, rank or number of channels.

        Example:
            >>> import tripy as tp
            >>> norm = tp.GroupNorm(2, 4)
            >>> norm.initialize_dummy_parameters()
            >>> norm(tp.ones((1, 4, 8, 8))).shape
            (1, 4, 8, 8)
        """
        checks.channels_input("GroupNorm", x, self.dtype, self.num_channels, 3)
        return _normalize(x, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm(Module):
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over each channel.

    (Ulyanov et al., "Instance Normalization", 2016.) Mean and variance, that of the population, are
    those of a channel's elements, for each batch row.

    Args:
        num_channels: The number of channels.
        dtype: float32, float16 or bfloat16.
        eps: What is added to the variance.

    Attributes:
        weight: [num_channels].
        bias: [num_channels].

    Raises:
        TripyException: For sizes below 1, other data types, or an unusable ``eps``.

    Example:
        >>> import tripy as tp
        >>> norm = tp.InstanceNorm(1, eps=0.0)
        >>> norm.initialize_dummy_parameters()
        >>> norm(tp.Tensor([[[1.0, 3.0]]])).tolist()
        [[[0.0, 2.0]]]
    """

    weight: Parameter
    bias: Parameter

    def __init__(
        self, num_channels: int, dtype: dtypes.dtype = dtypes.float32, eps: float = 1e-5
    ) -> None:
        self.num_channels = checks.size("InstanceNorm", num_channels, "num_channels")
        self.dtype = checks.floating("InstanceNorm", dtype)
        self.eps = checks.epsilon("InstanceNorm", eps)
        self._declare("weight", Declaration((self.num_channels,), (dtype,)))
        self._declare("bias", Declaration((self.num_channels,), (dtype,)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize.

        Args:
            x: [batch, num_channels, ...] of ``dtype``, of rank 3 or more.

        Returns:
            A tensor of the same shape.

        Raises:
            TripyException: For an input of another data type, rank or number of channels.

        Example:
            >>> import tripy as tp
            >>> norm = tp.InstanceNorm(4)
            >>> norm.initialize_dummy_parameters()
            >>> norm(tp.ones((1, 4, 8))).shape
            (1, 4, 8)
        """
        checks.channels_input("InstanceNorm", x, self.dtype, self.num_channels, 3)
        return _normalize(x, self.num_channels, self.weight, self.bias, self.eps)
