"""Checks of what layers are made with and called with."""

from __future__ import annotations

from typing import Any, Optional

from tripy import dtypes
from tripy.errors import TripyException
from tripy.graph import dims
from tripy.ops import arguments


def size(layer: str, value: Any, name: str) -> int:
    """A number of features, channels or rows: an int of 1 or more."""
    value = arguments.integer(layer, value, name)
    if value < 1:
        raise TripyException(
            f"{layer}: {name} is not a size.", got=f"{name}={value}", expected="1 or more"
        )
    return value


def floating(layer: str, value: Any) -> dtypes.dtype:
    """The data type that a layer computes in."""
    return arguments.dtype(layer, value, dtypes.FLOATS)


def epsilon(layer: str, value: Any) -> float:
    """What is added to a variance before its root is taken."""
    value = float(arguments.number(layer, value, "eps"))
    if not 0 <= value < float("inf"):
        raise TripyException(
            f"{layer}: eps is not usable.",
            got=f"eps={value}",
            expected="a finite number of 0 or more",
        )
    return value


def layer_input(
    layer: str,
    x: Any,
    dtype: dtypes.dtype,
    dim: int,
    expected: int,
    rank: int = 1,
    what: Optional[str] = None,
    exact: bool = False,
) -> None:
    """Require a tensor of the layer's data type with ``expected`` elements along ``dim``.

    A size that is known only at run time, and may be right, is left to the operations.
    """
    arguments.tensor(layer, x, "the input")
    value = x._value
    name = "last dimension" if dim == -1 else f"dimension {dim}"
    text = what or f"[..., {expected}]: the {name} is {expected}"
    if x.dtype is not dtype:
        raise TripyException(
            f"{layer}: the input's data type is not the layer's.",
            got=value.type_text,
            expected=f"{dtype}{text}",
            hint=f"tp.cast(input, tp.{dtype})",
            tensors=[("the input", x)],
        )
    fits = len(value.shape) == rank or (len(value.shape) > rank and not exact)
    if fits:
        low, high = dims.bounds(value.shape[dim])
        fits = low <= expected <= high
    if not fits:
        raise TripyException(
            f"{layer}: the input's shape does not fit.",
            got=f"shape {_shape_text(value.shape)}, {value.type_text}",
            expected=f"{dtype}{text}",
            tensors=[("the input", x)],
        )


def channels_input(
    layer: str, x: Any, dtype: dtypes.dtype, channels: int, rank: int, exact: bool = False
) -> None:
    """Require [batch, channels, ...] of the layer's data type, of that rank or at least that."""
    text = f"[batch, {channels}, ...]: {channels} channels, rank {rank}"
    layer_input(layer, x, dtype, 1, channels, rank, text + ("" if exact else " or more"), exact)


def _shape_text(shape: tuple) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
