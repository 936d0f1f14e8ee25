"""Linear layers of tripy Modules whose keys and values are rounded as a cache would hold them.

The scales are parameters of the layer, ``key_scale`` and ``value_scale``, so they are in its
``state_dict``, and a model that keeps a small cache can take them from there. Rounding is written
with quantize and dequantize: the graph says what it is.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Optional

import torch

from tripy import nn, ops
from tripy.nn.parameter import Declaration
from tripy.quantization.formats import QuantizerConfig, amax_of_scale
from tripy.quantization.state import LinearState, QuantizerState, Sections
from tripy.tensor import Tensor

NAMES = ("key_scale", "value_scale")


class _Cached(nn.Module):
    """What is added to the class of a linear layer."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's result, with its keys and values rounded."""
        y = super().forward(*args, **kwargs)
        sections, formats = self._cache  # type: ignore[attr-defined]
        parts = list(ops.split(y, list(sections.widths), dim=-1)) if sections.widths[1:] else [y]
        for index, name, config in zip((sections.key, sections.value), NAMES, formats):
            scale = getattr(self, name)
            if index is not None and scale is not None:
                scale = ops.cast(scale, y.dtype)
                small = ops.quantize(parts[index], scale, config.format.dtype)
                parts[index] = ops.dequantize(small, scale, y.dtype)
        return ops.concatenate(parts, dim=-1) if parts[1:] else parts[0]

    def _summary(self) -> str:
        text = super()._summary()
        _, formats = self._cache  # type: ignore[attr-defined]
        kept = [f"{n[:-6]}s {c.format.name}" for n, c in zip(NAMES, formats) if c is not None]
        return ", ".join([text] * bool(text) + kept)


@cache
def _class(base: Any) -> type:
    return type(f"Cached{base.__name__}", (_Cached, base), {"__module__": __name__})


def round_cache(layer: nn.Linear, state: LinearState, scale_of: Any) -> None:
    """Has a layer round the keys and values that it makes.

    Args:
        layer: Becomes of a class of its own, derived from the one it has.
        state: With ``sections``, and a quantizer for one of the two.
        scale_of: Makes a parameter of a quantizer.
    """
    quantizers = (state.key_quantizer, state.value_quantizer)
    kind: Any = type(layer)
    layer.__class__ = _class(kind)
    layer.__dict__["_cache"] = (state.sections, tuple(q and q.config for q in quantizers))
    for name, quantizer in zip(NAMES, quantizers):
        declaration = Declaration((), (layer.dtype,), required=False, is_scale=True)
        layer._declare(name, declaration, present=False)
        if quantizer is not None:
            setattr(layer, name, scale_of(quantizer))


def cache_of(
    layer: Any,
) -> tuple[Optional[Sections], Optional[QuantizerState], Optional[QuantizerState]]:
    """Where a layer's keys and values are, and their quantizers; None for each that it has not."""
    if not isinstance(layer, _Cached):
        return None, None, None
    sections, formats = layer._cache  # type: ignore[attr-defined]
    key, value = (
        None if config is None else _quantizer(getattr(layer, name).torch(), config)
        for name, config in zip(NAMES, formats)
    )
    return sections, key, value


def _quantizer(scale: torch.Tensor, config: QuantizerConfig) -> QuantizerState:
    return QuantizerState(config, amax_of_scale(scale.float(), config))
