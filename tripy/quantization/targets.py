"""The linear layers of a model, of PyTorch or of tripy, through one small interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy import dtypes, nn, ops
from tripy.errors import TripyException
from tripy.quantization.formats import FORMATS, QuantizerConfig, amax_of_scale
from tripy.quantization.layers import QuantizedLinear
from tripy.quantization.state import LinearState, QuantizerState, Sections
from tripy.tensor import Tensor

Callback = Callable[[torch.Tensor], None]
# Which layers make keys and values: by the last part of the name, the sections of the result.
FUSED = ("c_attn", "query_key_value", "qkv_proj", "qkv", "Wqkv")
KEYS, VALUES = ("k_proj", "key", "k"), ("v_proj", "value", "v")


class Target(ABC):
    """One linear layer.

    Attributes:
        name: Its dotted name in the model.
        kind: Its class, before it was quantized.
        module: The layer.
        reason: Why it cannot be quantized; "" if it can be.
    """

    name: str
    kind: str
    module: Any
    reason: str = ""
    _original: Any = None

    @abstractmethod
    def weight(self) -> torch.Tensor:
        """[out, in], floating point; shares the layer's memory where it can."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(out, in)."""

    @abstractmethod
    def bias(self) -> Any:
        """[out], or None: as the model has it."""

    @abstractmethod
    def observe(self, inputs: Callback, results: Optional[Callback]) -> Callable[[], None]:
        """Shows each input, and each result, to a function; calling what it returns ends that."""

    @abstractmethod
    def apply(self, state: LinearState) -> None:
        """Makes the model compute with the quantized layer."""

    @abstractmethod
    def revert(self) -> None:
        """Makes the model compute with the layer as it was."""

    @abstractmethod
    def state(self) -> LinearState:
        """The layer as it is, quantized or not."""

    def forget(self) -> None:
        """Gives up the layer as it was: after this it cannot be reverted."""
        self._original = None

    def sections(self) -> Optional[Sections]:
        """Where in its result keys and values are; None for layers that make none."""
        last, (out, inputs) = self.name.rpartition(".")[2], self.shape
        if last in FUSED:
            # Queries are as wide as the input; what is left is shared by keys and values.
            width = (out - inputs) // 2
            return Sections((out - 2 * width, width, width), 1, 2) if width > 0 else None
        if last in KEYS or last in VALUES:
            return Sections((out,), 0 if last in KEYS else None, 0 if last in VALUES else None)
        return None


class TorchTarget(Target):
    """A layer of a PyTorch model, which may be there under several names."""

    def __init__(self, name: str, places: list[tuple[Any, str]], module: torch.nn.Module) -> None:
        self.name, self._places, self.module = name, places, module
        self.kind = module.kind if isinstance(module, QuantizedLinear) else type(module).__name__
        if isinstance(module, torch.nn.Linear) and type(module) is not torch.nn.Linear:
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


class TripyTarget(Target):
    """A :class:`tripy.Linear`; quantizing it keeps the object, and changes what it holds."""

    def __init__(self, name: str, module: nn.Linear) -> None:
        self.name, self.module, self.kind = name, module, "Linear"

    def weight(self) -> torch.Tensor:
        return self.state().weight

    @property
    def shape(self) -> tuple[int, int]:
        return self.module.out_features, self.module.in_features

    def bias(self) -> Any:
        return None if self.module.bias is None else self.module.bias.torch()

    def observe(self, inputs: Callback, results: Optional[Callback]) -> Callable[[], None]:
        inner, held = self.module.forward, self.module.__dict__
        own = held.get("forward")  # A user's, of this layer only.

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            given = args[0] if args else next(iter(kwargs.values()))
            inputs(given.torch())
            y = inner(*args, **kwargs)
            if results is not None:
                results(y.torch())
            return y

        held["forward"] = forward

        def end() -> None:
            held.pop("forward")
            if own is not None:
                held["forward"] = own

        return end

    def apply(self, state: LinearState) -> None:
        if self._original is None:
            held = self.module.__dict__
            self._original = {**held, "_declarations": dict(held["_declarations"])}
        requantize(self.module, state)

    def revert(self) -> None:
        if self._original is not None:
            kept = {**self._original, "_declarations": dict(self._original["_declarations"])}
            self.module.__dict__.clear()
            self.module.__dict__.update(kept)

    def state(self) -> LinearState:
        layer, dtype = self.module, self.module.quant_dtype
        pre, inputs = None, None
        quantizers: tuple[QuantizerState, ...] = ()
        weight = layer.weight.torch()
        if dtype is not None:
            scale = layer.weight_scale.torch().float()
            config = _config_of(layer, scale)
            quantizers = (QuantizerState(config, amax_of_scale(scale, config)),)
            if layer.weight.dtype is dtype:
                weight = quantizers[0].restore(weight)
            if layer.input_scale is not None:
                config = QuantizerConfig(8 if config.num_bits == 4 else config.num_bits)
                scale = layer.input_scale.torch().float()
                inputs = QuantizerState(config, amax_of_scale(scale, config))
            pre = None if layer.pre_quant_scale is None else layer.pre_quant_scale.torch().float()
        return LinearState(self.name, self.kind, weight, self.bias(), quantizers, inputs, pre)


def requantize(layer: nn.Linear, state: LinearState) -> None:
    """Makes a layer a quantized one, with small weights.

    Raises:
        TripyException: For a state that tripy.Linear cannot hold, naming the layer.
    """
    if len(state.weight_quantizers) != 1:
        raise TripyException(
            f"{state.name}: tripy.Linear cannot hold this quantization.",
            got=state.scheme,
            expected="one format for the weight",
            hint="W4A8_INT8_CFG for int4 weights: they meet int8 inputs",
        )
    quantizer, inputs = state.weight_quantizers[0], state.input_quantizer
    number = quantizer.config.format
    wanted = 8 if number.bits == 4 else quantizer.config.num_bits
    if inputs is not None and inputs.config.num_bits != wanted:
        raise TripyException(
            f"{state.name}: tripy.Linear cannot hold this quantization.",
            got=state.scheme,
            expected=f"{FORMATS[wanted].name} inputs beside {number.name} weights",
        )
    where, dtype = layer.weight.device, layer.dtype

    def tensor(x: torch.Tensor) -> Tensor:
        return ops.cast(Tensor(x.detach().float().contiguous(), device=where), dtype)

    # Rounded with the scale that the layer keeps, which a 16-bit layer rounds.
    scale = tensor(quantizer.scale).eval()
    wide = Tensor(state.weight.detach().float().contiguous(), device=where)
    axis = quantizer.config.axis
    small = ops.quantize(wide, ops.cast(scale, dtypes.float32), number.dtype, axis).eval()
    layer._requantize(
        number.dtype,
        axis,
        weight=small,
        weight_scale=scale,
        input_scale=None if inputs is None else tensor(inputs.scale).eval(),
        pre_quant_scale=None
        if state.pre_quant_scale is None
        else tensor(state.pre_quant_scale).eval(),
    )


def _config_of(layer: nn.Linear, scale: torch.Tensor) -> QuantizerConfig:
    """What a quantized tripy.Linear does to its weight."""
    bits = next(bits for bits, each in FORMATS.items() if each.dtype is layer.quant_dtype)
    if layer.weight_quant_dim == 0:
        return QuantizerConfig(bits, axis=0)
    if scale.dim() == 0:
        return QuantizerConfig(bits)
    if scale.dim() == 2 and scale.shape[0] == layer.out_features:
        return QuantizerConfig(bits, block_size=layer.in_features // scale.shape[1])
    raise TripyException(
        "Quantization: the layer's weight scale runs along its output blocks or its inputs.",
        got=f"weight_quant_dim={layer.weight_quant_dim}, scale of shape {tuple(scale.shape)}",
        expected="one scale, one for each output, or blocks along the inputs",
    )


def find_targets(model: Any) -> dict[str, Target]:
    """All linear layers of a model by name, in order.

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
    if isinstance(module, (torch.nn.Linear, QuantizedLinear, nn.Linear)):
        return True
    # transformers is not imported for this: a model with such a layer has imported it already.
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")


def _tripy_targets(model: nn.Module) -> dict[str, Target]:
    found: dict[str, Target] = {}
    seen: set[int] = set()

    def walk(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            if not isinstance(child, nn.Linear):
                walk(child, f"{prefix}{name}.")
            elif id(child) not in seen:  # One layer may have several names.
                seen.add(id(child))
                found[prefix + name] = TripyTarget(prefix + name, child)

    walk(model, "")
    return found
