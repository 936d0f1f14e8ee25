"""Loads GPT-2 checkpoints in Hugging Face's layout, and quantizes them.

A checkpoint is loaded whole or not at all. GPT-2's `Conv1D` stores weights [in, out], the transpose
of a linear layer's. Shapes give a mistake away, except in `attn.c_proj`, which is square: so a
block's four matrices are always transposed, and where three do not fit then, it is an error.

Scales come from `tripy.quantization`, or from nvidia-modelopt, which read calibration text with the
model in floating point. int4 blocks have 64 inputs: 0.55% in bits a byte on the demo, 128 0.94%.
"""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from data import calibration_text
from model import GPT, GPTConfig
from safetensors import safe_open

import tripy as tp
import tripy.quantization as tq

DEMO = Path(__file__).parent / "demo"
TRANSPOSED = tuple(f"{n}.weight" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # masks that old versions saved
CONFIGURATIONS = {
    "int8-weight-only": tq.INT8_WEIGHT_ONLY_CFG,
    "int8": tq.INT8_DEFAULT_CFG,
    "smoothquant": tq.INT8_SMOOTHQUANT_CFG,
    "int4-weight-only": tq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG,
    "int4-awq": tq.INT4_AWQ_CFG,
    "w4a8": tq.W4A8_INT8_CFG,
    "float8": tq.FP8_DEFAULT_CFG,
}
# The configurations leave the head out: a third of the smallest GPT-2, here in int8.
HEAD = tq.QuantizationConfig((tq.Rule("lm_head.weight_quantizer", (tq.QuantizerConfig(8, 0),)),))
GPT2 = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
}


def load_weights_from_hf(model: GPT, source) -> None:
    """Loads a checkpoint into a model that is not quantized."""
    dtype = model.config.dtype
    tensors = read_tensors(find(source))
    model.load_state_dict({n: t if dtype is t.dtype else tp.cast(t, dtype) for n, t in tensors})


def load_demo_weights(model: GPT, quant_mode: str = "none") -> None:
    """Loads the checkpoint that comes with the example: see demo/README.md."""
    load_quant_weights_from_hf(model, DEMO, quant_mode)


def load_quant_weights_from_hf(
    model: GPT, source, quant_mode: str, encode=None, calibration: str = "tripy"
) -> None:
    """Loads a checkpoint, quantized.

    Args:
        model: With the same quant_mode.
        source: A folder with config.json and model.safetensors, or a name on Hugging Face.
        quant_mode: One of model.QUANT_MODES.
        encode: Makes tokens of text, for calibration; not needed where bytes are tokens.
        calibration: "tripy", or "modelopt": needs nvidia-modelopt and transformers.

    Raises:
        ValueError, tp.TripyException: For a checkpoint that is not there, cannot be read, or does
            not fit; all that does not fit is listed, and the model is as it was.
    """
    config = model.config
    if quant_mode != config.quant_mode:
        raise _problem(f"quant_mode={quant_mode!r}", f"the model's own, {config.quant_mode!r}")
    if quant_mode == "none":
        return load_weights_from_hf(model, source)
    how = CONFIGURATIONS[quant_mode]
    if how.rules[0].quantizers[0].num_bits == 4:
        blocks = tq.QuantizerConfig(4, block_size=math.gcd(64, config.n_embd, config.inner))
        how = how.with_rules(tq.Rule("*h.*.weight_quantizer", (blocks,)))
    if calibration == "modelopt":
        quantized = _with_modelopt(how, find(source), lambda: _windows(config, encode))
    else:
        quantized = GPT(replace(config, quant_mode="none", dtype=tp.float32))
        load_weights_from_hf(quantized, source)

        def read(model):
            for window in _windows(config, encode):
                model(tp.Tensor(window[None], device=tp.config.default_device))

        loop = None if quant_mode.endswith("weight-only") else read
        with tp.logger.use_verbosity("warning"):
            tq.quantize(quantized, how, loop, predicate=lambda path, _: path != "lm_head" or HEAD)
    tq.to_tripy(quantized, model)


def _windows(config: GPTConfig, encode) -> np.ndarray:
    """Tokens of training text for calibration, int32 [16, length]; 4 to 64 differ by 0.07%."""
    if encode is None and config.vocab_size != 256:
        raise _problem("no tokenizer for calibration", "encode=", "tokenizer.encode")
    length = min(config.block_size, 256)
    text = calibration_text(16, 4 * length)
    tokens = np.array(encode(text.decode(errors="replace")) if encode else list(text), np.int32)
    count = len(tokens) // length
    return tokens[: count * length].reshape(-1, length)[:: max(1, count // 16)]


def _with_modelopt(how: tq.QuantizationConfig, folder: Path, windows):
    """A model of transformers that nvidia-modelopt has quantized."""
    try:
        import modelopt.torch.quantization as mtq  # noqa: PLC0415  (optional)
        from transformers import GPT2LMHeadModel  # noqa: PLC0415
    except ImportError as error:
        missing = "pip install nvidia-modelopt transformers; or --calibration tripy"
        raise _problem(f"{error}", "nvidia-modelopt and transformers", missing) from None

    def forward_loop(model):
        for window in windows():
            model(torch.from_numpy(window[None]).long())

    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    return mtq.quantize(model, tq.modelopt_config(how.with_rules(*HEAD.rules)), forward_loop)


def read_config(source, quant_mode: str = "none") -> GPTConfig:
    """The configuration of a checkpoint; a ValueError where model.py does not compute it."""
    path = find(source) / "config.json"
    try:
        found = json.loads(path.read_text())
        sizes = {name: found[name] for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
        sizes |= {"block_size": found["n_positions"], "n_inner": found.get("n_inner")}
        epsilon = found.get("layer_norm_epsilon", 1e-5)
    except Exception as error:
        got = f"{path}, which cannot be used: {_line(error)}"
        raise _problem(got, "GPT-2's configuration") from None
    for name, usual in GPT2.items():
        if found.get(name, usual) != usual:
            raise _problem(f"{name}={found[name]!r} in {path}", repr(usual))
    return GPTConfig(**sizes, layer_norm_epsilon=epsilon, quant_mode=quant_mode)


def find(source) -> Path:
    """The folder of a checkpoint, after downloading it if it is a name on Hugging Face."""
    if Path(source).is_dir():
        return Path(source)
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  (optional)

        return Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # Not installed, no network, no such name: of many types.
        raise _problem(
            f"{str(source)!r}, which is no folder and cannot be downloaded: {_line(error)}",
            "a folder with config.json and model.safetensors, or a name on Hugging Face",
            "pip install huggingface_hub; or --checkpoint DIR",
        ) from None


def read_tensors(folder: Path):
    """Yields names, as the model has them, and tensors in float32, with matrices as [out, in]."""
    try:
        index, parts = folder / "model.safetensors.index.json", ["model.safetensors"]
        if index.is_file():
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        for part in parts:
            with safe_open(folder / part, framework="pt") as file:
                for stored in file.keys():  # noqa: SIM118  (it is no dict)
                    name = stored.removeprefix("transformer.")
                    if not BUFFERS.fullmatch(name):
                        tensor = file.get_tensor(stored).float()
                        turned = name.endswith(TRANSPOSED)
                        tensor = tensor.t().contiguous() if turned else tensor
                        yield name, tp.Tensor(tensor, device=tp.config.default_device)
    except Exception as error:  # Those of safetensors have no common type.
        raise _problem(
            f"weights in {folder} that cannot be read: {_line(error)}",
            "an undamaged model.safetensors, or its parts and their index",
            "save_pretrained(folder) of transformers",
        ) from None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _problem(got: str, expected: str, hint: str = "another checkpoint") -> ValueError:
    return ValueError(f"[load weights] got {got}; expected {expected}; try {hint}")
