"""Layers of tripy Modules: linear layers and convolutions, quantized in place.

Here a layer's weight is a matrix, [outputs, all that is summed over], whatever its own layout is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import torch

from tripy import dtypes, nn, ops
from tripy.errors import TripyException
from tripy.quantization import cached
from tripy.quantization.formats import FORMATS, QuantizerConfig, amax_of_scale
from tripy.quantization.state import LinearState, QuantizerState
from tripy.quantization.target import Callback, Target
from tripy.tensor import Tensor


class TripyTarget(Target):
    """A :class:`tripy.Linear`; quantizing it keeps the object, and changes what it holds."""

    outputs = 0  # The dimension of the weight that its outputs are along.

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module, self.kind = name, module, self._kind()

    def _kind(self) -> str:
        return "Linear"

    def weight(self) -> torch.Tensor:
        return self.state().weight

    @property
    def shape(self) -> tuple[int, int]:
        return self.module.out_features, self.module.in_features

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The layer's weight, or small values of it, as [outputs, all that is summed over]."""
        return weight

    def layout(self, matrix: torch.Tensor) -> torch.Tensor:
        """The reverse."""
        return matrix

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's input with its channels last."""
        return x

    def bias(self) -> Any:
        return None if self.module.bias is None else self.module.bias.torch()

    def observe(self, inputs: Callback, results: Optional[Callback]) -> Callable[[], None]:
        inner, held = self.module.forward, self.module.__dict__
        own = held.get("forward")  # A user's, of this layer only.

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            given = args[0] if args else next(iter(kwargs.values()))
            inputs(self.tokens(given.torch()))
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
            before = {**held, "_declarations": dict(held["_declarations"])}
            self._original = (type(self.module), before)
        if state.weight_quantizers or state.input_quantizer is not None:
            self._requantize(state)
        if state.key_quantizer is not None or state.value_quantizer is not None:
            cached.round_cache(self.module, state, lambda q: self._tensor(q.scale).eval())

    def revert(self) -> None:
        if self._original is not None:
            self.module.__class__, before = self._original
            kept = {**before, "_declarations": dict(before["_declarations"])}
            self.module.__dict__.clear()
            self.module.__dict__.update(kept)

    def state(self) -> LinearState:
        layer, dtype = self.module, self.module.quant_dtype
        pre, inputs = None, None
        quantizers: tuple[QuantizerState, ...] = ()
        weight = self.matrix(layer.weight.torch())
        if dtype is not None:
            scale = layer.weight_scale.torch().float()
            config = self._config(scale)
            quantizers = (QuantizerState(config, amax_of_scale(scale, config)),)
            if layer.weight.dtype is dtype:
                weight = quantizers[0].restore(weight)
            if layer.input_scale is not None:
                config = QuantizerConfig(8 if config.num_bits == 4 else config.num_bits)
                scale = layer.input_scale.torch().float()
                inputs = QuantizerState(config, amax_of_scale(scale, config))
            pre = None if layer.pre_quant_scale is None else layer.pre_quant_scale.torch().float()
        sections, key, value = cached.cache_of(layer)
        return LinearState(
            self.name, self.kind, weight, self.bias(), quantizers, inputs, pre, key, value,
            sections=sections,
        )  # fmt: skip

    def _tensor(self, x: torch.Tensor) -> Tensor:
        where, dtype = self.module.weight.device, self.module.dtype
        return ops.cast(Tensor(x.detach().float().contiguous(), device=where), dtype)

    def _requantize(self, state: LinearState) -> None:
        """Makes the layer a quantized one, with small weights.

        Raises:
            TripyException: For a state that it cannot hold, naming the layer.
        """
        if len(state.weight_quantizers) != 1:
            raise self._misfit(
                state, "one format for the weight",
                "W4A8_INT8_CFG for int4 weights: they meet int8 inputs",
            )  # fmt: skip
        quantizer, inputs = state.weight_quantizers[0], state.input_quantizer
        number = quantizer.config.format
        wanted = 8 if number.bits == 4 else quantizer.config.num_bits
        if inputs is not None and inputs.config.num_bits != wanted:
            raise self._misfit(state, f"{FORMATS[wanted].name} inputs beside {number.name} weights")
        # Rounded with the scale that the layer keeps, which a 16-bit layer rounds.
        scale = self._tensor(quantizer.scale).eval()
        wide = Tensor(
            self.layout(state.weight.detach().float()).contiguous(),
            device=self.module.weight.device,
        )
        axis = None if quantizer.config.axis is None else self.outputs
        small = ops.quantize(wide, ops.cast(scale, dtypes.float32), number.dtype, axis).eval()
        pre = state.pre_quant_scale
        self.module._requantize(
            number.dtype,
            axis,
            weight=small,
            weight_scale=scale,
            input_scale=None if inputs is None else self._tensor(inputs.scale).eval(),
            pre_quant_scale=None if pre is None else self._tensor(pre).eval(),
        )
        if state.corrected and state.bias is not None:
            self.module.bias = self._tensor(state.bias).eval()

    def _misfit(
        self, state: LinearState, expected: str, hint: Optional[str] = None
    ) -> TripyException:
        return TripyException(
            f"{state.name}: tripy.{self.kind} cannot hold this quantization.",
            got=state.scheme,
            expected=expected,
            hint=hint,
        )

    def _config(self, scale: torch.Tensor) -> QuantizerConfig:
        """What the layer, which is quantized, does to its weight."""
        layer = self.module
        bits = next(bits for bits, each in FORMATS.items() if each.dtype is layer.quant_dtype)
        if layer.weight_quant_dim == self.outputs:
            return QuantizerConfig(bits, axis=0)
        if scale.dim() == 0:
            return QuantizerConfig(bits)
        rows, columns = self.shape
        if scale.dim() == 2 and scale.shape[0] == rows:
            return QuantizerConfig(bits, block_size=columns // scale.shape[1])
        raise TripyException(
            f"{self.name}: the layer's weight scale runs along its output blocks or its inputs.",
            got=f"weight_quant_dim={layer.weight_quant_dim}, scale of shape {tuple(scale.shape)}",
            expected="one scale, one for each output, or blocks along the inputs",
        )


class ConvTarget(TripyTarget):
    """A :class:`tripy.Conv`: int8 with a scale an output channel, or one scale a tensor."""

    convolution = True

    def _kind(self) -> str:
        return "Conv"

    @property
    def shape(self) -> tuple[int, int]:
        out, *summed = self._moved().shape
        return out, torch.Size(summed).numel()

    def _moved(self) -> torch.Tensor:
        """A weight without values, outputs first."""
        return torch.empty(tuple(self.module.weight.shape), device="meta").movedim(self.outputs, 0)

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.movedim(self.outputs, 0).flatten(1)

    def layout(self, matrix: torch.Tensor) -> torch.Tensor:
        return matrix.view(self._moved().shape).movedim(0, self.outputs)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        return x.movedim(1, -1)


class ConvTransposeTarget(ConvTarget):
    """A :class:`tripy.ConvTranspose`, whose outputs are along its weight's second dimension."""

    outputs = 1

    def _kind(self) -> str:
        return "ConvTranspose"


def target_of(name: str, module: Any) -> Optional[TripyTarget]:
    """The target of a layer that can be quantized; None for others."""
    for kind, made in (
        (nn.Linear, TripyTarget), (nn.Conv, ConvTarget), (nn.ConvTranspose, ConvTransposeTarget),
    ):  # fmt: skip
        if isinstance(module, kind):
            return made(name, module)
    return None
