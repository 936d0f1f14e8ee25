"""What exporters read of a model: its settings, its linear layers and all other tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.describe import describe
from tripy.quantization.state import LinearState


@dataclass(frozen=True)
class Source:
    """A model, as plain data.

    Attributes:
        settings: Its config, JSON-ready.
        states: Its linear layers.
        tensors: All other tensors of its state dict; they share the model's memory.
        parameters: The names among them that are parameters.
    """

    settings: dict[str, Any]
    states: dict[str, LinearState]
    tensors: dict[str, torch.Tensor]
    parameters: set[str]


def source_of(model: Any, states: Optional[Mapping[str, LinearState]], caller: str) -> Source:
    """Reads a model of transformers, or one that looks like it.

    Raises:
        TripyException: For models without a config or a state dict.
    """
    config = getattr(model, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(settings, dict) or not isinstance(model, torch.nn.Module):
        raise TripyException(
            f"{caller}: the model has no config that says what it is.",
            got=type(model).__name__,
            expected="a model of transformers, such as GPT2LMHeadModel; or a torch.nn.Module with "
            "a dict as its config",
        )
    layers = dict(describe(model) if states is None else states)
    inside = tuple(f"{name}." for name in layers)
    tensors = {}
    for name, value in model.state_dict().items():
        quantizer = any(p.endswith("_quantizer") for p in name.split("."))
        if not quantizer and not name.startswith(inside) and isinstance(value, torch.Tensor):
            tensors[name] = value.detach()
    parameters = {name for name, _ in model.named_parameters()} & set(tensors)
    return Source(settings, layers, tensors, parameters)
