"""Number formats: what a quantizer rounds to, which values share a scale, and the rounding itself.

Everything here is symmetric: ``q = clamp(round(x / scale), low, high)`` with halves to even, and
``scale = amax / maxbound``, in float32 whatever the model's data type is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Union

import torch

from tripy import dtypes
from tripy.errors import TripyException

Bits = Union[int, tuple[int, int]]


@dataclass(frozen=True)
class NumberFormat:
    """A small number type.

    Attributes:
        name: As reports and files call it.
        dtype: Its tripy data type.
        maxbound: The value that amax is mapped to.
        low: The least value.
        storage: The torch data type that holds one value an element.
        bits: Bits an element.
    """

    name: str
    dtype: dtypes.dtype
    maxbound: float
    low: float
    storage: torch.dtype
    bits: int


FORMATS: dict[Bits, NumberFormat] = {
    8: NumberFormat("int8", dtypes.int8, 127.0, -128.0, torch.int8, 8),
    4: NumberFormat("int4", dtypes.int4, 7.0, -8.0, torch.int8, 4),
    (4, 3): NumberFormat("fp8", dtypes.float8, 448.0, -448.0, torch.float8_e4m3fn, 8),
}


@dataclass(frozen=True)
class QuantizerConfig:
    """What one quantizer does to one tensor.

    Args:
        num_bits: 8 for int8, 4 for int4, (4, 3) for float8 (4 bits of exponent, 3 of mantissa).
        axis: None for one scale; 0 for one for each row of a weight [out, in].
        block_size: How many values along the last dimension share a scale; None for no blocks.

    Raises:
        TripyException: For other values, and for an axis together with blocks.

    Example:
        >>> import tripy.quantization as tq
        >>> tq.QuantizerConfig(num_bits=8, axis=0).format.name
        'int8'
    """

    num_bits: Bits = 8
    axis: Optional[int] = None
    block_size: Optional[int] = None

    def __post_init__(self) -> None:
        if isinstance(self.num_bits, list):
            object.__setattr__(self, "num_bits", tuple(self.num_bits))
        if isinstance(self.num_bits, bool) or self.num_bits not in FORMATS:
            raise _refused("num_bits", self.num_bits, "8 (int8), 4 (int4) or (4, 3) (float8 E4M3)")
        if isinstance(self.axis, bool) or self.axis not in (None, 0):
            raise _refused("axis", self.axis, "None (one scale) or 0 (one a row of the weight)")
        size = self.block_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise _refused("block_size", size, "None, or the number of values that share a scale")
        if size is not None and self.axis is not None:
            raise _refused("axis and block_size", (self.axis, size), "one of them")

    @property
    def format(self) -> NumberFormat:
        """The number type."""
        return FORMATS[self.num_bits]

    @property
    def granularity(self) -> str:
        """Which values share a scale, in words."""
        if self.block_size is not None:
            return f"blocks of {self.block_size}"
        return "per tensor" if self.axis is None else "per channel"

    def __str__(self) -> str:
        return f"{self.format.name} {self.granularity}"


def _refused(name: str, got: Any, expected: str) -> TripyException:
    return TripyException(f"QuantizerConfig: {name} is not usable.", got=got, expected=expected)


def spread(scale: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """A scale, shaped so that it broadcasts against the tensor cut by :func:`groups`."""
    return scale if config.axis is None and config.block_size is None else scale.unsqueeze(-1)


def groups(x: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """The tensor with the values that share a scale along the last dimension; no copy.

    Per tensor, the tensor as it is; per channel, [channels, all others]; in blocks,
    [rows, blocks, block size].
    """
    if config.block_size is not None:
        return x.unflatten(-1, (-1, config.block_size))
    return x if config.axis is None else x.flatten(1)


def amax_of(x: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """The largest magnitude of each group, float32: (), (channels,) or (rows, blocks)."""
    cut = groups(x.detach(), config)
    if config.axis is None and config.block_size is None:
        low, high = torch.aminmax(cut)
    else:
        low, high = torch.aminmax(cut, dim=-1)
    return torch.maximum(-low, high).float()


def scale_of(amax: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """``amax / maxbound``, float32; an amax in float64 that came from a scale gives it back."""
    return (amax.double() / config.format.maxbound).float()


def amax_of_scale(scale: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """The amax, float64, that :func:`scale_of` makes exactly that scale of."""
    return scale.double() * config.format.maxbound


def round_to(x: torch.Tensor, scale: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """The small values of a tensor, one an element: int8 (also for int4) or float8_e4m3fn.

    Args:
        x: Floating point; of a shape that :func:`groups` can cut.
        scale: float32, shaped as :func:`amax_of` gives it.
        config: The quantizer.
    """
    number = config.format
    values = groups(x, config).float() / spread(scale, config)
    if number.storage is not torch.float8_e4m3fn:
        values = values.round_()
    values = values.clamp_(number.low, number.maxbound)
    return values.to(number.storage).view(x.shape)


def restore(
    q: torch.Tensor, scale: torch.Tensor, config: QuantizerConfig, dtype: torch.dtype
) -> torch.Tensor:
    """The values that small values stand for: ``q * scale`` in float32, then cast."""
    return (groups(q, config).float() * spread(scale, config)).to(dtype).view(q.shape)


def fake_quantize(x: torch.Tensor, scale: torch.Tensor, config: QuantizerConfig) -> torch.Tensor:
    """The tensor after rounding, in its own data type and shape."""
    return restore(round_to(x, scale, config), scale, config, x.dtype)
