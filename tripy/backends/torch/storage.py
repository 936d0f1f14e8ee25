"""How values are held: torch tensors, and conversions between them and Python, numpy and DLPack.

int4 has no torch type here: outside compiled programs its elements are held one a byte, as int8.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import torch

from tripy import dtypes
from tripy.backends.torch.dlpack import from_dlpack
from tripy.device import device
from tripy.errors import TripyException

TORCH_TYPES: dict[dtypes.dtype, torch.dtype] = {
    dtypes.float32: torch.float32,
    dtypes.float16: torch.float16,
    dtypes.bfloat16: torch.bfloat16,
    dtypes.float8: torch.float8_e4m3fn,
    dtypes.int4: torch.int8,
    dtypes.int8: torch.int8,
    dtypes.int32: torch.int32,
    dtypes.int64: torch.int64,
    dtypes.bool: torch.bool,
}
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
TRIPY_TYPES = {t: k for k, t in TORCH_TYPES.items() if k is not dtypes.int4}


@functools.cache
def torch_device(where: device) -> torch.device:
    """The torch device; an error that names what is there if it is not usable."""
    if where.kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if where.index >= count:
        raise TripyException(
            "The device is not there.",
            got=str(where),
            expected="cpu" + "".join(f", gpu:{i}" for i in range(count)),
            hint='tp.device("cpu")' if not count else None,
        )
    return torch.device("cuda", where.index)


@functools.cache
def _device(kind: str, index: int) -> device:
    return device(f"{'gpu' if kind == 'cuda' else kind}:{index}")


def device_of(array: torch.Tensor) -> device:
    """The tripy device of a torch tensor."""
    return _device(array.device.type, array.device.index or 0)


def filled(shape: tuple, number: Any, kind: dtypes.dtype, where: device) -> torch.Tensor:
    """A tensor of a number that fits the type."""
    target, place = TORCH_TYPES[kind], torch_device(where)
    try:
        return torch.full(shape, number, dtype=target, device=place)
    except RuntimeError:
        # torch takes no number above the type's largest, also where it would be rounded to that.
        return torch.full(shape, number, dtype=torch.float64, device=place).to(target)


def scalar(number: Any, kind: dtypes.dtype, where: device) -> torch.Tensor:
    """A 0-D tensor of a number that fits the type."""
    return filled((), number, kind, where)


def from_data(
    data: Any, kind: Optional[dtypes.dtype], where: Optional[device], home: device
) -> tuple[torch.Tensor, dtypes.dtype]:
    """User data as a torch tensor of a tripy type, shared where possible.

    Args:
        data: What the user gave.
        kind: The type wanted; None for the data's own.
        where: The device wanted; None for the data's own.
        home: Where data goes that has no device yet: numbers and lists.
    """
    if isinstance(data, torch.Tensor):
        array = _from_torch(data)
    elif isinstance(data, float):  # Also numpy's float64 number, which is a Python float too.
        return _from_python(float(data), kind, where or home)
    elif isinstance(data, np.generic):  # A number, which lives nowhere yet.
        array, where = _from_numpy(np.asarray(data)), where or home
    elif isinstance(data, np.ndarray):
        array = _from_numpy(np.asarray(data))
    elif hasattr(data, "__dlpack__"):
        array = _from_dlpack(data)
    else:
        return _from_python(data, kind, where or home)
    if array.layout is not torch.strided:
        raise _refused("a sparse or packed torch tensor", "a dense one", "tensor.to_dense()")
    if kind is None:
        if array.dtype not in TRIPY_TYPES:
            raise TripyException(
                "Tensor: tripy does not have the array's data type.",
                got=f"an array of {str(array.dtype).removeprefix('torch.')}",
                expected="one of " + ", ".join(map(str, TRIPY_TYPES.values())),
                hint="Tensor(data, dtype=tp.float32) to convert it",
            )
        kind = TRIPY_TYPES[array.dtype]
    array = convert(array, kind)
    if where is not None:
        array = array.to(torch_device(where))
    return array, kind


def _refused(got: str, expected: str, hint: Optional[str] = None) -> TripyException:
    return TripyException("Tensor: data is not an array.", got=got, expected=expected, hint=hint)


def _from_numpy(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name in ("bfloat16", "float8_e4m3fn"):  # ml_dtypes, as JAX uses them.
        raw = {2: np.int16, 1: np.int8}[array.dtype.itemsize]
        return _from_numpy(array.view(raw)).view(getattr(torch, array.dtype.name))
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # torch has no negative strides, none of parts of an element, and no read-only memory.
    fits = all(s >= 0 and s % max(array.itemsize, 1) == 0 for s in array.strides)
    if not (fits and array.flags.writeable and array.flags.aligned):
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise _refused(
            f"a numpy array of {array.dtype}", "numbers or bools", "array.astype('float32')"
        ) from error


def _from_torch(array: torch.Tensor) -> torch.Tensor:
    if array.device.type not in ("cpu", "cuda"):
        raise _refused(f"a torch tensor on {array.device}", "one on the CPU or on a CUDA GPU")
    # A view whose sign is still to be changed has memory that says something else.
    return array.detach().resolve_neg()


def _from_dlpack(data: Any) -> torch.Tensor:
    try:
        return from_dlpack(data)
    except Exception as error:  # Whatever the other library raises, the user needs one message.
        raise _refused(
            f"{type(data).__name__}: {str(error) or type(error).__name__}",
            "an array that DLPack can share",
        ) from error


def _from_python(
    data: Any, kind: Optional[dtypes.dtype], where: device
) -> tuple[torch.Tensor, dtypes.dtype]:
    target = torch_device(where)
    try:
        if isinstance(data, (list, tuple)):
            data = _unwrap(data)
        array = torch.as_tensor(data)
        if array.is_floating_point() and kind in dtypes.INTEGER_RANGE:
            array = torch.as_tensor(data, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        text = str(error)
        ragged = "expected sequence" in text or "must match" in text or "sequence" in text
        got = "a ragged list" if ragged else f"{type(data).__name__}: {text.splitlines()[0]}"
        raise _refused(got, "numbers or bools in lists of equal lengths") from error
    if array.is_complex():
        raise _refused("complex numbers", "real numbers", "two tensors, or a last dimension of 2")
    if kind is None:
        if array.dtype is torch.bool:
            kind = dtypes.bool
        elif array.dtype.is_floating_point:
            kind = dtypes.float32
        else:
            low, high = dtypes.INTEGER_RANGE[dtypes.int32]
            fits = not array.numel() or (low <= int(array.min()) and int(array.max()) <= high)
            kind = dtypes.int32 if fits else dtypes.int64
    return convert(array, kind).to(target), kind


def _unwrap(data: Any) -> Any:
    """Nested lists with arrays, numpy's numbers and host sizes in them as plain numbers."""
    if isinstance(data, (list, tuple)):
        return [_unwrap(item) for item in data]
    if isinstance(data, (bool, int, float)):
        return data
    return data.tolist() if hasattr(data, "tolist") else data


def convert(array: torch.Tensor, kind: dtypes.dtype) -> torch.Tensor:
    """User data in another type; integers that do not fit are refused, never wrapped."""
    if array.is_complex():
        raise _refused("complex numbers", "real numbers", "array.real")
    target = TORCH_TYPES[kind]
    is_integer = kind in dtypes.INTEGER_RANGE and array.dtype is not torch.bool
    if is_integer and array.numel() and (array.dtype is not target or kind is dtypes.int4):
        if array.dtype.is_floating_point:
            # As casts do: to int4 to the nearest, ties to even, else towards zero.
            array = array.double()
            array = array.round() if kind is dtypes.int4 else array.trunc()
        low, high = dtypes.INTEGER_RANGE[kind]
        # torch has no minimum of large unsigned integers.
        wide = array.double() if array.dtype in _UNSIGNED else array
        least, most = wide.min().item(), wide.max().item()
        if not low <= least <= most <= high:  # Exact: Python compares ints and floats so.
            raise TripyException(
                f"Tensor: a value does not fit {kind}.",
                got=f"values from {least} to {most}",
                expected=f"{low} to {high}",
            )
    if target is torch.float8_e4m3fn and array.dtype is not target:
        return to_float8(array)
    return array.to(target)


def to_float8(array: torch.Tensor) -> torch.Tensor:
    """Rounded to the nearest E4M3 value, ties to even, saturating at 448; NaN stays NaN."""
    return array.float().clamp(-448.0, 448.0).to(torch.float8_e4m3fn)


def to_list(array: torch.Tensor) -> Any:
    if array.dtype is torch.float8_e4m3fn:
        array = array.float()
    return array.tolist()


def to_numpy(array: torch.Tensor) -> np.ndarray:
    if array.dtype in (torch.bfloat16, torch.float8_e4m3fn):
        array = array.float()
    return array.cpu().numpy()


def to_text(array: torch.Tensor, kind: dtypes.dtype, where: device) -> str:
    values = np.array2string(to_numpy(array), separator=", ", precision=4, prefix="tensor(")
    return f"tensor({values},\n       dtype={kind}, device={where}, shape={tuple(array.shape)})"


@functools.cache
def _trim() -> Any:
    """glibc's malloc_trim; None where there is none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


def give_memory_back() -> None:
    """Return what is free to the system: plain weights are let go of once they are packed."""
    trim = _trim()
    if trim is not None:
        trim(0)


def bytes_of(array: torch.Tensor) -> torch.Tensor:
    """All elements in order as bytes, in one dimension."""
    flat = array.contiguous().reshape(-1)
    if flat.stride() != (1,):  # One element counts as contiguous whatever its stride.
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def pack_int4(array: torch.Tensor) -> torch.Tensor:
    """Two elements to a byte, the first in the low half; one zero is added to an odd number."""
    flat = array.reshape(-1)
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    low, high = flat.view(torch.uint8)[0::2], flat.view(torch.uint8)[1::2]
    return (low & 15) | (high << 4)


def unpack_int4(packed: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The reverse: int8 elements of the given shape."""
    # Shifting left and back as signed bytes extends the sign of each half.
    low = (packed << 4).view(torch.int8) >> 4
    high = packed.view(torch.int8) >> 4
    return torch.stack([low, high], -1).reshape(-1)[: math.prod(shape)].reshape(tuple(shape))
