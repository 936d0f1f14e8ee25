"""The plain way: each quantizer takes its threshold from what it has seen.

Where weights are clipped by the output's error, a layer's bias takes up the mean of that error, as
in M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019;
here the mean is that of the tokens which were kept. Thresholds are then chosen by what is left, the
error's variance: none is spent on making means cancel.
"""

from __future__ import annotations

from typing import Optional

import torch

from tripy.quantization.algorithms.problem import (
    LEAST_TOKENS,
    Problem,
    Solution,
    input_quantizer,
    weight_quantizers,
)
from tripy.quantization.state import divided


def solve(problem: Problem, pre: Optional[torch.Tensor] = None) -> Solution:
    """Quantizers by the calibrators, with a ``pre_quant_scale`` that is given."""
    weight, sample = problem.weight, None
    if problem.algorithm.weight_calibrator == "mse" and problem.seen is not None:
        sample = None if problem.seen.sample is None else problem.sample()
    corrected = problem.has_bias and sample is not None and len(sample) >= LEAST_TOKENS
    inputs = sample
    if sample is not None and corrected:
        inputs = sample - sample.mean(0)
    if pre is not None:
        weight = divided(weight, pre)
        inputs = None if inputs is None else inputs * pre
    solution = Solution(
        weight, pre, weight_quantizers(problem, weight, inputs), input_quantizer(problem, pre)
    )
    if sample is not None and corrected and solution.weight_quantizers:
        wanted = problem.weight.float() @ sample.mean(0)
        mean = solution.rounded_inputs(sample).mean(0)
        solution.shift = wanted - solution.rounded_weight() @ mean
    return solution
