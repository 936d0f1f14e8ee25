"""Hugging Face's layout: config.json, model.safetensors and hf_quant_config.json.

Quantized weights are always [out, in] here, also those of GPT-2's Conv1D, and the file says so: a
reader that took them for [in, out] would find the square ``attn.c_proj`` in order. What is not
quantized stays as the model has it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tripy.errors import TripyException
from tripy.quantization.checkpoint import schemes
from tripy.quantization.checkpoint.folder import write_folder
from tripy.quantization.formats import FORMATS, QuantizerConfig, amax_of_scale
from tripy.quantization.state import LinearState, QuantizerState

FILES = ("config.json", "model.safetensors", "hf_quant_config.json")
LAYOUT = "out_in"
# Models whose weights lie [in, out] in checkpoints that are not quantized.
CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
# By quant_algo: what the weight is rounded to, one after the other, and what the input is.
FP8 = QuantizerConfig((4, 3))
INPUTS = {"FP8": FP8, "W8A8_SQ_PER_CHANNEL": QuantizerConfig(8), "W4A8_AWQ": FP8}
KV_NAMES = {"int8": "INT8", "fp8": "FP8"}


@dataclass(frozen=True)
class Checkpoint:
    """A quantized checkpoint, read.

    Attributes:
        config: That of the model.
        layers: Linear layers by name; their weights are what the small values stand for.
        tensors: Everything else by name.
        base_model_prefix: The start of names that transformers' models share.
    """

    config: dict[str, Any]
    layers: dict[str, LinearState]
    tensors: dict[str, torch.Tensor]
    base_model_prefix: str = ""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that is no quantized layer."""
        return self.tensors


def write(
    model: torch.nn.Module, layers: dict[str, LinearState], folder: Union[str, os.PathLike]
) -> None:
    """Writes a model; see :func:`tripy.quantization.export_hf`."""
    algorithm, block = schemes.common(layers, 0)
    quantized = {n: s for n, s in layers.items() if schemes.is_quantized(s)}
    tensors = _tensors(model, layers, quantized)
    kv = {KV_NAMES[q.config.format.name] for s in layers.values()
          for q in (s.key_quantizer, s.value_quantizer) if q is not None}  # fmt: skip
    if len(kv) > 1:
        raise TripyException(
            "export_hf: one format for all caches.", got=" and ".join(sorted(kv)), expected="one"
        )
    described = {
        "producer": {"name": "tripy"},
        "quantization": {
            "quant_algo": algorithm,
            "kv_cache_quant_algo": next(iter(kv), None),
            "group_size": block or None,
            "has_zero_point": False,
            "pre_quant_scale": any(s.pre_quant_scale is not None for s in quantized.values()),
            "exclude_modules": [name for name in layers if name not in quantized],
            "weight_layout": LAYOUT,
        },
    }
    own: Any = getattr(model, "config", None)
    config = own.to_dict() if hasattr(own, "to_dict") else {}
    if "lm_head" in quantized and config.get("tie_word_embeddings"):
        config["tie_word_embeddings"] = False  # The head has a weight of its own now.

    def put(path: Path) -> None:
        for name, content in ((FILES[0], config), (FILES[2], described)):
            (path / name).write_text(json.dumps(content, indent=1, default=str))
        save_file(tensors, path / FILES[1], {"format": "pt"})

    def verify(path: Path) -> None:
        found = read(path).layers
        wrong = [
            name
            for name, state in quantized.items()
            if name not in found
            or not torch.equal(found[name].rounded_weight(), state.rounded_weight().cpu())
        ]
        with safe_open(path / FILES[1], framework="pt") as file:
            wrong += [n for n, wanted in tensors.items() if not _same(file.get_tensor(n), wanted)]
        if wrong:
            raise TripyException(
                f"{wrong[0]}: what was written is not what was meant; nothing was kept.",
                got="other values when the checkpoint was read again",
                expected="those that the model computes with",
            )

    write_folder(folder, put, verify)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the bit, NaN too."""
    bits = [x.reshape(-1).view(torch.uint8) for x in (a, b)]
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(*bits)


def _tensors(
    model: torch.nn.Module, layers: dict[str, LinearState], quantized: dict[str, LinearState]
) -> dict[str, torch.Tensor]:
    inside = tuple(f"{name}." for name in layers)
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        layer, _, last = name.rpartition(".")
        own = layer in layers and last in ("weight", "bias")
        if (name.startswith(inside) and not own) or (layer in quantized and last == "weight"):
            continue
        if value.data_ptr() in seen and value.numel():
            continue  # A second name of one tensor, as of a head tied to its embedding.
        seen.add(value.data_ptr())
        alone = layers.get(layer)
        if own and last == "weight" and alone is not None and alone.kind == "Conv1D":
            value = alone.weight.t()  # [in, out], also where nvidia-modelopt has turned it.
        found[name] = value.detach().cpu().contiguous()
    for name, state in layers.items():
        for key, quantizer in (
            ("k_scale", state.key_quantizer),
            ("v_scale", state.value_quantizer),
        ):
            if quantizer is not None:
                found[f"{name}.{key}"] = quantizer.scale.cpu()
    for name, state in quantized.items():
        found |= {f"{name}.{key}": value for key, value in _layer(name, state).items()}
    return found


def _layer(name: str, state: LinearState) -> dict[str, torch.Tensor]:
    first, *more = state.weight_quantizers
    small = first.round(state.weight.detach().float()).cpu()
    made = {"weight": pack(small, name) if first.config.num_bits == 4 else small.contiguous()}
    made["weight_scale"] = first.scale.cpu().contiguous()
    if more:
        made["weight_scale_2"] = more[0].scale.cpu()
    if state.input_quantizer is not None:
        made["input_scale"] = state.input_quantizer.scale.cpu()
    if state.pre_quant_scale is not None:
        made["pre_quant_scale"] = state.pre_quant_scale.float().cpu().contiguous()
    return made


def pack(q: torch.Tensor, name: str) -> torch.Tensor:
    """int4 values [out, in] as bytes [out / 2, in]: even rows in the lower half."""
    if q.shape[0] % 2:
        raise TripyException(
            f"{name}: int4 weights are packed two rows to a byte.",
            got=f"{q.shape[0]} outputs",
            expected="an even number",
            hint="leave the layer out",
        )
    low, high = q[0::2].to(torch.uint8) & 15, q[1::2].to(torch.uint8) & 15
    return (low | (high << 4)).contiguous()


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The int4 values [out, in], one an int8, of bytes [out / 2, in]."""
    halves = torch.stack((packed & 15, packed >> 4), 1).to(torch.int8)
    return torch.where(halves > 7, halves - 16, halves).flatten(0, 1)


def read(folder: Union[str, os.PathLike]) -> Checkpoint:
    """Reads a checkpoint; see :func:`tripy.quantization.load_hf`."""
    path = Path(folder)
    try:
        config = json.loads((path / FILES[0]).read_text())
        declared = json.loads((path / FILES[2]).read_text())["quantization"]
        with safe_open(path / FILES[1], framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # Those of safetensors have no common type.
        raise TripyException(
            f"load_hf: {path} cannot be read.",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            expected=", ".join(FILES),
        ) from None
    algorithm = declared.get("quant_algo")
    known = [names[0] for names in schemes.NAMES.values()]
    if algorithm is not None and algorithm not in known:
        raise _refused(path, f"quant_algo {algorithm!r}", " or ".join(known))
    if declared.get("has_zero_point"):
        raise _refused(path, "has_zero_point", "symmetric quantization")
    if declared.get("weight_layout") != LAYOUT and config.get("model_type") in CONV1D:
        raise _refused(
            path,
            f"a {config['model_type']} whose file does not say how its weights lie",
            f'"weight_layout": "{LAYOUT}": of a square weight nothing else tells it',
        )
    layers = {}
    for scale in [name for name in tensors if name.endswith(".weight_scale")]:
        name = scale.removesuffix(".weight_scale")
        layers[name] = _state(path, name, tensors, algorithm, declared)
    if algorithm is not None and not layers:
        raise _refused(path, f"quant_algo {algorithm}, and no weight_scale", "a scale a layer")
    pre = any(state.pre_quant_scale is not None for state in layers.values())
    if declared.get("pre_quant_scale") and not pre:
        raise _refused(path, "pre_quant_scale declared, and none there", "those of the layers")
    kv = [name for name in tensors if name.endswith((".k_scale", ".v_scale"))]
    if declared.get("kv_cache_quant_algo") and not kv:
        raise _refused(path, "kv_cache_quant_algo declared, and no k_scale", "scales of caches")
    inside = tuple(f"{name}." for name in layers)
    rest = {name: value for name, value in tensors.items() if not name.startswith(inside)}
    prefix = next(
        (p for p in ("transformer", "model") for n in tensors if n.startswith(p + ".")), ""
    )
    return Checkpoint(config, layers, rest, prefix)


def _state(
    path: Path, name: str, tensors: dict[str, torch.Tensor], algorithm: Any, declared: Any
) -> LinearState:
    def get(key: str) -> torch.Tensor:
        if f"{name}.{key}" not in tensors:
            raise _refused(path, f"{algorithm} without {name}.{key}", "a tensor of that name")
        return tensors[f"{name}.{key}"]

    def optional(key: str, needed: bool = False) -> Optional[torch.Tensor]:
        return get(key) if needed else tensors.get(f"{name}.{key}")

    small, scale = get("weight"), get("weight_scale")
    if small.dtype == torch.uint8:
        small = unpack(small)
        blocks = scale.dim() == 2 and scale.shape[1] and small.shape[1] % scale.shape[1] == 0
        size = small.shape[1] // scale.shape[1] if blocks else 0
        if scale.shape[:1] != small.shape[:1] or size != declared.get("group_size"):
            got = f"{name}.weight_scale {tuple(scale.shape)} for a weight {tuple(small.shape)}"
            raise _refused(path, got, f"blocks of group_size {declared.get('group_size')}")
        config = QuantizerConfig(4, block_size=size)
    else:
        bits = next((b for b, f in FORMATS.items() if f.storage == small.dtype and b != 4), None)
        if bits is None or scale.shape not in ((), small.shape[:1]):
            got = f"{name}.weight {small.dtype}, scale {tuple(scale.shape)}"
            raise _refused(path, got, "int8 with (out,), or float8_e4m3fn with ()")
        config = QuantizerConfig(bits, axis=0 if scale.dim() else None)
    quantizers = [QuantizerState(config, amax_of_scale(scale, config))]
    second = optional("weight_scale_2", algorithm == "W4A8_AWQ")
    if second is not None:
        quantizers.append(QuantizerState(FP8, amax_of_scale(second, FP8)))
    inputs, config_in = optional("input_scale", algorithm in INPUTS), INPUTS.get(algorithm)
    given = None
    if inputs is not None and config_in is not None:
        given = QuantizerState(config_in, amax_of_scale(inputs, config_in))
    caches = []
    for key in ("k_scale", "v_scale"):
        value = optional(key)
        kind = QuantizerConfig(8) if declared.get("kv_cache_quant_algo") == "INT8" else FP8
        caches.append(value if value is None else QuantizerState(kind, amax_of_scale(value, kind)))
    return LinearState(
        name, "Linear", quantizers[0].restore(small), optional("bias"), tuple(quantizers), given,
        optional("pre_quant_scale"), caches[0], caches[1],
    )  # fmt: skip


def _refused(path: Path, got: str, expected: str) -> TripyException:
    return TripyException(f"load_hf: {path} is not usable.", got=got, expected=expected)
