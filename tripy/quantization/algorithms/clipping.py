"""Clipping a weight where that makes the layer's output better: thresholds chosen by error.

A smaller amax rounds most values of a group more finely, and clips the few that are above it.
:func:`clipped_amax` looks at each group of values that share a scale by itself. What the groups of
an output lose is added up, though, and errors of inputs that depend on each other can cancel:
:func:`jointly_clipped` chooses the thresholds of an output's blocks together. Both leave rounding
to the nearest alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import torch

from tripy.quantization.formats import QuantizerConfig, groups, scale_of
from tripy.quantization.state import QuantizerState

RATIOS = tuple(step / 20 for step in range(20, 9, -1))  # Of the largest magnitude.
# The more there are, the more ways errors have to cancel. Those above 1 clip nothing, and move the
# grid.
FINE_RATIOS = tuple(1.05 - step * 0.04 for step in range(16))
SWEEPS = 3  # Over all blocks. Each tries ratios that lie between those of the others.
# How much of the sample's moments between different inputs is taken for chance: a few hundred
# tokens say less of them than of each input's own (O. Ledoit and M. Wolf, "A well-conditioned
# estimator for large-dimensional covariance matrices", 2004).
SHRINKAGE = 0.3
ROWS = 512  # Of the weight at a time: what is made of them stays in a processor's cache.


def clipped_amax(
    weight: torch.Tensor,
    amax: torch.Tensor,
    config: QuantizerConfig,
    inputs: Optional[torch.Tensor],
    ratios: tuple[float, ...] = RATIOS,
) -> torch.Tensor:
    """The amax of each group, of the ratios to the largest, with the smallest squared error.

    That is the error of what the group adds to the layer's output, where inputs are known, and the
    error of the group's values where they are not.

    Args:
        weight: [out, in], float32.
        amax: The largest magnitude of each group.
        config: What the weight is rounded to.
        inputs: [tokens, in], or None.
        ratios: Above 0, in the order in which they win at equal errors.
    """
    measure = _output_error(config, inputs) if inputs is not None else _value_error(config)
    if amax.dim() == 0:
        return _clipped(weight, amax, config, measure, ratios)
    parts = zip(weight.split(ROWS), amax.split(ROWS))
    return torch.cat([_clipped(rows, most, config, measure, ratios) for rows, most in parts])


def _clipped(
    weight: torch.Tensor,
    amax: torch.Tensor,
    config: QuantizerConfig,
    measure: Callable[[torch.Tensor], torch.Tensor],
    ratios: tuple[float, ...],
) -> torch.Tensor:
    best, least = amax.clone(), torch.full_like(amax, torch.inf)
    for ratio in ratios:
        tried = amax * ratio
        total = measure(QuantizerState(config, tried)(weight) - weight)
        better = total < least
        best, least = torch.where(better, tried, best), torch.where(better, total, least)
    return best


def jointly_clipped(
    weight: torch.Tensor,
    amax: torch.Tensor,
    config: QuantizerConfig,
    inputs: torch.Tensor,
    ratios: tuple[float, ...] = FINE_RATIOS,
) -> torch.Tensor:
    """The amax of each block, so that the errors of an output's blocks cancel as far as they can.

    One block after the other takes the ratio with which the squared error of the output, given all
    other blocks of that output as they are, is least; starting from :func:`clipped_amax`. The
    error is never above that of the start, in the moments that are used: those of the sample, with
    :data:`SHRINKAGE`.

    Args:
        weight: [out, in], float32.
        amax: The largest magnitude of each block, [out, in / block].
        config: What the weight is rounded to, in blocks.
        inputs: [tokens, in].
        ratios: To the largest magnitude of a block; from high to low, evenly spaced.
    """
    cuts = inputs.split(config.block_size, 1)  # type: ignore[arg-type]
    moments = []
    for cut in cuts:
        between = cut.t() @ cut
        moments.append(torch.lerp(between, between.diagonal().diag(), SHRINKAGE))
    start = clipped_amax(weight, amax, config, inputs)
    parts = zip(weight.split(ROWS), amax.split(ROWS), start.split(ROWS))
    return torch.cat(
        [_joint(rows, most, first, config, cuts, moments, ratios) for rows, most, first in parts]
    )


def _joint(
    weight: torch.Tensor,
    largest: torch.Tensor,
    amax: torch.Tensor,
    config: QuantizerConfig,
    inputs: tuple[torch.Tensor, ...],
    moments: list[torch.Tensor],
    ratios: tuple[float, ...],
) -> torch.Tensor:
    values = weight.split(config.block_size, 1)  # type: ignore[arg-type]
    errors = [_rounding_error(w, a, config) for w, a in zip(values, amax.unbind(1))]
    total = sum(error @ x.t() for error, x in zip(errors, inputs))  # Of the output, [out, tokens].
    chosen = list(amax.unbind(1))
    step = (ratios[0] - ratios[-1]) / max(1, len(ratios) - 1) / SWEEPS
    for sweep in range(SWEEPS):
        for block, (own, x, moment) in enumerate(zip(values, inputs, moments)):
            before = errors[block]
            others = (2 - 2 * SHRINKAGE) * ((total - before @ x.t()) @ x)
            best = chosen[block]
            least = ((before @ moment + others) * before).sum(1)
            for ratio in ratios:
                tried = largest[:, block] * (ratio - sweep * step)
                error = _rounding_error(own, tried, config)
                cost = torch.addmm(others, error, moment).mul_(error).sum(1)
                better = cost < least
                least, best = torch.where(better, cost, least), torch.where(better, tried, best)
            errors[block], chosen[block] = _rounding_error(own, best, config), best
            total = total + (errors[block] - before) @ x.t()
    return torch.stack(chosen, 1)


def _rounding_error(
    values: torch.Tensor, amax: torch.Tensor, config: QuantizerConfig
) -> torch.Tensor:
    """What rounding adds to blocks, [out, size], with one amax each."""
    number = config.format
    if number.storage is torch.float8_e4m3fn:
        return QuantizerState(config, amax[:, None])(values) - values
    # As a quantizer does it, without storing the small values.
    scale = scale_of(amax, config)[:, None]
    return (values / scale).round_().clamp_(number.low, number.maxbound).mul_(scale).sub_(values)


def _value_error(config: QuantizerConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """The squares of a weight's errors, summed over each group."""

    def measure(error: torch.Tensor) -> torch.Tensor:
        squares = groups(error, config).square()
        return squares.sum() if squares.dim() == 2 and config.axis is None else squares.sum(-1)

    return measure


def _output_error(
    config: QuantizerConfig, inputs: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The squares of the output's errors that each group's errors make, summed over tokens."""
    if config.block_size is None:

        def measure(error: torch.Tensor) -> torch.Tensor:
            squares = (error @ inputs.t()).square()
            return squares.sum() if config.axis is None else squares.sum(-1)

        return measure
    # The second moments of each block: [blocks, size, size].
    cut = inputs.unflatten(-1, (-1, config.block_size)).transpose(0, 1)
    moments = cut.transpose(1, 2) @ cut

    def measure_blocks(error: torch.Tensor) -> torch.Tensor:
        blocks = groups(error, config).transpose(0, 1)  # [blocks, out, size]
        return ((blocks @ moments) * blocks).sum(-1).t()

    return measure_blocks
