"""Post-training quantization: a model, a configuration, and a loop that shows it data."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

import torch

from tripy import logger
from tripy.errors import TripyException
from tripy.quantization.algorithms import calibrated
from tripy.quantization.algorithms.gptq import gptq
from tripy.quantization.algorithms.problem import Problem, Solution, sqnr
from tripy.quantization.algorithms.problem import check_amax as _check_amax
from tripy.quantization.algorithms.scaling import awq, smoothquant
from tripy.quantization.calibrators import amax_from
from tripy.quantization.config import USUAL_EXCLUSIONS, QuantizationConfig
from tripy.quantization.describe import Record, describe, record_of, remember
from tripy.quantization.formats import QuantizerConfig
from tripy.quantization.layers import QuantizedLinear
from tripy.quantization.progress import progress
from tripy.quantization.state import LinearState, QuantizerState
from tripy.quantization.statistics import (
    LayerStatistics,
    Needs,
    Statistics,
    finish,
    masked,
    observer,
)
from tripy.quantization.targets import Target, find_targets

Config = Union[QuantizationConfig, Mapping[str, Any]]
Predicate = Callable[[str, Any], Union[bool, Config]]
SOLVERS: dict[str, Callable[[Problem], Solution]] = {
    "max": calibrated.solve, "smoothquant": smoothquant, "awq": awq, "gptq": gptq,
}  # fmt: skip
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
        algorithm, scaled = self.config.algorithm, self.config.algorithm.method
        sampling = scaled in ("smoothquant", "awq") or algorithm.weight_calibrator == "mse"
        return Needs(
            channels=scaled in ("smoothquant", "awq"),
            tokens=algorithm.sample_tokens if sampling else REPORT_TOKENS,
            moments=scaled == "gptq",
        )

    @property
    def needs_data(self) -> bool:
        """Whether it can be done at all without seeing data."""
        seen = self.input or self.key or self.value
        return seen is not None or self.config.algorithm.method != "max"


def quantize(
    model: Any,
    config: Config,
    forward_loop: Optional[Callable[..., Any]] = None,
    *,
    predicate: Optional[Predicate] = None,
    statistics: Optional[Statistics] = None,
) -> Any:
    """Quantize the linear layers of a model, in place.

    In a PyTorch model, ``torch.nn.Linear`` and transformers' ``Conv1D`` are replaced by layers that
    round their weights and inputs and compute in floating point. In a tripy Module, each
    :class:`tripy.Linear` becomes a quantized one, holding small weights.

    Args:
        model: A torch.nn.Module or a :class:`tripy.Module`.
        config: A preset, a :class:`QuantizationConfig`, or nvidia-modelopt's dict or list form.
        forward_loop: Runs the model on calibration data; called once, with the model if it takes an
            argument. Not needed where only weights are rounded, as they are.
        predicate: Called with the path and the module of each linear layer: False leaves it alone,
            True does as ``config`` says, and another configuration is used instead.
        statistics: What :func:`collect` has seen, instead of a ``forward_loop``.

    Returns:
        The model.

    Raises:
        TripyException: For a pattern that matches nothing, missing data, data with NaN or infinity,
            and scales of zero; each names the layer. The model is then as it was.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
        >>> data = torch.randn(16, 8)
        >>> _ = tq.quantize(model, tq.INT8_DEFAULT_CFG, lambda: model(data))
        >>> print(model[0].input_quantizer.config)
        int8 per tensor
    """
    plans = plan(model, config, predicate)
    if statistics is None:
        statistics = _collect(model, plans, forward_loop)
    else:
        _check_statistics(plans, statistics)
        finish(statistics)
    done: list[Target] = []
    records: dict[str, Record] = {}
    try:
        for each in progress(list(plans.values()), "quantizing"):
            name = each.target.name
            records[name] = Record(each.target.kind, each.reason)
            if not each.reason:
                state = solve(each, statistics.get(name))
                each.target.apply(state)
                done.append(each.target)
                records[name] = Record.of(state)
    except BaseException:
        for target in done:
            target.revert()
        raise
    for target in done:
        target.forget()
    remember(model, records)
    return model


def collect(
    model: Any,
    config: Config,
    forward_loop: Callable[..., Any],
    *,
    predicate: Optional[Predicate] = None,
) -> Statistics:
    """Only look: what the layers see that ``config`` quantizes, to be saved, merged or reused.

    Args:
        model: As for :func:`quantize`; it stays as it is.
        config: Tells which layers, and what its algorithm needs to know of them.
        forward_loop: As for :func:`quantize`.
        predicate: As for :func:`quantize`.

    Returns:
        Statistics by layer.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
        >>> seen = tq.collect(model, tq.INT8_DEFAULT_CFG, lambda: model(torch.ones(2, 8)))
        >>> seen["0"].tokens, float(seen["0"].histogram.amax)
        (2, 1.0)
    """
    plans = plan(model, config, predicate)
    return _collect(model, plans, forward_loop, always=True)


def plan(model: Any, config: Config, predicate: Optional[Predicate] = None) -> dict[str, Plan]:
    """What :func:`quantize` would do to each linear layer, without doing it.

    Raises:
        TripyException: For a pattern that matches no quantizer.
    """
    config = QuantizationConfig.of(config)
    targets = find_targets(model)
    plans, matched = {}, [0] * len(config.rules)
    for name, target in targets.items():
        mine = config
        if predicate is not None:
            answer = predicate(name, target.module)
            if answer is False:
                plans[name] = Plan(target, config, reason="the predicate left it out")
                continue
            if answer is not True:
                mine = QuantizationConfig.of(answer)
        plans[name] = _plan(target, mine, matched if mine is config else None)
    _check_matches(config, matched, plans, predicate is not None)
    return plans


def _plan(target: Target, config: QuantizationConfig, matched: Optional[list[int]]) -> Plan:
    sections = target.sections()
    kinds = {"weight_quantizer": True, "input_quantizer": True}
    kinds["k_bmm_quantizer"] = sections is not None and sections.key is not None
    kinds["v_bmm_quantizer"] = sections is not None and sections.value is not None
    found: dict[str, tuple[QuantizerConfig, ...]] = {}
    last: dict[str, str] = {}
    for kind, present in kinds.items():
        configs: tuple[QuantizerConfig, ...] = ()
        enabled = False
        if not present:
            continue
        for index, rule in enumerate(config.rules):
            if rule.matches(f"{target.name}.{kind}", target.kind) or (
                # A pattern for the layer is one for all its quantizers.
                not rule.quantizers and rule.matches(target.name, target.kind)
            ):
                if matched is not None:
                    matched[index] += 1
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
    one = {
        kind: _single(target.name, kind, configs)
        for kind, configs in found.items()
        if kind != "weight_quantizer"
    }
    return Plan(
        target, config, found.get("weight_quantizer", ()), one.get("input_quantizer"),
        one.get("k_bmm_quantizer"), one.get("v_bmm_quantizer"),
    )  # fmt: skip


def _single(name: str, kind: str, configs: tuple[QuantizerConfig, ...]) -> QuantizerConfig:
    if len(configs) > 1 or configs[0].axis is not None or configs[0].block_size is not None:
        raise TripyException(
            f"{name}.{kind}: only weights have several scales or formats.",
            got=" then ".join(map(str, configs)),
            expected="one format per tensor",
        )
    return configs[0]


def _check_matches(
    config: QuantizationConfig, matched: list[int], plans: dict[str, Plan], partly: bool
) -> None:
    names = [f"{name}.{kind}" for name in plans for kind in ("weight_quantizer", "input_quantizer")]
    for rule, count in zip(config.rules, matched):
        if count or rule.pattern not in USUAL_EXCLUSIONS:
            logger.info(f"quantization: {rule.pattern!r} matches {count} quantizers")
        if count or rule.pattern in USUAL_EXCLUSIONS or rule.parent_class or partly:
            continue
        near = difflib.get_close_matches(rule.pattern.strip("*"), [*plans, *names], 1, 0.0)
        raise TripyException(
            "Quantization: a pattern matches nothing.",
            got=f"{rule.pattern!r}; the nearest name is {near[0]!r}"
            if near
            else repr(rule.pattern),
            expected="patterns for names of quantizers, such as '*c_fc.weight_quantizer'",
            hint="print(list(tq.plan(model, config_without_it)))",
        )


def _collect(
    model: Any,
    plans: dict[str, Plan],
    forward_loop: Optional[Callable[..., Any]],
    always: bool = False,
) -> Statistics:
    wanted = {name: each for name, each in plans.items() if not each.reason}
    needing = [name for name, each in wanted.items() if each.needs_data]
    if forward_loop is None:
        if needing or always:
            raise TripyException(
                "Quantization: there is no forward_loop, and the configuration needs one.",
                got=f"{needing[0]}: {_scheme(wanted[needing[0]])}" if needing else "None",
                expected="forward_loop, a function that runs the model on calibration data",
                hint="INT8_WEIGHT_ONLY_CFG, which needs no data",
            )
        return Statistics()
    statistics = Statistics()
    ends = []
    try:
        for name, each in wanted.items():
            layer = statistics[name] = LayerStatistics(each.needs)
            results = _cache_observer(each, layer) if each.key or each.value else None
            ends.append(each.target.observe(observer(name, layer), results))
        with torch.no_grad():
            forward_loop(*([model] if _takes_model(forward_loop) else []))
    finally:
        for end in ends:
            end()
    finish(statistics)
    return statistics


def _cache_observer(each: Plan, layer: LayerStatistics) -> Callable[[torch.Tensor], None]:
    sections, name = each.target.sections(), each.target.name
    assert sections is not None  # A plan has a key or a value only where there are sections.

    def see(y: torch.Tensor) -> None:
        parts = masked(y, name).split(sections.widths, -1)
        layer.update_cache(
            parts[sections.key] if each.key else None,  # type: ignore[index]
            parts[sections.value] if each.value else None,  # type: ignore[index]
        )

    return see


def _takes_model(forward_loop: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(forward_loop).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    ) or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _check_statistics(plans: dict[str, Plan], statistics: Statistics) -> None:
    for name, each in plans.items():
        if not each.reason and each.needs_data and name not in statistics:
            raise TripyException(
                f"{name}: the statistics do not have this layer.",
                got=f"statistics of {len(statistics)} layers: {', '.join([*statistics][:3])}",
                expected="what tq.collect has made of this model with this configuration",
            )


def solve(each: Plan, seen: Optional[LayerStatistics]) -> LinearState:
    """What a layer becomes."""
    target, algorithm = each.target, each.config.algorithm
    weight = target.weight()
    problem = Problem(target.name, weight, each.weight, each.input, algorithm, seen)
    solver = SOLVERS[algorithm.method] if each.weight else calibrated.solve
    solution = solver(problem)
    state = LinearState(
        target.name, target.kind, solution.weight, target.bias(), solution.weight_quantizers,
        solution.input_quantizer, solution.pre_quant_scale,
        _cache(each.key, seen and seen.keys, f"{target.name}.k_bmm_quantizer", each),
        _cache(each.value, seen and seen.values, f"{target.name}.v_bmm_quantizer", each),
        sections=target.sections() if each.key or each.value else None,
        search=solution.search, histogram=None if seen is None else seen.histogram,
    )  # fmt: skip
    return replace(state, measures=_measures(weight, solution, seen))


def _cache(
    config: Optional[QuantizerConfig], seen: Any, name: str, each: Plan
) -> Optional[QuantizerState]:
    if config is None:
        return None
    algorithm = each.config.algorithm
    amax = amax_from(seen, algorithm.calibrator, config, percentile=algorithm.percentile, name=name)
    return QuantizerState(config, _check_amax(name, amax, config))


def _measures(
    weight: torch.Tensor, solution: Solution, seen: Optional[LayerStatistics]
) -> dict[str, float]:
    wide = weight.float()
    rounded = solution.weight.float()
    for quantizer in solution.weight_quantizers:
        rounded = quantizer(rounded)
    if solution.pre_quant_scale is not None:
        rounded = rounded * solution.pre_quant_scale
    found = {"weight_sqnr": sqnr(wide, rounded)}
    if seen is not None and seen.sample is not None:
        wanted, got = seen.sample @ wide.t(), solution.output(seen.sample)
        found["output_sqnr"] = sqnr(wanted, got)
        cosine = torch.nn.functional.cosine_similarity(wanted.flatten(), got.flatten(), 0)
        found["output_cosine"] = float(cosine)
    return found


def _scheme(each: Plan) -> str:
    parts = [" then ".join(map(str, each.weight))] if each.weight else []
    parts += [f"input {each.input}"] if each.input else []
    parts += [f"keys {each.key}"] if each.key else []
    return ", ".join(parts) + f" with {each.config.algorithm.method}"


__all__ = ["Plan", "collect", "describe", "plan", "quantize", "record_of"]
