"""JSON + npz: TensorRT-LLM's first model config, one pair of files with an npz a rank.

The JSON is the nested config, in which every tensor is the name of its array. Weights are in
floating point: whoever reads them rounds them with the scales beside them.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint import schemes
from tripy.quantization.checkpoint.families import FAMILIES, Family, Sizes, qkv
from tripy.quantization.checkpoint.folder import write_folder
from tripy.quantization.checkpoint.splitting import Linear, merged, padded, split
from tripy.quantization.state import LinearState

VERSION = 0.3
ARRAYS = {"ln_f": "final_layernorm"}  # What arrays are called where the JSON has other names.
DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}


def write(
    model: torch.nn.Module,
    layers: dict[str, LinearState],
    decoder_type: str,
    dtype: torch.dtype,
    folder: Union[str, os.PathLike],
    ranks: int,
) -> None:
    """Writes a model; see :func:`tripy.quantization.export_model_config`."""
    family = _family(decoder_type)
    if dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise TripyException("export_model_config: dtype.", got=str(dtype), expected=names)
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise TripyException("export_model_config: ranks.", got=ranks, expected="1 or more")
    quantization, _ = schemes.common(layers, 1)
    configs: list[dict[str, Any]] = [{} for _ in range(ranks)]
    shape = _sizes(model, family, decoder_type)
    tensors, used = model.state_dict(), set()
    for rank, config in enumerate(configs):
        config.update(
            version=VERSION, quantization=quantization, dtype=DTYPES[dtype],
            vocab_size=shape.vocabulary, rank=rank, tensor_parallel=ranks, pipeline_parallel=1,
            ln_embed=None, share_embedding_table=False, layers=[],
        )  # fmt: skip

    def take(name: str) -> torch.Tensor:
        if name not in tensors:
            raise TripyException(
                f"export_model_config: the model is no {decoder_type}.",
                got=f"no {name}",
                expected="the names of transformers' model",
            )
        used.add(name)
        return _cast(tensors[name].detach().cpu(), dtype, name)

    def norm(name: str) -> dict[str, Any]:
        bias = take(f"{name}.bias") if f"{name}.bias" in tensors else None
        return {
            "weight": take(f"{name}.weight"), "bias": bias, "eps": shape.eps,
            "layernorm_type": family.norm,
        }  # fmt: skip

    def linears(state: LinearState, kind: str, heads: int = 0) -> list[Linear]:
        used.update(name for name in tensors if name.startswith(f"{state.name}."))
        return split(_linear(state, kind, dtype), ranks, state.name, heads)

    for key, name in (
        ("vocab_embedding", family.embedding),
        ("position_embedding", family.positions),
    ):
        rows = None if name is None else padded(take(f"{name}.weight"), ranks).chunk(ranks)
        for rank, config in enumerate(configs):
            config[key] = None if rows is None else {"weight": rows[rank]}
    for index in range(shape.layers):
        prefix = family.layer.format(index)
        parts = {
            which: linears(state, "column", shape.heads if which == "q" else shape.kv_heads)
            for which, state in zip("qkv", qkv(family, layers, prefix, shape))
        }
        for key, kind in (("dense", "row"), ("fc", "column"), ("gate", "column"), ("proj", "row")):
            name = family.linear[key]
            state = None if name is None else layers.get(prefix + name)
            if name is not None and state is None:
                take(f"{prefix}{name}.weight")  # Says that it is not there.
            parts[key] = [None] * ranks if state is None else linears(state, kind)  # type: ignore[list-item]
        cache = _cache_scale(layers, prefix)
        for rank, config in enumerate(configs):
            mine = {key: each[rank] for key, each in parts.items()}
            config["layers"].append(
                {
                    "decoder_type": decoder_type,
                    "input_layernorm": norm(prefix + family.norms[0]),
                    "attention": {
                        "qkv": {which: mine[which] for which in "qkv"}, "dense": mine["dense"],
                        "kv_cache_scaling_factor": cache, "rotary_dim": None,
                    },
                    "post_layernorm": norm(prefix + family.norms[1]), "mlp_layernorm": None,
                    "mlp": {key: mine[key] for key in ("fc", "gate", "proj")}
                    | {"hidden_act": shape.activation},
                    "num_attention_heads": shape.heads, "attention_head_size": shape.head_size,
                    "num_kv_heads": 0 if shape.kv_heads == shape.heads else shape.kv_heads,
                    "max_position_embeddings": shape.positions, "rotary_pct": 1.0,
                    "use_alibi": False, "parallel_attention": False,
                    "rotary_base": shape.rotary_base, "seq_length": shape.positions,
                }
            )  # fmt: skip
    head = linears(layers[family.head], "column") if family.head in layers else [None] * ranks
    for rank, config in enumerate(configs):
        config["ln_f"] = norm(family.final_norm)
        config["lm_head"] = head[rank]
    _check_complete(layers, family, set(tensors) - used, decoder_type)

    def put(path: Path) -> None:
        described: Any = None
        for rank, config in enumerate(configs):
            arrays: dict[str, np.ndarray] = {}
            described = _named(config, "_np", arrays)
            np.savez(path / f"{decoder_type}_tp{ranks}_rank{rank}.npz", **arrays)  # type: ignore[arg-type]
            if rank == 0:
                text = json.dumps(described, indent=1)
        (path / f"{decoder_type}_tp{ranks}.json").write_text(text)

    def verify(path: Path) -> None:
        for rank, config in enumerate(configs):
            _compare(config, read(path, decoder_type, rank=rank, ranks=ranks), f"rank {rank}")

    write_folder(folder, put, verify)


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


def _family(decoder_type: str) -> Family:
    if decoder_type not in FAMILIES:
        raise TripyException(
            "export_model_config: the decoder type is not known.",
            got=repr(decoder_type),
            expected=", ".join(FAMILIES),
            hint="export_hf, which keeps the model's own names",
        )
    return FAMILIES[decoder_type]


def _sizes(model: torch.nn.Module, family: Family, decoder_type: str) -> Sizes:
    try:
        return family.sizes(model.config)
    except AttributeError as error:
        raise TripyException(
            f"export_model_config: the model is no {decoder_type}.",
            got=f"{type(model).__name__}: {error}",
            expected="a model of transformers of that kind, with its config",
        ) from None


def _linear(state: LinearState, kind: str, dtype: torch.dtype) -> Linear:
    weights, inputs = state.weight_quantizers, state.input_quantizer
    block = weights[0].config.block_size or 0 if weights else 0
    scales = [q.scale.detach().cpu() for q in weights]
    return Linear(
        kind,
        _cast(state.weight.detach().cpu(), dtype, state.name),
        None if state.bias is None else _cast(state.bias.detach().cpu(), dtype, state.name),
        None if inputs is None else inputs.scale.cpu().reshape(1),
        (scales[0].reshape(1) if scales[0].dim() == 0 else scales[0]) if scales else None,
        scales[1].reshape(1) if len(scales) > 1 else None,
        None if state.pre_quant_scale is None else state.pre_quant_scale.float().cpu(),
        block,
    )


def _cast(value: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    made = value.to(dtype)
    if not bool(torch.isfinite(made).all()):
        raise TripyException(
            f"{name}: values that {DTYPES[dtype]} cannot hold.",
            got=f"magnitudes up to {float(value.abs().max()):.4g}",
            expected=f"at most {torch.finfo(dtype).max:.4g}, and no NaN",
            hint="torch.bfloat16 or torch.float32",
        )
    return made


def _check_complete(
    layers: dict[str, LinearState], family: Family, left: set[str], decoder_type: str
) -> None:
    """Refuses what the format cannot hold, and would leave out in silence."""
    if left:
        raise TripyException(
            f"export_model_config: the format has no place for {sorted(left)[0]}.",
            got=f"{len(left)} parameters that a {decoder_type} does not have",
            expected=f"a {decoder_type} as transformers makes it",
            hint="export_hf, which keeps every parameter",
        )
    inner = {name: state for name, state in layers.items() if name != family.head}
    done = [name for name, state in inner.items() if schemes.is_quantized(state)]
    alone = [name for name in inner if name not in done]
    if done and alone:
        raise TripyException(
            f"{alone[0]}: the layer is not quantized, and others are.",
            got=f"{len(alone)} of {len(inner)} layers left alone",
            expected="all or none: the format declares one quantization for all but the head",
            hint="export_hf, which lists the layers that were left alone",
        )


def _cache_scale(layers: dict[str, LinearState], prefix: str) -> Any:
    """One factor for keys and values, which is all that the format has: the larger."""
    states = [s for n, s in layers.items() if n.startswith(prefix)]
    scales = [q.scale for s in states for q in (s.key_quantizer, s.value_quantizer) if q]
    return torch.stack(scales).max().cpu().reshape(1) if scales else None


def _named(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The value with the names of arrays in the place of tensors."""
    if isinstance(value, torch.Tensor):
        arrays[name] = _array(value)
        return name
    if isinstance(value, Linear):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {
            key: _named(each, f"{name}:{ARRAYS.get(key, key)}", arrays)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_named(each, f"{name}:{index}", arrays) for index, each in enumerate(value)]
    return value


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


def _array(value: torch.Tensor) -> np.ndarray:
    value = value.contiguous()
    # numpy has no bfloat16: its bits, as two bytes of no type.
    if value.dtype == torch.bfloat16:
        return value.view(torch.int16).numpy().view("V2")
    return value.numpy()


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == np.dtype("V2"):
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array)


def _compare(wanted: Any, got: Any, where: str) -> None:
    """Raises where what was read is not what was to be written."""
    same: Callable[[Any, Any], bool] = lambda a, b: a == b  # noqa: E731
    if isinstance(wanted, Linear):
        wanted, got = vars(wanted), vars(got)
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            _compare(value, got.get(key), f"{where}.{key}")
        return
    if isinstance(wanted, list):
        for index, value in enumerate(wanted):
            _compare(value, got[index], f"{where}.{index}")
        return
    if isinstance(wanted, torch.Tensor):
        same = lambda a, b: b is not None and a.dtype == b.dtype and torch.equal(a, b)  # noqa: E731
    if not same(wanted, got):
        raise TripyException(
            f"{where}: what was written is not what was meant; nothing was kept.",
            got=f"{got}",
            expected=f"{wanted}",
        )
