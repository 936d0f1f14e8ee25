"""Reads a model config: JSON and npz, of any writer of the format."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from tripy.errors import TripyException
from tripy.quantization.checkpoint.directory import read_json
from tripy.quantization.checkpoint.model_config import (
    DecoderLayerConfig,
    LinearConfig,
    ModelConfig,
    QKVConfig,
    linears,
)
from tripy.quantization.checkpoint.schemes import BY_QUANTIZATION
from tripy.quantization.checkpoint.serialize import from_json
from tripy.quantization.checkpoint.splitting import join_ranks

_CALLER = "load_model_config"
_FILE = re.compile(r"(?P<decoder>.+)_tp(?P<ranks>[1-9]\d*)\.json")


def load_model_config(
    export_dir: Union[str, os.PathLike],
    decoder_type: Optional[str] = None,
    rank: Optional[int] = None,
    *,
    tensor_parallel: Optional[int] = None,
) -> ModelConfig:
    """Read what :func:`export_model_config`, or another writer of the format, has written.

    Args:
        export_dir: The folder.
        decoder_type: Whose files; not needed where there is one model.
        rank: Whose part; None joins all ranks' parts to the whole model.
        tensor_parallel: For how many ranks; not needed where there is one model.

    Returns:
        The config with its tensors, weights not rounded.

    Raises:
        TripyException: For files that are missing or damaged, arrays that are missing, and a
            quantization that is declared and whose scales are not there.

    Example:
        >>> import torch, tempfile, tripy.quantization as tq
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tq.export_model_config(model, "gpt2", "float16", folder, inference_gpus=2)
        ...     part = tq.load_model_config(folder, rank=1)
        >>> part.layers[0].attention.qkv.q.weight.shape
        torch.Size([16, 32])
    """
    folder = Path(export_dir)
    stem, ranks = _find(folder, decoder_type, tensor_parallel)
    if rank is None:
        return join_ranks([read_rank(folder, stem, each) for each in range(ranks)])
    if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank < ranks:
        raise TripyException(
            f"{_CALLER}: there is no such rank.",
            got=f"rank={rank!r}",
            expected=f"0 to {ranks - 1}, or None for all",
        )
    return read_rank(folder, stem, rank)


def _find(folder: Path, decoder_type: Optional[str], ranks: Optional[int]) -> tuple[str, int]:
    """The files' common name, and how many ranks there are."""
    found = []
    for path in sorted(folder.glob("*.json")):
        match = _FILE.fullmatch(path.name)
        if match is None or decoder_type not in (None, match["decoder"]):
            continue
        if ranks in (None, int(match["ranks"])):
            found.append((path.stem, int(match["ranks"])))
    if len(found) != 1:
        decoder, number = decoder_type or "{decoder_type}", ranks or "{N}"
        raise TripyException(
            f"{_CALLER}: {'no model config' if not found else 'several model configs'} to read.",
            got=f"{folder}: " + (", ".join(f"{stem}.json" for stem, _ in found) or "none"),
            expected=f"one {decoder}_tp{number}.json",
            hint="decoder_type= and tensor_parallel=, which say which one" if found else None,
        )
    return found[0]


def read_rank(folder: Path, stem: str, rank: int) -> ModelConfig:
    """One rank's config, checked."""
    data = read_json(folder / f"{stem}.json", _CALLER)
    path = folder / f"{stem}_rank{rank}.npz"
    config = from_json(data, read_arrays(path), path.name)
    config.rank = rank
    ranks = int(stem.rpartition("_tp")[2])
    if config.tensor_parallel != ranks:
        raise _unusable(
            f"{stem}.json: the number of ranks", f"{config.tensor_parallel}", f"{ranks}, as named"
        )
    check_config(config, path.name)
    return config


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file; nothing in it is run.

    Raises:
        TripyException: For a file that is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        missing = isinstance(error, FileNotFoundError)
        raise TripyException(
            f"{_CALLER}: {path.name} {'is missing' if missing else 'is damaged'}.",
            got=f"{path}: {error}",
            expected="an npz file of plain arrays, one a rank",
        ) from error


def check_config(config: ModelConfig, where: str) -> None:
    """Refuses a config whose parts are not there, or do not fit each other."""
    if config.quantization is not None and config.quantization not in BY_QUANTIZATION:
        raise _unusable(
            f"{where}: quantization", f"{config.quantization!r}", f"null, {', '.join(BY_QUANTIZATION)}"
        )
    if not config.layers:
        raise _unusable(f"{where}: layers", "none", "one or more")
    for index, layer in enumerate(config.layers):
        _check_layer(layer, f"{where}: layers:{index}")
    for path, linear, _ in linears(config):
        _check_linear(linear, config, f"{where}: {path}", may_be_alone=path == "lm_head")
    if config.lm_head is None and not config.share_embedding_table:
        raise _unusable(f"{where}: lm_head", "null", "a layer, or share_embedding_table")
    for name in ("vocab_embedding", "position_embedding"):
        table = getattr(config, name)
        if table is not None and (table.weight is None or table.weight.dim() != 2):
            raise _unusable(f"{where}: {name}", _shape(table.weight), "a weight [rows, hidden]")
    if config.vocab_embedding is None:
        raise _unusable(f"{where}: vocab_embedding", "null", "a table")


def _check_layer(layer: DecoderLayerConfig, place: str) -> None:
    attention, mlp = layer.attention, layer.mlp
    qkv = None if attention is None else attention.qkv
    parts: dict[str, Any] = {
        "attention:qkv": qkv,
        "attention:dense": getattr(attention, "dense", None),
        "mlp:fc": getattr(mlp, "fc", None),
        "mlp:proj": getattr(mlp, "proj", None),
    }
    if isinstance(qkv, QKVConfig):
        parts |= {f"attention:qkv:{part}": getattr(qkv, part) for part in "qkv"}
    for name, value in parts.items():
        if value is None:
            raise _unusable(f"{place}:{name}", "null", "a linear layer")
    if layer.num_attention_heads < 1 or layer.num_kv_heads < 0:
        raise _unusable(
            f"{place}: heads", f"{layer.num_attention_heads}, {layer.num_kv_heads}", "1 or more"
        )


def _check_linear(
    linear: LinearConfig, config: ModelConfig, place: str, may_be_alone: bool
) -> None:
    if linear.linear_type not in ("column", "row"):
        raise _unusable(f"{place}:linear_type", repr(linear.linear_type), "column or row")
    weight, size = linear.weight, linear.awq_block_size
    if weight is None or weight.dim() != 2 or not weight.is_floating_point():
        raise _unusable(f"{place}:weight", _shape(weight), "floating point, [out, in]")
    out, inputs = weight.shape
    scales = {
        "weights_scaling_factor": linear.weights_scaling_factor,
        "weights_scaling_factor_2": linear.weights_scaling_factor_2,
        "activation_scaling_factor": linear.activation_scaling_factor,
    }
    wanted: dict[str, tuple[int, ...]] = {}
    scheme = BY_QUANTIZATION.get(config.quantization or "")
    given = [name for name, scale in scales.items() if scale is not None]
    if scheme is not None and (given or not may_be_alone):
        if scheme.weight[0] == 4:
            if size < 1 or inputs % size:
                raise _unusable(f"{place}:awq_block_size", f"{size}", f"a divisor of {inputs}")
            wanted["weights_scaling_factor"] = (out, inputs // size)
        else:
            wanted["weights_scaling_factor"] = (out,) if scheme.weight[0] == 8 else (1,)
        if len(scheme.weight) > 1:
            wanted["weights_scaling_factor_2"] = (1,)
        if scheme.input is not None:
            wanted["activation_scaling_factor"] = (1,)
    for name, scale in scales.items():
        if name in wanted and scale is None:
            raise _unusable(
                f"{place}: {config.quantization} is declared; its {name}", "null", "a tensor"
            )
        if scale is None:
            continue
        if name not in wanted:
            raise _unusable(
                f"{place}:{name}", _shape(scale), f"null, for quantization {config.quantization}"
            )
        fits = tuple(scale.shape) == wanted[name] or scale.numel() == 1 and wanted[name] == (1,)
        if not fits or not bool((scale.float() > 0).all()):
            expected = f"shape {list(wanted[name])}, values above 0"
            raise _unusable(f"{place}:{name}", _shape(scale), expected)
    for name, vector, length in (
        ("bias", linear.bias, out),
        ("prequant_scaling_factor", linear.prequant_scaling_factor, inputs),
    ):
        if vector is not None and tuple(vector.shape) != (length,):
            raise _unusable(f"{place}:{name}", _shape(vector), f"shape [{length}]")


def _shape(x: Any) -> str:
    return "null" if x is None else f"{x.dtype} of shape {list(x.shape)}"


def _unusable(place: str, got: str, expected: str) -> TripyException:
    return TripyException(f"{_CALLER}: {place} is not usable.", got=got, expected=expected)
