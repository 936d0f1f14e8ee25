"""The task of one layer: its weight, what it has seen, and what is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.algorithms.clipping import RATIOS, clipped_amax, jointly_clipped
from tripy.quantization.calibrators import amax_from
from tripy.quantization.config import Algorithm
from tripy.quantization.formats import QuantizerConfig, amax_of
from tripy.quantization.histogram import Histogram
from tripy.quantization.state import QuantizerState
from tripy.quantization.statistics import LayerStatistics

LEAST_TOKENS = 32  # That say what an output's mean is: it is off by 1/32 of the variance at most.
PART = 64  # Rows whose errors are summed at a time.
TINY = 1e-30  # The amax of a channel or block of zeros among others: its values stay zeros.


@dataclass
class Problem:
    """One layer that is to be quantized.

    Attributes:
        name: The layer's name.
        weight: [out, in], floating point.
        weight_configs: What the weight is rounded to; () for nothing.
        input_config: What the input is rounded to, or None.
        algorithm: How.
        seen: What the layer saw; None where nothing had to be seen.
        ratios: Of the largest magnitude, which the calibrator "mse" of weights tries.
        beside: The weights of all layers that have this one's input, this one among them, in the
            model's order: they get one ``pre_quant_scale``, so that they can be run as one layer.
            () where there is no other.
        jointly: Whether that calibrator chooses the thresholds of an output's blocks together.
        has_bias: Whether the layer has a bias, which can take up what rounding does to the mean of
            an output.
    """

    name: str
    weight: torch.Tensor
    weight_configs: tuple[QuantizerConfig, ...]
    input_config: Optional[QuantizerConfig]
    algorithm: Algorithm
    seen: Optional[LayerStatistics] = None
    ratios: tuple[float, ...] = RATIOS
    beside: tuple[torch.Tensor, ...] = ()
    jointly: bool = True
    has_bias: bool = False

    @property
    def scaled_weights(self) -> tuple[torch.Tensor, ...]:
        """The weights that one ``pre_quant_scale`` is chosen for."""
        return self.beside or (self.weight,)

    def data(self) -> LayerStatistics:
        """What the layer saw."""
        if self.seen is None or self.seen.tokens == 0:
            raise TripyException(
                f"{self.name}: {self.algorithm.method} needs data.",
                got="no forward_loop, or one that never calls the layer",
                expected="a forward_loop that runs the model on calibration data",
            )
        return self.seen

    def sample(self) -> torch.Tensor:
        """The tokens that were kept, [tokens, in], float32, beside the weight."""
        sample = self.data().sample
        if sample is None:
            raise TripyException(
                f"{self.name}: {self.algorithm.method} needs tokens of the layer's input.",
                got="statistics without them",
                expected="statistics collected for this algorithm, sample_tokens above 0",
            )
        return sample.to(self.weight.device, torch.float32)


@dataclass
class Solution:
    """What an algorithm has found for a layer.

    Attributes:
        weight: [out, in]; with the inverse of ``pre_quant_scale`` in it.
        pre_quant_scale: [in], float32, or None.
        weight_quantizers: Calibrated; in order.
        input_quantizer: Calibrated, or None.
        search: What was tried and chosen.
        shift: [out], float32, to be added to the bias; or None.
    """

    weight: torch.Tensor
    pre_quant_scale: Optional[torch.Tensor] = None
    weight_quantizers: tuple[QuantizerState, ...] = ()
    input_quantizer: Optional[QuantizerState] = None
    search: dict[str, Any] = field(default_factory=dict)
    shift: Optional[torch.Tensor] = None

    def output(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer computes from float32 inputs [tokens, in], less its bias as it was."""
        y = self.rounded_inputs(x) @ self.rounded_weight().t()
        return y if self.shift is None else y + self.shift

    def rounded_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs as they meet the rounded weight."""
        if self.pre_quant_scale is not None:
            x = x * self.pre_quant_scale
        return x if self.input_quantizer is None else self.input_quantizer(x)

    def rounded_weight(self) -> torch.Tensor:
        """[out, in], float32; with the inverse of ``pre_quant_scale`` in it."""
        weight = self.weight.float()
        for quantizer in self.weight_quantizers:
            weight = quantizer(weight)
        return weight


def check_amax(name: str, amax: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """An amax that can be divided by: groups of zeros beside others get a tiny one.

    Raises:
        TripyException: Where all of it is zero, or it is NaN or infinite.
    """
    if not bool(torch.isfinite(amax).all()):
        raise TripyException(
            f"{name}: amax is NaN or infinite.", got=f"{amax}", expected="finite numbers above 0"
        )
    if not bool((amax > 0).any()):
        raise TripyException(
            f"{name}: amax is zero.",
            got="a tensor of zeros only",
            expected="at least one value that is not zero",
            hint=f'leave the layer out: config.without("{name.rpartition(".")[0]}*")',
        )
    return amax.clamp(min=TINY) if config.axis is not None or config.block_size else amax


def weight_quantizers(
    problem: Problem, weight: torch.Tensor, inputs: Optional[torch.Tensor] = None
) -> tuple[QuantizerState, ...]:
    """Quantizers for a weight, the later ones calibrated on what the earlier ones leave.

    Args:
        problem: The layer.
        weight: Its weight, after scaling.
        inputs: [tokens, in], float32, after scaling, for clipping by the output's error; or None.
    """
    from_error, found = problem.algorithm.weight_calibrator == "mse", []
    weight = weight.float()
    for index, config in enumerate(problem.weight_configs):
        size = config.block_size
        if size is not None and weight.shape[1] % size:
            raise TripyException(
                f"{problem.name}: the weight cannot be cut into blocks.",
                got=f"{weight.shape[1]} inputs, blocks of {size}",
                expected="a block size that divides the number of inputs",
                hint=f"block_size={_divisor(weight.shape[1], size)}, or leave the layer out",
            )
        amax = amax_of(weight, config)
        amax = check_amax(f"{problem.name}.weight_quantizer", amax, config)
        if from_error and index == 0:
            if problem.jointly and inputs is not None and size is not None:
                amax = jointly_clipped(weight, amax, config, inputs)
            else:
                amax = clipped_amax(weight, amax, config, inputs, problem.ratios)
        state = QuantizerState(config, amax)
        found.append(state)
        if index + 1 < len(problem.weight_configs):
            weight = state(weight)
    return tuple(found)


def input_quantizer(problem: Problem, pre: Optional[torch.Tensor]) -> Optional[QuantizerState]:
    """The quantizer of the input, after ``pre_quant_scale``."""
    config = problem.input_config
    if config is None:
        return None
    name, seen = f"{problem.name}.input_quantizer", problem.data()
    method, percentile = problem.algorithm.calibrator, problem.algorithm.percentile
    if pre is None:
        amax = amax_from(seen.histogram, method, config, percentile=percentile, name=name)
    elif method == "max" and seen.channels is not None:
        amax = (seen.channels.to(pre.device) * pre).max()
    else:  # The histogram is that of the input before it was scaled: the kept tokens stand for it.
        scaled = Histogram(device=pre.device)
        scaled.update(problem.sample() * pre)
        amax = amax_from(scaled, method, config, percentile=percentile, name=name)
    return QuantizerState(config, check_amax(name, amax, config))


def sqnr(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """Signal to quantization noise, in dB: ``10 log10(sum(wanted^2) / sum((wanted - got)^2))``."""
    signal = noise = 0.0
    for want, have in zip(wanted.split(PART), got.split(PART)):  # float64 of all would be large.
        exact = want.double()
        signal += float(exact.square().sum())
        noise += float(exact.sub_(have).square_().sum())
    if noise == 0:
        return float("inf")
    return 10 * torch.tensor(signal / noise).log10().item() if signal else float("-inf")


def _divisor(size: int, below: int) -> int:
    return max(n for n in range(1, min(below, size) + 1) if size % n == 0)
