"""Reads model configs: JSON + npz, one rank at a time."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint.splitting import Linear, merged


def read(
    folder: Union[str, os.PathLike], decoder_type: str, rank: int = 0, ranks: int = 1
) -> dict[str, Any]:
    """Reads one rank's config; see :func:`tripy.quantization.load_model_config`."""
    path, name = Path(folder), f"{decoder_type}_tp{ranks}"
    try:
        described = json.loads((path / f"{name}.json").read_text())
        # Opened here: of a damaged file, np.load would leave it open.
        with (
            open(path / f"{name}_rank{rank}.npz", "rb") as opened,
            np.load(opened, allow_pickle=False) as file,
        ):
            arrays = {key: _tensor(file[key]) for key in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        found = sorted(p.name for p in path.glob("*_tp*.json")) if path.is_dir() else []
        raise TripyException(
            f"load_model_config: {path} cannot be read.",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            expected=f"{name}.json and {name}_rank{rank}.npz",
            hint=f"there is {', '.join(found)}" if found else None,
        ) from None
    try:
        config = _resolved(described, arrays, path)
        config["rank"] = rank
        _check_declared(config, path)
    except (TypeError, KeyError, AttributeError) as error:
        raise TripyException(
            f"load_model_config: {path} holds another kind of JSON.",
            got=f"{type(error).__name__}: {error}",
            expected="a model config, nested as export_model_config writes it",
        ) from None
    return config


def merged_qkv(attention: dict[str, Any]) -> Linear:
    """Queries, keys and values of an attention that was read, as one layer."""
    return merged([attention["qkv"][which] for which in "qkv"], "qkv")


def _resolved(value: Any, arrays: dict[str, torch.Tensor], path: Path) -> Any:
    if isinstance(value, str) and value.startswith("_np:"):
        if value not in arrays:
            raise TripyException(
                f"load_model_config: {path} is not whole.",
                got=f"no array {value}",
                expected="every array that the JSON names",
            )
        return arrays[value]
    if isinstance(value, list):
        return [_resolved(each, arrays, path) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _resolved(each, arrays, path) for key, each in value.items()}
    if "linear_type" in found:
        return Linear(**{f.name: found[f.name] for f in fields(Linear) if f.name in found})
    return found


def _check_declared(config: dict[str, Any], path: Path) -> None:
    """A quantization that is declared has its tensors."""
    kind = config.get("quantization")
    needed = {
        "fp8": ("weights_scaling_factor", "activation_scaling_factor"),
        "int8_sq": ("weights_scaling_factor", "activation_scaling_factor"),
        "int4_awq": ("weights_scaling_factor",),
        "w4a8_awq": (
            "weights_scaling_factor", "weights_scaling_factor_2", "activation_scaling_factor",
        ),
    }.get(kind or "", ())  # fmt: skip
    found: list[Linear] = []
    for layer in config.get("layers", []):
        found += [each for each in layer["attention"]["qkv"].values() if each is not None]
        found += [layer["attention"]["dense"]]
        found += [each for each in layer["mlp"].values() if isinstance(each, Linear)]
    quantized = [each for each in found if each.weights_scaling_factor is not None]
    missing = {n for each in quantized for n in needed if getattr(each, n) is None}
    if kind and (missing or not quantized):
        raise TripyException(
            f"load_model_config: {path} declares {kind}, and does not have it.",
            got="no " + ", ".join(sorted(missing) or ["weights_scaling_factor"]),
            expected=f"{', '.join(needed)} of each layer that is quantized",
        )


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == np.dtype("V2"):
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array)
