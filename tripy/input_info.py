"""What the inputs of a compiled function look like: shapes with bounds, data types, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Union

from tripy import dtypes
from tripy.errors import TripyException
from tripy.tensor import size_of


class Bounds(NamedTuple):
    """The smallest, the usual and the largest value of a size.

    Example:
        >>> import tripy as tp
        >>> tp.Bounds(1, 4, 8).is_static()
        False
    """

    min: int
    opt: int
    max: int

    def is_static(self) -> bool:
        """Whether there is one value only."""
        return self.min == self.max

    def __str__(self) -> str:
        return str(self.min) if self.is_static() else f"{self.min} to {self.max}"


def _bounds(what: str, values: Any) -> Bounds:
    sizes = [size_of(v) for v in values]
    if len(sizes) != 3 or not all(isinstance(s, int) for s in sizes):
        raise TripyException(
            f"{what}: the bounds are not three integers.",
            got=repr(tuple(values)),
            expected="(min, opt, max)",
        )
    low, opt, high = (int(s) for s in sizes)  # type: ignore[arg-type]
    if not 0 <= low <= opt <= high:
        raise TripyException(
            f"{what}: the bounds are out of order.",
            got=f"min={low}, opt={opt}, max={high}",
            expected="0 <= min <= opt <= max",
        )
    return Bounds(low, opt, high)


class NamedDimension:
    """A dynamic size with a name: inputs that use one name have equal sizes at run time.

    Args:
        name: The name.
        min: The smallest size.
        opt: The size to be fast for.
        max: The largest size.

    Example:
        >>> import tripy as tp
        >>> batch = tp.NamedDimension("batch", 1, 2, 4)
        >>> info = tp.InputInfo((batch, 8), tp.float32)
        >>> info.dimension_names
        {0: 'batch'}
    """

    def __init__(self, name: str, min: int, opt: int, max: int) -> None:
        if not isinstance(name, str) or not name:
            raise TripyException(
                "NamedDimension: the name is not usable.", got=repr(name), expected="a string"
            )
        self.name = name
        self.bounds = _bounds("NamedDimension", (min, opt, max))

    def __repr__(self) -> str:
        return f"NamedDimension({self.name!r}, {', '.join(map(str, tuple(self.bounds)))})"


class InputInfo:
    """Shape and data type of a runtime input.

    Args:
        shape: For each dimension an int or DimensionSize, ``(min, opt, max)`` or a NamedDimension.
        dtype: The data type.

    Attributes:
        shape_bounds: A Bounds for each dimension.
        dimension_names: The names of named dimensions, by position.
        dtype: The data type.

    Example:
        >>> import tripy as tp
        >>> tp.InputInfo((2, (1, 4, 8)), tp.float32).shape_bounds[1].max
        8
    """

    def __init__(
        self,
        shape: Sequence[Union[int, tuple[int, int, int], NamedDimension, Any]],
        dtype: dtypes.dtype,
    ) -> None:
        if not isinstance(shape, (list, tuple)):
            raise TripyException(
                "InputInfo: the shape is not a sequence.",
                got=repr(shape),
                expected="a list or tuple of sizes",
            )
        if not isinstance(dtype, dtypes.dtype) or dtype not in dtypes.ALL:
            raise TripyException(
                "InputInfo: this is not a data type.",
                got=repr(dtype),
                expected="such as tp.float32",
            )
        self.dtype = dtype
        self.dimension_names: dict[int, str] = {}
        bounds = []
        for position, size in enumerate(shape):
            if isinstance(size, NamedDimension):
                self.dimension_names[position] = size.name
                bounds.append(size.bounds)
            elif isinstance(size, (list, tuple)):
                bounds.append(_bounds(f"InputInfo: dimension {position}", size))
            elif isinstance(size_of(size), int):
                bounds.append(_bounds(f"InputInfo: dimension {position}", [size] * 3))
            else:
                raise TripyException(
                    "InputInfo: this is not a size.",
                    got=f"{size!r} in dimension {position}",
                    expected="an int, a DimensionSize, (min, opt, max) or a NamedDimension",
                )
        self.shape_bounds: tuple[Bounds, ...] = tuple(bounds)

    def __repr__(self) -> str:
        sizes = ", ".join(
            self.dimension_names.get(i, "") + (f" {b}" if i in self.dimension_names else str(b))
            for i, b in enumerate(self.shape_bounds)
        )
        return f"InputInfo([{sizes}], {self.dtype})"


class DimensionInputInfo:
    """A size that is given at run time, as an int or a DimensionSize.

    Args:
        value_bounds: ``(min, opt, max)``.

    Example:
        >>> import tripy as tp
        >>> tp.DimensionInputInfo((1, 4, 8)).value_bounds.opt
        4
    """

    def __init__(self, value_bounds: tuple[int, int, int]) -> None:
        if isinstance(value_bounds, (int, str)) or not isinstance(value_bounds, Sequence):
            raise TripyException(
                "DimensionInputInfo: the bounds are not three integers.",
                got=repr(value_bounds),
                expected="(min, opt, max)",
            )
        self.value_bounds = _bounds("DimensionInputInfo", value_bounds)

    def __repr__(self) -> str:
        return f"DimensionInputInfo({self.value_bounds})"
