"""What the functions of the layers share: types, one step of a network, constants read back.

Types go by the names of TensorRT's DataType ("FLOAT", "INT4"), because a torch tensor can't tell
an int4 from an int8.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

TORCH = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "FP8": torch.float8_e4m3fn,
    "INT4": torch.int8,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}
FLOATS = ("FLOAT", "HALF", "BF16")
INDICES = ("INT32", "INT64")
NUMBERS = (*FLOATS, "INT8", *INDICES)
RANGES = {
    "INT4": (-8, 7),
    "INT8": (-128, 127),
    "UINT8": (0, 255),
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}


class Refused(ValueError):
    """TensorRT would refuse this network, or these inputs."""


class Undocumented(NotImplementedError):
    """TensorRT's documentation doesn't say what comes out."""


class Violated(AssertionError):
    """An assertion layer found a false element."""


class Step:
    """One layer of a network, and the values of the tensors computed so far."""

    def __init__(self, trt: Any, layer: Any, values: dict, constants: set, ties: list) -> None:
        self.trt = trt
        self.layer = layer
        # Subclasses of ILayer hide `type` behind an attribute of their own.
        self.kind: str = trt.ILayer.type.fget(layer).name
        self.values = values
        self.constants = constants
        self.ties = ties

    def __str__(self) -> str:
        return f"layer {self.layer.name!r} ({self.kind})"

    def refuse(self, why: str) -> Refused:
        return Refused(f"{self}: {why}")

    def undocumented(self, what: str) -> Undocumented:
        return Undocumented(f"{self}: TensorRT doesn't document {what}")

    def missing(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{self}: the interpreter doesn't implement {what}")

    def tensor(self, index: int) -> Any:
        """The ITensor of an input, or None where an optional one is left out."""
        return self.layer.get_input(index) if index < self.layer.num_inputs else None

    def has(self, index: int) -> bool:
        return self.tensor(index) is not None

    def value(self, index: int = 0) -> torch.Tensor:
        if (tensor := self.tensor(index)) is None:
            raise self.refuse(f"input {index} is missing")
        return self.values[tensor.name]

    def type(self, index: int = 0) -> str:
        return self.tensor(index).dtype.name

    def out_type(self, index: int = 0) -> str:
        return self.layer.get_output(index).dtype.name

    def demand(self, allowed: tuple[str, ...], *indices: int) -> None:
        """Inputs have types that the operator's page allows."""
        for index in indices or (0,):
            if self.type(index) not in allowed:
                raise self.refuse(f"input {index} is {self.type(index)}, not one of {allowed}")

    def demand_same(self, *indices: int) -> None:
        """Strong typing: these inputs are of one type."""
        found = [self.type(index) for index in indices]
        if len(set(found)) > 1:
            raise self.refuse(f"inputs {indices} have the types {found}, and nothing casts them")

    def real(self, index: int = 0) -> torch.Tensor:
        """A float input in float32, in which each layer computes before it rounds once."""
        self.demand(FLOATS, index)
        return self.value(index).float()

    def integers(self, index: int) -> list[int]:
        """A shape tensor's numbers."""
        self.demand(INDICES, index)
        return [int(x) for x in self.value(index).reshape(-1)]

    def rounded(self, result: torch.Tensor, index: int = 0) -> torch.Tensor:
        """A result computed in float32, rounded once to the output's type."""
        return result.to(TORCH[self.out_type(index)])

    def fitting(self, result: np.ndarray, name: str) -> torch.Tensor:
        """Integers computed exactly (int64 or Python's own), in an integer type that holds them."""
        low, high = RANGES[name]
        # Arithmetic with arrays of no dimensions gives numbers.
        result = np.asarray(result)
        if result.size and (result.min() < low or result.max() > high):
            raise OverflowError(f"{self}: the result depends on undocumented overflow of {name}")
        return torch.from_numpy(np.array(result.astype(np.int64))).to(TORCH[name])

    def axes(self, mask: int, rank: int) -> list[int]:
        if mask <= 0 or mask >> rank:
            raise self.refuse(f"the mask of axes is {mask:#b}, the input has {rank} dimensions")
        return [axis for axis in range(rank) if mask >> axis & 1]

    def broadcast(self, *indices: int) -> None:
        """Inputs have one rank, and lengths that are equal or one."""
        shapes = [tuple(self.value(index).shape) for index in indices]
        if len({len(shape) for shape in shapes}) > 1:
            raise self.refuse(f"inputs of shapes {shapes}: the ranks must be equal")
        for lengths in zip(*shapes):
            if len({n for n in lengths if n != 1}) > 1:
                raise self.refuse(f"inputs of shapes {shapes} don't broadcast")


def exact(x: torch.Tensor, wide: bool) -> np.ndarray:
    """Integers as int64, or as Python's own where the result of int64 might not fit."""
    array = x.to(torch.int64).numpy()
    return array.astype(object) if wide else array


def from_weights(weights: Any, shape: Any) -> torch.Tensor:
    """The constant behind an attribute, of any type.

    The Python API gives numpy arrays for types that numpy has. For the others it gives a Weights
    object that says nothing of the address, so that's read where pybind11 keeps the pointer to
    the C++ object: the first word after the Python object's head. What it points at (nvinfer1::
    Weights: a DataType of 32 bits, a pointer, a count of 64 bits) is compared with what the object
    says of itself. Int4 values are packed two a byte, the low half first.
    """
    if isinstance(weights, np.ndarray):
        return torch.from_numpy(np.array(weights)).reshape(tuple(shape))

    class Held(ctypes.Structure):
        _fields_ = (
            ("type", ctypes.c_int32),
            ("values", ctypes.c_void_p),
            ("count", ctypes.c_int64),
        )

    head = object.__basicsize__
    address = ctypes.c_void_p.from_address(id(weights) + head).value
    held = Held.from_address(address)
    if held.type != int(weights.dtype) or held.count != weights.size:
        raise NotImplementedError("pybind11 no longer keeps its pointer where weights are read")
    name = weights.dtype.name
    if not held.count:
        return torch.empty(tuple(shape), dtype=TORCH[name])
    if name == "INT4":
        raw = np.frombuffer(ctypes.string_at(held.values, (held.count + 1) // 2), np.uint8)
        halves = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[: held.count].astype(np.int8)
        values = torch.from_numpy(np.where(halves > 7, halves - 16, halves).astype(np.int8))
    elif name in ("BF16", "FP8"):
        size = held.count * (2 if name == "BF16" else 1)
        raw = bytearray(ctypes.string_at(held.values, size))
        values = torch.frombuffer(raw, dtype=TORCH[name]).clone()
    else:
        raise NotImplementedError(f"constants of {name}")
    return values.reshape(tuple(shape))


def given(tensor: Any, value: np.ndarray | torch.Tensor) -> torch.Tensor:
    """What a caller gives for a network input, checked against the input's type and shape."""
    name = tensor.dtype.name
    if name not in TORCH:
        raise NotImplementedError(f"input {tensor.name!r} of {name}")
    if isinstance(value, np.ndarray):
        if value.dtype.name == "bfloat16":
            value = torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
        elif value.dtype.name == "float8_e4m3fn":
            value = torch.from_numpy(value.view(np.int8).copy()).view(torch.float8_e4m3fn)
        else:
            value = torch.from_numpy(np.array(value))
    if value.dtype != TORCH[name]:
        raise Refused(f"input {tensor.name!r} is {name}, given {value.dtype}")
    if not agrees(tensor, value):
        raise Refused(f"input {tensor.name!r} is {tensor.shape}, given {tuple(value.shape)}")
    if name == "INT4" and value.numel() and (value.min() < -8 or value.max() > 7):
        raise Refused(f"input {tensor.name!r} is INT4, given values outside -8..7")
    return value.detach().cpu().contiguous()


def agrees(tensor: Any, value: torch.Tensor) -> bool:
    """Whether a value has the shape that TensorRT infers, with -1 for what it can't know."""
    expected = tuple(tensor.shape)
    return len(expected) == value.dim() and all(e in (-1, n) for e, n in zip(expected, value.shape))
