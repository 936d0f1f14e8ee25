"""Tensor parallelism: one model config to N ranks' configs, and back.

Column layers (q, k, v, fc, gate, lm_head) are cut along out, row layers (dense, proj) along in.
Each rank's row layers give a part of a sum; their bias is whole on every rank and is added once,
after the sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.checkpoint.model_config import (
    ROW,
    DecoderLayerConfig,
    EmbeddingConfig,
    LinearConfig,
    ModelConfig,
    key_value_heads,
    linears,
)

# Fields that are cut, by the kind of layer: the dimension, and what padding is filled with. A scale
# of 1 for rows of zeros can be divided by, which 0 cannot.
_Cut = dict[str, tuple[int, float]]


def cuts(linear: LinearConfig, quantization: Optional[str]) -> _Cut:
    """Which tensors of a linear layer are cut, and how; all others are the same on each rank."""
    per_row = quantization == "int8_sq"
    in_blocks = linear.awq_block_size > 0
    if linear.linear_type == ROW:
        rules: _Cut = {"weight": (1, 0.0), "prequant_scaling_factor": (0, 1.0)}
        if in_blocks:
            rules["weights_scaling_factor"] = (1, 1.0)
        return rules
    rules = {"weight": (0, 0.0), "bias": (0, 0.0)}
    if per_row or in_blocks:
        rules["weights_scaling_factor"] = (0, 1.0)
    return rules


def _pieces(path: str, layer: Optional[DecoderLayerConfig], ranks: int) -> int:
    """Into how many pieces a layer is cut: fewer than ranks where key/value heads are fewer."""
    if layer is not None and path.endswith((":qkv:k", ":qkv:v")):
        return min(ranks, key_value_heads(layer))
    return ranks


def check_split(config: ModelConfig, ranks: int) -> None:
    """Refuses what cannot be cut into so many parts.

    Raises:
        TripyException: Naming the layer and what would fit.
    """
    for index, layer in enumerate(config.layers):
        heads, shared = layer.num_attention_heads, key_value_heads(layer)
        if heads % ranks or (shared % ranks and ranks % shared):
            fits = [
                n for n in range(1, heads + 1) if not heads % n and not (shared % n and n % shared)
            ]
            raise TripyException(
                f"Tensor parallelism: the heads of layers:{index} do not divide among the ranks.",
                got=f"{heads} heads, {shared} key/value heads, {ranks} ranks",
                expected=f"a number of ranks of {', '.join(map(str, fits))}",
            )
    for path, linear, _ in linears(config):
        if linear.linear_type != ROW or not linear.awq_block_size:
            continue
        inputs, block = linear.weight.shape[1], linear.awq_block_size  # type: ignore[union-attr]
        if inputs % ranks or (inputs // ranks) % block:
            raise TripyException(
                f"Tensor parallelism: the int4 blocks of {path} do not divide among the ranks.",
                got=f"{inputs} inputs, {ranks} ranks, blocks of {block}",
                expected="(in / ranks) % block == 0",
                hint=f"fewer ranks, or a block size that divides {inputs / ranks:g}",
            )


def part(x: torch.Tensor, dim: int, pieces: int, index: int, fill: float) -> torch.Tensor:
    """A piece of a tensor that is padded to a multiple of the pieces first."""
    size = -(-x.shape[dim] // pieces)
    start = min(index * size, x.shape[dim])
    got = x.narrow(dim, start, min(size, x.shape[dim] - start))
    if got.shape[dim] < size:
        shape = list(got.shape)
        shape[dim] = size - got.shape[dim]
        got = torch.cat([got, got.new_full(shape, fill)], dim)
    return got.contiguous()


def rank_config(config: ModelConfig, ranks: int, rank: int) -> ModelConfig:
    """One rank's part of a whole model's config; :func:`check_split` has passed."""
    if ranks == 1:
        return config
    where = {id(linear): (path, layer) for path, linear, layer in linears(config)}

    def cut_linear(linear: LinearConfig) -> LinearConfig:
        path, layer = where[id(linear)]
        pieces = _pieces(path, layer, ranks)
        changes = {
            name: part(getattr(linear, name), dim, pieces, rank * pieces // ranks, fill)
            for name, (dim, fill) in cuts(linear, config.quantization).items()
            if getattr(linear, name) is not None
        }
        return dataclasses.replace(linear, **changes)

    def cut_table(table: EmbeddingConfig) -> EmbeddingConfig:
        return EmbeddingConfig(part(table.weight, 0, ranks, rank, 0.0))  # type: ignore[arg-type]

    made = _rebuilt(config, cut_linear, cut_table)
    return dataclasses.replace(made, rank=rank, tensor_parallel=ranks)


def _rebuilt(value: Any, linear: Callable, table: Callable) -> Any:
    """A copy of nested objects with linear layers and tables replaced."""
    if isinstance(value, LinearConfig):
        return linear(value)
    if isinstance(value, EmbeddingConfig):
        return table(value)
    if isinstance(value, list):
        return [_rebuilt(each, linear, table) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {
            f.name: _rebuilt(getattr(value, f.name), linear, table)
            for f in dataclasses.fields(value)
            if f.metadata.get("object")
        }
        return dataclasses.replace(value, **changes)
    return value


def join_ranks(parts: list[ModelConfig]) -> ModelConfig:
    """The whole model's config from all ranks' configs, in order.

    Padding of the vocabulary is cut off; that of other layers, zeros, stays.

    Raises:
        TripyException: For ranks that are not all of one model's, in order.

    Example:
        >>> import torch, tripy.quantization.checkpoint as checkpoint
        >>> ranks = [
        ...     checkpoint.ModelConfig(
        ...         vocab_size=3, rank=rank, tensor_parallel=2,
        ...         vocab_embedding=checkpoint.EmbeddingConfig(torch.zeros(2, 4)),
        ...     )
        ...     for rank in range(2)
        ... ]
        >>> checkpoint.join_ranks(ranks).vocab_embedding.weight.shape
        torch.Size([3, 4])
    """
    count = len(parts)
    if [(p.rank, p.tensor_parallel) for p in parts] != [(r, count) for r in range(count)]:
        raise TripyException(
            "join_ranks: the configs are not all ranks of one model.",
            got=", ".join(f"rank {p.rank} of {p.tensor_parallel}" for p in parts) or "nothing",
            expected="ranks 0 to N - 1 of N, in order",
        )
    first = parts[0]
    if count == 1:
        return first
    rows = [linears(each) for each in parts]
    joined: dict[int, LinearConfig] = {}
    for same in zip(*rows):
        path, linear, layer = same[0]
        pieces = _pieces(path, layer, count)
        chosen = [same[index * count // pieces][1] for index in range(pieces)]
        changes = {
            name: torch.cat([getattr(each, name) for each in chosen], dim)
            for name, (dim, _) in cuts(linear, first.quantization).items()
            if getattr(linear, name) is not None
        }
        joined[id(linear)] = dataclasses.replace(linear, **changes)
    tables = {}
    for name in ("vocab_embedding", "position_embedding"):
        table = getattr(first, name)
        if table is not None:
            whole = torch.cat([getattr(each, name).weight for each in parts])
            tables[id(table)] = EmbeddingConfig(whole)
    made = _rebuilt(first, lambda x: joined[id(x)], lambda x: tables[id(x)])
    _cut_vocabulary(made)
    return dataclasses.replace(made, rank=0, tensor_parallel=1)


def _cut_vocabulary(config: ModelConfig) -> None:
    size = config.vocab_size
    if size and config.vocab_embedding is not None:
        config.vocab_embedding.weight = config.vocab_embedding.weight[:size]  # type: ignore[index]
    head = config.lm_head
    if size and head is not None:
        for name, (dim, _) in cuts(head, config.quantization).items():
            value = getattr(head, name)
            if value is not None and dim == 0:
                setattr(head, name, value[:size])
