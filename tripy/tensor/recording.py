"""Recording operations: every function and operator ends here."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any, Optional

from tripy import config, dtypes
from tripy.backends.torch import storage
from tripy.device import device
from tripy.errors import TripyException, user_location
from tripy.graph import Value, dims, make_node
from tripy.tensor.base import Tensor, current_device, reject_unset
from tripy.tensor.sizes import DimensionSize


def apply(
    op: str,
    inputs: Sequence[Optional[Tensor]],
    attrs: Optional[dict[str, Any]] = None,
    where: Optional[device] = None,
) -> Any:
    """Record an operation.

    Args:
        op: The operation's name in the schema table.
        inputs: Tensors, None for an optional input left out.
        attrs: Its attributes.
        where: The device of the result; by default the inputs' device.

    Returns:
        A Tensor, or a tuple of them for an operation with several outputs.

    Raises:
        TripyException: For anything that the operation's schema refuses, parameters that have no
            value, and inputs on different devices.
    """
    location = user_location()
    if where is None:
        for tensor in inputs:
            if tensor is not None and not isinstance(tensor, DimensionSize):
                where = tensor._value.device
                break
        else:
            where = current_device()
    values = [None if t is None else t._value_on(where) for t in inputs]
    if config.enable_input_validation:
        for value, tensor in zip(values, inputs):
            if value is None:
                continue
            if value.device != where and op != "copy":
                raise TripyException(
                    f"{op}: the inputs live on different devices.",
                    got=", ".join(f"{v.type_text} on {v.device}" for v in values if v is not None),
                    expected="all inputs on one device",
                    hint=f'tp.copy(tensor, tp.device("{where}"))',
                    tensors=[(f"input {i}", t) for i, t in enumerate(inputs) if t is not None],
                )
            if value.data is None and value.node is None and not value.is_input:
                reject_unset(op, tensor)
    node = make_node(op, values, attrs or {}, location, where, config.enable_input_validation)
    if len(node.outputs) == 1:
        return Tensor._from_value(node.outputs[0])
    return tuple(Tensor._from_value(value) for value in node.outputs)


def binary(op: str, left: Any, right: Any) -> Tensor:
    """Record an operation on two operands, one of which may be a Python number."""
    if not isinstance(left, Tensor):
        left = scalar(op, left, right)
    elif not isinstance(right, Tensor):
        right = scalar(op, right, left)
    elif left.dtype is not right.dtype:
        left, right = sizes_as(left, right), sizes_as(right, left)
    if left is NotImplemented or right is NotImplemented:
        return NotImplemented
    return apply(op, [left, right])


def sizes_as(operand: Tensor, other: Tensor) -> Tensor:
    """A host size in the data type of a tensor that it meets, as a Python int would be.

    So ``x * x.shape[0]`` means the same whether the size is an int, as it is in eager code, or a
    DimensionSize, as it is while compiling.
    """
    if not isinstance(operand, DimensionSize) or other.dtype in (dtypes.int32, dtypes.bool):
        return operand
    if not all(dtypes.holds(other.dtype, bound) for bound in dims.bounds(operand._dim)):
        return operand  # The operation refuses two data types.
    return apply("cast", [operand], {"dtype": other.dtype}, other.device)


def scalar(op: str, number: Any, like: Tensor) -> Any:
    """A Python number as a tensor of another one's data type and device."""
    is_bool = type(number).__name__ in ("bool", "bool_")  # numpy's bool is no Number.
    if not (is_bool or isinstance(number, Number)) or isinstance(number, complex):
        if isinstance(number, (list, tuple)) or hasattr(number, "__dlpack__"):
            raise TripyException(
                f"{op}: an operand is neither a tensor nor a number.",
                got=f"an object of type {type(number).__name__}",
                expected="a tripy.Tensor, or a number",
                hint="tp.Tensor(operand)",
                tensors=[("the other operand", like)],
            )
        return NotImplemented
    kind = like.dtype
    is_float = not is_bool and not hasattr(number, "__index__")
    if (is_float and not issubclass(kind, dtypes.floating)) or (
        kind is dtypes.bool and not is_bool
    ):
        raise TripyException(
            f"{op}: the number does not fit the tensor's data type.",
            got=f"{number!r} with a tensor of {kind}",
            expected="a bool for bool, an int for integers, any number for floating point",
            hint=_other_type(number, kind),
            tensors=[("the tensor", like)],
        )
    plain: Any = bool if is_bool else float if is_float else int
    number = plain(number)
    if not dtypes.holds(kind, number):
        raise TripyException(
            f"{op}: the number is out of the tensor's range.",
            got=f"{number!r} with a tensor of {kind}",
            expected=dtypes.range_text(kind),
            hint="tp.cast(tensor, ...) to a larger type",
            tensors=[("the tensor", like)],
        )
    if kind in dtypes.FLOAT_END:
        number = float(number)  # Ints may be larger than any that torch has.
    where = like._value.device
    value = Value(kind, (), where, data=storage.scalar(number, kind, where))
    value.location = user_location()
    return Tensor._from_value(value)


def _other_type(number: Any, kind: Any) -> str:
    """What to try where a number does not fit a tensor's type."""
    if kind is dtypes.bool and number in (0, 1):
        return f"{bool(number)}, or tp.cast(tensor, tp.int32)"
    whole = kind is not dtypes.bool and number == number // 1
    return (f"{int(number)}, or " if whole else "") + "tp.cast(tensor, tp.float32)"


Tensor._apply = staticmethod(apply)
Tensor._binary = staticmethod(binary)
