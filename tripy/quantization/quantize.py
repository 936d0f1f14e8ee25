"""Post-training quantization: a model, a configuration, and a loop that shows it data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.files import digest
from tripy.quantization.algorithms import calibrated
from tripy.quantization.algorithms.gptq import gptq
from tripy.quantization.algorithms.problem import (
    Problem,
    Solution,
    check_amax,
    input_quantizer,
    sqnr,
)
from tripy.quantization.algorithms.scaling import awq, smoothquant
from tripy.quantization.calibrators import amax_from
from tripy.quantization.collecting import gather
from tripy.quantization.describe import Record, remember
from tripy.quantization.formats import QuantizerConfig
from tripy.quantization.planning import Config, Plan, Predicate, plan, plan_norms
from tripy.quantization.progress import progress
from tripy.quantization.state import LinearState, QuantizerState
from tripy.quantization.statistics import LayerStatistics, Statistics
from tripy.quantization.target import Target

SOLVERS: dict[str, Callable[[Problem], Solution]] = {
    "max": calibrated.solve, "smoothquant": smoothquant, "awq": awq, "gptq": gptq,
}  # fmt: skip


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
        The model. Norms are left alone, but where a rule for their class asks for their inputs.

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
    plans, norms = plan(model, config, predicate), plan_norms(model, config)
    statistics = gather(model, {**plans, **norms}, forward_loop, statistics)
    done: list[Target] = []
    records: dict[str, Record] = {}
    try:
        for together in progress(_together(plans, statistics), "quantizing"):
            weights = tuple(each.target.weight() for each in together) if together[1:] else ()
            # All of them before any is changed: each is solved by the weights of all.
            states = [
                None if each.reason else solve(each, statistics.get(each.target.name), weights)
                for each in together
            ]
            for each, state in zip(together, states):
                records[each.target.name] = Record(each.target.kind, each.reason)
                if state is not None:
                    done.append(each.target)  # Before: what fails halfway has to be put back too.
                    each.target.apply(state)
                    records[each.target.name] = Record.of(state)
        for each in norms.values():
            done.append(each.target)
            each.target.apply(_norm(each, statistics[each.target.name]))
        remember(model, records)
    except BaseException:
        for target in done:
            target.revert()
        raise
    for target in done:
        target.forget()
    return model


def _together(plans: dict[str, Plan], statistics: Statistics) -> list[list[Plan]]:
    """The layers in order; together those that scale one input, such as queries, keys and values.

    Layers have one input where they have seen the same tokens, which are kept for scaling.
    """
    found: list[list[Plan]] = []
    by_input: dict[Any, list[Plan]] = {}
    for name, each in plans.items():
        seen = statistics.get(name)
        scales = each.config.algorithm.method in ("smoothquant", "awq") and each.weight
        if each.reason or not scales or seen is None or seen.sample is None:
            found.append([each])
            continue
        sample = seen.sample.cpu().contiguous().view(torch.int16).numpy().tobytes()
        key = (digest(sample), seen.tokens, each.weight, each.input, each.config.algorithm)
        if key in by_input:
            by_input[key].append(each)
        else:
            found.append(by_input.setdefault(key, [each]))
    return found


def solve(
    each: Plan, seen: Optional[LayerStatistics], beside: tuple[torch.Tensor, ...] = ()
) -> LinearState:
    """What a layer becomes.

    Args:
        each: The layer, and what is to be done to it.
        seen: What it has seen.
        beside: The weights of all layers with its input, where there are others.
    """
    target, algorithm = each.target, each.config.algorithm
    weight, bias = target.weight(), target.bias()
    problem = Problem(
        target.name, weight, each.weight, each.input, algorithm, seen, beside=beside,
        has_bias=bias is not None,
    )  # fmt: skip
    solver = SOLVERS[algorithm.method] if each.weight else calibrated.solve
    solution = solver(problem)
    # What pre_quant_scale divides stays as it is: a copy of each layer's weight until all are done
    # would be a second model.
    scaled, corrected = solution.pre_quant_scale is not None, solution.shift is not None
    if corrected:
        bias = (bias.detach().float() + solution.shift).to(bias.dtype)
        solution.search["bias"] = "corrected"
    state = LinearState(
        target.name, target.kind, weight if scaled else solution.weight, bias,
        solution.weight_quantizers,
        solution.input_quantizer, solution.pre_quant_scale,
        _cache(each.key, seen and seen.keys, f"{target.name}.k_bmm_quantizer", each),
        _cache(each.value, seen and seen.values, f"{target.name}.v_bmm_quantizer", each),
        sections=target.sections() if each.key or each.value else None,
        search=solution.search, histogram=None if seen is None else seen.histogram,
        divided=False, corrected=corrected,
    )  # fmt: skip
    return replace(state, measures=_measures(weight, solution, seen))


def _norm(each: Plan, seen: LayerStatistics) -> LinearState:
    """What a norm becomes: all that is known of it is the quantizer of its input."""
    name = each.target.name
    problem = Problem(name, torch.empty(0), (), each.input, each.config.algorithm, seen)
    rounded = input_quantizer(problem, None)
    return LinearState(name, each.target.kind, torch.empty(0), None, (), rounded)


def _cache(
    config: Optional[QuantizerConfig], seen: Any, name: str, each: Plan
) -> Optional[QuantizerState]:
    if config is None:
        return None
    if seen is None:
        raise TripyException(
            f"{name}: the statistics do not have the cache's values.",
            got="statistics that were collected for another configuration",
            expected="what tq.collect has made with with_kv_cache",
        )
    algorithm = each.config.algorithm
    amax = amax_from(seen, algorithm.calibrator, config, percentile=algorithm.percentile, name=name)
    return QuantizerState(config, check_amax(name, amax, config))


def _measures(
    weight: torch.Tensor, solution: Solution, seen: Optional[LayerStatistics]
) -> dict[str, float]:
    wide = weight.float()
    rounded = solution.rounded_weight()
    if solution.pre_quant_scale is not None:
        rounded = rounded * solution.pre_quant_scale
    found = {"weight_sqnr": sqnr(wide, rounded)}
    if seen is not None and seen.sample is not None:
        sample = seen.sample.to(wide.device, torch.float32)
        wanted, got = sample @ wide.t(), solution.output(sample)
        found["output_sqnr"] = sqnr(wanted, got)
        cosine = torch.nn.functional.cosine_similarity(wanted.flatten(), got.flatten(), 0)
        found["output_cosine"] = float(cosine)
    return found
