"""Running operations that a user has written, and checking what they give."""

from __future__ import annotations

from typing import Any, Optional

import torch

from tripy.backends.torch.lowering.table import Attrs, RefusedValues, T, lowering
from tripy.backends.torch.plugins import PLUGINS, known_names
from tripy.backends.torch.storage import TORCH_TYPES


@lowering("plugin")
def _plugin(attrs: Attrs, *inputs: T) -> tuple[T, ...]:
    name = attrs["name"]
    if name not in PLUGINS:
        known, hint = known_names(name)
        raise RefusedValues(f"{name} is not registered.", name, known, hint)
    before = [_version(x) for x in inputs]
    try:
        with torch.no_grad():
            results = PLUGINS[name].function(*inputs, **dict(attrs["attributes"]))
    except Exception as error:  # Whatever a user's function raises; it is shown as the cause.
        raise RefusedValues(
            f"the function of {name} has failed: {type(error).__name__}: {error}",
            f"attributes {dict(attrs['attributes'])}",
            "a function that computes its results from these inputs",
        ) from error
    if [_version(x) for x in inputs] != before:
        raise RefusedValues(
            f"the function of {name} has written into an input.",
            "an input with other values than before",
            "results in memory of their own: inputs belong to others too",
            "input.clone() before writing",
        )
    several = isinstance(results, (tuple, list))
    results = tuple(results) if several else (results,)
    shapes, kinds = attrs["shapes"], [TORCH_TYPES[kind] for kind in attrs["dtypes"]]
    device = inputs[0].device
    declared = _text(kinds, shapes, device)
    fits = len(results) == len(shapes) and all(
        isinstance(r, torch.Tensor)
        and (r.dtype, tuple(r.shape), r.device) == (kind, tuple(shape), device)
        for r, kind, shape in zip(results, kinds, shapes)
    )
    if not fits:
        raise RefusedValues(
            f"the function of {name} gives something else than was declared.",
            _described(results),
            f"{declared}, as the rule outputs= says",
            "another rule, or another function",
        )
    owned = {x.untyped_storage().data_ptr() for x in inputs}
    # Whoever gets a result may write into it; an input has its own readers.
    return tuple(
        r.clone() if r.untyped_storage().data_ptr() in owned else r.detach() for r in results
    )


def _version(x: T) -> Optional[int]:
    """A number that grows when a tensor is written into; None where torch does not count."""
    return None if x.is_inference() else x._version


def _text(kinds: Any, shapes: Any, device: Any) -> str:
    return ", ".join(f"{kind}{list(shape)} on {device}" for kind, shape in zip(kinds, shapes))


def _described(results: tuple) -> str:
    return (
        ", ".join(
            f"{r.dtype}{list(r.shape)} on {r.device}"
            if isinstance(r, torch.Tensor)
            else f"an object of type {type(r).__name__}"
            for r in results
        )
        or "nothing"
    )
