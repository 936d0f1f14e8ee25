"""Parameters, and what a module accepts as the value of one.

A parameter is a tensor that a module owns. It may be declared before it has a value: then it has a
shape and a data type, and every use of its values is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, Optional, Union

import numpy as np

from tripy import config, dtypes
from tripy.device import device
from tripy.errors import TripyException, user_location
from tripy.graph import Value
from tripy.tensor import DimensionSize, Tensor, depends_on_input


class Parameter(Tensor):
    """A tensor that a module owns; the compiler treats it as a constant.

    Args:
        data: As for :class:`Tensor`, or a Tensor, whose values the parameter then has. They are not
            computed for that.
        dtype: Data type, as for :class:`Tensor`; a Tensor of another type is cast.
        device: Where the parameter lives; a Tensor that lives elsewhere is copied there.
        name: A name for messages and prints.

    Raises:
        TripyException: As :class:`Tensor`, and for a tensor that depends on an input of a function
            that is being compiled.

    Example:
        >>> import tripy as tp
        >>> weight = tp.Parameter([1.0, 2.0])
        >>> isinstance(weight, tp.Tensor), (weight * 2).tolist()
        (True, [2.0, 4.0])
    """

    __slots__ = ()

    def __init__(
        self,
        data: Any,
        dtype: Optional[dtypes.dtype] = None,
        device: Optional[device] = None,
        name: Optional[str] = None,
    ) -> None:
        if not isinstance(data, Tensor):
            super().__init__(data, dtype, device, name)
            return
        if is_unset(data):
            raise TripyException(
                "Parameter: the tensor has no value yet.",
                got=f"{data!r}",
                expected="a tensor with values",
                tensors=[("the parameter", data)],
            )
        if data._value.data is None and depends_on_input(data._value):
            raise TripyException(
                "A parameter cannot depend on an input of a function that is being compiled.",
                got=f"{data._value.type_text}, whose values are known only when the function runs",
                expected="a tensor that is the same for every call",
                hint="return the tensor, and pass it in again: state is in the arguments",
                tensors=[("the tensor", data)],
            )
        if dtype is not None and dtype is not data.dtype:
            data = data.cast(dtype)
        if device is not None and device != data.device:
            data = data.copy(device)
        self._adopt(data._value)
        if name is not None:
            self.name = name

    @classmethod
    def _unset(cls, shape: tuple[int, ...], dtype: dtypes.dtype, name: str = "") -> Parameter:
        """A parameter that is declared and has no value."""
        parameter = object.__new__(cls)
        where = config.default_device
        parameter._adopt(Value(dtype, shape, where, name=name or None, location=user_location()))
        return parameter

    def __deepcopy__(self, memo: dict) -> Parameter:
        # Values never change, so a copy may share them; it is a parameter of its own all the same.
        if is_unset(self):
            return Parameter._unset(self._value.shape, self.dtype, self.name or "")  # type: ignore[arg-type]
        return Parameter(self)

    def __str__(self) -> str:
        if is_unset(self):
            name = f" {self.name}" if self.name else ""
            return f"<parameter{name}: {self._value.type_text}, not set>"
        return super().__str__()

    def __repr__(self) -> str:
        return str(self) if is_unset(self) else super().__repr__()


def is_unset(tensor: Tensor) -> bool:
    """Whether it is a parameter that is declared and has no value."""
    value = tensor._value
    return value.data is None and value.node is None and not value.is_input


def is_parameter(value: object) -> bool:
    """Whether a module that holds the value has it as a parameter: sizes are not parameters."""
    return isinstance(value, Tensor) and not isinstance(value, DimensionSize)


class Problem(NamedTuple):
    """Why a value is not accepted."""

    summary: str
    got: str
    expected: str
    hint: Optional[str] = None
    tensor: Optional[Tensor] = None

    def error(self, label: str) -> TripyException:
        """The problem as an exception about the parameter of that name."""
        return TripyException(
            f"{label}: {self.summary}",
            got=self.got,
            expected=self.expected,
            hint=self.hint,
            tensors=[("the new value", self.tensor)] if self.tensor is not None else (),
        )


@dataclass(frozen=True)
class Declaration:
    """What a module accepts as the value of one of its parameters.

    Attributes:
        shape: Its shape; where several are legal, that of the dummy value.
        dtypes: The data types it may have, the usual one first.
        required: Whether the module can be called only when it has a value; else None is accepted.
        loads: Whether load_state_dict may set it where it is None.
        fits: Tells whether a shape is legal, where more than one is.
        legal: The legal shapes in words, where more than one is.
        is_scale: Whether it is a quantization scale: finite and above 0; numbers are accepted.
        refused: Why it can have no value at all in this module, and what to do instead.
    """

    shape: tuple[int, ...]
    dtypes: tuple[dtypes.dtype, ...]
    required: bool = True
    loads: bool = True
    fits: Optional[Callable[[tuple], bool]] = None
    legal: str = ""
    is_scale: bool = False
    refused: Optional[tuple[str, str]] = None

    @classmethod
    def like(cls, current: Tensor) -> Declaration:
        """That of a parameter that a user's module has: the new value has to be like the old."""
        return cls(current._value.shape, (current.dtype,))  # type: ignore[arg-type]

    def unset(self, name: str) -> Parameter:
        """A parameter as declared, without a value."""
        return Parameter._unset(self.shape, self.dtypes[0], name)

    def _type_text(self) -> str:
        types = " or ".join(map(str, self.dtypes))
        return f"{types}, shape {self.legal or self.shape}"

    def examine(self, value: Any) -> Union[Parameter, Problem, None]:
        """The value as a parameter, or the reason that it is not accepted."""
        if value is None and not self.required:
            return None
        if self.refused is not None:
            return Problem(self.refused[0], _describe(value), "None", self.refused[1])
        if self.is_scale and (_is_number(value) or isinstance(value, (list, tuple))):
            value = Tensor(value, dtype=self.dtypes[0])
        if not is_parameter(value):
            return Problem(
                "a parameter was assigned something that is not a tensor.",
                _describe(value),
                self._type_text() + ("" if self.required else ", or None"),
                "tp.Tensor(value); del the attribute first to use its name for something else",
            )
        problem = self._type_problem(value)
        if problem is not None:
            return problem
        parameter = value if isinstance(value, Parameter) else Parameter(value)
        if self.is_scale and not is_unset(parameter):
            return self._scale_problem(parameter) or parameter
        return parameter

    def _type_problem(self, value: Tensor) -> Optional[Problem]:
        shape, got = value._value.shape, value._value.type_text
        if value.dtype not in self.dtypes:
            hint = f"tp.cast(value, tp.{self.dtypes[0]})"
            if self.is_scale:
                hint += ", or a plain number or list, which takes the module's data type"
            return Problem("the data type does not fit.", got, self._type_text(), hint, value)
        if not (self.fits(shape) if self.fits is not None else shape == self.shape):
            return Problem("the shape does not fit.", got, self._type_text(), None, value)
        return None

    def _scale_problem(self, scale: Parameter) -> Optional[Problem]:
        # Scales are small: looking at the values now saves a wrong result, or an error that comes
        # when the line that made them is long past.
        values = scale.numpy()
        if np.all(np.isfinite(values) & (values > 0)):
            return None
        return Problem(
            "a scale is not usable.",
            f"values from {values.min()} to {values.max()}, dtype {scale.dtype}",
            "finite numbers above 0",
            "check the calibration: a tensor that is all zeros has amax 0",
            scale,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _describe(value: Any) -> str:
    if isinstance(value, DimensionSize):
        return f"a DimensionSize: {value}"
    if isinstance(value, Tensor):
        return f"a tensor, {value._value.type_text}"
    text = repr(value)
    return f"{type(value).__name__}: {text if len(text) <= 80 else text[:77] + '...'}"
