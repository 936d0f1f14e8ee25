"""Resizing and pooling of images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional

from tripy.errors import TripyException
from tripy.graph import dims
from tripy.graph.operations.spatial import exact_scale
from tripy.ops import arguments
from tripy.tensor import Tensor, apply, size_of
from tripy.types import ShapeLike


def resize(
    input: Tensor,
    output_shape: Optional[ShapeLike] = None,
    mode: str = "linear",
    align_corners: bool = False,
    *,
    scales: Optional[Sequence[float]] = None,
) -> Tensor:
    """A tensor interpolated to other sizes.

    ``resize(input, scales, ...)`` with floats as the second argument is the same as
    ``resize(input, scales=scales, ...)``.

    Args:
        input: A tensor of float32, float16 or int8.
        output_shape: The new sizes, one a dimension.
        mode: ``"nearest"``: the element whose range ``[i, i + 1) * scale`` an output element falls
            in. ``"linear"``: between the two next elements of each dimension. ``"cubic"``: by
            the next four, with Keys' cubic convolution (1981) and its parameter -0.75.
        align_corners: Whether the centres of the first and last elements stay where they are; else
            the outer edges of these elements do. Not with ``"nearest"``.
        scales: In place of ``output_shape``, what each size is multiplied with; the result is
            rounded down.

    Returns:
        A tensor of the new sizes. int8 is interpolated in float32 and rounded towards zero.

    Raises:
        TripyException: For both or neither of ``output_shape`` and ``scales``, one that has not an
            entry for each dimension, and ``align_corners`` with ``"nearest"``.

    Example:
        >>> import tripy as tp
        >>> image = tp.reshape(tp.Tensor([1.0, 3.0]), (1, 1, 1, 2))
        >>> tp.resize(image, (1, 1, 1, 4)).flatten().tolist()
        [1.0, 1.5, 2.5, 3.0]
        >>> tp.resize(image, scales=(1, 1, 2, 1), mode="nearest").tolist()
        [[[[1.0, 3.0], [1.0, 3.0]]]]
    """
    arguments.tensor("resize", input)
    arguments.choice("resize", mode, "mode", ("cubic", "linear", "nearest"))
    arguments.choice("resize", align_corners, "align_corners", (True, False))
    if align_corners and mode == "nearest":
        raise TripyException(
            "resize: the nearest element has no corners to align.",
            got='align_corners=True with mode="nearest"',
            expected='align_corners only with "linear" and "cubic"',
        )
    if isinstance(output_shape, (list, tuple)) and any(size_of(s) is None for s in output_shape):
        output_shape, scales = (None, output_shape) if scales is None else (output_shape, scales)
    if (output_shape is None) == (scales is None):
        raise TripyException(
            "resize: it takes either output_shape or scales.",
            got=f"output_shape={output_shape}, scales={scales}",
            expected="one of them",
        )
    shape = input._value.shape
    if scales is None:
        factors: tuple[float, ...] = ()
        sizes = arguments.new_shape("resize", output_shape, "output_shape")
    else:
        factors = _factors(scales, input)
        exact = [exact_scale(factor) for factor in factors]
        sizes = tuple(
            dims.floordiv(size * factor.numerator, factor.denominator)
            for size, factor in zip(shape, exact)
        )
    attrs = {"sizes": sizes, "scales": factors, "mode": mode, "align_corners": align_corners}
    return apply("resize", [input], attrs)


def _factors(scales: Any, input: Tensor) -> tuple[float, ...]:
    if not isinstance(scales, (list, tuple)):
        raise TripyException(
            "resize: scales is not a sequence.", got=f"scales={scales!r}", expected="numbers"
        )
    factors = tuple(float(arguments.number("resize", scale, "a scale")) for scale in scales)
    usable = all(math.isfinite(f) and exact_scale(f) > 0 for f in factors)
    if len(factors) != input.rank or not usable:
        raise TripyException(
            "resize: the scales do not fit.",
            got=f"scales={scales} with {input._value.type_text}",
            expected=f"{input.rank} finite numbers above 0, 1 for dimensions that stay the same",
            tensors=[("input", input)],
        )
    return factors


def maxpool(
    input: Tensor,
    kernel_dims: Sequence[int],
    stride: Optional[Sequence[int]] = None,
    padding: Optional[Sequence[Sequence[int]]] = None,
) -> Tensor:
    """The largest element of each window.

    Args:
        input: [batch, channels, height, width] or [batch, channels, depth, height, width] of
            float32, float16, bfloat16 or int8.
        kernel_dims: The window's size: two or three numbers.
        stride: How far the window moves along each dimension; by default 1.
        padding: For each spatial dimension a pair (low, high): how far windows reach over the edge;
            less than the window's size. What lies there is never the largest. By default 0.

    Returns:
        A tensor with spatial sizes ``(size + low + high - kernel) // stride + 1``.

    Raises:
        TripyException: For ranks that do not fit, and windows larger than the padded input.

    Example:
        >>> import tripy as tp
        >>> image = tp.reshape(tp.arange(16), (1, 1, 4, 4))
        >>> tp.maxpool(image, (2, 2), stride=(2, 2)).tolist()
        [[[[5.0, 7.0], [13.0, 15.0]]]]
    """
    arguments.tensor("maxpool", input)
    return apply("maxpool", [input], _window("maxpool", kernel_dims, stride, padding))


def avgpool(
    input: Tensor,
    kernel_dims: Sequence[int],
    stride: Optional[Sequence[int]] = None,
    padding: Optional[Sequence[Sequence[int]]] = None,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window's elements.

    Args:
        input: [batch, channels, height, width] or [batch, channels, depth, height, width] of
            float32, float16, bfloat16 or int8.
        kernel_dims: The window's size: two or three numbers.
        stride: How far the window moves along each dimension; by default 1.
        padding: For each spatial dimension a pair (low, high): how many zeros are added before and
            after; less than the window's size. By default none.
        count_include_pad: Whether the zeros count as elements in the mean.

    Returns:
        A tensor with spatial sizes ``(size + low + high - kernel) // stride + 1``. The mean of int8
        is rounded towards zero.

    Raises:
        TripyException: For ranks that do not fit, and windows larger than the padded input.

    Example:
        >>> import tripy as tp
        >>> image = tp.reshape(tp.arange(16), (1, 1, 4, 4))
        >>> tp.avgpool(image, (2, 2), stride=(2, 2)).tolist()
        [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    arguments.tensor("avgpool", input)
    attrs = _window("avgpool", kernel_dims, stride, padding)
    choice = arguments.choice("avgpool", count_include_pad, "count_include_pad", (True, False))
    return apply("avgpool", [input], {**attrs, "count_include_pad": choice})


def _window(op: str, kernel_dims: Any, stride: Any, padding: Any) -> dict[str, Any]:
    kernel = arguments.integers(op, kernel_dims, "kernel_dims")
    steps = (1,) * len(kernel) if stride is None else arguments.integers(op, stride, "stride")
    pads = tuple(
        arguments.integers(op, pair, "a pair of padding")
        for pair in ([(0, 0)] * len(kernel) if padding is None else arguments.many(op, padding))
    )
    fits = len(kernel) in (2, 3) and len(steps) == len(kernel) == len(pads)
    if not fits or min(kernel) < 1 or min(steps) < 1 or any(len(pair) != 2 for pair in pads):
        raise TripyException(
            f"{op}: the window does not fit together.",
            got=f"kernel_dims={kernel_dims}, stride={stride}, padding={padding}",
            expected="2 or 3 sizes of 1 or more, as many strides, and as many pairs of padding",
        )
    if any(not 0 <= width < size for size, pair in zip(kernel, pads) for width in pair):
        raise TripyException(
            f"{op}: a padding does not fit the window.",
            got=f"kernel_dims={kernel_dims}, padding={padding}",
            expected="0 or more, and less than the window: else a window would hold nothing",
        )
    return {"kernel": kernel, "stride": steps, "padding": pads}
