"""Quantized layers of PyTorch models: they compute with rounded values in floating point.

That is slow, and tells exactly what quantization costs. :func:`tripy.quantization.to_tripy` makes
the fast model of it.
"""

from __future__ import annotations

from typing import Optional

import torch

from tripy.quantization.formats import QuantizerConfig, fake_quantize, scale_of
from tripy.quantization.state import LinearState, QuantizerState, divided


class TensorQuantizer(torch.nn.Module):
    """Rounds a tensor to a small format, or lets it through when it is not ``enabled``.

    Attributes:
        config: What it rounds to.
        amax: Floating point: (), (channels,) or (rows, blocks).
        enabled: Whether it rounds.
    """

    amax: torch.Tensor

    def __init__(self, config: QuantizerConfig, amax: torch.Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("amax", amax.detach().clone())
        self.enabled = True

    @property
    def scale(self) -> torch.Tensor:
        """``amax / maxbound``."""
        return scale_of(self.amax, self.config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The tensor, rounded, in its own data type."""
        return fake_quantize(x, self.scale, self.config) if self.enabled else x

    def state(self) -> QuantizerState:
        """Configuration and amax."""
        return QuantizerState(self.config, self.amax.detach())

    def extra_repr(self) -> str:
        return f"{self.config}, {'amax ' + _range(self.amax) if self.enabled else 'off'}"


class QuantizedLinear(torch.nn.Module):
    """A linear layer that rounds its weight, and its input, before it multiplies.

    Made by :func:`tripy.quantization.quantize` in place of ``torch.nn.Linear`` and of transformers'
    ``Conv1D``. The weight keeps its layout and stays in floating point. It is the parameter that
    the model had, but for one that an algorithm has changed (GPTQ): ``pre_quant_scale`` divides it
    in each call, so that no second copy of a model's weights is ever made.

    Attributes:
        weight: [out, in]; [in, out] where ``kind`` is "Conv1D".
        bias: [out], or None; the parameter that the model had, or a corrected one.
        kind: The class that was replaced.
        weight_quantizer: A TensorQuantizer; a Sequential of several; or None.
        input_quantizer: A TensorQuantizer, or None.
        k_bmm_quantizer: Rounds attention's keys, which are in the result; or None.
        v_bmm_quantizer: The same for values.
        pre_quant_scale: [in], that the input is multiplied with first; or None.
    """

    pre_quant_scale: Optional[torch.Tensor]

    def __init__(self, kind: str, parameter: torch.nn.Parameter, state: LinearState) -> None:
        super().__init__()
        self.kind = kind
        transposed = kind == "Conv1D"
        own = parameter.t() if transposed else parameter
        if not _same_memory(own, state.unrounded):
            changed = state.unrounded.t() if transposed else state.unrounded
            changed = changed.detach().to(parameter.dtype).contiguous()
            parameter = torch.nn.Parameter(changed, parameter.requires_grad)
        self.weight = parameter
        bias = state.bias
        if state.corrected and bias is not None:
            bias = torch.nn.Parameter(bias, parameter.requires_grad)
        self.bias = bias
        self.in_features, self.out_features = own.shape[1], own.shape[0]
        quantizers = [TensorQuantizer(q.config, q.amax) for q in state.weight_quantizers]
        self.weight_quantizer: Optional[torch.nn.Module] = None
        if quantizers:
            several = len(quantizers) > 1
            self.weight_quantizer = torch.nn.Sequential(*quantizers) if several else quantizers[0]
        self.input_quantizer = _quantizer(state.input_quantizer)
        self.k_bmm_quantizer = _quantizer(state.key_quantizer)
        self.v_bmm_quantizer = _quantizer(state.value_quantizer)
        pre = state.pre_quant_scale
        self.register_buffer("pre_quant_scale", None if pre is None else pre.detach().float())
        self.sections = state.sections

    def quantizers(self) -> list[TensorQuantizer]:
        """All quantizers of the layer."""
        return [module for module in self.modules() if isinstance(module, TensorQuantizer)]

    def weight_quantizers(self) -> list[TensorQuantizer]:
        """Those of the weight, in order."""
        if self.weight_quantizer is None:
            return []
        return [m for m in self.weight_quantizer.modules() if isinstance(m, TensorQuantizer)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] → [..., out]."""
        weight = self.weight.t() if self.kind == "Conv1D" else self.weight
        if self.pre_quant_scale is not None:
            x = x * self.pre_quant_scale.to(x.dtype)
            weight = divided(weight, self.pre_quant_scale)
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        if self.weight_quantizer is not None:
            weight = self.weight_quantizer(weight)
        weight = weight.to(x.dtype)
        y = torch.nn.functional.linear(x, weight, self.bias)
        return y if self.sections is None else self._cached(y)

    def _cached(self, y: torch.Tensor) -> torch.Tensor:
        """The result with keys and values as the cache holds them."""
        parts = list(y.split(self.sections.widths, -1))  # type: ignore[union-attr]
        for index, quantizer in (
            (self.sections.key, self.k_bmm_quantizer),  # type: ignore[union-attr]
            (self.sections.value, self.v_bmm_quantizer),  # type: ignore[union-attr]
        ):
            if index is not None and quantizer is not None:
                parts[index] = quantizer(parts[index])
        return torch.cat(parts, -1)

    def state(self, name: str) -> LinearState:
        """The layer as plain data, without what is known about its calibration."""
        weight = self.weight.detach()
        return LinearState(
            name,
            self.kind,
            weight.t() if self.kind == "Conv1D" else weight,
            self.bias,
            tuple(q.state() for q in self.weight_quantizers() if q.enabled),
            _state(self.input_quantizer),
            self.pre_quant_scale,
            _state(self.k_bmm_quantizer),
            _state(self.v_bmm_quantizer),
            sections=self.sections,
            divided=False,
        )

    def extra_repr(self) -> str:
        text = f"{self.in_features} -> {self.out_features}, {self.kind}"
        return text if self.pre_quant_scale is None else text + ", pre_quant_scale"


def _quantizer(state: Optional[QuantizerState]) -> Optional[TensorQuantizer]:
    return None if state is None else TensorQuantizer(state.config, state.amax)


def _state(quantizer: Optional[TensorQuantizer]) -> Optional[QuantizerState]:
    return quantizer.state() if quantizer is not None and quantizer.enabled else None


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether both are the same values of the same storage."""
    where = [(x.data_ptr(), x.dtype, x.shape, x.stride()) for x in (a, b)]
    return where[0] == where[1]


def _range(amax: torch.Tensor) -> str:
    low, high = float(amax.min()), float(amax.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
