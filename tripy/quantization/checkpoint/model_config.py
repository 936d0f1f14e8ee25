"""JSON + npz: TensorRT-LLM's first model config, one pair of files with an npz a rank.

The JSON is the nested config, in which every tensor is the name of its array. Weights are in
floating point: whoever reads them rounds them with the scales beside them.

One whole config is built, with a :class:`Cut` for each tensor; ranks' configs are parts of it, and
what was written is read back and joined again before it is kept.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint import schemes
from tripy.quantization.checkpoint.families import Family, family_of, qkv, sizes_of
from tripy.quantization.checkpoint.folder import write_folder
from tripy.quantization.checkpoint.reading import read
from tripy.quantization.checkpoint.sizes import Sizes
from tripy.quantization.checkpoint.splitting import Cut, Linear, cut_linear
from tripy.quantization.state import LinearState

VERSION = 0.3
ARRAYS = {"ln_f": "final_layernorm"}  # What arrays are called where the JSON has other names.
DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}
NORMS = ("input_layernorm", "post_layernorm", "mlp_layernorm")


def write(
    model: torch.nn.Module,
    layers: dict[str, LinearState],
    decoder_type: str,
    dtype: torch.dtype,
    folder: Union[str, os.PathLike],
    ranks: int,
) -> None:
    """Writes a model; see :func:`tripy.quantization.export_model_config`."""
    family = family_of(decoder_type)
    if dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise TripyException("export_model_config: dtype.", got=str(dtype), expected=names)
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise TripyException("export_model_config: ranks.", got=ranks, expected="1 or more")
    whole = _Writer(model, layers, family, decoder_type, dtype, ranks).config()

    def put(path: Path) -> None:
        for rank in range(ranks):
            arrays: dict[str, np.ndarray] = {}
            described = _named(whole, "_np", arrays, rank, ranks)
            np.savez(path / f"{decoder_type}_tp{ranks}_rank{rank}.npz", **arrays)  # type: ignore[arg-type]
            if rank == 0:
                text = json.dumps(described, indent=1)
        (path / f"{decoder_type}_tp{ranks}.json").write_text(text)

    def verify(path: Path) -> None:
        read_back = [read(path, decoder_type, rank=rank, ranks=ranks) for rank in range(ranks)]
        for rank, config in enumerate(read_back):
            _check(config.pop("rank") == rank, "rank", rank)
        _compare({k: v for k, v in whole.items() if k != "rank"}, read_back, decoder_type)

    write_folder(folder, put, verify)


class _Writer:
    """Builds the whole config of a model."""

    def __init__(
        self,
        model: torch.nn.Module,
        layers: dict[str, LinearState],
        family: Family,
        decoder_type: str,
        dtype: torch.dtype,
        ranks: int,
    ) -> None:
        self.quantization, _ = schemes.common(layers, 1)
        self.layers, self.family, self.decoder_type = layers, family, decoder_type
        self.dtype, self.ranks = dtype, ranks
        self.shape = sizes_of(model, family, decoder_type)
        self.tensors, self.used = model.state_dict(), set[str]()

    def config(self) -> dict[str, Any]:
        """The whole."""
        family, shape = self.family, self.shape
        made = {
            "version": VERSION, "quantization": self.quantization, "dtype": DTYPES[self.dtype],
            "vocab_size": shape.vocabulary, "rank": 0, "tensor_parallel": self.ranks,
            "pipeline_parallel": 1,
            "ln_embed": self.norm([family.embedding_norm] if family.embedding_norm else []),
            "share_embedding_table": False,
            "layers": [self.layer(index) for index in range(shape.layers)],
            "vocab_embedding": self.embedding(family.embedding),
            "position_embedding": self.embedding(family.positions),
            "ln_f": self.norm([family.final_norm]),
            "lm_head": self.linear(family.head, "column") if family.head in self.layers else None,
        }  # fmt: skip
        self.check_complete()
        return made

    def take(self, name: str) -> torch.Tensor:
        """A parameter that is no linear layer's."""
        if name not in self.tensors:
            raise TripyException(
                f"export_model_config: the model is no {self.decoder_type}.",
                got=f"no {name}",
                expected="the names of transformers' model",
            )
        self.used.add(name)
        return self.tensors[name].detach().cpu()

    def embedding(self, name: Optional[str]) -> Optional[dict[str, Cut]]:
        if name is None:
            return None
        key = f"{name}.weight"
        return {"weight": Cut(_cast(self.take(key), self.dtype, key), 0)}

    def norm(self, names: list[str]) -> Optional[dict[str, Any]]:
        """The norm of the first of the names that the model has; None for no names."""
        if not names:
            return None
        name = next((n for n in names if f"{n}.weight" in self.tensors), names[0])
        weight, bias = self.take(f"{name}.weight"), None
        if f"{name}.bias" in self.tensors:
            bias = Cut(_cast(self.take(f"{name}.bias"), self.dtype, name))
        if self.family.plus_one:
            weight = weight.float() + 1
        return {
            "weight": Cut(_cast(weight, self.dtype, name)), "bias": bias, "eps": self.shape.eps,
            "layernorm_type": self.family.norm,
        }  # fmt: skip

    def layer_norms(self, prefix: str) -> dict[str, Any]:
        """Those of a layer; which of them a model has depends on its kind."""
        made: dict[str, Any] = dict.fromkeys(NORMS)
        for key, names in self.family.norms.items():
            there = [prefix + n for n in names if f"{prefix}{n}.weight" in self.tensors]
            if there or key == "input_layernorm":
                made[key] = self.norm(there or [prefix + names[0]])
        return made

    def linear(self, name: str, kind: str) -> Linear:
        if name not in self.layers:
            self.take(f"{name}.weight")  # Says that it is not there.
        return self.cut(self.layers[name], kind)

    def cut(self, state: LinearState, kind: str, heads: int = 0) -> Linear:
        self.used.update(name for name in self.tensors if name.startswith(f"{state.name}."))
        return cut_linear(_linear(state, kind, self.dtype), self.ranks, state.name, heads)

    def layer(self, index: int) -> dict[str, Any]:
        family, shape, prefix = self.family, self.shape, self.family.layer.format(index)
        names = {key: prefix + name for key, name in family.linear.items()}
        parts = {
            which: self.cut(state, "column", shape.heads if which == "q" else shape.kv_heads)
            for which, state in zip("qkv", qkv(family, self.layers, prefix, shape))
        }
        mlp: dict[str, Any] = {
            key: self.linear(names[key], kind) if key in names else None
            for key, kind in (("fc", "column"), ("gate", "column"), ("proj", "row"))
        }
        return {
            "decoder_type": self.decoder_type, **self.layer_norms(prefix),
            "attention": {
                "qkv": parts, "dense": self.linear(names["dense"], "row"),
                "kv_cache_scaling_factor": _cache_scale(self.layers, prefix),
                "rotary_dim": shape.rotary_dim,
            },
            "mlp": mlp | {"hidden_act": shape.activation},
            **_layer_fields(shape), **shape.fields, **family.extra,
        }  # fmt: skip

    def check_complete(self) -> None:
        """Refuses what the format cannot hold, and would leave out in silence."""
        kind = self.decoder_type
        left = set(self.tensors) - self.used
        if left:
            raise TripyException(
                f"export_model_config: the format has no place for {sorted(left)[0]}.",
                got=f"{len(left)} parameters that a {kind} does not have",
                expected=f"a {kind} as transformers makes it",
                hint="export_hf, which keeps every parameter",
            )
        inner = {name: state for name, state in self.layers.items() if name != self.family.head}
        done = [name for name, state in inner.items() if schemes.is_quantized(state)]
        alone = [name for name in inner if name not in done]
        if done and alone:
            raise TripyException(
                f"{alone[0]}: the layer is not quantized, and others are.",
                got=f"{len(alone)} of {len(inner)} layers left alone",
                expected="all or none: the format declares one quantization for all but the head",
                hint="export_hf, which lists the layers that were left alone",
            )


def _layer_fields(shape: Sizes) -> dict[str, Any]:
    turned = shape.head_size if shape.rotary_dim is None else shape.rotary_dim
    return {
        "num_attention_heads": shape.heads, "attention_head_size": shape.head_size,
        "num_kv_heads": 0 if shape.kv_heads == shape.heads else shape.kv_heads,
        "max_position_embeddings": shape.positions, "rotary_pct": turned / shape.head_size,
        "use_alibi": shape.alibi, "parallel_attention": shape.parallel,
        "rotary_base": shape.rotary_base, "seq_length": shape.positions,
    }  # fmt: skip


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


def _cache_scale(layers: dict[str, LinearState], prefix: str) -> Optional[Cut]:
    """One factor for keys and values, which is all that the format has: the larger."""
    states = [s for n, s in layers.items() if n.startswith(prefix)]
    scales = [q.scale for s in states for q in (s.key_quantizer, s.value_quantizer) if q]
    return Cut(torch.stack(scales).max().cpu().reshape(1)) if scales else None


def _named(value: Any, name: str, arrays: dict[str, np.ndarray], rank: int, ranks: int) -> Any:
    """A rank's config, with the names of arrays in the place of tensors."""
    if isinstance(value, Cut):
        arrays[name] = _array(value.parts(ranks)[rank])
        return name
    if isinstance(value, Linear):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {
            key: _named(each, f"{name}:{ARRAYS.get(key, key)}", arrays, rank, ranks)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_named(each, f"{name}:{i}", arrays, rank, ranks) for i, each in enumerate(value)]
    return value


def _array(value: torch.Tensor) -> np.ndarray:
    value = value.contiguous()
    # numpy has no bfloat16: its bits, as two bytes of no type.
    if value.dtype == torch.bfloat16:
        return value.view(torch.int16).numpy().view("V2")
    return value.numpy()


def _compare(whole: Any, ranks: list[Any], where: str) -> None:
    """Raises where what the ranks' configs make together is not the whole.

    Args:
        whole: The config, or a part of it.
        ranks: The same part of what was read, of each rank.
        where: Its name.
    """
    if isinstance(whole, Linear):
        whole, ranks = vars(whole), [vars(each) for each in ranks]
    if isinstance(whole, dict):
        for key, value in whole.items():
            _compare(value, [each.get(key) for each in ranks], f"{where}.{key}")
    elif isinstance(whole, list):
        _check(all(len(each) == len(whole) for each in ranks), where, len(whole))
        for index, value in enumerate(whole):
            _compare(value, [each[index] for each in ranks], f"{where}.{index}")
    elif isinstance(whole, Cut):
        there = all(isinstance(p, torch.Tensor) and p.dtype == whole.value.dtype for p in ranks)
        joined = whole.joined(ranks) if there else None
        _check(joined is not None and torch.equal(joined, whole.value), where, whole.value)
    else:
        _check(all(each == whole for each in ranks), where, whole)


def _check(same: bool, where: str, expected: Any) -> None:
    if not same:
        raise TripyException(
            f"{where}: what was written is not what was meant; nothing was kept.",
            got="something else when the ranks' files were read again and joined",
            expected=f"{expected}",
        )
