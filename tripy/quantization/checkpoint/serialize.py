"""A model config as JSON and arrays, and back.

bfloat16, which numpy does not have, is stored as two raw bytes, type V2. Readers that compare with
a V2 whose metadata say bfloat16 find it equal: npz files keep no metadata.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint.model_config import LinearConfig, ModelConfig, QKVConfig

PREFIX = "_np:"
BFLOAT16 = np.dtype("V2", metadata={"dtype": "bfloat16"})
# What arrays are called where that is not the field's name.
_ARRAY_NAMES = {"ln_f": "final_layernorm"}
# Older writers' names of fields.
_OLDER = {"positional_embedding": "position_embedding", "final_layernorm": "ln_f"}
_TYPES: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str, "dict": dict}


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """An array for an npz file.

    V2 without metadata: numpy would warn that it drops them.
    """
    x = x.detach().cpu().contiguous()
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().view("V2")
    return x.numpy()


def from_numpy(x: np.ndarray) -> torch.Tensor:
    """The tensor of an array from an npz file."""
    if x.dtype == BFLOAT16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def to_json(config: ModelConfig) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The config with names in place of tensors, and the tensors by name."""
    tensors: dict[str, torch.Tensor] = {}

    def walk(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, torch.Tensor):
            name = PREFIX + ":".join(path)
            tensors[name] = value
            return name
        if isinstance(value, list):
            return [walk(each, (*path, str(index))) for index, each in enumerate(value)]
        if dataclasses.is_dataclass(value):
            return {
                f.name: walk(getattr(value, f.name), (*path, _ARRAY_NAMES.get(f.name, f.name)))
                for f in dataclasses.fields(value)
            }
        return value

    return walk(config, ()), tensors


def from_json(data: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: str) -> ModelConfig:
    """The config with its tensors swapped in; keys that it does not know are ignored.

    Raises:
        TripyException: For arrays that are missing and values of other types, naming their place.
    """
    return _object(ModelConfig, data, arrays, (), where)


def _object(kind: type, data: Any, arrays: Mapping, path: tuple[str, ...], where: str) -> Any:
    if not isinstance(data, Mapping):
        raise _damaged(where, path, f"{data!r:.60}", "an object")
    if kind is QKVConfig and not {"q", "k", "v"} <= set(data):
        kind = LinearConfig  # Queries, keys and values are one layer.
    data = {**{_OLDER[k]: v for k, v in data.items() if k in _OLDER}, **data}
    values = {}
    for f in dataclasses.fields(kind):
        if f.name not in data:
            continue
        value, inner = data[f.name], (*path, f.name)
        if f.metadata.get("tensor"):
            values[f.name] = _tensor(value, arrays, inner, where)
        elif f.metadata.get("object") is None:
            values[f.name] = _plain(value, str(f.type), inner, where)
        elif f.name == "layers":
            if not isinstance(value, list):
                raise _damaged(where, inner, f"{value!r:.60}", "a list")
            values[f.name] = [
                _object(f.metadata["object"], each, arrays, (*inner, str(index)), where)
                for index, each in enumerate(value)
            ]
        elif value is not None:
            values[f.name] = _object(f.metadata["object"], value, arrays, inner, where)
    return kind(**values)


def _tensor(value: Any, arrays: Mapping, path: tuple[str, ...], where: str) -> Any:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _damaged(where, path, f"{value!r:.60}", "the name of an array, or null")
    if value not in arrays:
        raise TripyException(
            f"load_model_config: the array of {':'.join(path)} is missing.",
            got=f"{where}, without {value!r}",
            expected="an npz file with each array that the JSON file names",
        )
    try:
        return from_numpy(arrays[value])
    except TypeError as error:
        raise _damaged(where, path, str(error), "floating point numbers") from error


def _plain(value: Any, annotation: str, path: tuple[str, ...], where: str) -> Any:
    optional = annotation.startswith("Optional[")
    word = annotation.removeprefix("Optional[").removesuffix("]")
    wrong = not isinstance(value, _TYPES[word]) or (isinstance(value, bool) and word != "bool")
    if wrong and not (value is None and optional):
        raise _damaged(where, path, f"{value!r:.60}", annotation)
    return value


def _damaged(where: str, path: tuple[str, ...], got: str, expected: str) -> TripyException:
    place = ":".join(path) or "the model"
    return TripyException(
        f"load_model_config: {place} is not usable.", got=f"{got} ({where})", expected=expected
    )
