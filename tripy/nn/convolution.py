"""Convolutions over one, two or three dimensions, in floating point and quantized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from tripy import dtypes
from tripy.errors import TripyException
from tripy.nn import checks
from tripy.nn.quantized import QuantizedLayer
from tripy.ops import arguments
from tripy.tensor import Tensor, apply


class _Convolution(QuantizedLayer):
    """What both directions share."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_dims: Sequence[int],
        stride: Optional[Sequence[int]] = None,
        padding: Optional[Sequence[Sequence[int]]] = None,
        dilation: Optional[Sequence[int]] = None,
        groups: Optional[int] = None,
        bias: bool = True,
        dtype: dtypes.dtype = dtypes.float32,
        quant_dtype: Optional[dtypes.dtype] = None,
        weight_quant_dim: Optional[int] = None,
    ) -> None:
        layer = type(self).__name__
        self.in_channels = checks.size(layer, in_channels, "in_channels")
        self.out_channels = checks.size(layer, out_channels, "out_channels")
        self.groups = 1 if groups is None else checks.size(layer, groups, "groups")
        self.kernel_dims = _sizes(layer, kernel_dims, "kernel_dims", None)
        count = len(self.kernel_dims)
        self.stride = _sizes(layer, stride, "stride", count)
        self.dilation = _sizes(layer, dilation, "dilation", count)
        self.padding = _padding(layer, padding, count)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise TripyException(
                f"{layer}: the channels do not make whole groups.",
                got=f"in_channels={in_channels}, out_channels={out_channels}, groups={groups}",
                expected="numbers of channels that are multiples of the number of groups",
            )
        self._declare_quantized(bias, dtype, quant_dtype, weight_quant_dim)

    def _declare_quantized(
        self,
        bias: bool,
        dtype: dtypes.dtype,
        quant_dtype: Optional[dtypes.dtype],
        weight_quant_dim: Optional[int],
    ) -> None:
        # The dimension that is summed over is the one of the input's channels.
        summed = 1 if isinstance(self, Conv) else 0
        channels = [self.out_channels, self.out_channels]
        channels[summed] = self.in_channels
        channels[1] //= self.groups
        self._declare_weight(
            (*channels, *self.kernel_dims), self.in_channels, self.out_channels, bias, dtype,
            quant_dtype, weight_quant_dim, summed,
        )  # fmt: skip

    def _apply(self, op: str, x: Tensor) -> Tensor:
        layer, rank = type(self).__name__, len(self.kernel_dims) + 2
        checks.channels_input(layer, x, self.dtype, self.in_channels, rank, exact=True)
        attrs = {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation,
            "groups": self.groups,
        }  # fmt: skip
        x = self._rounded_input(x, spatial=len(self.kernel_dims))
        return apply(op, [x, self._rounded_weight(), self.bias], attrs)


class Conv(_Convolution):
    """A convolution (in the field's sense: a cross-correlation) plus bias.

    Args:
        in_channels: The input's channels.
        out_channels: The result's channels.
        kernel_dims: The kernel's extent along each spatial dimension: 1, 2 or 3 sizes.
        stride: Steps along each; ones by default.
        padding: Zeros (before, after) along each; none by default.
        dilation: Distances of the kernel's elements along each; ones by default.
        groups: Into how many groups, computed each by itself, the channels are cut; 1 by default.
        bias: Whether there is a bias.
        dtype: float32, float16 or bfloat16: of input, result, bias and scales.
        quant_dtype: int8, int4, float8, or None for no quantization; see :class:`Linear`.
        weight_quant_dim: What a weight scale belongs to: 0 for one an output channel, 1 for one an
            input channel (the input cannot be quantized then), None for one scale.

    Attributes:
        weight: [out_channels, in_channels / groups, *kernel_dims] of ``dtype``; or of
            ``quant_dtype``, for a weight that is quantized already.
        bias: [out_channels], or None.
        weight_scale: With ``quant_dtype``; 0-D, or of the size of ``weight_quant_dim``.
        input_scale: With ``quant_dtype``; 0-D, or None to quantize the weight only.
        pre_quant_scale: With ``quant_dtype``; [in_channels], what the input's channels are
            multiplied with before they are quantized (SmoothQuant, AWQ), or None.

    Raises:
        TripyException: For sizes below 1, arguments that do not have one entry a spatial dimension,
            channels that do not make whole groups, and as :class:`Linear` for quantization.

    Example:
        >>> import tripy as tp
        >>> conv = tp.Conv(1, 1, (2,), padding=((1, 0),), bias=False)
        >>> conv.weight = tp.Tensor([[[1.0, 10.0]]])
        >>> conv(tp.Tensor([[[1.0, 2.0, 3.0]]])).tolist()
        [[[10.0, 21.0, 32.0]]]

        An int8 weight with one scale an output channel, and an int8 input:

        >>> conv = tp.Conv(1, 1, (2,), bias=False, quant_dtype=tp.int8, weight_quant_dim=0)
        >>> conv.weight, conv.weight_scale = tp.Tensor([[[1.1, 10.2]]]), [1.0]
        >>> conv.input_scale = 0.5
        >>> conv(tp.Tensor([[[1.2, 2.0, 3.0]]])).tolist()
        [[[21.0, 32.0]]]
    """

    # Python 3.10 shows the signature of a class's own methods only.
    __init__ = _Convolution.__init__

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: [batch, in_channels, ...] of ``dtype``, with as many spatial dimensions as the
                kernel.

        Returns:
            [batch, out_channels, ...]; a spatial size is ``(size + padding before and after -
            dilation * (kernel - 1) - 1) // stride + 1``.

        Raises:
            TripyException: For an input of another data type, rank or number of channels, and one
                that is smaller than the kernel.

        Example:
            >>> import tripy as tp
            >>> conv = tp.Conv(3, 8, (3, 3), stride=(2, 2))
            >>> conv.initialize_dummy_parameters()
            >>> conv(tp.ones((1, 3, 9, 9))).shape
            (1, 8, 4, 4)
        """
        return self._apply("convolution", x)


class ConvTranspose(_Convolution):
    """The transpose of a convolution (also: deconvolution), which enlarges its input, plus bias.

    Args:
        in_channels: The input's channels.
        out_channels: The result's channels.
        kernel_dims: The kernel's extent along each spatial dimension: 1, 2 or 3 sizes.
        stride: Distances of the input's elements in the result along each; ones by default.
        padding: How much of the result is cut off (before, after) along each; none by default.
        dilation: Distances of the kernel's elements along each; ones by default.
        groups: Into how many groups, computed each by itself, the channels are cut; 1 by default.
        bias: Whether there is a bias.
        dtype: float32, float16 or bfloat16: of input, result, bias and scales.
        quant_dtype: int8, int4, float8, or None for no quantization; see :class:`Linear`.
        weight_quant_dim: What a weight scale belongs to: 1 for one an output channel of a group, 0
            for one an input channel (the input cannot be quantized then), None for one scale.

    Attributes:
        weight: [in_channels, out_channels / groups, *kernel_dims] of ``dtype``; or of
            ``quant_dtype``, for a weight that is quantized already.
        bias: [out_channels], or None.
        weight_scale: With ``quant_dtype``; 0-D, or of the size of ``weight_quant_dim``.
        input_scale: With ``quant_dtype``; 0-D, or None to quantize the weight only.
        pre_quant_scale: With ``quant_dtype``; [in_channels], what the input's channels are
            multiplied with before they are quantized (SmoothQuant, AWQ), or None.

    Raises:
        TripyException: As :class:`Conv`.

    Example:
        >>> import tripy as tp
        >>> conv = tp.ConvTranspose(1, 1, (2,), stride=(2,), bias=False)
        >>> conv.weight = tp.Tensor([[[1.0, 10.0]]])
        >>> conv(tp.Tensor([[[1.0, 2.0]]])).tolist()
        [[[1.0, 10.0, 2.0, 20.0]]]

        An int8 weight with one scale an output channel, and an int8 input:

        >>> conv = tp.ConvTranspose(
        ...     1, 1, (2,), stride=(2,), bias=False, quant_dtype=tp.int8, weight_quant_dim=1
        ... )
        >>> conv.weight, conv.weight_scale = tp.Tensor([[[1.1, 10.2]]]), [1.0]
        >>> conv.input_scale = 0.5
        >>> conv(tp.Tensor([[[1.2, 2.0]]])).tolist()
        [[[1.0, 10.0, 2.0, 20.0]]]
    """

    # Python 3.10 shows the signature of a class's own methods only.
    __init__ = _Convolution.__init__

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: [batch, in_channels, ...] of ``dtype``, with as many spatial dimensions as the
                kernel.

        Returns:
            [batch, out_channels, ...]; a spatial size is ``(size - 1) * stride + dilation *
            (kernel - 1) + 1 - padding before and after``.

        Raises:
            TripyException: For an input of another data type, rank or number of channels.

        Example:
            >>> import tripy as tp
            >>> conv = tp.ConvTranspose(8, 3, (4, 4), stride=(2, 2), padding=((1, 1), (1, 1)))
            >>> conv.initialize_dummy_parameters()
            >>> conv(tp.ones((1, 8, 5, 5))).shape
            (1, 3, 10, 10)
        """
        return self._apply("conv_transpose", x)


def _sizes(layer: str, value: Any, name: str, count: Optional[int]) -> tuple[int, ...]:
    if value is None and count is not None:
        return (1,) * count
    sizes = arguments.integers(layer, value, name)
    if len(sizes) not in ((1, 2, 3) if count is None else (count,)) or min(sizes) < 1:
        raise TripyException(
            f"{layer}: {name} does not fit.",
            got=f"{name}={value!r}",
            expected=f"{count or '1, 2 or 3'} sizes of 1 or more, one a spatial dimension",
        )
    return sizes


def _padding(layer: str, value: Any, count: int) -> tuple[tuple[int, int], ...]:
    if value is None:
        return ((0, 0),) * count
    rows = value if isinstance(value, (list, tuple)) else ()
    pairs = [arguments.integers(layer, r, "padding") for r in rows if isinstance(r, (list, tuple))]
    if (
        not len(pairs) == len(rows) == count
        or any(len(pair) != 2 for pair in pairs)
        or min(map(min, pairs)) < 0
    ):
        raise TripyException(
            f"{layer}: padding does not fit.",
            got=f"padding={value!r}",
            expected=f"{count} pairs (before, after) of 0 or more, one a spatial dimension",
        )
    return tuple((before, after) for before, after in pairs)
