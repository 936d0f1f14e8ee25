"""SmoothQuant and AWQ: range is moved between an input channel and its column of the weight.

Both multiply the input by ``pre_quant_scale`` and divide the weight's columns by it, which changes
nothing before rounding. With a the magnitude of a channel's input and w that of its column:

- SmoothQuant (Xiao et al., 2023): ``pre_quant_scale = w^(1 - alpha) / a^alpha``, from the largest
  magnitudes: it makes outliers of inputs smaller, so that int8 fits them.
- AWQ (Lin et al., 2024): ``pre_quant_scale = w^(1 - alpha) / a^alpha`` from mean magnitudes,
  normalised: columns that meet large inputs are made larger, and so rounded more finely.

alpha is the one whose output is nearest on the tokens that were kept; no scaling at all is tried
too, and taken where it is best. It is chosen by a part of the outputs, and, where weights are
clipped too, with a few thresholds each; the layer is then solved with all of both.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Optional

import torch

from tripy.quantization.algorithms import calibrated
from tripy.quantization.algorithms.clipping import RATIOS
from tripy.quantization.algorithms.problem import Problem, Solution, sqnr
from tripy.quantization.formats import QuantizerConfig, groups

LOW, HIGH = 1e-4, 1e4
TRIAL_OUTPUTS = 512


def smoothquant(problem: Problem) -> Solution:
    """The best ``pre_quant_scale`` for weights and inputs that are both rounded."""
    channels = problem.data().channels
    inputs = problem.sample().abs().amax(0) if channels is None else channels
    largest = [weight.float().abs().amax(0) for weight in problem.scaled_weights]
    weight = torch.stack(largest).amax(0)
    return _search(problem, inputs.to(weight.device), weight, normalise=False)


def awq(problem: Problem) -> Solution:
    """The best ``pre_quant_scale`` for weights of few bits."""
    inputs, config = problem.sample().abs().mean(0), problem.weight_configs[0]
    if config.block_size is not None and problem.weight.shape[1] % config.block_size:
        return calibrated.solve(problem)  # Which says what is wrong.
    sums = [_relative(weight, config) for weight in problem.scaled_weights]
    relative = torch.stack(sums).sum(0) / sum(len(weight) for weight in problem.scaled_weights)
    return _search(problem, inputs.to(relative.device), relative, normalise=True)


def _relative(weight: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """Magnitudes relative to the largest that they share a scale with, summed over outputs."""
    weight = weight.float().abs()
    if config.block_size is None:
        largest = weight.amax(1, keepdim=True)
    else:
        blocks = groups(weight, config)
        largest = blocks.amax(-1, keepdim=True).expand_as(blocks).reshape(weight.shape)
    return (weight / largest.clamp(min=1e-30)).sum(0)


def _search(
    problem: Problem, inputs: torch.Tensor, weight: torch.Tensor, normalise: bool
) -> Solution:
    algorithm = problem.algorithm
    if algorithm.alpha is not None:
        solution = calibrated.solve(problem, _scale(inputs, weight, algorithm.alpha, normalise))
        solution.search = {"method": algorithm.method, "alpha": algorithm.alpha}
        return solution
    sample, trial = problem.sample(), _fewer_outputs(problem)
    wanted = sample @ trial.weight.float().t()
    best, chosen, curve = -math.inf, None, []
    count = round(1 / algorithm.alpha_step)
    alpha: Optional[float]
    for alpha in (None, *(min(1.0, step * algorithm.alpha_step) for step in range(count + 1))):
        pre = None if alpha is None else _scale(inputs, weight, alpha, normalise)
        quality = sqnr(wanted, calibrated.solve(trial, pre).output(sample))
        curve.append({"alpha": alpha, "sqnr": quality})
        if quality > best:
            best, chosen = quality, alpha
    pre = None if chosen is None else _scale(inputs, weight, chosen, normalise)
    solution = calibrated.solve(problem, pre)
    solution.search = {"method": algorithm.method, "alpha": chosen, "curve": curve}
    return solution


def _fewer_outputs(problem: Problem) -> Problem:
    """The problem with evenly spread outputs only, and few thresholds: what alpha is chosen by.

    Outputs have scales of their own, and ``pre_quant_scale`` is one for all of them.
    """
    one = any(q.axis is None and q.block_size is None for q in problem.weight_configs[:1])
    parts = []
    for weight in problem.scaled_weights:
        rows, wanted = len(weight), TRIAL_OUTPUTS // len(problem.scaled_weights)
        if rows > wanted and not one:
            chosen = torch.linspace(0, rows - 1, wanted, dtype=torch.float64).long()
            weight = weight[chosen.to(weight.device)]
        parts.append(weight)
    weight = torch.cat(parts) if len(parts) > 1 else parts[0]
    return replace(problem, weight=weight, ratios=RATIOS[::3], jointly=False)


def _scale(
    inputs: torch.Tensor, weight: torch.Tensor, alpha: float, normalise: bool
) -> torch.Tensor:
    # A channel that is always zero, of either, may be scaled by anything.
    a, w = inputs.clamp(min=1e-8), weight.clamp(min=1e-8)
    scale = w.pow(1 - alpha) / a.pow(alpha)
    scale = torch.where((inputs > 0) & (weight > 0), scale, torch.ones_like(scale))
    if normalise:
        scale = scale / (scale.max() * scale.min()).sqrt()
    return scale.clamp(LOW, HIGH)
