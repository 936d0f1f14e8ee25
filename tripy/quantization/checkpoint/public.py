"""The functions that write and read quantized checkpoints."""

from __future__ import annotations

import os
from typing import Any, Optional, Union

import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint import huggingface, model_config, reading
from tripy.quantization.checkpoint.families import family_of
from tripy.quantization.describe import describe
from tripy.quantization.norms import refuse_norms

Folder = Union[str, os.PathLike]


def export_model_config(
    model: torch.nn.Module,
    decoder_type: str,
    dtype: Union[torch.dtype, str],
    export_dir: Folder,
    inference_gpus: int = 1,
    *,
    inference_tensor_parallel: Optional[int] = None,
) -> None:
    """Write a model as JSON + npz, one npz a rank: TensorRT-LLM's first model config.

    Weights are not rounded there; scales are beside them. The files are read back and compared
    before they take their names, and nothing is left where that fails.

    Args:
        model: One of transformers, quantized by :func:`quantize` or nvidia-modelopt, or not.
        decoder_type: "gpt2", "gptj", "llama" (also Mistral), "falcon", "mpt", "bloom", "qwen" (that
            is Qwen2) or "gemma".
        dtype: Of the weights: torch.float16, torch.bfloat16, torch.float32, or their names.
        export_dir: Gets ``{decoder_type}_tp{N}.json`` and ``{decoder_type}_tp{N}_rank{r}.npz``.
        inference_gpus: N, the number of ranks that each layer is split for.
        inference_tensor_parallel: Another name of it.

    Raises:
        TripyException: For a model of another kind, layers that cannot be split, and quantizations
            that the format has no name for; each names the layer.

    Example:
        >>> import tripy as tp, tripy.quantization as tq, torch
        >>> try:
        ...     tq.export_model_config(torch.nn.Linear(2, 2), "gpt5", torch.float16, "exported")
        ... except tp.TripyException as error:
        ...     print(str(error).splitlines()[2].strip())
        expected: gpt2, gptj, llama, falcon, mpt, bloom, qwen, gemma
    """
    if isinstance(dtype, str):
        named = {name: kind for kind, name in model_config.DTYPES.items()}
        if dtype not in named:
            expected = ", ".join(named)
            raise TripyException("export_model_config: dtype.", got=repr(dtype), expected=expected)
        dtype = named[dtype]
    ranks = inference_gpus if inference_tensor_parallel is None else inference_tensor_parallel
    if inference_gpus not in (1, ranks):
        raise TripyException(
            "export_model_config: two numbers of ranks.",
            got=f"inference_gpus={inference_gpus}, inference_tensor_parallel={ranks}",
            expected="one of them",
        )
    refuse_norms(model, "export_model_config")
    family_of(decoder_type)  # Refused before the model is looked at.
    model_config.write(model, describe(model), decoder_type, dtype, export_dir, ranks)


def load_model_config(
    export_dir: Folder, decoder_type: str, rank: int = 0, inference_gpus: int = 1
) -> dict[str, Any]:
    """Read one rank's model config.

    Args:
        export_dir: Where :func:`export_model_config`, or another tool, has written.
        decoder_type: As the files are named.
        rank: Which.
        inference_gpus: Of how many.

    Returns:
        The nested config with torch tensors; linear layers are objects with the format's fields.

    Raises:
        TripyException: For files that cannot be read, lack an array that they name, or declare a
            quantization without its scales.

    Example:
        >>> import tripy as tp, tripy.quantization as tq
        >>> try:
        ...     tq.load_model_config("nowhere", "gpt2")
        ... except tp.TripyException as error:
        ...     print(str(error).splitlines()[2].strip())
        expected: gpt2_tp1.json and gpt2_tp1_rank0.npz
    """
    return reading.read(export_dir, decoder_type, rank, inference_gpus)


def export_hf(model: torch.nn.Module, export_dir: Folder) -> None:
    """Write a model in Hugging Face's layout, with small weights.

    The checkpoint is read back and compared before its files take their names.

    Args:
        model: Quantized by :func:`quantize` or nvidia-modelopt, or not quantized.
        export_dir: Gets config.json, model.safetensors and hf_quant_config.json.

    Raises:
        TripyException: For quantizations that the format has no name for, naming the layer.

    Example:
        >>> import tempfile, torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
        >>> _ = tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tq.export_hf(model, folder)
        ...     print(tq.load_hf(folder).layers["0"].scheme)
        int8 per channel
    """
    refuse_norms(model, "export_hf")
    huggingface.write(model, describe(model), export_dir)


def load_hf(export_dir: Folder) -> huggingface.Checkpoint:
    """Read a quantized checkpoint in Hugging Face's layout; :func:`to_tripy` takes it.

    Args:
        export_dir: Its folder.

    Raises:
        TripyException: For a checkpoint that is damaged, or lacks what it declares; and for a GPT-2
            that does not say how its weights lie.

    Example:
        >>> import tripy as tp, tripy.quantization as tq
        >>> try:
        ...     tq.load_hf("nowhere")
        ... except tp.TripyException as error:
        ...     print(str(error).splitlines()[2].strip())
        expected: config.json, model.safetensors, hf_quant_config.json
    """
    return huggingface.read(export_dir)
