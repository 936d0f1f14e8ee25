"""Normalization with statistics that were fixed in training."""

from __future__ import annotations

from tripy import dtypes, ops
from tripy.nn import checks
from tripy.nn.group_normalization import per_channel
from tripy.nn.module import Module
from tripy.nn.parameter import Declaration, Parameter
from tripy.tensor import Tensor


class BatchNorm(Module):
    """``(x - running_mean) / sqrt(running_var + eps) * weight + bias``.

    (Ioffe and Szegedy, "Batch Normalization", 2015.) Everything but ``x`` belongs to a channel.

    Args:
        num_features: The number of channels.
        dtype: float32, float16 or bfloat16.
        eps: What is added to the variance.

    Attributes:
        weight: [num_features].
        bias: [num_features].
        running_mean: [num_features].
        running_var: [num_features].

    Raises:
        TripyException: For sizes below 1, other data types, or an unusable ``eps``.

    Example:
        >>> import tripy as tp
        >>> norm = tp.BatchNorm(1, eps=0.0)
        >>> norm.initialize_dummy_parameters()
        >>> norm.running_var = tp.Tensor([4.0])
        >>> norm(tp.Tensor([[[1.0, 3.0]]])).tolist()
        [[[1.0, 2.0]]]
    """

    weight: Parameter
    bias: Parameter
    running_mean: Parameter
    running_var: Parameter

    def __init__(
        self, num_features: int, dtype: dtypes.dtype = dtypes.float32, eps: float = 1e-5
    ) -> None:
        self.num_features = checks.size("BatchNorm", num_features, "num_features")
        self.dtype = checks.floating("BatchNorm", dtype)
        self.eps = checks.epsilon("BatchNorm", eps)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self._declare(name, Declaration((self.num_features,), (dtype,)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize.

        Args:
            x: [batch, num_features, ...] of ``dtype``, of rank 2 or more.

        Returns:
            A tensor of the same shape.

        Raises:
            TripyException: For an input of another data type, rank or number of channels.

        Example:
            >>> import tripy as tp
            >>> norm = tp.BatchNorm(4)
            >>> norm.initialize_dummy_parameters()
            >>> norm(tp.ones((1, 4, 8, 8))).shape
            (1, 4, 8, 8)
        """
        checks.channels_input("BatchNorm", x, self.dtype, self.num_features, 2)
        weight, bias, mean, variance = (
            per_channel(parameter, x.rank)
            for parameter in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        wide = x if x.dtype is dtypes.float32 else x.cast(dtypes.float32)
        # Only constants in the brackets, which the compiler computes once. The mean is subtracted
        # first: folded into the bias it would cost precision where it is large beside the variance.
        result = (wide - mean) * (ops.rsqrt(variance + self.eps) * weight) + bias
        return result if x.dtype is dtypes.float32 else result.cast(x.dtype)
