"""Loads GPT-2 checkpoints in Hugging Face's layout, and quantizes them on the way.

A checkpoint is loaded whole or not at all. Each matrix is quantized as soon as it is read, so its
floating-point copy goes before the next one comes. GPT-2's `Conv1D` stores weights [in, out], the
transpose of a linear layer's. Shapes give a mistake away, except in `attn.c_proj`, which is square:
so a block's four matrices are always transposed, and where three do not fit then, it is an error.

Weight scales are amax / 127 for each output feature (int8), amax / 448 (float8), or amax / 7 for
each block of 64 inputs (int4: this costs 0.55% in bits a byte on the demo, blocks of 128 0.94%).
Input scales come from calibration: the model reads training text in floating point, and the
largest magnitude that a layer sees sets its scale. 16 windows do: 4 to 64 differ by 0.07%.
"""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from data import calibration_text
from model import GPT, QUANT_MODES, GPTConfig
from safetensors import safe_open

import tripy as tp

DEMO = Path(__file__).parent / "demo"
TRANSPOSED = tuple(f"{n}.weight" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # masks that old versions saved
HIGH = {tp.int8: 127.0, tp.int4: 7.0, tp.float8: 448.0}
GPT2 = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
}
TINY = 1e-30  # Keeps the scale of weights that are all zeros above zero.


def load_weights_from_hf(model: GPT, source) -> None:
    """Loads a checkpoint into a model that is not quantized: see load_quant_weights_from_hf."""
    load_quant_weights_from_hf(model, source, "none")


def load_demo_weights(model: GPT, quant_mode: str = "none") -> None:
    """Loads the checkpoint that comes with the example: see demo/README.md."""
    load_quant_weights_from_hf(model, DEMO, quant_mode)


def load_quant_weights_from_hf(model: GPT, source, quant_mode: str, encode=None) -> None:
    """Loads a checkpoint, quantized.

    Args:
        model: With the same quant_mode.
        source: A folder with config.json and model.safetensors, or a name on Hugging Face.
        quant_mode: One of model.QUANT_MODES.
        encode: Makes tokens of text, for calibration; not needed where bytes are tokens.

    Raises:
        ValueError, tp.TripyException: For a checkpoint that is not there, cannot be read, or does
            not fit; all that does not fit is listed, and the model is as it was.
    """
    config, (dtype, dim, static) = model.config, QUANT_MODES.get(quant_mode, (None, None, None))
    if quant_mode != config.quant_mode:
        raise _problem(f"quant_mode={quant_mode!r}", f"the model's own, {config.quant_mode!r}")
    state = {}
    for name, weight in read_tensors(find(source)):
        narrow = dtype is tp.int4 and ".c_" in name  # Bfloat16Linear's
        state[name] = tp.cast(weight, tp.bfloat16).eval() if narrow else weight
        if dtype is not None and name.endswith(TRANSPOSED) and weight.rank == 2:
            state.update(_quantized(name.removesuffix(".weight"), weight, dtype, dim))
    head = state.get("lm_head.weight", state.get("wte.weight"))
    if dtype is not None and head is not None and head.rank == 2:
        state.update(_quantized("lm_head", head, tp.int8, 0))
    if static:
        if encode is None and config.vocab_size != 256:
            raise _problem("no tokenizer for calibration", "encode=", "tokenizer.encode")
        floating = GPT(replace(config, quant_mode="none"))
        load_weights_from_hf(floating, source)
        length = min(config.block_size, 256)
        text = calibration_text(16, 4 * length)
        tokens = np.array(encode(text.decode(errors="replace")) if encode else list(text), np.int32)
        windows = tokens[: len(tokens) // length * length].reshape(-1, length)
        for layer, amax in calibrate(floating, windows[:: max(1, len(windows) // 16)]).items():
            state[f"{layer}.input_scale"] = tp.Tensor(max(amax, TINY) / HIGH[dtype])
    model.load_state_dict(state)


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


def _quantized(layer: str, weight: tp.Tensor, dtype: tp.dtype, dim: int | None) -> dict:
    """A matrix [out, in], quantized, and its scale: one an output feature if `dim` is 0."""
    groups, axis = weight, None if dim is None else 1
    if dtype is tp.int4:
        block = math.gcd(64, weight.shape[1])
        groups, axis = tp.reshape(weight, (weight.shape[0], -1, block)), 2
    scale = tp.maximum(tp.max(abs(groups), axis) / HIGH[dtype], TINY)
    kept = tp.cast(scale, tp.bfloat16 if dtype is tp.int4 else tp.float32).eval()
    quantized = tp.quantize(weight, tp.cast(kept, tp.float32), dtype, dim).eval()
    return {f"{layer}.weight": quantized, f"{layer}.weight_scale": kept}


def calibrate(model: GPT, windows: np.ndarray) -> dict[str, float]:
    """The largest magnitude that each linear layer gets as its input, by the layer's name."""
    seen, largest = {}, 0.0

    def watch(name, layer):
        def forward(x):
            seen[name] = tp.max(abs(x))
            return type(layer).forward(layer, x)

        layer.forward = forward

    for i, block in enumerate(model.h):
        for part in ("attn", "mlp"):
            for name, layer in getattr(block, part).named_children():
                watch(f"h.{i}.{part}.{name}", layer)
    for window in windows:
        model(tp.Tensor([window.tolist()], dtype=tp.int32))
        largest = np.maximum(largest, tp.stack(list(seen.values())).numpy())
    return dict(zip(seen, largest.tolist(), strict=True))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _problem(got: str, expected: str, hint: str = "another checkpoint") -> ValueError:
    return ValueError(f"[load weights] got {got}; expected {expected}; try {hint}")
