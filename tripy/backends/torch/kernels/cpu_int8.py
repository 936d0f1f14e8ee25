"""int8 matrix products on the CPU, through oneDNN's quantized linear.

Two uses of one packed weight:

- *static*: int8 input, int32 sums, then scale, bias, activation and rounding in the same call;
- *digits*: float input, int8 weight. Each row of the input is written as a 24-bit fixed-point
  number in three balanced base-256 digits, all three go through the int8 product at once, and the
  three sums are put together in float32. That is float32's own precision (the fraction has 24 bits
  in both), at the speed and with the memory traffic of int8. A row that holds NaN or infinity
  comes out as NaN.

oneDNN is fast with unsigned input, so int8 values go in shifted by 128, which is exact. (Signed
input runs its reference code on processors without AMX, thousands of times slower.)
"""

from __future__ import annotations

import functools
from typing import Optional

import torch

from tripy.backends.torch.kernels.base import PackedWeight

T = torch.Tensor
_ZERO_POINT = 128
# Post-operations of oneDNN by the names that fused nodes use: (name, algorithm).
_POST = {
    None: ("none", ""),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}
# The largest fixed-point number: three balanced digits hold up to 127 * 65536 + 127 * 256 + 127.
_FIXED_POINT_MAXIMUM = 8_300_000.0


class Int8Weight(PackedWeight):
    """[out, in] int8 in oneDNN's blocked layout, which does not depend on the number of rows."""

    def __init__(self, weight: T) -> None:
        self.shape = weight.shape
        # A weight that is not contiguous would be packed wrongly without an error.
        self.data = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)

    def unpack(self) -> T:
        return self.data.to_dense().t().contiguous()

    @property
    def nbytes(self) -> int:
        return self.shape.numel()


@functools.cache
def int8_products_are_exact() -> bool:
    """Whether oneDNN's int8 product is exact on this processor, found out by trying.

    Without VNNI or AMX instructions, pairs of products are summed in 16 bits and saturate.
    """
    try:
        weight = torch.full((16, 3072), 127, dtype=torch.int8)
        weight[8:] = -127
        packed = Int8Weight(weight)
        ones, zero = torch.ones(16), torch.zeros(16, dtype=torch.int32)
        for rows in (1, 4):
            x = torch.full((rows, 3072), 255, dtype=torch.uint8)
            sums = torch.ops.onednn.qlinear_pointwise(
                x, 1.0, _ZERO_POINT, packed.data, ones, zero, None, 1.0, 0, torch.float32,
                "none", [], "",
            )  # fmt: skip
            wanted = torch.tensor(127.0 * 127.0 * 3072.0)
            if not (bool((sums[:, :8] == wanted).all()) and bool((sums[:, 8:] == -wanted).all())):
                return False
        return torch.equal(packed.unpack(), weight)
    except (RuntimeError, AttributeError):  # A torch built without oneDNN.
        return False


class StaticInt8:
    """``activation((x @ w.T) * x_scale * w_scale + bias)``, rounded by ``out_scale`` if given."""

    def __init__(
        self, weight: Int8Weight, w_scale: T, x_scale: float, bias: Optional[T],
        out_scale: Optional[float], activation: Optional[str], dtype: torch.dtype,
    ) -> None:  # fmt: skip
        self._weight, self._x_scale, self._columns = weight.data, x_scale, weight.shape[0]
        self._w_scale = w_scale.float().reshape(-1).contiguous()
        self._w_zero = torch.zeros(self._w_scale.numel(), dtype=torch.int32)
        self._bias = None if bias is None else bias.float()
        self._out_scale = out_scale
        self._post, self._algorithm = _POST[activation]
        self._dtype = dtype
        # float16 results run reference code there: float32 results are rounded afterwards.
        self._computed = torch.float32 if dtype is torch.float16 else dtype

    def __call__(self, x: T) -> T:
        result = torch.ops.onednn.qlinear_pointwise(
            x.bitwise_xor(-128).view(torch.uint8), self._x_scale, _ZERO_POINT, self._weight,
            self._w_scale, self._w_zero, self._bias, self._out_scale or 1.0, 0, self._computed,
            self._post, [], self._algorithm,
        )  # fmt: skip
        # Without rows, oneDNN's result has two dimensions whatever the input has.
        result = result.view(*x.shape[:-1], self._columns)
        return result if self._computed is self._dtype else result.to(self._dtype)


class DigitsInt8:
    """``x @ (w * w_scale).T + bias`` for a floating-point x, at float32's precision."""

    def __init__(
        self, weight: Int8Weight, w_scale: T, bias: Optional[T], scale_input: bool
    ) -> None:
        self._weight, self._columns = weight.data, weight.shape[0]
        scale = w_scale.float().reshape(-1).contiguous()
        # A scale along the summed dimension belongs to the input's elements.
        self._in_scale = scale if scale_input else None
        self._w_scale = torch.ones(1) if scale_input else scale
        self._w_zero = torch.zeros(self._w_scale.numel(), dtype=torch.int32)
        self._bias = None if bias is None else bias.float()

    def __call__(self, x: T) -> T:
        rows = x.reshape(-1, x.shape[-1]).float()
        if self._in_scale is not None:
            rows = rows * self._in_scale
        count, width = rows.shape
        amax = rows.abs().amax(-1, keepdim=True)
        unit = amax.clamp(min=1e-30).mul_(1.0 / _FIXED_POINT_MAXIMUM)
        # Adding 128 to each of three digits makes bytes of them; the fourth byte is cut off.
        fixed = (rows / unit).round_().to(torch.int32).add_(0x00808080)
        if fixed.stride() != (width, 1):  # The input was transposed.
            fixed = fixed.clone(memory_format=torch.contiguous_format)
        digits = fixed.view(torch.uint8).view(count, width, 4)[..., :3]
        digits = digits.permute(2, 0, 1).reshape(3 * count, width)
        sums = torch.ops.onednn.qlinear_pointwise(
            digits, 1.0, _ZERO_POINT, self._weight, self._w_scale, self._w_zero, None, 1.0, 0,
            torch.float32, "none", [], "",
        ).view(3, count, self._columns)  # fmt: skip
        result = torch.add(sums[0], sums[1], alpha=256.0).add_(sums[2], alpha=65536.0)
        # Infinity times zero is NaN: a row with infinity becomes NaN, never a wrong number.
        result.mul_(unit.addcmul_(amax, amax.new_zeros(())))
        if self._bias is not None:
            result.add_(self._bias)
        return result.view(*x.shape[:-1], self._columns).to(x.dtype)


def integer_product(x: T, weight: T) -> T:
    """``x @ weight.T`` of int8 values, exactly, on a processor without exact int8 products.

    Products of up to 2**14 sum exactly in float32's 24 bits over 1,024 of them.
    """
    total = None
    for start in range(0, x.shape[-1], 1024):
        part = torch.nn.functional.linear(
            x[..., start : start + 1024].float(), weight[:, start : start + 1024].float()
        ).double()
        total = part if total is None else total + part
    if total is None:  # No columns at all.
        return torch.zeros(*x.shape[:-1], weight.shape[0])
    return total
