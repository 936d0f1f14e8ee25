"""Functions that work element by element."""

from __future__ import annotations

from numbers import Number
from typing import Any

from tripy import dtypes
from tripy.device import CPU
from tripy.errors import TripyException
from tripy.ops import arguments
from tripy.tensor import Tensor, apply, method, scalar, sizes_as
from tripy.types import TensorLike


def exp(input: Tensor) -> Tensor:
    """The exponential of each element.

    Args:
        input: A tensor of float32, float16 or bfloat16.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.exp(tp.Tensor([0.0, 1.0])).tolist()
        [1.0, 2.7182817459106445]
    """
    return apply("exp", [arguments.tensor("exp", input)])


def log(input: Tensor) -> Tensor:
    """The natural logarithm of each element.

    Args:
        input: A tensor of float32, float16 or bfloat16.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.log(tp.Tensor([1.0])).tolist()
        [0.0]
    """
    return apply("log", [arguments.tensor("log", input)])


def sqrt(input: Tensor) -> Tensor:
    """The square root of each element.

    Args:
        input: A tensor of float32, float16 or bfloat16.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.sqrt(tp.Tensor([4.0, 9.0])).tolist()
        [2.0, 3.0]
    """
    return apply("sqrt", [arguments.tensor("sqrt", input)])


def rsqrt(input: Tensor) -> Tensor:
    """One over the square root of each element.

    Args:
        input: A tensor of float32, float16 or bfloat16.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.rsqrt(tp.Tensor([4.0])).tolist()
        [0.5]
    """
    return apply("rsqrt", [arguments.tensor("rsqrt", input)])


def sin(input: Tensor) -> Tensor:
    """The sine of each element, in radians.

    Args:
        input: A tensor of float32, float16 or bfloat16.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.sin(tp.Tensor([0.0])).tolist()
        [0.0]
    """
    return apply("sin", [arguments.tensor("sin", input)])


def cos(input: Tensor) -> Tensor:
    """The cosine of each element, in radians.

    Args:
        input: A tensor of float32, float16 or bfloat16.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.cos(tp.Tensor([0.0])).tolist()
        [1.0]
    """
    return apply("cos", [arguments.tensor("cos", input)])


def relu(input: Tensor) -> Tensor:
    """The larger of each element and 0.

    Args:
        input: A tensor of float32, float16, bfloat16, int8, int32 or int64.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.relu(tp.Tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    return apply("relu", [arguments.tensor("relu", input)])


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)) of each element.

    Args:
        input: A tensor of float32, float16, bfloat16 or int8.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.sigmoid(tp.Tensor([0.0])).tolist()
        [0.5]
    """
    return apply("sigmoid", [arguments.tensor("sigmoid", input)])


def silu(input: Tensor) -> Tensor:
    """x * sigmoid(x) of each element, also called swish.

    Args:
        input: A tensor of float32, float16, bfloat16 or int8.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.silu(tp.Tensor([0.0])).tolist()
        [0.0]
    """
    return apply("silu", [arguments.tensor("silu", input)])


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent of each element.

    Args:
        input: A tensor of float32, float16, bfloat16 or int8.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.tanh(tp.Tensor([0.0])).tolist()
        [0.0]
    """
    return apply("tanh", [arguments.tensor("tanh", input)])


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """The Gaussian error linear unit, x * P(X <= x) for a standard normal X.

    The exact form is ``x * (1 + erf(x / sqrt(2))) / 2``; the approximation is
    ``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2``
    (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016). GPT-2 uses the approximation.

    Args:
        input: A tensor of float32, float16, bfloat16 or int8.
        approximate: ``"none"`` for the exact form, or ``"tanh"``.

    Returns:
        A tensor of the same shape and data type.

    Example:
        >>> import tripy as tp
        >>> tp.gelu(tp.Tensor([0.0, 100.0])).tolist()
        [0.0, 100.0]
    """
    attrs = {"approximate": arguments.choice("gelu", approximate, "approximate", ("none", "tanh"))}
    return apply("gelu", [arguments.tensor("gelu", input)], attrs)


def maximum(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """The larger of two elements, with broadcasting.

    Args:
        lhs: A tensor, or a number if ``rhs`` is a tensor.
        rhs: A tensor, or a number if ``lhs`` is a tensor.

    Returns:
        A tensor of the broadcast shape.

    Example:
        >>> import tripy as tp
        >>> tp.maximum(tp.Tensor([1.0, 5.0]), 3.0).tolist()
        [3.0, 5.0]
    """
    return apply("maximum", _operands("maximum", lhs=lhs, rhs=rhs))


def minimum(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """The smaller of two elements, with broadcasting.

    Args:
        lhs: A tensor, or a number if ``rhs`` is a tensor.
        rhs: A tensor, or a number if ``lhs`` is a tensor.

    Returns:
        A tensor of the broadcast shape.

    Example:
        >>> import tripy as tp
        >>> tp.minimum(tp.Tensor([1.0, 5.0]), 3.0).tolist()
        [1.0, 3.0]
    """
    return apply("minimum", _operands("minimum", lhs=lhs, rhs=rhs))


def where(condition: Tensor, input: TensorLike, other: TensorLike) -> Tensor:
    """Elements of one tensor where a condition holds, else of another, with broadcasting.

    Args:
        condition: A bool tensor.
        input: Values where it is True: a tensor or a number.
        other: Values where it is False: a tensor or a number. A number takes the other one's data
            type; of two numbers, bools make bool, ints int32 and floats float32.

    Returns:
        A tensor of the broadcast shape.

    Example:
        >>> import tripy as tp
        >>> tp.where(tp.Tensor([True, False]), tp.ones((2,)), 0.0).tolist()
        [1.0, 0.0]
    """
    arguments.tensor("where", condition, "condition")
    if isinstance(input, Number) and isinstance(other, Number):
        input = Tensor(input, Tensor([input, other], device=CPU).dtype, condition.device)
    return apply("where", [condition, *_operands("where", input=input, other=other)])


def masked_fill(input: Tensor, mask: Tensor, value: float) -> Tensor:
    """A tensor with one number where a mask is True.

    Args:
        input: A tensor.
        mask: A bool tensor that broadcasts with ``input``.
        value: The number.

    Returns:
        A tensor of the broadcast shape.

    Example:
        >>> import tripy as tp
        >>> tp.masked_fill(tp.ones((2,)), tp.Tensor([True, False]), -5.0).tolist()
        [-5.0, 1.0]
    """
    arguments.tensor("masked_fill", mask, "mask")
    arguments.tensor("masked_fill", input)
    if isinstance(value, Tensor):
        raise TripyException(
            "masked_fill: the value is a tensor.",
            got="a tensor",
            expected="a Python number",
            hint="tp.where(mask, value, input)",
        )
    return apply("where", [mask, _filler("masked_fill", value, input), input])


@method
def cast(input: Tensor, dtype: dtypes.dtype) -> Tensor:
    """The same values in another data type.

    Floats become integers by rounding towards zero. To int4 and float8 it is quantization with
    scale 1, from them dequantization with scale 1: values are rounded half to even and saturate.

    Args:
        input: A tensor.
        dtype: The new data type.

    Returns:
        A tensor of the same shape.

    Raises:
        TripyException: For float8 with int8 or int4, and int4 to int8 or int64.

    Example:
        >>> import tripy as tp
        >>> tp.cast(tp.Tensor([-1.5, 2.5]), tp.int32).tolist()
        [-1, 2]
    """
    arguments.tensor("cast", input)
    return apply("cast", [input], {"dtype": arguments.dtype("cast", dtype)})


def _filler(op: str, value: Any, like: Tensor) -> Tensor:
    number = scalar(op, value, like)
    if number is NotImplemented:
        raise TripyException(f"{op}: an argument is neither a tensor nor a number.",
                             got=f"{value!r}")  # fmt: skip
    return number


def _operands(op: str, **operands: Any) -> list[Tensor]:
    """Two operands, one of which may be a number that takes the other one's data type."""
    (left_name, left), (right_name, right) = operands.items()
    if not isinstance(left, Tensor) and not isinstance(right, Tensor):
        raise TripyException(
            f"{op}: neither {left_name} nor {right_name} is a tensor.",
            got=f"{left!r} and {right!r}",
            expected="a tensor for at least one of them",
        )
    if not isinstance(left, Tensor):
        left = _filler(op, left, right)
    elif not isinstance(right, Tensor):
        right = _filler(op, right, left)
    return [sizes_as(left, right), sizes_as(right, left)]
