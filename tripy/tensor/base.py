"""The lazy tensor: operations record graph nodes, and values are computed when asked for."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Union

from tripy import config, dtypes
from tripy.backends.torch import eager, storage
from tripy.device import device, require_device
from tripy.device import device as Device
from tripy.errors import Location, TripyException, user_location
from tripy.graph import Value
from tripy.tensor.operators import Operators

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tripy.tensor.sizes import DimensionSize


class _TraceState(threading.local):
    """Whether this thread is recording a function for the compiler."""

    active = False
    # The device that the function is compiled for: what is made inside it lives there.
    device: Optional[Device] = None


_trace = _TraceState()


@contextmanager
def tracing(where: Device) -> Iterator[None]:
    """Inside it, ``Tensor.shape`` gives DimensionSizes, and new tensors live on a device."""
    before = _trace.active, _trace.device
    _trace.active, _trace.device = True, where
    try:
        yield
    finally:
        _trace.active, _trace.device = before


def current_device() -> Device:
    """Where new tensors live: on the device being compiled for, else on the default one."""
    return _trace.device or config.default_device


# What numpy has without another package; int4 is held as int8.
_IN_NUMPY = tuple(t for t in dtypes.ALL if t not in (dtypes.bfloat16, dtypes.float8))


class NotShared(TripyException, BufferError, ValueError):
    """For other libraries, what DLPack (BufferError) and numpy (ValueError) ask for here."""


class Tensor(Operators):
    """An array of one data type on one device, computed when its values are needed.

    Args:
        data: A number, a (nested) list of numbers, or anything with ``__dlpack__``: a torch, numpy,
            CuPy or JAX array. Memory is shared where layout and device allow it; numpy arrays that
            are read-only, or have negative strides, are copied.
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

    # Makes a DimensionSize; set by tripy.tensor.sizes, which needs this class.
    _size: ClassVar[Any]

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
        known = isinstance(dtype, dtypes.dtype) and dtype in dtypes.ALL
        if dtype is not None and not known:
            raise TripyException(
                "Tensor: this is not a data type.",
                got=f"dtype={dtype!r:.80}",
                expected=", ".join(f"tp.{kind}" for kind in dtypes.ALL),
                hint=f"dtype=tp.{dtype}" if str(dtype) in dtypes.BY_NAME else None,
            )
        if device is not None:
            require_device("Tensor", device)
        array, kind = storage.from_data(data, dtype, device, current_device())
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
            return tuple(self._size(size) for size in shape)
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
        """A capsule, by DLPack's ``stream``, ``max_version``, ``dl_device`` and ``copy``."""
        if self.dtype is dtypes.int4:
            raise NotShared(
                "int4 has no DLPack form.",
                got=self._value.type_text,
                expected="any other data type",
                hint="tp.cast(tensor, tp.int32)",
                tensors=[("the tensor", self)],
            )
        data = _exported(self)
        try:
            return data.__dlpack__(**kwargs)
        except Exception as error:  # torch has several, assertions among them.
            raise NotShared(
                "The tensor cannot be exported in this way.",
                got=", ".join(f"{k}={v!r}" for k, v in kwargs.items()) + f": {error!s:.200}",
                expected=f"a consumer on {self.device}, with a stream only on a GPU",
                tensors=[("the tensor", self)],
            ) from error

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        array = self.numpy()
        is_shared = self.device.kind == "cpu" and self.dtype in _IN_NUMPY
        if copy is False and not (is_shared and (dtype is None or array.dtype == dtype)):
            raise NotShared(
                "numpy cannot share the tensor's memory.",
                got=f"{self._value.type_text} on {self.device}, copy=False",
                expected="a tensor on the CPU of a data type that numpy has, and no other dtype",
                hint="copy=None, or tensor.numpy()",
                tensors=[("the tensor", self)],
            )
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
        if self._value.data is None and depends_on_input(self._value):
            return f"<tensor {self._value.type_text} of a function that is being compiled>"
        return str(self)

    __hash__ = object.__hash__

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


def method(function: Any) -> Any:
    """Make a function of tripy.ops a method of Tensor too."""
    setattr(Tensor, function.__name__, function)
    return function


def reject_unset(op: str, tensor: Any) -> None:
    if tensor._value.data is None and tensor._value.node is None:
        raise TripyException(
            f"{op}: a parameter has no value yet.",
            got=f"{tensor.name or 'a parameter'}: {tensor._value.type_text}, not assigned",
            expected="a value assigned to it, or loaded with load_state_dict",
            hint="module.initialize_dummy_parameters() where any values will do",
        )


def depends_on_input(value: Value) -> bool:
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
        reject_unset("eval", tensor)
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
