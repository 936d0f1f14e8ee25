"""What a configuration says of each linear layer of a model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

from tripy import logger
from tripy.errors import TripyException
from tripy.quantization.config import USUAL_EXCLUSIONS, QuantizationConfig, Rule
from tripy.quantization.formats import QuantizerConfig
from tripy.quantization.layers import QuantizedLinear
from tripy.quantization.norms import NormTarget, asked_for, find_norms, norm_rules
from tripy.quantization.statistics import Needs
from tripy.quantization.target import Target
from tripy.quantization.targets import find_targets

Config = Union[QuantizationConfig, Mapping[str, Any]]
Predicate = Callable[[str, Any], Union[bool, Config]]
REPORT_TOKENS = 32  # Kept of each layer's input to measure its output's error with.


@dataclass
class Plan:
    """What is to be done to one layer.

    Attributes:
        target: The layer.
        config: The configuration that its rules come from.
        weight: What its weight is rounded to; () for nothing.
        input: What its input is rounded to, or None.
        key: What its keys are cached in, or None.
        value: The same for its values.
        reason: Why it is left alone; "" if it is not.
    """

    target: Target
    config: QuantizationConfig
    weight: tuple[QuantizerConfig, ...] = ()
    input: Optional[QuantizerConfig] = None
    key: Optional[QuantizerConfig] = None
    value: Optional[QuantizerConfig] = None
    reason: str = ""

    @property
    def needs(self) -> Needs:
        """What has to be collected."""
        if self.target.convolution:
            return Needs()
        algorithm, scaled = self.config.algorithm, self.config.algorithm.method
        sampling = scaled in ("smoothquant", "awq") or algorithm.weight_calibrator == "mse"
        return Needs(
            channels=scaled in ("smoothquant", "awq"),
            tokens=algorithm.tokens if sampling else REPORT_TOKENS,
            moments=scaled == "gptq",
        )

    @property
    def needs_data(self) -> bool:
        """Whether it can be done at all without seeing data."""
        seen = self.input or self.key or self.value
        return seen is not None or self.config.algorithm.method != "max"


def plan(model: Any, config: Config, predicate: Optional[Predicate] = None) -> dict[str, Plan]:
    """What :func:`quantize` would do to each linear layer, without doing it.

    Raises:
        TripyException: For a pattern that matches no quantizer.
    """
    config = QuantizationConfig.of(config)
    targets = find_targets(model)
    plans: dict[str, Plan] = {}
    _check_matches(config, targets, find_norms(model))
    for name, target in targets.items():
        mine = config
        if predicate is not None:
            answer = predicate(name, target.module)
            if answer is False:
                plans[name] = Plan(target, config, reason="the predicate left it out")
                continue
            if answer is not True:
                mine = _answer(name, answer)
        plans[name] = _plan(target, mine)
    return plans


def _answer(name: str, answer: Any) -> QuantizationConfig:
    """The configuration that a predicate gives for a layer."""
    if isinstance(answer, (QuantizationConfig, Mapping)):
        return QuantizationConfig.of(answer)
    raise TripyException(
        f"{name}: the predicate's answer is not usable.",
        got=f"{answer!r:.60} of type {type(answer).__name__}",
        expected="True, False, or a configuration",
    )


def plan_norms(model: Any, config: Config) -> dict[str, Plan]:
    """What :func:`quantize` would do to norms: nothing, but where a rule asks for it."""
    config = QuantizationConfig.of(config)
    if not norm_rules(config):
        return {}
    found = {name: (each, asked_for(each, config)) for name, each in find_norms(model).items()}
    # Of a norm nothing is seen but the histogram that its scale is read from.
    plain = replace(config, algorithm=replace(config.algorithm, method="max", alpha=None))
    return {n: Plan(t, plain, (), asked) for n, (t, asked) in found.items() if asked is not None}


def _quantizers(target: Target) -> tuple[str, ...]:
    """The quantizers that a layer can have."""
    sections = target.sections()
    key = sections is not None and sections.key is not None
    value = sections is not None and sections.value is not None
    more = ("k_bmm_quantizer",) * key + ("v_bmm_quantizer",) * value
    return ("weight_quantizer", "input_quantizer", *more)


def _applies(rule: Rule, target: Target, kind: str) -> bool:
    """Whether a rule is for a quantizer; a pattern for the layer is for all of its quantizers."""
    if rule.matches(f"{target.name}.{kind}", target.kind):
        return True
    return not rule.quantizers and rule.matches(target.name, target.kind)


def _plan(target: Target, config: QuantizationConfig) -> Plan:
    found: dict[str, tuple[QuantizerConfig, ...]] = {}
    last: dict[str, str] = {}
    for kind in _quantizers(target):
        configs: tuple[QuantizerConfig, ...] = ()
        enabled = False
        for rule in config.rules:
            if _applies(rule, target, kind):
                configs, enabled = rule.quantizers or configs, rule.enable
                last[kind] = rule.pattern
        if enabled:
            if not configs:
                raise TripyException(
                    f"{target.name}.{kind}: enabled, and no rule says what it does.",
                    got=f"pattern {last[kind]!r} without num_bits",
                    expected="num_bits in a rule that matches",
                )
            found[kind] = configs
    if target.reason:
        return Plan(target, config, reason=target.reason)
    if isinstance(target.module, QuantizedLinear) or getattr(target.module, "quant_dtype", None):
        return Plan(target, config, reason="it is quantized already")
    if not found:
        pattern = last.get("weight_quantizer")
        why = f"left out by the pattern {pattern!r}" if pattern else "no pattern matches it"
        return Plan(target, config, reason=why)
    if target.convolution:
        if any(q.block_size is not None for q in found.get("weight_quantizer", ())):
            return Plan(target, config, reason="a convolution's weight has no blocks")
        config = _for_convolution(target, config)
    one = {
        kind: _single(target.name, kind, configs)
        for kind, configs in found.items()
        if kind != "weight_quantizer"
    }
    return Plan(
        target, config, found.get("weight_quantizer", ()), one.get("input_quantizer"),
        one.get("k_bmm_quantizer"), one.get("v_bmm_quantizer"),
    )  # fmt: skip


def _for_convolution(target: Target, config: QuantizationConfig) -> QuantizationConfig:
    """The configuration with the plain algorithm, which says so where another was asked for."""
    algorithm = config.algorithm
    if algorithm.method == "max":
        return config
    logger.info(
        f"quantization: {target.name} is a convolution: its scales are by 'max', and not by "
        f"{algorithm.method!r}, which is for linear layers"
    )
    return replace(config, algorithm=replace(algorithm, method="max", alpha=None))


def _single(name: str, kind: str, configs: tuple[QuantizerConfig, ...]) -> QuantizerConfig:
    if len(configs) > 1 or configs[0].axis is not None or configs[0].block_size is not None:
        raise TripyException(
            f"{name}.{kind}: only weights have several scales or formats.",
            got=" then ".join(map(str, configs)),
            expected="one format per tensor",
        )
    return configs[0]


def _check_matches(
    config: QuantizationConfig, targets: dict[str, Target], norms: dict[str, NormTarget]
) -> None:
    """Says what each rule matches; one that matches nothing is a mistake.

    Those that leave out what many models do not have are none: by name, or by a class of layers.
    """
    names = [f"{name}.{kind}" for name, target in targets.items() for kind in _quantizers(target)]
    asking = norm_rules(config)
    for rule in config.rules:
        count = sum(
            _applies(rule, target, kind)
            for target in targets.values()
            for kind in _quantizers(target)
        )
        if asking and (rule in asking or not rule.enable):
            count += sum(_applies(rule, norm, "input_quantizer") for norm in norms.values())
        usual = rule.pattern in USUAL_EXCLUSIONS or (
            rule.parent_class is not None and not rule.enable
        )
        if count or not usual:
            logger.info(f"quantization: {rule.pattern!r} matches {count} quantizers")
        if count or usual:
            continue
        near = difflib.get_close_matches(rule.pattern.strip("*"), [*targets, *names], 1, 0.0)
        raise TripyException(
            "Quantization: a pattern matches nothing.",
            got=f"{rule.pattern!r}; the nearest name is {near[0]!r}",
            expected="patterns for names of quantizers, such as '*c_fc.weight_quantizer'",
            hint="print(list(tq.plan(model, config_without_it)))",
        )
