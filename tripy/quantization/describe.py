"""What has been done to a model: its layers as plain data, with what calibration knows of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tripy.quantization.modelopt import describe_modelopt, is_modelopt
from tripy.quantization.state import LinearState
from tripy.quantization.targets import find_targets

_ATTRIBUTE = "_tripy_quantization"


@dataclass
class Record:
    """What calibration knows of a layer, beside what the layer itself holds.

    Attributes are those of :class:`LinearState` of the same names.
    """

    kind: str
    reason: str = ""
    search: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    histogram: Any = None

    @classmethod
    def of(cls, state: LinearState) -> Record:
        """Of a layer that was just calibrated."""
        return cls(state.kind, state.reason, state.search, state.measures, state.histogram)


def remember(model: Any, records: dict[str, Record]) -> None:
    """Keeps records with a model."""
    kept = model.__dict__.setdefault(_ATTRIBUTE, {})
    for name, record in records.items():
        # What an earlier call has quantized, a later one leaves alone.
        if record.reason != "it is quantized already" or name not in kept:
            kept[name] = record


def record_of(model: Any) -> dict[str, Record]:
    """The records of a model that was quantized; empty for others."""
    return dict(model.__dict__.get(_ATTRIBUTE, {}))


def describe(model: Any) -> dict[str, LinearState]:
    """Each linear layer of a model, quantized or not, as plain data.

    Args:
        model: A torch.nn.Module, also one that nvidia-modelopt has quantized, or a
            :class:`tripy.Module`.

    Returns:
        By dotted name, in the model's order. Weights share the model's memory where they can.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
        >>> _ = tq.quantize(model, tq.INT8_WEIGHT_ONLY_CFG.without("1"))
        >>> for name, layer in tq.describe(model).items():
        ...     print(name, layer.scheme, layer.reason or "-", sep=" | ")
        0 | int8 per channel | -
        1 | not quantized | left out by the pattern '1'
    """
    if is_modelopt(model):
        return describe_modelopt(model)
    targets, found = find_targets(model), {}  # Which says so where the model is none.
    records = record_of(model)
    for name, target in targets.items():
        state, record = target.state(), records.get(name)
        if record is not None:
            state = replace(
                state, reason=record.reason, search=record.search, measures=record.measures,
                histogram=record.histogram,
            )  # fmt: skip
        elif not state.weight_quantizers and state.input_quantizer is None:
            state = replace(state, reason=target.reason or "it was never quantized")
        found[name] = state
    return found
