"""quantize, dequantize and dynamic_quantize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Union

from tripy import dtypes
from tripy.errors import TripyException
from tripy.ops import arguments
from tripy.tensor import Tensor, apply

Scale = Union[Tensor, float, Sequence]


def _scale(op: str, scale: Scale, dtype: dtypes.dtype, like: Tensor) -> Tensor:
    """A scale given as a number or list takes the data type that is needed."""
    if not isinstance(scale, Tensor):
        scale = Tensor(scale, dtype=dtype, device=like.device)
    if scale.dtype is not dtype:
        raise TripyException(
            f"{op}: the scale has another data type.",
            got=f"a scale of {scale.dtype}",
            expected=f"{dtype}",
            hint=f"tp.cast(scale, tp.{dtype})",
            tensors=[("scale", scale), ("input", like)],
        )
    check_scale_values(op, scale)
    return scale


def check_scale_values(op: str, scale: Tensor) -> None:
    """Refuse a scale that no values can be divided by, where its values are known already."""
    data = scale._value.data
    if data is None:
        return
    if not bool(((data > 0) & (data != float("inf"))).all()):
        raise TripyException(
            f"{op}: a scale is not usable.",
            got=f"values from {data.min().item()} to {data.max().item()}",
            expected="finite numbers above 0",
            hint="check the calibration: a tensor that is all zeros has amax 0",
            tensors=[("scale", scale)],
        )


def quantize(input: Tensor, scale: Scale, dtype: dtypes.dtype, dim: Optional[int] = None) -> Tensor:
    """``clamp(round_half_to_even(input / scale), low, high)`` in a small data type.

    The range is -128 to 127 for int8, -8 to 7 for int4 and -448 to 448 for float8, where values
    are rounded to the nearest representable one, ties to even.

    Args:
        input: A tensor of float32, float16 or bfloat16.
        scale: A number, list or tensor of the input's data type. 0-D: one scale for all. 1-D with
            ``dim``: one for each channel. 2-D for a 2-D input: ``[A, input.shape[1]]`` for blocks
            of ``input.shape[0] / A`` rows, or ``[input.shape[0], B]`` for blocks of
            ``input.shape[1] / B`` columns. Of the input's shape with a last size of 1: one for
            each row, as :func:`dynamic_quantize` gives it.
        dtype: int8, int4 or float8.
        dim: The dimension that a 1-D scale belongs to.

    Returns:
        A tensor of the input's shape.

    Raises:
        TripyException: For a scale of a shape or data type that does not fit, and for a scale of
            zero, a negative one, NaN or infinity where its values are known.

    Example:
        >>> import tripy as tp
        >>> tp.quantize(tp.Tensor([0.25, 0.75, 100.0]), 0.5, tp.int8).tolist()
        [0, 2, 127]
    """
    arguments.tensor_of("quantize", input, dtypes.FLOATS)
    attrs = {
        "dtype": arguments.dtype("quantize", dtype, dtypes.QUANTIZED),
        "dim": _dim("quantize", dim, input),
    }
    return apply("quantize", [input, _scale("quantize", scale, input.dtype, input)], attrs)


def dequantize(
    input: Tensor, scale: Scale, dtype: dtypes.dtype, dim: Optional[int] = None
) -> Tensor:
    """``input * scale`` in a floating-point type.

    Args:
        input: A tensor of int8, int4 or float8.
        scale: As in :func:`quantize`; a tensor has the data type ``dtype``.
        dtype: float32, float16 or bfloat16.
        dim: The dimension that a 1-D scale belongs to.

    Returns:
        A tensor of the input's shape.

    Raises:
        TripyException: As :func:`quantize`.

    Example:
        >>> import tripy as tp
        >>> q = tp.quantize(tp.Tensor([[1.0, 2.0], [3.0, 40.0]]), [0.1, 1.0], tp.int8, dim=0)
        >>> tp.dequantize(q, [0.5, 1.0], tp.float32, dim=0).tolist()
        [[5.0, 10.0], [3.0, 40.0]]
    """
    arguments.tensor_of("dequantize", input, dtypes.QUANTIZED)
    arguments.dtype("dequantize", dtype, dtypes.FLOATS)
    attrs = {"dim": _dim("dequantize", dim, input)}
    return apply("dequantize", [input, _scale("dequantize", scale, dtype, input)], attrs)


def _dim(op: str, dim: Optional[int], like: Tensor) -> Optional[int]:
    if dim is None:
        return None
    dim = arguments.integer(op, dim, "dim")
    return dim + like.rank if -like.rank <= dim < 0 else dim  # The schema refuses the rest.


def dynamic_quantize(
    input: Tensor, dtype: dtypes.dtype, dim: Optional[int] = None
) -> tuple[Tensor, Tensor]:
    """Quantize with a scale that is worked out from the values: ``max(abs(input)) / high``.

    Args:
        input: A tensor of float32, float16 or bfloat16.
        dtype: int8, int4 or float8.
        dim: None for one scale, -1 for one scale a row (a token).

    Returns:
        The quantized tensor, and the scale: 0-D, or with a last dimension of size 1. All zeros
        get the smallest positive scale.

    Example:
        >>> import tripy as tp
        >>> q, scale = tp.dynamic_quantize(tp.Tensor([[127.0, -64.0], [1.0, 0.5]]), tp.int8, dim=-1)
        >>> q.tolist()
        [[127, -64], [127, 64]]
    """
    arguments.tensor("dynamic_quantize", input)
    attrs = {
        "dtype": arguments.dtype("dynamic_quantize", dtype, dtypes.QUANTIZED),
        "dim": None if dim is None else arguments.integer("dynamic_quantize", dim, "dim"),
    }
    return apply("dynamic_quantize", [input], attrs)
