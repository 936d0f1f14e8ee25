"""A report's rows, one a layer, from what is known of the layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import torch

from tripy.nn.quantized import QuantizedLayer
from tripy.quantization.results import stored_bytes
from tripy.quantization.runs import what_runs
from tripy.quantization.state import LinearState

Range = Optional[tuple[float, float]]


@dataclass(frozen=True)
class ReportRow:
    """One linear layer.

    Attributes:
        name: Its dotted name.
        kind: Its class before it was quantized.
        shape: (out, in).
        scheme: The formats in words; "not quantized".
        weight: What the weight is rounded to; "-" for nothing.
        input: What the input is rounded to; "-" for nothing.
        granularity: Which values of the weight share a scale; "" where it is not rounded.
        weight_scale: The least and the largest scale of the weight (of the first of two formats).
        input_scale: Of the input, or None.
        pre_quant_scale: The least and the largest of what input channels are multiplied with.
        key_scale: Of attention's keys in the cache, or None.
        value_scale: The same for values.
        bytes_before: Of the weight in floating point, in the model's data type.
        bytes_after: Of weight and scales, as tripy's layers and exported files hold them.
        weight_sqnr: In dB, or None where it was not measured.
        output_sqnr: Of the layer's result on calibration data, in dB, or None.
        output_cosine: The cosine of the angle between the result and that without rounding.
        searched: Whether an exponent alpha was searched or given.
        alpha: The one that was chosen; None for no scaling.
        reason: Why the layer was left alone; "" if it was not.
        runs: What computes the layer in tripy, once compiled for a CPU.
    """

    name: str
    kind: str
    shape: tuple[int, int]
    scheme: str
    weight: str
    input: str
    granularity: str
    weight_scale: Range
    input_scale: Optional[float]
    pre_quant_scale: Range
    key_scale: Optional[float]
    value_scale: Optional[float]
    bytes_before: int
    bytes_after: int
    weight_sqnr: Optional[float]
    output_sqnr: Optional[float]
    output_cosine: Optional[float]
    searched: bool
    alpha: Optional[float]
    reason: str
    runs: str

    @property
    def quantized(self) -> bool:
        """Whether its weight or its input is rounded."""
        return self.scheme != "not quantized"


@dataclass(frozen=True)
class Drawn:
    """What a layer's plots are made of.

    Attributes:
        histogram: Of the input's magnitudes, before ``pre_quant_scale``; or None.
        input_quantizer: With the threshold in use; or None.
        scales: Of the weight, [rows, scales a row]; or None.
        scaled: Whether the input is multiplied with ``pre_quant_scale`` before it is rounded.
        search: What an algorithm has tried.
    """

    histogram: Any
    input_quantizer: Any
    scales: Optional[torch.Tensor]
    scaled: bool
    search: dict[str, Any]


def item_size(state: LinearState, module: Any) -> int:
    """Bytes of a floating-point number in the layer."""
    if isinstance(module, QuantizedLayer):  # A quantized one's weight is restored in float32.
        return int(module.dtype.itemsize)
    return state.unrounded.element_size()


def make_row(state: LinearState, item: int, mixed_reason: str) -> ReportRow:
    """The row of a layer.

    Args:
        state: The layer.
        item: What :func:`item_size` gives for it.
        mixed_reason: Why mixed precision left it alone; "" if it did not.
    """
    out, inputs = state.shape
    first = state.weight_quantizers[0] if state.weight_quantizers else None
    cached = state.key_quantizer is not None or state.value_quantizer is not None
    alone = first is None and state.input_quantizer is None
    reason = (mixed_reason if alone else "") or state.reason
    if cached and alone:
        reason = reason or "only the keys and values that it makes are rounded"
    return ReportRow(
        state.name, state.kind, (out, inputs), state.scheme,
        " then ".join(str(each.config) for each in state.weight_quantizers) or "-",
        "-" if state.input_quantizer is None else state.input_quantizer.config.format.name,
        " then ".join(each.config.granularity for each in state.weight_quantizers),
        None if first is None else _ends(first.scale),
        _scale(state.input_quantizer),
        None if state.pre_quant_scale is None else _ends(state.pre_quant_scale),
        _scale(state.key_quantizer), _scale(state.value_quantizer),
        out * inputs * item, stored_bytes(state, item),
        state.measures.get("weight_sqnr"), state.measures.get("output_sqnr"),
        state.measures.get("output_cosine"),
        "alpha" in state.search, state.search.get("alpha"), reason, what_runs(state),
    )  # fmt: skip


def make_drawn(state: LinearState) -> Drawn:
    """What its plots are made of; not its weight."""
    scales = None
    if state.weight_quantizers and state.weight_quantizers[0].amax.dim():
        scales = state.weight_quantizers[0].scale.detach().cpu()
        scales = scales.reshape(scales.shape[0], -1)
    scaled = state.pre_quant_scale is not None
    return Drawn(state.histogram, state.input_quantizer, scales, scaled, state.search)


def _ends(x: torch.Tensor) -> tuple[float, float]:
    return float(x.min()), float(x.max())


def _scale(quantizer: Any) -> Optional[float]:
    return None if quantizer is None else float(quantizer.scale.max())
