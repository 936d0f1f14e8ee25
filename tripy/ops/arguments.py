"""Checks of arguments that are not tensors, shared by the families of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from tripy import dtypes
from tripy.errors import TripyException
from tripy.graph.dims import Dim
from tripy.tensor import Tensor, size_of


def tensor(op: str, value: Any, name: str = "input") -> Tensor:
    """The argument itself, which has to be a tensor."""
    if isinstance(value, Tensor):
        return value
    raise TripyException(
        f"{op}: {name} is not a tensor.",
        got=f"{name}={_short(value)} of type {type(value).__name__}",
        expected="a tripy.Tensor",
        hint=f"tp.Tensor({name.removeprefix('the ')})",
    )


def tensor_of(op: str, value: Any, accepted: Sequence[dtypes.dtype], name: str = "input") -> Tensor:
    """A tensor of one of several data types, where the operation recorded accepts more."""
    if tensor(op, value, name).dtype in accepted:
        return value
    raise TripyException(
        f"{op}: {name} has an unsupported data type.",
        got=f"{name}: {value._value.type_text}",
        expected=dtypes.listed(accepted),
        hint=f"tp.cast({name}, ...)",
        tensors=[(name, value)],
    )


def dtype(op: str, value: Any, accepted: Sequence[dtypes.dtype] = dtypes.ALL) -> dtypes.dtype:
    """A data type among those accepted."""
    if isinstance(value, dtypes.dtype) and value in accepted:
        return value
    raise TripyException(
        f"{op}: the data type is not supported.",
        got=f"dtype={_short(value)}",
        expected="one of " + ", ".join(f"tp.{t}" for t in accepted),
    )


def integer(op: str, value: Any, name: str) -> int:
    """A plain integer."""
    size = size_of(value)
    if isinstance(size, int):
        return size
    raise TripyException(
        f"{op}: {name} is not an integer.",
        got=f"{name}={_short(value)}",
        expected="an int that is known before the function runs",
    )


def shape(op: str, value: Any, name: str = "shape") -> tuple[Dim, ...]:
    """A sequence of ints and DimensionSizes."""
    sizes = _sequence(op, value, name, "sizes")
    result = []
    for item in sizes:
        size = size_of(item)
        if size is None:
            raise TripyException(
                f"{op}: {name} holds something that is not a size.",
                got=f"{name}={_short(value)}",
                expected="ints or tp.DimensionSizes",
            )
        result.append(size)
    return tuple(result)


def new_shape(op: str, value: Any, name: str = "shape") -> tuple[Dim, ...]:
    """The shape of a new tensor: no size may be negative."""
    sizes = shape(op, value, name)
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise TripyException(
            f"{op}: a size is negative.",
            got=f"{name}={_short(value)}",
            expected="sizes of 0 or more",
        )
    return sizes


def many(op: str, value: Any, name: str = "padding") -> Sequence[Any]:
    """A list or tuple."""
    return _sequence(op, value, name, "pairs")


def dim(op: str, value: Any, rank: int, name: str = "dim") -> int:
    """One of so many dimensions, counted from 0."""
    value = integer(op, value, name)
    if not -rank <= value < rank:
        raise TripyException(
            f"{op}: {name} is out of range.",
            got=f"{name}={value} for {rank} dimensions",
            expected=f"{-rank} <= {name} < {rank}" if rank else "a tensor of rank 1 or more",
        )
    return value % rank


def fitting(op: str, value: Any, kind: dtypes.dtype) -> Any:
    """A number that all elements of a data type can be."""
    if isinstance(value, bool):
        value = int(value)
    whole = size_of(value)
    is_whole = isinstance(whole, int)
    value = whole if is_whole else float(number(op, value, "value"))
    if not dtypes.holds(kind, value) or (issubclass(kind, dtypes.integer) and not is_whole):
        raise TripyException(
            f"{op}: the value does not fit the data type.",
            got=f"value={value!r} for {kind}",
            expected=dtypes.range_text(kind),
        )
    if kind is dtypes.bool:
        return bool(value)
    return float(value) if issubclass(kind, dtypes.floating) else int(value)


def integers(op: str, value: Any, name: str) -> tuple[int, ...]:
    """A sequence of plain integers."""
    return tuple(integer(op, item, name) for item in _sequence(op, value, name, "integers"))


def axes(op: str, value: Any, name: str = "dim") -> Any:
    """None, one dimension, or a tuple of them."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return integers(op, value, name)
    return integer(op, value, name)


def number(op: str, value: Any, name: str) -> float:
    """A Python number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if hasattr(value, "__float__") and not isinstance(value, (Tensor, bool)):
        try:
            return float(value)
        except (TypeError, ValueError):  # An array of several elements, or a class.
            pass
    raise TripyException(
        f"{op}: {name} is not a number.", got=f"{name}={_short(value)}", expected="an int or float"
    )


def choice(op: str, value: Any, name: str, accepted: Sequence[Any]) -> Any:
    """One of a few values."""
    if any(type(value) is type(each) and value == each for each in accepted):
        return value
    raise TripyException(
        f"{op}: {name} is not one of its values.",
        got=f"{name}={_short(value)}",
        expected="one of " + ", ".join(map(repr, accepted)),
    )


def _sequence(op: str, value: Any, name: str, what: str) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    raise TripyException(
        f"{op}: {name} is not a sequence.",
        got=f"{name}={_short(value)}",
        expected=f"a list or tuple of {what}",
        hint=f"[{_short(value)}]",
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def optional_dtype(op: str, value: Optional[dtypes.dtype], like: Tensor) -> dtypes.dtype:
    """A data type, by default that of another tensor."""
    return like.dtype if value is None else dtype(op, value)
