"""int8 convolutions on the CPU, through oneDNN's quantized convolution.

Every kind of convolution is carried out as one that has no padding of its own, over two or three
dimensions:

- *Padding* is written around the input beforehand, in the pass that makes unsigned numbers of it.
  oneDNN 3.12's own padding of an input with a zero point gives wrong sums for many shapes, and
  writes outside its buffers for some (found with random shapes; nothing known was left out here).
- *One input channel a group* gets a second one of zeros, for the same reason, but for a depthwise
  convolution over two dimensions, which has a kernel of its own.
- *Transposed, stride s*: each of the s results between two inputs is a convolution with every s-th
  element of the kernel. All of them are output channels of one convolution with stride 1, and are
  interleaved afterwards (W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an
  Efficient Sub-Pixel Convolutional Neural Network", 2016, read backwards). A dimension with a
  dilation too has zeros put between its inputs instead.

As in a matrix product (see cpu_int8.py) the input goes in shifted by 128 to unsigned numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F

from tripy.backends.torch.kernels.base import PackedWeight

T = torch.Tensor
_ZERO_POINT = 128
# Post-operations that oneDNN's convolution has over two dimensions; over three it has none.
POST = {None: "none", "relu": "relu", "silu": "swish"}


class Axis(NamedTuple):
    """One spatial dimension of a convolution without padding, which another is carried out as.

    Attributes:
        before, after: Zeros put around the input; negative ones cut off.
        spread: Distance of the inputs from each other, with zeros between.
        stride, dilation: Of the convolution.
        extent: The kernel's elements, rounded up to a multiple of ``results``.
        results: How many results a position gives; they are interleaved.
        skipped: How many of the interleaved results come before the first one wanted.
    """

    before: int
    after: int
    spread: int
    stride: int
    dilation: int
    extent: int
    results: int
    skipped: int


def plan(kernel: Sequence[int], attrs: dict[str, Any]) -> list[Axis]:
    """How a convolution with these attributes is carried out, dimension by dimension."""
    axes = []
    for extent, (before, after), stride, dilation in zip(
        kernel, attrs["padding"], attrs["stride"], attrs["dilation"]
    ):
        if not attrs["transposed"]:
            axes.append(Axis(before, after, 1, stride, dilation, extent, 1, 0))
            continue
        reach = dilation * (extent - 1)
        if dilation > 1:
            axes.append(Axis(reach - before, reach - after, stride, 1, dilation, extent, 1, 0))
            continue
        taps = -(-extent // stride)
        first, last = taps - 1 - before // stride, (reach - after) // stride
        axes.append(Axis(first, last, 1, 1, 1, taps * stride, stride, before % stride))
    if len(axes) == 1:  # Over one dimension: the same over two, the first of size 1.
        axes.insert(0, Axis(0, 0, 1, 1, 1, 1, 1, 0))
    return axes


class Int8Kernel(PackedWeight):
    """A convolution's int8 weight in oneDNN's layout, turned into one of an ordinary convolution.

    Args:
        weight: [out, in / groups, ...], or [in, out / groups, ...] of a transposed one.
        attrs: The node's.
        sizes: The input's usual shape. oneDNN chooses the layout by it, and an input for which it
            had chosen another one costs a rearrangement of the weight at each call.
    """

    def __init__(
        self, weight: T, attrs: dict[str, Any], sizes: Optional[Sequence[int]] = None
    ) -> None:
        self.shape, self.transposed, self.groups = (
            weight.shape,
            attrs["transposed"],
            attrs["groups"],
        )
        self.axes = plan(weight.shape[2:], attrs)
        plain = self._turned(weight) if self.transposed else weight
        if weight.dim() == 3:
            plain = plain.unsqueeze(2)
        outputs, channels = plain.shape[:2]
        # One input channel a group (see above).
        depthwise = len(self.axes) == 2 and outputs == self.groups > 1
        self.widened = channels == 1 and not depthwise
        if self.widened:
            plain = torch.cat([plain, torch.zeros_like(plain)], 1)
        self.channels, self.outputs = channels * self.groups, outputs
        self.geometry = (
            [a.stride for a in self.axes], [0] * len(self.axes), [a.dilation for a in self.axes],
            self.groups,
        )  # fmt: skip
        shape = None
        if sizes is not None and min(sizes) > 0:
            if len(sizes) == 3:
                sizes = (*sizes[:2], 1, sizes[2])
            shape = [sizes[0], plain.shape[1] * self.groups, *self._padded(sizes[2:])]
            reaches = [a.dilation * (k - 1) for a, k in zip(self.axes, plain.shape[2:])]
            if any(n <= reach for n, reach in zip(shape[2:], reaches)):
                shape = None  # The kernel does not fit into it.
        # A weight that is not contiguous would be packed wrongly without an error.
        self.data = torch.ops.onednn.qconv_prepack(
            plain.contiguous(), torch.ones(outputs), 1.0, _ZERO_POINT, *self.geometry, shape
        )
        self.taps = plain.shape[2:]

    def unpack(self) -> T:
        channels = self.channels // self.groups * (2 if self.widened else 1)
        plain = self.data.to_dense().reshape(self.outputs, channels, *self.taps)
        if self.widened:
            plain = plain[:, :1]
        if len(self.shape) == 3:
            plain = plain.squeeze(2)
        return (self._turned_back(plain) if self.transposed else plain).contiguous()

    @property
    def nbytes(self) -> int:
        return torch.ops.mkldnn._nbytes(self.data)

    def _turned(self, weight: T) -> T:
        """A transposed convolution's weight as that of an ordinary one.

        The output channels of a group are those of its first result, then of its second, ...
        """
        axes = self.axes[-(weight.dim() - 2) :]
        count, groups = len(axes), self.groups
        widths = [w for a, k in zip(axes[::-1], weight.shape[:1:-1]) for w in (0, a.extent - k)]
        parts = [size for a in axes for size in (a.extent // a.results, a.results)]
        inputs, outputs = weight.shape[0] // groups, weight.shape[1]
        split = F.pad(weight, widths).view(groups, inputs, outputs, *parts)
        taps, results = range(3, 3 + 2 * count, 2), range(4, 4 + 2 * count, 2)
        # An element of the kernel that comes later meets an input that comes earlier.
        split = split.flip(*taps).permute(0, *results, 2, 1, *taps)
        return split.reshape(-1, inputs, *split.shape[-count:])

    def _turned_back(self, plain: T) -> T:
        axes = self.axes[-(plain.dim() - 2) :]
        count, groups = len(axes), self.groups
        results = [a.results for a in axes]
        split = plain.reshape(groups, *results, self.shape[1], plain.shape[1], *plain.shape[2:])
        # [group, results..., out, in, taps...] → [group, in, out, tap, result, tap, result, ...]
        pairs = [d for i in range(count) for d in (count + 3 + i, 1 + i)]
        split = split.flip(*range(count + 3, 2 * count + 3))
        split = split.permute(0, count + 2, count + 1, *pairs)
        whole = split.reshape(*self.shape[:2], *(a.extent for a in axes))
        cut: tuple[Any, ...] = (..., *(slice(size) for size in self.shape[2:]))
        return whole[cut]

    def _padded(self, sizes: Sequence[int]) -> list[int]:
        return [(n - 1) * a.spread + 1 + a.before + a.after for n, a in zip(sizes, self.axes)]

    def prepare(self, x: T) -> T:
        """The int8 input with 128 added, zeros around it and between its elements."""
        small = x.bitwise_xor(-128)
        plain = all(a.before == a.after == 0 and a.spread == 1 for a in self.axes)
        if plain and not self.widened:
            return small.view(torch.uint8)
        batch, sizes = x.shape[0], x.shape[2:]
        padded, groups = self._padded(sizes), self.channels if self.widened else 1
        width = 2 if self.widened else self.channels
        # Channels last, as oneDNN wants it. Zero is -128 here, as it is in `small`.
        whole = torch.full((batch, *padded, groups, width), -128, dtype=torch.int8)
        place, taken = [slice(None)], [slice(None)]
        for axis, size, total in zip(self.axes, sizes, padded):
            first = max(0, -(axis.before // axis.spread))
            last = min(size - 1, (total - 1 - axis.before) // axis.spread)
            start = axis.before + first * axis.spread
            place.append(slice(start, axis.before + last * axis.spread + 1, axis.spread))
            taken.append(slice(first, last + 1))
        small = small.movedim(1, -1)[tuple(taken)]
        target: tuple[Any, ...] = (*place, *([slice(None)] if self.widened else []), 0)
        whole[target] = small
        return whole.view(batch, *padded, groups * width).movedim(-1, 1).view(torch.uint8)

    def finish(self, y: T, sizes: Sequence[int]) -> T:
        """The results of a transposed convolution in their order; ``sizes`` of its result."""
        if all(a.results == 1 for a in self.axes):
            return y
        count, results, batch = len(self.axes), [a.results for a in self.axes], y.shape[0]
        positions, channels = y.shape[2:], self.shape[1]
        split = y.movedim(1, -1).reshape(batch, *positions, self.groups, *results, channels)
        pairs = [d for i in range(count) for d in (1 + i, count + 2 + i)]
        split = split.permute(0, *pairs, count + 1, 2 * count + 2)
        spatial = [q * r for q, r in zip(positions, results)]
        whole = split.reshape(batch, *spatial, self.groups * channels)
        cut = [slice(a.skipped, a.skipped + size) for a, size in zip(self.axes, sizes)]
        wanted = (slice(None), *cut)
        return whole[wanted].movedim(-1, 1)

    def channelwise(self, values: T) -> T:
        """Numbers of the layer's output channels, or of one group's, as the convolution's."""
        flat = values.float().reshape(-1)
        if self.transposed and values.dim():
            each = self.shape[1]
            repeated = self.outputs // (self.groups * each)
            flat = flat.view(-1, 1, each).expand(self.groups, repeated, each).reshape(-1)
        return flat.contiguous()


class StaticInt8Convolution:
    """``activation(convolution(x, w) * x_scale * w_scale + bias)``, rounded if wanted.

    ``dtype`` is torch.float32, or torch.int8 with an ``out_scale``.
    """

    def __init__(
        self, weight: Int8Kernel, w_scale: T, x_scale: float, bias: Optional[T],
        out_scale: Optional[float], activation: Optional[str], dtype: torch.dtype,
    ) -> None:  # fmt: skip
        self._weight, self._x_scale = weight, x_scale
        self._w_scale = weight.channelwise(w_scale)
        self._w_zero = torch.zeros(self._w_scale.numel(), dtype=torch.int32)
        self._bias = None if bias is None else weight.channelwise(bias)
        self._out_scale, self._post, self._dtype = out_scale or 1.0, POST[activation], dtype

    def __call__(self, x: T, sizes: Sequence[int]) -> T:
        """``sizes``: the spatial sizes of the result."""
        weight, flat = self._weight, x.dim() == 3
        if flat:
            x, sizes = x.unsqueeze(2), (1, *sizes)
        result = torch.ops.onednn.qconv_pointwise(
            weight.prepare(x), self._x_scale, _ZERO_POINT, weight.data, self._w_scale,
            self._w_zero, self._bias, *weight.geometry, self._out_scale, 0, self._dtype,
            self._post, [], "",
        )  # fmt: skip
        result = weight.finish(result, sizes)
        return result.squeeze(2) if flat else result


@functools.cache
def why_not_int8() -> str:
    """Why oneDNN's int8 convolution is not used on this machine; "" if it is exact, as tried."""
    attrs = {
        "padding": ((1, 1),) * 3, "stride": (1,) * 3, "dilation": (1,) * 3, "transposed": False,
    }  # fmt: skip
    # Ordinary, narrow, depthwise and over three dimensions; the largest values there are.
    for outputs, channels, groups, count in ((16, 512, 1, 2), (5, 3, 1, 2), (32, 1, 32, 2),
                                             (16, 64, 1, 3)):  # fmt: skip
        shape = (outputs, channels, *[3] * count)
        weight = torch.full(shape, 127, dtype=torch.int8)
        weight[1::2] = -128
        x = torch.full((1, channels * groups, *[6] * count), 127, dtype=torch.int8)
        try:
            kernel = Int8Kernel(weight, {**attrs, "groups": groups})
            found = StaticInt8Convolution(
                kernel, torch.tensor(1.0), 1.0, None, None, None, torch.float32
            )(x, [6] * count)
            if not torch.equal(kernel.unpack(), weight):
                return "this torch's packed convolution weights cannot be read back"
        except (RuntimeError, AttributeError):
            return "this torch has no int8 convolution of oneDNN's"
        padding: Any = 1
        wanted = (F.conv2d, F.conv3d)[count - 2](
            x.double(), weight.double(), None, 1, padding, 1, groups
        )
        if not torch.equal(found.double(), wanted):
            return "this processor's int8 products saturate (no VNNI or AMX instructions)"
    return ""
