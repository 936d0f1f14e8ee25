"""Functions of each element by itself."""

from __future__ import annotations

from tripy import dtypes
from tripy.ops import arguments
from tripy.tensor import Tensor, apply, method


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
