"""The plain way: each quantizer takes its threshold from what it has seen."""

from __future__ import annotations

from typing import Optional

import torch

from tripy.quantization.algorithms.problem import (
    Problem,
    Solution,
    input_quantizer,
    weight_quantizers,
)
from tripy.quantization.state import divided


def solve(problem: Problem, pre: Optional[torch.Tensor] = None) -> Solution:
    """Quantizers by the calibrators, with a ``pre_quant_scale`` that is given."""
    weight, inputs = problem.weight, None
    if problem.algorithm.weight_calibrator == "mse" and problem.seen is not None:
        inputs = None if problem.seen.sample is None else problem.sample()
    if pre is not None:
        weight = divided(weight, pre)
        inputs = None if inputs is None else inputs * pre
    return Solution(
        weight, pre, weight_quantizers(problem, weight, inputs), input_quantizer(problem, pre)
    )
