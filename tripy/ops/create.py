"""Initializers: tensors made from a shape and a value."""

from __future__ import annotations

import math
from typing import Any, Optional, Union

from tripy import dtypes
from tripy.errors import TripyException
from tripy.graph import dims
from tripy.graph.operations.create import FILL
from tripy.ops import arguments
from tripy.tensor import DimensionSize, Tensor, apply, current_device, size_of
from tripy.types import ShapeLike


def _create(op: str, attrs: dict[str, Any], like: Optional[Tensor] = None) -> Tensor:
    where = like.device if like is not None else current_device()
    return apply(op, [], {**attrs, "where": where}, where)


def full(
    shape: ShapeLike, value: Union[int, float, bool], dtype: dtypes.dtype = dtypes.float32
) -> Tensor:
    """A tensor with one value everywhere.

    Args:
        shape: Its sizes.
        value: The value; it has to fit the data type.
        dtype: float32, float16, bfloat16, int8, int32, int64 or bool.

    Returns:
        A tensor of the given shape.

    Raises:
        TripyException: For a negative size, another data type, or a value that does not fit.

    Example:
        >>> import tripy as tp
        >>> tp.full((2, 2), 7, dtype=tp.int32).tolist()
        [[7, 7], [7, 7]]
    """
    return _filled("full", shape, value, dtype)


def _filled(op: str, shape: Any, value: Any, dtype: Any, like: Optional[Tensor] = None) -> Tensor:
    sizes = arguments.new_shape(op, shape) if like is None else like._value.shape
    dtype = arguments.dtype(op, dtype, FILL)
    if isinstance(value, Tensor):
        raise TripyException(
            f"{op}: the value is a tensor.",
            got="a tensor",
            expected="a Python number",
            hint="tp.expand(tensor, shape)",
        )
    attrs = {"shape": sizes, "value": arguments.fitting(op, value, dtype), "dtype": dtype}
    return _create("full", attrs, like)


def full_like(
    input: Tensor, value: Union[int, float, bool], dtype: Optional[dtypes.dtype] = None
) -> Tensor:
    """A tensor of another one's shape with one value everywhere.

    Args:
        input: The tensor that gives shape, device and, by default, data type.
        value: The value.
        dtype: Data type, as in :func:`full`.

    Returns:
        A tensor of the shape of ``input``.

    Example:
        >>> import tripy as tp
        >>> tp.full_like(tp.ones((2,)), 0.5).tolist()
        [0.5, 0.5]
    """
    arguments.tensor("full_like", input)
    return _filled("full_like", None, value, input.dtype if dtype is None else dtype, input)


def ones(shape: ShapeLike, dtype: dtypes.dtype = dtypes.float32) -> Tensor:
    """A tensor of ones.

    Args:
        shape: Its sizes.
        dtype: Data type, as in :func:`full`.

    Returns:
        A tensor of the given shape.

    Example:
        >>> import tripy as tp
        >>> tp.ones((2,)).tolist()
        [1.0, 1.0]
    """
    return _filled("ones", shape, 1, dtype)


def zeros(shape: ShapeLike, dtype: dtypes.dtype = dtypes.float32) -> Tensor:
    """A tensor of zeros.

    Args:
        shape: Its sizes.
        dtype: Data type, as in :func:`full`.

    Returns:
        A tensor of the given shape.

    Example:
        >>> import tripy as tp
        >>> tp.zeros((2,), dtype=tp.int8).tolist()
        [0, 0]
    """
    return _filled("zeros", shape, 0, dtype)


def ones_like(input: Tensor, dtype: Optional[dtypes.dtype] = None) -> Tensor:
    """A tensor of ones with another tensor's shape.

    Args:
        input: The tensor that gives shape, device and, by default, data type.
        dtype: Data type, as in :func:`full`.

    Returns:
        A tensor of the shape of ``input``.

    Example:
        >>> import tripy as tp
        >>> tp.ones_like(tp.zeros((2,))).tolist()
        [1.0, 1.0]
    """
    arguments.tensor("ones_like", input)
    return _filled("ones_like", None, 1, input.dtype if dtype is None else dtype, input)


def zeros_like(input: Tensor, dtype: Optional[dtypes.dtype] = None) -> Tensor:
    """A tensor of zeros with another tensor's shape.

    Args:
        input: The tensor that gives shape, device and, by default, data type.
        dtype: Data type, as in :func:`full`.

    Returns:
        A tensor of the shape of ``input``.

    Example:
        >>> import tripy as tp
        >>> tp.zeros_like(tp.ones((2,))).tolist()
        [0.0, 0.0]
    """
    arguments.tensor("zeros_like", input)
    return _filled("zeros_like", None, 0, input.dtype if dtype is None else dtype, input)


def _range(
    op: str, shape: tuple, dim: int, dtype: Any, start: Any = 0, step: Any = 1,
    like: Optional[Tensor] = None,
) -> Tensor:  # fmt: skip
    low, high = dtypes.INTEGER_RANGE.get(arguments.dtype(op, dtype), (-math.inf, math.inf))
    count = shape[dim] if -len(shape) <= dim < len(shape) else 0  # The schema refuses the rest.
    if isinstance(count, int) and count > 0:
        last = start + (count - 1) * step
        if not (low <= start <= high and low <= last <= high):
            raise TripyException(
                f"{op}: a number of the range does not fit the data type.",
                got=f"{start} to {last} for {dtype}",
                expected=f"{low} to {high}",
            )
    attrs = {"shape": shape, "dim": dim, "dtype": dtype, "start": start, "step": step}
    return _create("iota", attrs, like)


def iota(shape: ShapeLike, dim: int = 0, dtype: dtypes.dtype = dtypes.float32) -> Tensor:
    """A tensor that counts along one dimension: 0, 1, 2, …

    Args:
        shape: Its sizes.
        dim: The dimension along which it counts.
        dtype: Any data type.

    Returns:
        A tensor of the given shape whose elements are their index along ``dim``.

    Raises:
        TripyException: For a negative size or a ``dim`` that the shape does not have.

    Example:
        >>> import tripy as tp
        >>> tp.iota((2, 3), dim=1, dtype=tp.int32).tolist()
        [[0, 1, 2], [0, 1, 2]]
    """
    dim = arguments.integer("iota", dim, "dim")
    return _range("iota", arguments.new_shape("iota", shape), dim, dtype)


def iota_like(input: Tensor, dim: int = 0, dtype: Optional[dtypes.dtype] = None) -> Tensor:
    """A tensor of another one's shape that counts along one dimension.

    Args:
        input: The tensor that gives shape, device and, by default, data type.
        dim: The dimension along which it counts.
        dtype: Any data type.

    Returns:
        A tensor of the shape of ``input``.

    Example:
        >>> import tripy as tp
        >>> tp.iota_like(tp.ones((3,))).tolist()
        [0.0, 1.0, 2.0]
    """
    arguments.tensor("iota_like", input)
    dim = arguments.integer("iota_like", dim, "dim")
    kind = input.dtype if dtype is None else dtype
    return _range("iota_like", input._value.shape, dim, kind, like=input)


def arange(
    start: Union[int, float, DimensionSize, None] = None,
    stop: Union[int, float, DimensionSize, dtypes.dtype, None] = None,
    step: Union[int, float, DimensionSize] = 1,
    dtype: dtypes.dtype = dtypes.float32,
) -> Tensor:
    """Evenly spaced numbers from ``start`` up to, not including, ``stop``.

    Called as ``arange(start, stop, step, dtype)``, or as ``arange(stop, dtype)`` from 0 on.

    Args:
        start: The first number; with one argument, the stop, and the start is 0.
        stop: Where to end; or the data type, if the first argument is the stop.
        step: The distance; may be negative.
        dtype: Any data type.

    Returns:
        A tensor of shape ``[ceil((stop - start) / step)]``.

    Raises:
        TripyException: For a step of zero, where there is no number in the range, and where one
            does not fit an integer data type.

    Example:
        >>> import tripy as tp
        >>> tp.arange(1, 7, 2, dtype=tp.int32).tolist()
        [1, 3, 5]
    """
    if isinstance(stop, dtypes.dtype):
        dtype, stop = stop, None
    if start is None or stop is None:
        start, stop = 0, start if stop is None else stop
    first, last, stride = _bound(start, "start"), _bound(stop, "stop"), _bound(step, "step")
    given = f"arange({first}, {last}, {stride})"
    if isinstance(stride, dims.Expr) or stride == 0:
        raise TripyException(
            "arange: the step is not usable.", got=given, expected="a number other than 0"
        )
    if any(isinstance(number, float) for number in (first, last, stride)):
        if isinstance(first, dims.Expr) or isinstance(last, dims.Expr):
            raise TripyException(
                "arange: a dynamic size is mixed with a float.",
                got=given,
                expected="integers beside a DimensionSize",
            )
        count: dims.Dim = math.ceil((last - first) / stride)
    else:
        # Rounded up: -(-a // b), with the difference turned so that the divisor is positive.
        difference = last - first if stride > 0 else first - last
        count = -dims.floordiv(-difference, abs(stride))
    if dims.bounds(count)[1] <= 0:
        raise TripyException(
            "arange: the range is empty.", got=given, expected="one number or more"
        )
    if isinstance(first, dims.Expr):
        base = _range("arange", (count,), 0, dtypes.int32, 0, stride)
        shifted = apply("add", [base, DimensionSize._of(first)])
        return shifted if dtype is dtypes.int32 else apply("cast", [shifted], {"dtype": dtype})
    return _range("arange", (count,), 0, dtype, first, stride)


def _bound(value: Any, name: str) -> Any:
    size = size_of(value)
    if size is not None:
        return size
    number = float(arguments.number("arange", value, name))
    if not math.isfinite(number):
        raise TripyException(
            f"arange: {name} is not finite.", got=f"{name}={number}", expected="a finite number"
        )
    return number


def tril(tensor: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions; zeros above it.

    Args:
        tensor: A tensor of rank 2 or more.
        diagonal: Which diagonal is the last to stay; 0 is the main one, positive ones lie above.

    Returns:
        A tensor of the same shape.

    Example:
        >>> import tripy as tp
        >>> tp.tril(tp.ones((2, 2), dtype=tp.int32)).tolist()
        [[1, 0], [1, 1]]
    """
    attrs = {"diagonal": arguments.integer("tril", diagonal, "diagonal")}
    return apply("tril", [arguments.tensor("tril", tensor, "tensor")], attrs)


def triu(tensor: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions; zeros below it.

    Args:
        tensor: A tensor of rank 2 or more.
        diagonal: Which diagonal is the first to stay; 0 is the main one, positive ones lie above.

    Returns:
        A tensor of the same shape.

    Example:
        >>> import tripy as tp
        >>> tp.triu(tp.ones((2, 2), dtype=tp.int32)).tolist()
        [[1, 1], [0, 1]]
    """
    attrs = {"diagonal": arguments.integer("triu", diagonal, "diagonal")}
    return apply("triu", [arguments.tensor("triu", tensor, "tensor")], attrs)
