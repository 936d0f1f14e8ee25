"""Looking at the data: what the layers that are to be quantized see while a loop runs the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy.errors import TripyException
from tripy.quantization.planning import Config, Plan, Predicate, plan, plan_norms
from tripy.quantization.statistics import LayerStatistics, Statistics, finish, masked, observer


def collect(
    model: Any,
    config: Config,
    forward_loop: Callable[..., Any],
    *,
    predicate: Optional[Predicate] = None,
) -> Statistics:
    """Only look: what the layers see that ``config`` quantizes, to be saved, merged or reused.

    Args:
        model: As for :func:`quantize`; it stays as it is.
        config: Tells which layers, and what its algorithm needs to know of them.
        forward_loop: As for :func:`quantize`.
        predicate: As for :func:`quantize`.

    Returns:
        Statistics by layer.

    Example:
        >>> import torch, tripy.quantization as tq
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
        >>> seen = tq.collect(model, tq.INT8_DEFAULT_CFG, lambda: model(torch.ones(2, 8)))
        >>> seen["0"].tokens, float(seen["0"].histogram.amax)
        (2, 1.0)
    """
    plans = {**plan(model, config, predicate), **plan_norms(model, config)}
    return _observed(model, plans, forward_loop, always=True)


def gather(
    model: Any,
    plans: dict[str, Plan],
    forward_loop: Optional[Callable[..., Any]],
    statistics: Optional[Statistics],
) -> Statistics:
    """What the layers see: in a loop, or as it was collected before, and checked.

    Raises:
        TripyException: Where there is neither and some layer needs it, and for data that cannot be
            calibrated with.
    """
    if statistics is None:
        return _observed(model, plans, forward_loop)
    _check_statistics(plans, statistics)
    finish(statistics)
    return statistics


def _observed(
    model: Any,
    plans: dict[str, Plan],
    forward_loop: Optional[Callable[..., Any]],
    always: bool = False,
) -> Statistics:
    if forward_loop is not None and not callable(forward_loop):
        raise TripyException(
            "Quantization: forward_loop cannot be called.",
            got=f"{type(forward_loop).__name__}: {forward_loop!r:.60}",
            expected="a function that runs the model on calibration data",
            hint="lambda: [model(batch) for batch in batches]",
        )
    wanted = {name: each for name, each in plans.items() if not each.reason}
    needing = [name for name, each in wanted.items() if each.needs_data]
    if forward_loop is None:
        if needing or always:
            raise TripyException(
                "Quantization: there is no forward_loop, and the configuration needs one.",
                got=f"{needing[0]}: {_scheme(wanted[needing[0]])}" if needing else "None",
                expected="forward_loop, a function that runs the model on calibration data",
                hint="INT8_WEIGHT_ONLY_CFG, which needs no data",
            )
        return Statistics()
    statistics = Statistics()
    ends = []
    try:
        for name, each in wanted.items():
            layer = statistics[name] = LayerStatistics(each.needs)
            ends.append(each.target.observe(observer(name, layer), _cache_observer(each, layer)))
        with torch.no_grad():
            forward_loop(*([model] if _takes_model(forward_loop) else []))
    finally:
        for end in ends:
            end()
    finish(statistics)
    return statistics


def _cache_observer(each: Plan, layer: LayerStatistics) -> Optional[Callable[[torch.Tensor], None]]:
    sections, name = each.target.sections(), each.target.name
    if sections is None or not (each.key or each.value):
        return None
    widths, key, value = sections.widths, sections.key, sections.value

    def see(y: torch.Tensor) -> None:
        parts = masked(y, name).split(widths, -1)
        layer.update_cache(
            parts[key] if each.key and key is not None else None,
            parts[value] if each.value and value is not None else None,
        )

    return see


def _takes_model(forward_loop: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(forward_loop).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    ) or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _check_statistics(plans: dict[str, Plan], statistics: Statistics) -> None:
    """Raises where a layer that needs data has none in the statistics."""
    for name, each in plans.items():
        if not each.reason and each.needs_data and name not in statistics:
            raise TripyException(
                f"{name}: the statistics do not have this layer.",
                got=f"statistics of {len(statistics)} layers: {', '.join([*statistics][:3])}",
                expected="what tq.collect has made of this model with this configuration",
            )
        if not each.reason and name in statistics:
            _check_seen(each, statistics[name])


def _check_seen(each: Plan, seen: LayerStatistics) -> None:
    """Raises where statistics are of another layer, or know too little for the algorithm."""
    name, needs, width = each.target.name, each.needs, each.target.shape[1]
    for what in ("channels", "sample", "moments"):
        found = getattr(seen, what)
        if found is not None and found.shape[-1] != width and not each.target.convolution:
            raise TripyException(
                f"{name}: the statistics are of another layer.",
                got=f"{what} of {found.shape[-1]} inputs",
                expected=f"those of {width} inputs",
            )
    missing = [n for n in ("channels", "moments") if getattr(needs, n) and getattr(seen, n) is None]
    kept = 0 if seen.sample is None else seen.needs.tokens
    if needs.tokens > kept and seen.tokens > kept and each.config.algorithm.method != "max":
        missing.append(f"{needs.tokens} tokens of the input, {kept} were kept")
    if missing:
        raise TripyException(
            f"{name}: the statistics know too little for {each.config.algorithm.method!r}.",
            got="statistics without " + ", ".join(missing),
            expected="what tq.collect has made with this configuration",
        )


def _scheme(each: Plan) -> str:
    parts = [" then ".join(map(str, each.weight))] if each.weight else []
    parts += [f"input {each.input}"] if each.input else []
    parts += [f"keys {each.key}"] if each.key else []
    return ", ".join(parts) + f" with {each.config.algorithm.method}"
