"""Post-training quantization: a model, a configuration, and a loop that shows it data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.algorithms import calibrated
from tripy.quantization.algorithms.gptq import gptq
from tripy.quantization.algorithms.problem import Problem, Solution, check_amax, sqnr
from tripy.quantization.algorithms.scaling import awq, smoothquant
from tripy.quantization.calibrators import amax_from
from tripy.quantization.collecting import gather
from tripy.quantization.describe import Record, remember
from tripy.quantization.formats import QuantizerConfig
from tripy.quantization.planning import Config, Plan, Predicate, plan
from tripy.quantization.progress import progress
from tripy.quantization.state import LinearState, QuantizerState
from tripy.quantization.statistics import LayerStatistics, Statistics
from tripy.quantization.targets import Target

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
    statistics = gather(model, plans, forward_loop, statistics)
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
