"""Other libraries' arrays by DLPack (https://dmlc.github.io/dlpack), as torch tensors.

torch.from_dlpack does the work. It ends the process where a stride is negative, so strides are
looked at first, in the structure that the capsule holds.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # In elements; NULL for a compact array.
        ("byte_offset", ctypes.c_uint64),
    )


class _VersionedTensor(ctypes.Structure):
    """The beginning of DLManagedTensorVersioned, from version 1.0 on."""

    _fields_ = (
        ("version", ctypes.c_uint32 * 2),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)


class _NegativeStride(Exception):
    pass


def _check_strides(capsule: Any) -> None:
    if _is_valid(capsule, b"dltensor_versioned"):
        address = _pointer(capsule, b"dltensor_versioned")
        tensor = _VersionedTensor.from_address(address).tensor
    elif _is_valid(capsule, b"dltensor"):
        tensor = _Tensor.from_address(_pointer(capsule, b"dltensor"))
    else:
        return  # torch knows what to say.
    if tensor.strides and any(stride < 0 for stride in tensor.strides[: tensor.ndim]):
        raise _NegativeStride


class _Checked:
    """An array that shows its memory only if torch can use it."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **kwargs: Any) -> Any:
        capsule = self.array.__dlpack__(**kwargs)
        _check_strides(capsule)
        return capsule


def from_dlpack(array: Any) -> torch.Tensor:
    """An array's memory as a torch tensor; a copy if a stride is negative."""
    try:
        # The array's own attribute first: CuPy 14 exports a stride of -4 as 2**62 - 4.
        strides = getattr(array, "strides", None)
        if isinstance(strides, tuple) and any(isinstance(s, int) and s < 0 for s in strides):
            raise _NegativeStride
        return torch.from_dlpack(_Checked(array))
    except _NegativeStride:
        if hasattr(array, "copy"):  # numpy's and CuPy's, whose older versions know no other way.
            return torch.from_dlpack(_Checked(array.copy()))
        return torch.from_dlpack(_Checked(array), copy=True)
