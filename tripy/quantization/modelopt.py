"""Models quantized with nvidia-modelopt, read without importing it.

A layer that it has quantized has a ``weight_quantizer`` and an ``input_quantizer``. amax comes from
``export_amax()``, which gives int4 blocks as (out, in / block), where the buffer is flat. A
``pre_quant_scale`` counts even where the input quantizer is off: the weight has its inverse in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.config import QuantizationConfig
from tripy.quantization.formats import FORMATS, QuantizerConfig
from tripy.quantization.norms import norm_rules
from tripy.quantization.state import LinearState, QuantizerState


def is_modelopt(model: Any) -> bool:
    """Whether nvidia-modelopt has quantized a layer of the model."""
    return isinstance(model, torch.nn.Module) and any(True for _ in _layers(model))


def describe_modelopt(model: torch.nn.Module) -> dict[str, LinearState]:
    """The linear layers of a model that nvidia-modelopt has quantized.

    Raises:
        TripyException: For quantizers that are not calibrated, and formats that tripy has not.
    """
    found = {}
    for name, module in _layers(model):
        out, inputs = module.weight.shape
        weight = module.weight_quantizer
        parts = list(weight) if isinstance(weight, torch.nn.Sequential) else [weight]
        quantizers = tuple(
            _state(part, f"{name}.weight_quantizer", (out, inputs))
            for part in parts
            if part.is_enabled
        )
        given = module.input_quantizer
        pre = getattr(given, "_pre_quant_scale", None)
        if pre is not None and not getattr(given, "_enable_pre_quant_scale", True):
            pre = None
        state = LinearState(
            name,
            "Conv1D" if any(c.__name__ == "Conv1D" for c in type(module).__mro__) else "Linear",
            module.weight.detach(),
            module.bias,
            quantizers,
            _state(given, f"{name}.input_quantizer", None) if given.is_enabled else None,
            None if pre is None else pre.detach().float().reshape(-1),
        )
        found[name] = state
    return found


def _layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        quantizer = getattr(module, "weight_quantizer", None)
        foreign = type(quantizer).__module__.startswith("modelopt.")
        # Embeddings and convolutions have quantizers too; a Conv1D has become a linear layer.
        if foreign and hasattr(module, "in_features") and module.weight.dim() == 2:
            yield name, module


def _state(quantizer: Any, name: str, shape: Optional[tuple[int, int]]) -> QuantizerState:
    amax = quantizer.export_amax()
    if amax is None:
        raise TripyException(
            f"{name}: it is enabled and has no amax.",
            got="a quantizer that has not been calibrated",
            expected="a model after modelopt.torch.quantization.quantize with a forward_loop",
        )
    bits, blocks = quantizer.num_bits, quantizer.block_sizes
    if bits not in FORMATS:
        raise TripyException(
            f"{name}: tripy does not have the format.",
            got=f"num_bits={bits}",
            expected="8, 4 or (4, 3)",
        )
    if quantizer.maxbound != FORMATS[bits].maxbound:
        raise TripyException(
            f"{name}: another range than tripy's.",
            got=f"maxbound {quantizer.maxbound}",
            expected=f"{FORMATS[bits].maxbound}",
            hint="signed quantizers only: unsigned=False",
        )
    amax = amax.detach().float()
    if blocks:
        size = blocks.get(-1, blocks.get(1))
        config = QuantizerConfig(bits, block_size=size)
        return QuantizerState(config, amax.reshape(shape[0], -1) if shape else amax)
    if amax.numel() == 1:
        return QuantizerState(QuantizerConfig(bits), amax.reshape(()))
    return QuantizerState(QuantizerConfig(bits, axis=0), amax.reshape(-1))


def modelopt_config(config: QuantizationConfig) -> dict[str, Any]:
    """A configuration in the form that nvidia-modelopt 0.41 and later takes.

    Raises:
        TripyException: For what it has no word for: calibrators other than max.

    Example:
        >>> import tripy.quantization as tq
        >>> tq.modelopt_config(tq.INT8_DEFAULT_CFG)["quant_cfg"][1]
        {'quantizer_name': '*weight_quantizer', 'enable': True, 'cfg': {'num_bits': 8, 'axis': 0}}
    """
    algorithm = config.algorithm
    clips = algorithm.weight_calibrator != "max"
    if algorithm.calibrator != "max" or (clips and algorithm.method == "max"):
        raise TripyException(
            "modelopt_config: nvidia-modelopt has no word for the calibrator.",
            got=f"{algorithm.calibrator} for inputs, {algorithm.weight_calibrator} for weights",
            expected="max",
        )
    method: Any = algorithm.method
    if method == "awq":
        method = "awq_full" if clips else "awq_lite"
    if algorithm.alpha is not None and method == "smoothquant":
        method = {"method": method, "alpha": algorithm.alpha}
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    asking = norm_rules(config)
    # Patterns for inputs would match those of LayerNorm there, which tripy rounds only where a rule
    # for that class says so.
    off = [
        {"quantizer_name": "*", "parent_class": kind, "enable": False}
        for kind in ("nn.LayerNorm", "nn.Embedding")
    ]
    for rule in sorted(config.rules, key=lambda rule: rule in asking):
        if asking and rule is asking[0]:
            entries += off
        entry: dict[str, Any] = {"quantizer_name": rule.pattern, "enable": rule.enable}
        parts = [_attributes(each) for each in rule.quantizers]
        if parts:
            entry["cfg"] = parts[0] if len(parts) == 1 else parts
        if rule.parent_class is not None:
            entry["parent_class"] = rule.parent_class
        entries.append(entry)
    entries += [] if asking else off
    return {"quant_cfg": entries, "algorithm": method}


def _attributes(config: QuantizerConfig) -> dict[str, Any]:
    if config.block_size is None:
        return {"num_bits": config.num_bits, "axis": config.axis}
    return {"num_bits": config.num_bits, "block_sizes": {-1: config.block_size, "type": "static"}}
