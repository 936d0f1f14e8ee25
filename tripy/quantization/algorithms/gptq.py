"""GPTQ (Frantar et al., 2023): columns are rounded one after the other, and what each loses is made
up for by the columns that are still to come.

With H the second moments of the layer's inputs, the best correction of the remaining columns, after
column j was changed by e, is ``-e / U[j, j] * U[j, j:]``, where U is the upper Cholesky factor of
the inverse of H. Scales are fixed before, from the weight as it was.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from tripy.errors import TripyException
from tripy.quantization.algorithms import calibrated
from tripy.quantization.algorithms.problem import Problem, Solution, sqnr
from tripy.quantization.state import QuantizerState

BLOCK = 128  # Columns that are corrected at once; others get the sum of their corrections.


def gptq(problem: Problem) -> Solution:
    """A weight that lies on the quantizer's grid, and is the better for it."""
    moments = problem.data().moments
    if moments is None:
        raise TripyException(
            f"{problem.name}: gptq needs the second moments of the layer's input.",
            got="statistics without them",
            expected="statistics collected for this algorithm",
        )
    # Later columns make up for errors, those of means too: no threshold may count on how errors
    # cancel before that.
    solution = calibrated.solve(replace(problem, jointly=False, has_bias=False))
    if not solution.weight_quantizers:
        return solution
    quantizer = solution.weight_quantizers[0]
    rounded = _rounded(problem, moments.to(problem.weight.device), quantizer)
    plain = quantizer(problem.weight.float())
    solution.weight = rounded
    solution.search = {"method": "gptq"}
    if problem.seen is not None and problem.seen.sample is not None:
        sample = problem.sample()
        wanted = sample @ problem.weight.float().t()
        solution.search["rounded_to_nearest"] = sqnr(wanted, sample @ plain.t())
        solution.search["gptq"] = sqnr(wanted, sample @ rounded.t())
    return solution


def _rounded(problem: Problem, moments: torch.Tensor, quantizer: QuantizerState) -> torch.Tensor:
    weight = problem.weight.float().clone()
    size = weight.shape[1]
    hessian = moments.double()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1.0
    hessian.diagonal().add_(problem.algorithm.damping * hessian.diagonal().mean())
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        upper = torch.linalg.cholesky(inverse, upper=True).float()
    except torch.linalg.LinAlgError:
        raise TripyException(
            f"{problem.name}: the second moments of the layer's input have no inverse.",
            got=f"{problem.data().tokens} tokens of {size} inputs, damping"
            f" {problem.algorithm.damping}",
            expected="moments that are positive definite with the damping",
            hint="more data, or a larger damping",
        ) from None
    scale = _columns(quantizer, weight.shape)
    number = quantizer.config.format
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = torch.empty(weight.shape[0], stop - start, device=weight.device)
        for column in range(start, stop):
            values = weight[:, column]
            q = (values / scale[:, column]).clamp(number.low, number.maxbound)
            # float8 rounds in its cast, integers here.
            q = (
                q.to(number.storage).float()
                if number.bits == 8 and number.name == "fp8"
                else q.round()
            )
            rounded = q * scale[:, column]
            error = (values - rounded) / upper[column, column]
            weight[:, column] = rounded
            weight[:, column + 1 : stop] -= error[:, None] * upper[column, column + 1 : stop]
            errors[:, column - start] = error
        weight[:, stop:] -= errors @ upper[start:stop, stop:]
    return weight


def _columns(quantizer: QuantizerState, shape: torch.Size) -> torch.Tensor:
    """The scale of each element, [out, in], without storing it where it repeats."""
    scale, config = quantizer.scale, quantizer.config
    if config.block_size is not None:
        return scale.repeat_interleave(config.block_size, dim=1)
    return scale.expand(shape) if config.axis is None else scale[:, None].expand(shape)
