"""Norms of PyTorch models whose inputs are rounded, where a configuration asks for it.

Patterns for inputs are not for norms: rounding what a norm reads costs quality and saves nothing
here, and no checkpoint format has a place for it. A rule that names the class asks for it:
``Rule("*input_quantizer", (QuantizerConfig(8),), parent_class="nn.LayerNorm")``, or
``config.with_norm_inputs(8)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.config import QuantizationConfig, Rule
from tripy.quantization.formats import QuantizerConfig
from tripy.quantization.layers import TensorQuantizer
from tripy.quantization.state import LinearState, QuantizerState
from tripy.quantization.target import Callback, Target

KIND = "LayerNorm"


class QuantizedLayerNorm(torch.nn.LayerNorm):
    """A LayerNorm that rounds its input first; its parameters are those of the one it replaces."""

    def __init__(self, norm: torch.nn.LayerNorm, state: QuantizerState) -> None:
        super().__init__(norm.normalized_shape, norm.eps, False, device="meta")
        self.elementwise_affine = norm.elementwise_affine
        self.weight, self.bias = norm.weight, norm.bias
        self.input_quantizer = TensorQuantizer(state.config, state.amax)
        self.train(norm.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., features] → the same."""
        return super().forward(self.input_quantizer(x))


class NormTarget(Target):
    """A ``torch.nn.LayerNorm`` of a model, which may be there under several names."""

    kind = KIND

    def __init__(self, name: str, places: list[tuple[Any, str]], module: torch.nn.Module) -> None:
        self.name, self._places, self.module = name, places, module

    @property
    def rounds(self) -> bool:
        """Whether it rounds its input already."""
        return isinstance(self.module, QuantizedLayerNorm)

    @property
    def shape(self) -> tuple[int, int]:
        return 1, int(self.module.normalized_shape[-1])

    def weight(self) -> torch.Tensor:
        raise NotImplementedError

    def bias(self) -> Any:
        return self.module.bias

    def state(self) -> LinearState:
        raise NotImplementedError

    def observe(self, inputs: Callback, results: Optional[Callback]) -> Callable[[], None]:
        del results
        handle = self.module.register_forward_pre_hook(lambda module, args: inputs(args[0]))
        return handle.remove

    def apply(self, state: LinearState) -> None:
        if self._original is None:
            self._original = self.module
        self._put(QuantizedLayerNorm(self._original, state.input_quantizer))  # type: ignore[arg-type]

    def revert(self) -> None:
        if self._original is not None:
            self._put(self._original)

    def _put(self, module: torch.nn.Module) -> None:
        for parent, attribute in self._places:
            setattr(parent, attribute, module)
        self.module = module


def find_norms(model: Any) -> dict[str, NormTarget]:
    """The LayerNorms of a PyTorch model by name; none of others."""
    if not isinstance(model, torch.nn.Module):
        return {}
    places: dict[int, list] = {}
    found: dict[int, tuple[str, torch.nn.Module]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name and type(module) in (torch.nn.LayerNorm, QuantizedLayerNorm):
            path, _, attribute = name.rpartition(".")
            found.setdefault(id(module), (name, module))
            places.setdefault(id(module), []).append((model.get_submodule(path), attribute))
    return {name: NormTarget(name, places[key], each) for key, (name, each) in found.items()}


def norm_rules(config: QuantizationConfig) -> list[Rule]:
    """The rules that ask for norms."""
    return [rule for rule in config.rules if _for_norms(rule) and rule.enable]


def _for_norms(rule: Rule) -> bool:
    return rule.parent_class is not None and rule.parent_class.rpartition(".")[2] == KIND


def asked_for(target: NormTarget, config: QuantizationConfig) -> Optional[QuantizerConfig]:
    """What a norm's input is rounded to; None for nothing. Later rules win.

    Raises:
        TripyException: For a rule that does not say what, or something for weights only.
    """
    name, configs, enabled = f"{target.name}.input_quantizer", (), False
    for rule in config.rules:
        wanted = rule.matches(name, KIND) or (
            not rule.quantizers and rule.matches(target.name, KIND)
        )
        # A rule for all layers may leave a norm out; only one for norms asks for it.
        if wanted and (_for_norms(rule) or not rule.enable):
            configs, enabled = rule.quantizers or configs, rule.enable  # type: ignore[assignment]
    if not enabled or target.rounds:
        return None
    if len(configs) != 1 or configs[0].axis is not None or configs[0].block_size is not None:
        raise TripyException(
            f"{name}: a norm's input has one format and one scale.",
            got=" then ".join(map(str, configs)) or "a rule without num_bits",
            expected="one format per tensor, such as num_bits=8",
        )
    return configs[0]


def refuse_norms(model: Any, operation: str) -> None:
    """Raises where a model rounds the inputs of norms, which ``operation`` would lose."""
    if not isinstance(model, torch.nn.Module):
        return
    rounded = [n for n, m in model.named_modules() if isinstance(m, QuantizedLayerNorm)]
    if rounded:
        raise TripyException(
            f"{operation}: {rounded[0]} rounds its input, and there is no place for that.",
            got=f"{len(rounded)} norms whose inputs are rounded",
            expected="a model whose norms are as they were",
            hint="quantize it again, without rules for LayerNorm",
        )
