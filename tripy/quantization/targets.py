"""The layers of a model that can be quantized: those of PyTorch here, tripy's beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy import nn
from tripy.errors import TripyException
from tripy.quantization.layers import QuantizedLinear
from tripy.quantization.state import LinearState
from tripy.quantization.target import Callback, Target
from tripy.quantization.tripy_targets import target_of

# Subclasses of torch.nn.Linear that compute the same: that of Falcon in transformers.
SAME = ("FalconLinear",)


class TorchTarget(Target):
    """A layer of a PyTorch model, which may be there under several names."""

    def __init__(self, name: str, places: list[tuple[Any, str]], module: torch.nn.Module) -> None:
        self.name, self._places, self.module = name, places, module
        self.kind = module.kind if isinstance(module, QuantizedLinear) else type(module).__name__
        own = isinstance(module, torch.nn.Linear) and type(module) is not torch.nn.Linear
        if own and self.kind not in SAME:
            self.reason = f"a {self.kind}, whose own way to compute is not known"

    def weight(self) -> torch.Tensor:
        weight = self.module.weight.detach()
        return weight.t() if self.kind == "Conv1D" else weight

    @property
    def shape(self) -> tuple[int, int]:
        out, inputs = self.module.weight.shape
        return (inputs, out) if self.kind == "Conv1D" else (out, inputs)

    def bias(self) -> Any:
        return self.module.bias

    def observe(self, inputs: Callback, results: Optional[Callback]) -> Callable[[], None]:
        def before(module: Any, args: tuple, kwargs: dict) -> None:
            del module
            inputs((args[0] if args else next(iter(kwargs.values()))).detach())

        handles = [self.module.register_forward_pre_hook(before, with_kwargs=True)]
        if results is not None:
            show = results
            handles.append(
                self.module.register_forward_hook(lambda module, args, y: show(y.detach()))
            )

        def end() -> None:
            for handle in handles:
                handle.remove()

        return end

    def apply(self, state: LinearState) -> None:
        if self._original is None:
            self._original = self.module
        layer = QuantizedLinear(self.kind, self._original.weight, state)  # type: ignore[arg-type]
        layer.train(self._original.training)
        self._put(layer)

    def revert(self) -> None:
        if self._original is not None:
            self._put(self._original)

    def _put(self, module: torch.nn.Module) -> None:
        for parent, attribute in self._places:
            setattr(parent, attribute, module)
        self.module = module

    def state(self) -> LinearState:
        if isinstance(self.module, QuantizedLinear):
            return self.module.state(self.name)
        return LinearState(self.name, self.kind, self.weight(), self.bias())


def find_targets(model: Any) -> dict[str, Target]:
    """All linear layers of a model by name, in order; of a tripy Module convolutions too.

    Raises:
        TripyException: For something that is no model, or has no linear layer.
    """
    if isinstance(model, torch.nn.Module):
        found = _torch_targets(model)
    elif isinstance(model, nn.Module):
        found = _tripy_targets(model)
    else:
        raise TripyException(
            "Quantization: the model is no model.",
            got=f"{type(model).__name__}: {model!r:.60}",
            expected="a tripy.Module or a torch.nn.Module",
        )
    if not found:
        raise TripyException(
            "Quantization: the model has no linear layer.",
            got=type(model).__name__,
            expected="a model with tripy.Linear, torch.nn.Linear or transformers' Conv1D inside",
            hint="put a single layer into a Sequential" if _is_linear(model) else None,
        )
    return found


def _torch_targets(model: torch.nn.Module) -> dict[str, Target]:
    places: dict[int, list] = {}
    found: dict[int, tuple[str, torch.nn.Module]] = {}
    # A layer may have several names; the first is the one it goes by.
    for name, module in model.named_modules(remove_duplicate=False):
        if name and _is_linear(module):
            path, _, attribute = name.rpartition(".")
            found.setdefault(id(module), (name, module))
            places.setdefault(id(module), []).append((model.get_submodule(path), attribute))
    return {name: TorchTarget(name, places[key], child) for key, (name, child) in found.items()}


def _is_linear(module: Any) -> bool:
    if isinstance(module, (torch.nn.Linear, QuantizedLinear, nn.Linear, nn.Conv, nn.ConvTranspose)):
        return True
    # transformers is not imported for this: a model with such a layer has imported it already.
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")


def _tripy_targets(model: nn.Module) -> dict[str, Target]:
    found: dict[str, Target] = {}
    seen: set[int] = set()

    def walk(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            target = target_of(prefix + name, child)
            if target is None:
                walk(child, f"{prefix}{name}.")
            elif id(child) not in seen:  # One layer may have several names.
                seen.add(id(child))
                found[prefix + name] = target

    walk(model, "")
    return found
