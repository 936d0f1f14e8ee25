"""Which layers a model's quality hangs on: each quantized alone, and all but each.

Both are measured on the model's logits, against those of the model in floating point. A layer alone
says what it costs by itself; all but one says what leaving it alone would win back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch

from tripy.errors import TripyException
from tripy.quantization.collecting import gather
from tripy.quantization.config import QuantizationConfig
from tripy.quantization.planning import Config, Plan, plan
from tripy.quantization.progress import progress
from tripy.quantization.quantize import solve
from tripy.quantization.results import Sensitivity, SensitivityRow, Size, stored_bytes
from tripy.quantization.state import LinearState
from tripy.quantization.statistics import Needs, Statistics
from tripy.tensor import Tensor

REPEATS = 40.0  # dB between two evaluations of one model, below which nothing can be compared.


@dataclass
class _Joint(Plan):
    """A layer's plans of several configurations, for one look at the data."""

    plans: tuple[Plan, ...] = ()

    @property
    def needs(self) -> Needs:
        """What any of them needs."""
        needs = [each.needs for each in self.plans]
        return Needs(
            any(n.channels for n in needs),
            max(n.tokens for n in needs),
            any(n.moments for n in needs),
        )

    @property
    def needs_data(self) -> bool:
        """Whether any of them does."""
        return any(each.needs_data for each in self.plans)


@torch.no_grad()
def sensitivity(
    model: Any,
    config: Any,
    forward_loop: Optional[Callable[..., Any]],
    evaluate: Callable[[], Any],
    *,
    statistics: Optional[Statistics] = None,
    others: Optional[bool] = None,
) -> Sensitivity:
    """Measure what quantizing each layer does to a model's logits.

    Evaluates the model twice, then once for each layer and format; with ``others`` once more for
    each, and once with all layers quantized. The model is left as it was, also after an error.

    Args:
        model: A torch.nn.Module or a :class:`tripy.Module`, not quantized.
        config: As for :func:`quantize`; or a dict of several by names of your own, such as
            ``{"int8": tq.INT8_DEFAULT_CFG, "int4": tq.INT4_AWQ_CFG}``, for :func:`choose_formats`.
        forward_loop: As for :func:`quantize`; called once.
        evaluate: Runs the model on data of its own and gives the logits, [..., classes], as a
            torch, tripy or numpy tensor, or a list of them. Always the same data, without dropout.
        statistics: What :func:`collect` has seen, instead of a ``forward_loop``.
        others: Whether to measure all but each layer, too. By default where ``config`` is one.

    Returns:
        A row a layer and format, the most sensitive first.

    Raises:
        TripyException: For a model that is quantized already, logits that are none, and logits that
            change from one evaluation to the next; and as :func:`quantize`.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Linear(32, 8))
        >>> data = torch.randn(64, 16)
        >>> run = lambda: model(data)
        >>> found = tq.sensitivity(model, tq.INT8_DEFAULT_CFG, run, run)
        >>> sorted(row.layer for row in found.rows)
        ['0', '1']
    """
    formats = _formats(config)
    plans = {name: plan(model, each) for name, each in formats.items()}
    names = _check_plans(plans)
    statistics = gather(model, _joint(plans, names), forward_loop, statistics)
    wanted = _logits(evaluate, "the model in floating point")
    repeat = _compare(wanted, _logits(evaluate, "the model in floating point"))[0]
    if repeat < REPEATS:
        raise TripyException(
            "Sensitivity: evaluate() gives other logits for the same model.",
            got=f"two evaluations that agree to {repeat:.1f} dB",
            expected=f"the same logits each time, to {REPEATS:.0f} dB or better",
            hint="the same data each time, and model.eval(), which switches dropout off",
        )
    if others is None:
        others = len(formats) == 1
    rows: list[SensitivityRow] = []
    sizes: dict[str, Size] = {}
    together: dict[str, tuple[float, float]] = {}
    for name, each in plans.items():
        found, quality = _measure(name, each, statistics, evaluate, wanted, others, sizes)
        rows += found
        together |= {} if quality is None else {name: quality}
    # NaN cannot be: logits that are not finite have an infinite divergence.
    rows.sort(key=lambda row: -row.alone_kl)
    ordered = {name: sizes[name] for name in names}
    return Sensitivity(tuple(rows), ordered, formats, together, repeat, statistics)


def _formats(config: Any) -> dict[str, QuantizationConfig]:
    several = isinstance(config, Mapping) and not ({"quant_cfg", "algorithm"} & set(config))
    given: Mapping[str, Config] = config if several else {"": config}
    if not given:
        raise TripyException(
            "Sensitivity: there is no configuration.",
            got="{}",
            expected="a preset, or a dict of some",
        )
    found = {str(name): QuantizationConfig.of(each) for name, each in given.items()}
    return found if several else {found[""].name: found[""]}


def _check_plans(plans: dict[str, dict[str, Plan]]) -> list[str]:
    """The names of the layers that any configuration quantizes, in the model's order."""
    first = next(iter(plans.values()))
    for name, each in first.items():
        if each.reason == "it is quantized already":
            raise TripyException(
                "Sensitivity: the model is quantized already.",
                got=f"{name}, which is",
                expected="the model in floating point",
                hint="measure before tq.quantize, or on a copy of the model",
            )
    names = [name for name in first if any(not each[name].reason for each in plans.values())]
    if not names:
        name, each = next(iter(first.items()))
        raise TripyException(
            "Sensitivity: the configuration quantizes no layer.",
            got=f"{name}: {each.reason}",
            expected="a layer to be quantized",
        )
    return names


def _joint(plans: dict[str, dict[str, Plan]], names: list[str]) -> dict[str, Plan]:
    joint: dict[str, Plan] = {}
    for name in names:
        mine = tuple(each[name] for each in plans.values() if not each[name].reason)
        first = mine[0]
        # A check of the caches' formats comes later; here they only say what to look at.
        key, value = (
            next(filter(None, (getattr(p, k) for p in mine)), None) for k in ("key", "value")
        )
        joint[name] = _Joint(
            first.target, first.config, first.weight, first.input, key, value, "", mine
        )
    return joint


def _measure(
    name: str,
    plans: dict[str, Plan],
    statistics: Statistics,
    evaluate: Callable[[], Any],
    wanted: list[torch.Tensor],
    others: bool,
    sizes: dict[str, Size],
) -> tuple[list[SensitivityRow], Optional[tuple[float, float]]]:
    """All rows of one format, and the quality with all layers quantized."""
    active = {layer: each for layer, each in plans.items() if not each.reason}
    states: dict[str, LinearState] = {}
    found: dict[str, list[Any]] = {}
    quality = None
    try:
        for layer, each in progress(list(active.items()), f"{name}: each layer alone"):
            state = states[layer] = solve(each, statistics.get(layer))
            weight = each.target.weight()
            sizes[layer] = Size(weight.numel(), weight.numel() * weight.element_size())
            size = stored_bytes(state, weight.element_size())
            each.target.apply(state)
            alone = _compare(wanted, _logits(evaluate, layer), layer)
            each.target.revert()
            found[layer] = [layer, name, state.scheme, size, *alone]
        if others:
            for layer, each in active.items():
                each.target.apply(states[layer])
            quality = _compare(wanted, _logits(evaluate, "all layers quantized"))
            for layer, each in progress(list(active.items()), f"{name}: all but each layer"):
                each.target.revert()
                found[layer] += _compare(wanted, _logits(evaluate, layer), layer)
                each.target.apply(states[layer])
    finally:
        for each in active.values():
            each.target.revert()
    return [SensitivityRow(*values) for values in found.values()], quality


def _logits(evaluate: Callable[[], Any], what: str) -> list[torch.Tensor]:
    given = evaluate()
    parts = []
    for part in given if isinstance(given, (list, tuple)) else [given]:
        if isinstance(part, Tensor):
            part = part.torch()
        elif isinstance(part, np.ndarray):
            part = torch.from_numpy(np.ascontiguousarray(part))
        legal = isinstance(part, torch.Tensor) and part.is_floating_point()
        if not legal or part.dim() == 0 or part.numel() == 0:
            kind = (
                f"{part.dtype}, shape {tuple(part.shape)}" if hasattr(part, "shape") else type(part)
            )
            raise TripyException(
                "Sensitivity: evaluate() gives no logits.",
                got=f"{kind} ({what})",
                expected="floating point [..., classes] of torch, tripy or numpy; or a list of it",
                hint="model(batch).logits" if hasattr(part, "logits") else None,
            )
        # A copy: the next evaluation may write where this one did.
        parts.append(part.detach().clone())
    if not parts:
        raise TripyException(
            "Sensitivity: evaluate() gives no logits.",
            got="an empty list",
            expected="tensors in it",
        )
    if what.startswith("the model") and not all(bool(torch.isfinite(part).all()) for part in parts):
        raise TripyException(
            "Sensitivity: the model's logits are not finite.",
            got="NaN or infinity from the model in floating point",
            expected="finite numbers",
        )
    return parts


def _compare(
    wanted: list[torch.Tensor], got: list[torch.Tensor], layer: str = "the model"
) -> tuple[float, float]:
    """SQNR in dB and the mean KL divergence in nats, in float64; neither clamped."""
    if [part.shape for part in wanted] != [part.shape for part in got]:
        raise TripyException(
            f"Sensitivity: evaluate() gives logits of other shapes after {layer} was changed.",
            got=[tuple(part.shape) for part in got],
            expected=[tuple(part.shape) for part in wanted],
        )
    signal = noise = divergence = 0.0
    rows = 0
    for want, have in zip(wanted, got):
        want, have = want.double(), have.to(want.device).double()
        signal += float(want.square().sum())
        noise += float((want - have).square().sum())
        p, q = want.log_softmax(-1), have.log_softmax(-1)
        divergence += float((p.exp() * (p - q)).sum())
        rows += want.numel() // want.shape[-1]
    if not math.isfinite(noise):
        return -math.inf, math.inf
    if noise == 0:
        return math.inf, 0.0
    return 10 * math.log10(signal / noise) if signal else -math.inf, divergence / rows
