"""Which quantization a layer has, in the words that checkpoint formats have for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.formats import Bits, QuantizerConfig
from tripy.quantization.state import LinearState, QuantizerState

_FP8: Bits = (4, 3)


@dataclass(frozen=True)
class Scheme:
    """A combination that has a name.

    Attributes:
        quantization: What a model config calls it, or None where that has no name.
        algorithm: What hf_quant_config.json calls it.
        weight: The bits of each of the weight's quantizers, in order.
        input: Those of the input, or None.
    """

    quantization: Optional[str]
    algorithm: str
    weight: tuple[Bits, ...]
    input: Optional[Bits]


SCHEMES = (
    Scheme("fp8", "FP8", (_FP8,), _FP8),
    Scheme("int8_sq", "W8A8_SQ_PER_CHANNEL", (8,), 8),
    Scheme(None, "W8A16", (8,), None),
    Scheme("int4_awq", "W4A16_AWQ", (4,), None),
    Scheme("w4a8_awq", "W4A8_AWQ", (4, _FP8), _FP8),
)
BY_QUANTIZATION = {scheme.quantization: scheme for scheme in SCHEMES if scheme.quantization}
BY_ALGORITHM = {scheme.algorithm: scheme for scheme in SCHEMES}
CACHE_ALGORITHMS: dict[Bits, str] = {8: "INT8", _FP8: "FP8"}


def weight_configs(scheme: Scheme, block_size: Optional[int]) -> tuple[QuantizerConfig, ...]:
    """What the weight's quantizers do: int8 a row, int4 in blocks, float8 with one scale."""
    made = []
    for bits in scheme.weight:
        if bits == 4:
            made.append(QuantizerConfig(4, block_size=block_size))
        else:
            made.append(QuantizerConfig(bits, axis=0 if bits == 8 else None))
    return tuple(made)


def is_quantized(state: LinearState) -> bool:
    """Whether anything of the layer is rounded or scaled."""
    return bool(
        state.weight_quantizers
        or state.input_quantizer is not None
        or state.pre_quant_scale is not None
    )


def scheme_of(state: LinearState) -> Optional[Scheme]:
    """The scheme of a layer, None for one that is left alone.

    Raises:
        TripyException: For combinations without a name, and scales that cannot be divided by.
    """
    check_values(state)
    if not is_quantized(state):
        return None
    weight = tuple(q.config.num_bits for q in state.weight_quantizers)
    given = None if state.input_quantizer is None else state.input_quantizer.config.num_bits
    for scheme in SCHEMES:
        if scheme.weight == weight and scheme.input == given and _granular(state):
            return scheme
    raise TripyException(
        f"Export: no checkpoint format has a name for the quantization of {state.name}.",
        got=state.scheme if state.weight_quantizers or given else "a pre_quant_scale only",
        expected="fp8 with fp8 inputs, each per tensor; int8 per channel, with int8 inputs per "
        "tensor or none; int4 in blocks; or int4 in blocks then fp8, with fp8 inputs",
        hint="one of the presets that the format can hold, such as FP8_DEFAULT_CFG",
    )


def _granular(state: LinearState) -> bool:
    """Whether scales are spread as the formats have them."""
    for quantizer in state.weight_quantizers:
        config = quantizer.config
        if config.num_bits == 4 and config.block_size is None:
            return False
        if config.num_bits == 8 and config.block_size is not None:
            return False
        if config.num_bits == _FP8 and config.granularity != "per tensor":
            return False
    given = state.input_quantizer
    return given is None or given.config.granularity == "per tensor"


def check_values(state: LinearState) -> None:
    """Refuses shapes that do not fit each other, and scales that are zero, infinite or NaN."""
    if state.weight.dim() != 2 or not state.weight.is_floating_point():
        raise TripyException(
            f"Export: the weight of {state.name} is not usable.",
            got=f"{state.weight.dtype} of shape {list(state.weight.shape)}",
            expected="floating point, [out, in]",
        )
    out, inputs = state.weight.shape
    named: list[tuple[str, torch.Tensor, tuple[int, ...]]] = []
    for quantizer in state.weight_quantizers:
        size = quantizer.config.block_size
        shape: tuple[int, ...] = () if quantizer.config.axis is None else (out,)
        if size is not None:
            shape = (out, inputs // size)
        named.append(("weight's scale", quantizer.scale, shape))
    for role, other in (
        ("input's scale", state.input_quantizer),
        ("keys' scale", state.key_quantizer),
        ("values' scale", state.value_quantizer),
    ):
        if other is not None and other.config.granularity == "per tensor":
            named.append((role, other.scale, ()))
    if state.pre_quant_scale is not None:
        named.append(("pre_quant_scale", state.pre_quant_scale, (inputs,)))
    for role, scale, shape in named:
        fits = tuple(scale.shape) == shape or scale.numel() == 1 and shape == ()
        if not fits or not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise TripyException(
                f"Export: the {role} of {state.name} is not usable.",
                got=f"shape {list(scale.shape)}, values from {_least(scale)} to {_most(scale)}",
                expected=f"shape {list(shape)}, finite values above 0",
                hint="calibrate the model with data before it is exported",
            )


def _least(x: torch.Tensor) -> float:
    return float(x.min()) if x.numel() else 0.0


def _most(x: torch.Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0


def common_scheme(states: Mapping[str, LinearState], what: str) -> Optional[Scheme]:
    """The one scheme of all quantized layers; None where no layer is quantized.

    Args:
        states: The layers.
        what: The format's name, and that it has one word for the whole model.

    Raises:
        TripyException: Where there are several, naming layers of each.
    """
    found: dict[Scheme, list[str]] = {}
    for name, state in states.items():
        scheme = scheme_of(state)
        if scheme is not None:
            found.setdefault(scheme, []).append(name)
    if len(found) > 1:
        raise TripyException(
            f"Export: {what} holds one quantization for all layers.",
            got="".join(f"\n    {s.algorithm}: {listed(names)}" for s, names in found.items()),
            expected="layers of one quantization, or left alone",
        )
    return next(iter(found), None)


def listed(names: list[str], most: int = 6) -> str:
    """Names in words; the first few of many."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def cache_scheme(states: Mapping[str, LinearState]) -> Optional[Bits]:
    """The bits that attention's keys and values are cached in; None where they are left alone.

    Raises:
        TripyException: Where layers do not agree, or a scale is not one for the whole tensor.
    """
    found: dict[Bits, list[str]] = {}
    without: list[str] = []
    for name, state in states.items():
        quantizers = {"key": state.key_quantizer, "value": state.value_quantizer}
        for role, quantizer in quantizers.items():
            if quantizer is None:
                makes = state.sections is not None and getattr(state.sections, role) is not None
                without += [f"{name} ({role}s)"] if makes else []
                continue
            bits = quantizer.config.num_bits
            if quantizer.config.granularity != "per tensor" or bits not in CACHE_ALGORITHMS:
                raise TripyException(
                    f"Export: no checkpoint format has a name for the cached {role}s of {name}.",
                    got=str(quantizer.config),
                    expected="int8 or fp8, per tensor",
                )
            found.setdefault(bits, []).append(f"{name} ({role}s)")
    if len(found) > 1 or (found and without):
        parts = {CACHE_ALGORITHMS[bits]: names for bits, names in found.items()}
        if without:
            parts["not quantized"] = without
        raise TripyException(
            "Export: checkpoint formats hold one key/value cache format for all layers.",
            got="".join(f"\n    {word}: {listed(names)}" for word, names in parts.items()),
            expected="keys and values of all layers in int8, in fp8, or left alone",
        )
    return next(iter(found), None)


def state_from_scale(config: QuantizerConfig, scale: torch.Tensor) -> QuantizerState:
    """A quantizer whose scale is that of a file, to the last bit where that can be.

    ``scale * maxbound / maxbound`` may round to a neighbour of the scale; one of the next amax
    gives the scale back.
    """
    scale = scale.detach().float()
    bound = config.format.maxbound
    amax = scale * bound
    best = amax.clone()
    up, down = amax, amax
    for _ in range(3):
        up = torch.nextafter(up, torch.full_like(up, float("inf")))
        down = torch.nextafter(down, torch.zeros_like(down))
        for candidate in (down, up):
            better = (best / bound != scale) & (candidate / bound == scale)
            best = torch.where(better, candidate, best)
    return QuantizerState(config, best)
