"""Writes a model config: one JSON file, and one npz file a rank."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch

from tripy import dtypes
from tripy.errors import TripyException
from tripy.quantization.checkpoint.build import Built, build_model_config
from tripy.quantization.checkpoint.directory import staged, write_json
from tripy.quantization.checkpoint.model_config import dequantized_weight, linears
from tripy.quantization.checkpoint.reader import read_rank
from tripy.quantization.checkpoint.serialize import to_json, to_numpy
from tripy.quantization.checkpoint.source import source_of
from tripy.quantization.checkpoint.splitting import check_split, join_ranks, rank_config
from tripy.quantization.state import LinearState

_CALLER = "export_model_config"
_DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


def export_model_config(
    model: Any,
    decoder_type: str,
    dtype: Union[torch.dtype, dtypes.dtype, str],
    export_dir: Union[str, os.PathLike],
    inference_gpus: Optional[int] = None,
    *,
    inference_tensor_parallel: Optional[int] = None,
    states: Optional[Mapping[str, LinearState]] = None,
) -> None:
    """Write a model's weights and scales as a model config: JSON, and an npz file a rank.

    Files are ``{decoder_type}_tp{N}.json`` and ``{decoder_type}_tp{N}_rank{r}.npz``. Weights are
    written [out, in] in ``dtype``, not rounded, beside their scales. Before anything appears in the
    folder, all is read again, joined, dequantized and compared with the model.

    Args:
        model: A PyTorch model with the config and the names of transformers, quantized by
            :func:`quantize` or nvidia-modelopt, or not quantized.
        decoder_type: "gpt2", "llama", "gptj", "falcon", "baichuan", "mpt", "bloom", "qwen" or
            "gemma".
        dtype: Of weights: float16 or bfloat16, of torch, of tripy or as a string. (float32 is
            written too; few readers take it.)
        export_dir: The folder; it is made if it is not there.
        inference_gpus: How many ranks to cut the model for; 1 by default.
        inference_tensor_parallel: Another name of ``inference_gpus``.
        states: The layers, by name, instead of those that :func:`describe` finds.

    Raises:
        TripyException: For models and quantizations that the format cannot hold, ranks that do not
            divide the model, and files that cannot be written. The folder is then as it was.

    Example:
        >>> import torch, tempfile, os, tripy.quantization as tq
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tq.export_model_config(model, "gpt2", torch.float16, folder, inference_gpus=2)
        ...     print(sorted(os.listdir(folder)))
        ['gpt2_tp2.json', 'gpt2_tp2_rank0.npz', 'gpt2_tp2_rank1.npz']
    """
    ranks = _ranks(inference_gpus, inference_tensor_parallel)
    kind = _dtype(dtype)
    built = build_model_config(source_of(model, states, _CALLER), decoder_type, kind)
    check_split(built.config, ranks)
    stem = f"{decoder_type}_tp{ranks}"
    with staged(export_dir, _CALLER) as folder:
        for rank in range(ranks):
            data, tensors = to_json(rank_config(built.config, ranks, rank))
            arrays = {name: to_numpy(tensor) for name, tensor in tensors.items()}
            save_arrays(folder / f"{stem}_rank{rank}.npz", arrays)
            if rank == 0:  # It is that of all ranks, whose arrays have the same names.
                write_json(folder / f"{stem}.json", data)
        verify(built, folder, stem, ranks)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An npz file; numpy would add an ending to a name, not to a file."""
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def verify(built: Built, folder: Path, stem: str, ranks: int) -> None:
    """Reads all ranks again, joins them, and compares with what was meant.

    Raises:
        TripyException: For the first tensor that differs, naming it.
    """
    joined = join_ranks([read_rank(folder, stem, rank) for rank in range(ranks)])
    _, wanted = to_json(built.config)
    _, found = to_json(joined)
    for name, tensor in wanted.items():
        if name not in found:
            raise _differs(name, "nothing")
        problem = _difference(tensor, found[name])
        if problem:
            raise _differs(name, problem)
    for path, linear, _ in linears(joined):
        state, rows = built.origins[path]
        meant = state.rounded_weight()
        meant = meant if rows is None else meant[rows]
        problem = _difference(meant, dequantized_weight(linear, joined.quantization))
        if problem:
            raise _differs(path, f"dequantized, {problem}")


def _difference(wanted: torch.Tensor, found: torch.Tensor) -> str:
    """How a tensor that was read differs from what was meant, but for padding; "" if not."""
    fits = wanted.dtype is found.dtype and wanted.dim() == found.dim()
    if not fits or any(w > f for w, f in zip(wanted.shape, found.shape)):
        return f"{found.dtype} {list(found.shape)} for {wanted.dtype} {list(wanted.shape)}"
    for dim, size in enumerate(wanted.shape):
        found = found.narrow(dim, 0, size)
    wrong = int((wanted != found).sum())
    return f"{wrong} of {wanted.numel()} values are others" if wrong else ""


def _differs(name: str, got: str) -> TripyException:
    return TripyException(
        f"{_CALLER}: what was written is not what was meant; nothing was kept.",
        got=f"{name}: {got}",
        expected="the model's values, read again from the files",
        hint="a look at the disk: this is no error of yours",
    )


def _ranks(first: Optional[int], second: Optional[int]) -> int:
    if first is not None and second is not None and first != second:
        raise TripyException(
            f"{_CALLER}: two numbers of ranks.",
            got=f"inference_gpus={first}, inference_tensor_parallel={second}",
            expected="one of them",
        )
    ranks = second if first is None else first
    ranks = 1 if ranks is None else ranks
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise TripyException(
            f"{_CALLER}: the number of ranks is not usable.",
            got=f"{ranks!r}",
            expected="a whole number of 1 or more",
        )
    return ranks


def _dtype(dtype: Any) -> torch.dtype:
    word = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else str(dtype)
    if word not in _DTYPES:
        raise TripyException(
            f"{_CALLER}: the data type of weights is not usable.",
            got=f"dtype={dtype!r}",
            expected=", ".join(_DTYPES),
        )
    return _DTYPES[word]
