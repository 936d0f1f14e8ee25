"""What is known about each quantized layer, as plain data.

Exporters, reports and :func:`to_tripy` read these, and nothing of the model that they came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from tripy.quantization.formats import QuantizerConfig, fake_quantize, restore, round_to, scale_of


@dataclass(frozen=True)
class QuantizerState:
    """A quantizer that has been calibrated.

    Attributes:
        config: What it does.
        amax: Floating point: () per tensor, (out,) per channel, (out, in / block) in blocks.
    """

    config: QuantizerConfig
    amax: torch.Tensor

    @property
    def scale(self) -> torch.Tensor:
        """``amax / maxbound``, float32, shaped as amax."""
        return scale_of(self.amax, self.config)

    def round(self, x: torch.Tensor) -> torch.Tensor:
        """The small values of a tensor, one an element."""
        return round_to(x, self.scale.to(x.device), self.config)

    def restore(self, q: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The values that small values stand for."""
        return restore(q, self.scale.to(q.device), self.config, dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize(x, self.scale.to(x.device), self.config)


def divided(weight: torch.Tensor, pre: torch.Tensor) -> torch.Tensor:
    """A weight [out, in] for inputs that are multiplied with ``pre_quant_scale``, float32."""
    return weight.float() / pre.to(weight.device)


@dataclass(frozen=True)
class Sections:
    """Where in a layer's result attention's keys and values are.

    Attributes:
        widths: Of the parts that the result's last dimension is cut into.
        key: The index of the part with the keys, or None.
        value: That of the values, or None.
    """

    widths: tuple[int, ...]
    key: Optional[int]
    value: Optional[int]


@dataclass(frozen=True)
class LinearState:
    """A linear layer of a model, quantized or left alone.

    Attributes:
        name: Its dotted name in the model.
        kind: The class of the layer before it was quantized: "Linear" or "Conv1D".
        unrounded: [out, in], floating point; it shares the model's memory where it can.
        bias: [out], or None.
        weight_quantizers: None: (); one; or two, one after the other (int4, whose result is rounded
            to float8).
        input_quantizer: What the input is rounded with, or None.
        pre_quant_scale: (in,), float32, that the input is multiplied with first; or None.
        key_quantizer: For a layer that makes attention's keys: what they are cached in; or None.
        value_quantizer: The same for values.
        reason: Why the layer was left alone; "" if it was not.
        sections: Where keys and values are in the result, for a layer that makes any; or None.
        search: What algorithms tried and chose, as JSON-ready values: "alpha", "curve", and so on.
        measures: What was measured on the kept tokens, in dB: "weight_sqnr", "output_sqnr", and
            "output_cosine".
        histogram: Of the input's magnitudes, or None where inputs were not seen.
        divided: Whether ``unrounded`` is divided by ``pre_quant_scale`` already.
        corrected: Whether ``bias`` is not the layer's own, but one that takes up what rounding does
            to the means of its outputs.
    """

    name: str
    kind: str
    unrounded: torch.Tensor
    bias: Optional[torch.Tensor]
    weight_quantizers: tuple[QuantizerState, ...] = ()
    input_quantizer: Optional[QuantizerState] = None
    pre_quant_scale: Optional[torch.Tensor] = None
    key_quantizer: Optional[QuantizerState] = None
    value_quantizer: Optional[QuantizerState] = None
    reason: str = ""
    sections: Optional[Sections] = None
    search: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    histogram: Any = None
    divided: bool = True
    corrected: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        out, inputs = self.unrounded.shape
        return out, inputs

    @property
    def weight(self) -> torch.Tensor:
        """[out, in], floating point, not rounded; the inverse of ``pre_quant_scale`` is in it."""
        if self.divided or self.pre_quant_scale is None:
            return self.unrounded
        return divided(self.unrounded.detach(), self.pre_quant_scale)

    @property
    def scheme(self) -> str:
        """The formats in words, such as "int8 per channel, input int8 per tensor"."""
        if not self.weight_quantizers and self.input_quantizer is None:
            return "not quantized"
        weight = " then ".join(str(q.config) for q in self.weight_quantizers) or "weight as it is"
        if self.input_quantizer is None:
            return weight
        return f"{weight}, input {self.input_quantizer.config}"

    def rounded_weight(self) -> torch.Tensor:
        """The weight as the layer computes with it, float32 [out, in]."""
        weight = self.weight.detach().float()
        for quantizer in self.weight_quantizers:
            weight = quantizer(weight)
        return weight
