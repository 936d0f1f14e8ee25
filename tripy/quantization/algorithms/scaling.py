"""SmoothQuant and AWQ: range is moved between an input channel and its column of the weight.

Both multiply the input by ``pre_quant_scale`` and divide the weight's columns by it, which changes
nothing before rounding. With a the magnitude of a channel's input and w that of its column:

- SmoothQuant (Xiao et al., 2023): ``pre_quant_scale = w^(1 - alpha) / a^alpha``, from the largest
  magnitudes: it makes outliers of inputs smaller, so that int8 fits them.
- AWQ (Lin et al., 2024): ``pre_quant_scale = w^(1 - alpha) / a^alpha`` from mean magnitudes,
  normalised: columns that meet large inputs are made larger, and so rounded more finely.

alpha is the one whose output is nearest on the tokens that were kept; no scaling at all is tried
too, and taken where it is best. Where weights are clipped too, each alpha is tried with a few
thresholds, and the best of them with all.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from tripy.quantization.algorithms import calibrated
from tripy.quantization.algorithms.problem import Problem, Solution, sqnr
from tripy.quantization.formats import groups

LOW, HIGH = 1e-4, 1e4


def smoothquant(problem: Problem) -> Solution:
    """The best ``pre_quant_scale`` for weights and inputs that are both rounded."""
    channels = problem.data().channels
    inputs = problem.sample().abs().amax(0) if channels is None else channels
    weight = problem.weight.float().abs().amax(0)
    return _search(problem, inputs.to(weight.device), weight, normalise=False)


def awq(problem: Problem) -> Solution:
    """The best ``pre_quant_scale`` for weights of few bits."""
    inputs, weight = problem.sample().abs().mean(0), problem.weight.float().abs()
    config = problem.weight_configs[0]
    if config.block_size is None:
        largest = weight.amax(1, keepdim=True)
    else:
        if weight.shape[1] % config.block_size:
            return calibrated.solve(problem)  # Which says what is wrong.
        blocks = groups(weight, config)
        largest = blocks.amax(-1, keepdim=True).expand_as(blocks).reshape(weight.shape)
    relative = (weight / largest.clamp(min=1e-30)).mean(0)
    return _search(problem, inputs.to(weight.device), relative, normalise=True)


def _search(
    problem: Problem, inputs: torch.Tensor, weight: torch.Tensor, normalise: bool
) -> Solution:
    algorithm = problem.algorithm
    if algorithm.alpha is not None:
        solution = calibrated.solve(problem, _scale(inputs, weight, algorithm.alpha, normalise))
        solution.search = {"method": algorithm.method, "alpha": algorithm.alpha}
        return solution
    sample = problem.sample()
    wanted = sample @ problem.weight.float().t()
    quick = replace(problem, ratios=problem.ratios[::3])
    best, chosen, curve = -math.inf, Solution(problem.weight), []
    count = round(1 / algorithm.alpha_step)
    for alpha in (None, *(min(1.0, step * algorithm.alpha_step) for step in range(count + 1))):
        pre = None if alpha is None else _scale(inputs, weight, alpha, normalise)
        solution = calibrated.solve(quick, pre)
        quality = sqnr(wanted, solution.output(sample))
        curve.append({"alpha": alpha, "sqnr": quality})
        if quality > best or not chosen.search:
            best, chosen = quality, solution
            chosen.search = {"method": algorithm.method, "alpha": alpha, "curve": curve}
    if algorithm.weight_calibrator != "max":
        clipped = calibrated.solve(problem, chosen.pre_quant_scale)
        quality = sqnr(wanted, clipped.output(sample))
        if quality > best:
            clipped.search = {**chosen.search, "clipped": quality}
            return clipped
    return chosen


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
