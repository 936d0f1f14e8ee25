"""The lazy tensor: operations record graph nodes, and values are computed when asked for."""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Sequence
from contextlib import contextmanager
from numbers import Number
from typing import TYPE_CHECKING, Any, Optional, Union

from tripy import config, dtypes
from tripy.backends.torch import eager, storage
from tripy.device import CPU, device
from tripy.device import device as Device
from tripy.errors import Location, TripyException, user_location
from tripy.graph import Value, dims, make_node

if TYPE_CHECKING:
    import numpy as np
    import torch


class _TraceState(threading.local):
    """Whether this thread is recording a function for the compiler."""

    active = False


_trace = _TraceState()


@contextmanager
def tracing():
    """Inside it, ``Tensor.shape`` gives DimensionSizes, also where sizes are known."""
    before, _trace.active = _trace.active, True
    try:
        yield
    finally:
        _trace.active = before


class Tensor:
    """An array of one data type on one device, computed when its values are needed.

    Args:
        data: A number, a (nested) list of numbers, or anything with ``__dlpack__``: a torch, numpy,
            CuPy or JAX array. Memory is shared where layout and device allow it.
        dtype: Data type; by default bool, int32 (int64 for numbers that need it) or float32 for
            Python data, and the array's own type otherwise.
        device: Where the tensor lives; by default where ``data`` lives, and
            ``tp.config.default_device`` for Python data.
        name: A name for messages and prints.

    Raises:
        TripyException: For None, a Tensor, a ragged list, or a data type that tripy does not have.

    Example:
        >>> import tripy as tp
        >>> a = tp.Tensor([[1.0, 2.0], [3.0, 4.0]], device=tp.device("cpu"))
        >>> (a @ a).tolist()
        [[7.0, 10.0], [15.0, 22.0]]
    """

    __slots__ = ("__weakref__", "_value")

    # Without it, numpy would take `array + tensor` apart into one operation an element.
    __array_ufunc__ = None

    def __init__(
        self,
        data: Any,
        dtype: Optional[dtypes.dtype] = None,
        device: Optional[device] = None,
        name: Optional[str] = None,
    ) -> None:
        if data is None or isinstance(data, Tensor):
            raise TripyException(
                "Tensor: data is not an array.",
                got="None" if data is None else "a tripy Tensor",
                expected="a number, a list of numbers, or an object with __dlpack__",
                hint="tp.copy(tensor, device) or tp.cast(tensor, dtype) for a changed copy"
                if data is not None
                else None,
            )
        array, kind = storage.from_data(data, dtype, device)
        self._adopt(
            Value(
                kind, tuple(array.shape), storage.device_of(array), data=array, name=name,
                location=user_location(),
            )
        )  # fmt: skip

    def _adopt(self, value: Value) -> None:
        self._value = value
        value.owner = weakref.ref(self)

    @classmethod
    def _from_value(cls, value: Value) -> Tensor:
        tensor = object.__new__(Tensor)
        tensor._adopt(value)
        return tensor

    def _value_on(self, where: Optional[device]) -> Value:
        """The graph value; a subclass held on the host gives one on the device asked for."""
        del where
        return self._value

    @property
    def name(self) -> Optional[str]:
        """A name for messages and prints; may be set."""
        return self._value.name

    @name.setter
    def name(self, name: Optional[str]) -> None:
        self._value.name = name

    @property
    def dtype(self) -> dtypes.dtype:
        """The data type."""
        return self._value.dtype

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self._value.shape)

    ndim = rank

    @property
    def device(self) -> device:
        """Where the tensor lives."""
        return self._value.device

    @property
    def location(self) -> Optional[Location]:
        """The user's line that made the tensor."""
        return self._value.location

    @property
    def shape(self) -> tuple[Union[int, DimensionSize], ...]:
        """Sizes: ints; inside a function that is being compiled, DimensionSizes."""
        shape = self._value.shape
        if _trace.active or not all(type(size) is int for size in shape):
            return tuple(DimensionSize._of(size) for size in shape)
        return shape  # type: ignore[return-value]  # All are ints.

    def eval(self) -> Tensor:
        """Compute the values now.

        Returns:
            The tensor itself.

        Raises:
            TripyException: For a tensor that depends on an input of a function that is being
                compiled, which has no values yet.

        Example:
            >>> import tripy as tp
            >>> (tp.ones((2,)) + 1).eval().tolist()
            [2.0, 2.0]
        """
        _data(self)
        return self

    def tolist(self) -> Any:
        """The values as a Python number or nested list.

        Example:
            >>> import tripy as tp
            >>> tp.arange(3, dtype=tp.int32).tolist()
            [0, 1, 2]
        """
        return storage.to_list(_data(self))

    def numpy(self) -> np.ndarray:
        """The values as a numpy array, on the host; bfloat16 and float8 become float32.

        Example:
            >>> import tripy as tp
            >>> tp.ones((2, 2)).numpy().sum()
            np.float32(4.0)
        """
        return storage.to_numpy(_exported(self))

    def torch(self) -> torch.Tensor:
        """The values as a torch tensor that shares the memory; int4 becomes int8.

        Example:
            >>> import tripy as tp
            >>> tp.ones((2,)).torch().dtype
            torch.float32
        """
        return _data(self)

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.dtype is dtypes.int4:
            raise TripyException(
                "int4 has no DLPack form.",
                got=self._value.type_text,
                expected="any other data type",
                hint="tp.cast(tensor, tp.int32)",
                tensors=[("the tensor", self)],
            )
        return _exported(self).__dlpack__(**kwargs)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack_device__(self) -> tuple:
        return _exported(self).__dlpack_device__()

    def __bool__(self) -> bool:
        array = _data(self)
        if array.numel() != 1:
            raise TripyException(
                "The truth of a tensor is defined for one element only.",
                got=self._value.type_text,
                expected="a tensor with one element",
                hint="tp.all(tensor) or tp.any(tensor)",
                tensors=[("the tensor", self)],
            )
        return bool(array.item())

    def __iter__(self) -> Any:
        raise TypeError(
            "A tripy.Tensor cannot be iterated over: each step would be an operation. Use "
            "tp.split(tensor, n, dim), or tensor.tolist() for Python values."
        )

    def __len__(self) -> int:
        if not self._value.shape:
            raise TypeError("A tensor of rank 0 has no length.")
        return int(self.shape[0])

    def __str__(self) -> str:
        return storage.to_text(_data(self), self.dtype, self.device)

    def __repr__(self) -> str:
        # Debuggers ask for this at any time: values where there can be any, else the type.
        if self._value.data is None and _depends_on_input(self._value):
            return f"<tensor {self._value.type_text} of a function that is being compiled>"
        return str(self)

    __hash__ = object.__hash__

    def __add__(self, other: Operand) -> Tensor:
        return binary("add", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return binary("add", other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return binary("sub", self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return binary("sub", other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return binary("mul", other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return binary("div", self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return binary("div", other, self)

    def __floordiv__(self, other: Operand) -> Tensor:
        return binary("floordiv", self, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return binary("floordiv", other, self)

    def __mod__(self, other: Operand) -> Tensor:
        return binary("mod", self, other)

    def __rmod__(self, other: Operand) -> Tensor:
        return binary("mod", other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return binary("pow", self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return binary("pow", other, self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return binary("equal", self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return binary("not_equal", self, other)  # type: ignore[arg-type]

    def __lt__(self, other: Operand) -> Tensor:
        return binary("less", self, other)

    def __le__(self, other: Operand) -> Tensor:
        return binary("less_equal", self, other)

    def __gt__(self, other: Operand) -> Tensor:
        return binary("greater", self, other)

    def __ge__(self, other: Operand) -> Tensor:
        return binary("greater_equal", self, other)

    def __or__(self, other: Operand) -> Tensor:
        return binary("or", self, other)

    __ror__ = __or__

    def __and__(self, other: Operand) -> Tensor:
        return binary("and", self, other)

    __rand__ = __and__

    def __xor__(self, other: Operand) -> Tensor:
        return binary("xor", self, other)

    __rxor__ = __xor__

    def __invert__(self) -> Tensor:
        return apply("not", [self])

    def __neg__(self) -> Tensor:
        return apply("neg", [self])

    def __abs__(self) -> Tensor:
        return apply("abs", [self])

    def __matmul__(self, other: Tensor) -> Tensor:
        if not isinstance(other, Tensor):
            raise TripyException(
                "matmul: an operand is not a tensor.",
                got=f"an object of type {type(other).__name__}",
                expected="a tripy.Tensor",
                hint="tp.Tensor(operand), or * for a product with a number",
                tensors=[("the other operand", self)],
            )
        return apply("matmul", [self, other])

    if TYPE_CHECKING:  # Attached by the modules of tripy.ops: see `method`.

        def __getitem__(self, index: Any) -> Tensor: ...

        def cast(self, dtype: dtypes.dtype) -> Tensor: ...

        def copy(self, device: Device) -> Tensor: ...

        def reshape(self, shape: Sequence[Any]) -> Tensor: ...

        def transpose(self, dim0: int, dim1: int) -> Tensor: ...

        def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor: ...

        def permute(self, perm: Sequence[int]) -> Tensor: ...

        def squeeze(self, dims: Union[int, Sequence[int]]) -> Tensor: ...

        def unsqueeze(self, dim: int) -> Tensor: ...


Operand = Union[Tensor, int, float, bool]


def method(function: Any) -> Any:
    """Make a function of tripy.ops a method of Tensor too."""
    setattr(Tensor, function.__name__, function)
    return function


class DimensionSize(Tensor):
    """The size of a dimension: a 0-D int32 held on the host.

    Arithmetic between DimensionSizes and ints gives a DimensionSize; mixed with a Tensor it gives
    a Tensor. Inside a function that is being compiled, it may be a size that is known only when
    the compiled function is called.

    Args:
        data: The size, an int.
        name: A name for messages and prints.

    Example:
        >>> import tripy as tp
        >>> int(tp.DimensionSize(3) * 2 + 1)
        7
    """

    __slots__ = ("_dim", "_name", "_place", "_values")

    def __init__(self, data: int, name: Optional[str] = None) -> None:
        if isinstance(data, bool) or not hasattr(data, "__index__"):
            raise TripyException(
                "DimensionSize: the size is not an integer.", got=repr(data), expected="an int"
            )
        self._set(int(data), name)

    def _set(self, dim: dims.Dim, name: Optional[str] = None) -> None:
        self._dim, self._name, self._place = dim, name, user_location()
        self._values: dict[device, Value] = {}

    @classmethod
    def _of(cls, dim: dims.Dim) -> DimensionSize:
        size = object.__new__(cls)
        size._set(dim)
        return size

    def _value_on(self, where: Optional[device]) -> Value:
        where = where or CPU
        if where not in self._values:
            if isinstance(self._dim, int):
                array, kind = storage.from_data(self._dim, dtypes.int32, where)
                value = Value(kind, (), where, data=array, name=self._name, location=self._place)
            else:
                attrs = {"size": self._dim, "where": where}
                value = make_node("dimension", [], attrs, self._place, where).output
            self._values[where] = value
        return self._values[where]

    @property
    def _value(self) -> Value:  # type: ignore[override]
        return self._value_on(CPU)

    @property
    def name(self) -> Optional[str]:
        return self._name

    @name.setter
    def name(self, name: Optional[str]) -> None:
        self._name = name

    def __int__(self) -> int:
        if isinstance(self._dim, int):
            return self._dim
        raise TripyException(
            "The size of a dynamic dimension is not known while a function is compiled.",
            got=f"int() of the size {self._dim}",
            expected="a size that is the same for all inputs",
            hint="keep the DimensionSize: reshape, slices, arange, full and expand take it",
            tensors=[("the size", self)],
        )

    __index__ = __int__

    def __float__(self) -> float:
        return float(int(self))

    def _combine(self, other: Any, function: Any, operation: Any, reverse: bool) -> Any:
        if isinstance(other, Tensor) and not isinstance(other, DimensionSize):
            return operation(self, other)
        size = size_of(other) if not isinstance(other, float) else None
        if size is None:
            return operation(self, other)
        left, right = (size, self._dim) if reverse else (self._dim, size)
        if function in (dims.floordiv, dims.mod) and right == 0:
            raise TripyException(
                "A size was divided by zero.", got=f"{left} // {right}", tensors=[("size", self)]
            )
        return DimensionSize._of(function(left, right))

    def __add__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a + b, Tensor.__add__, False)

    def __radd__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a + b, Tensor.__radd__, True)

    def __sub__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a - b, Tensor.__sub__, False)

    def __rsub__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a - b, Tensor.__rsub__, True)

    def __mul__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a * b, Tensor.__mul__, False)

    def __rmul__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a * b, Tensor.__rmul__, True)

    def __floordiv__(self, other: Any) -> Any:
        return self._combine(other, dims.floordiv, Tensor.__floordiv__, False)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._combine(other, dims.floordiv, Tensor.__rfloordiv__, True)

    def __mod__(self, other: Any) -> Any:
        return self._combine(other, dims.mod, Tensor.__mod__, False)

    def __rmod__(self, other: Any) -> Any:
        return self._combine(other, dims.mod, Tensor.__rmod__, True)

    def __neg__(self) -> DimensionSize:
        return DimensionSize._of(-self._dim)

    def __abs__(self) -> DimensionSize:
        return DimensionSize._of(dims.maximum(self._dim, -self._dim))

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"DimensionSize({self._dim})"

    __str__ = __repr__


def size_of(size: Any) -> Optional[dims.Dim]:
    """A size given as an int or DimensionSize, as the graph's dimension; None for all else."""
    if isinstance(size, DimensionSize):
        return size._dim
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    if hasattr(size, "__index__") and not isinstance(size, (Tensor, bool)):
        try:
            return operator.index(size)
        except TypeError:  # An array of several elements, or of floats.
            return None
    return None


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
            where = CPU if inputs else config.default_device
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
                _reject_unset(op, tensor)
    node = make_node(op, values, attrs or {}, location, where, config.enable_input_validation)
    if len(node.outputs) == 1:
        return Tensor._from_value(node.outputs[0])
    return tuple(Tensor._from_value(value) for value in node.outputs)


def _reject_unset(op: str, tensor: Any) -> None:
    if tensor._value.data is None and tensor._value.node is None:
        raise TripyException(
            f"{op}: a parameter has no value yet.",
            got=f"{tensor.name or 'a parameter'}: {tensor._value.type_text}, not assigned",
            expected="a value assigned to it, or loaded with load_state_dict",
            hint="module.initialize_dummy_parameters() where any values will do",
        )


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
            hint=f"tp.cast(tensor, tp.float32) {op} {number!r}",
            tensors=[("the tensor", like)],
        )
    number = bool(number) if is_bool else float(number) if is_float else int(number)  # type: ignore[arg-type,call-overload]
    if not dtypes.holds(kind, number):
        raise TripyException(
            f"{op}: the number is out of the tensor's range.",
            got=f"{number!r} with a tensor of {kind}",
            expected=dtypes.range_text(kind),
            hint="tp.cast(tensor, ...) to a larger type",
            tensors=[("the tensor", like)],
        )
    where = like._value.device
    value = Value(kind, (), where, data=storage.scalar(number, kind, where))
    value.location = user_location()
    return Tensor._from_value(value)


def _depends_on_input(value: Value) -> bool:
    """Whether a value depends on an argument or a dynamic size of a function being compiled."""
    seen = set()
    stack = [value]
    while stack:
        current = stack.pop()
        if current.is_input or (current.node is not None and current.node.op == "dimension"):
            return True
        if current.data is None and current.node is not None and current.node not in seen:
            seen.add(current.node)
            stack += [v for v in current.node.inputs if v is not None]
    return False


def _exported(tensor: Tensor) -> torch.Tensor:
    """The tensor's values for other libraries, which may write to them: each in its own place."""
    data = _data(tensor)
    if 0 in data.stride() and data.numel() > 1:  # An expanded tensor, from here on a plain one.
        data = tensor._value.data = data.contiguous()
    return data


def _data(tensor: Tensor) -> torch.Tensor:
    """The tensor's values, computed if they are not there yet."""
    value = tensor._value
    if value.data is not None:
        return value.data
    if value.node is None and not value.is_input:
        _reject_unset("eval", tensor)
    try:
        eager.evaluate([value])
    except eager.NoValueYet:
        raise TripyException(
            "A tensor was computed that depends on an input of a function being compiled.",
            got=f"{value.type_text}, whose values are known only when the compiled function runs",
            expected="no print, tolist, bool, eval or DLPack export of it while compiling",
            hint="tp.where in place of a Python if; return the tensor to look at it",
            tensors=[("the tensor", tensor)],
        ) from None
    computed: Any = tensor._value.data
    return computed
