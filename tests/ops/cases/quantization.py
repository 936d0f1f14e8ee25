"""Cases of casts, quantize, dequantize and dynamic_quantize."""

from __future__ import annotations

from typing import Any

import numpy as np

import tripy as tp
from tests.helpers import ALL, E4M3, F, is_accepted_cast, tensor, values
from tests.ops.cases.table import Draw, Sample, case

RANGES = {tp.int8: (-128, 127), tp.int4: (-8, 7), tp.float8: (-448, 448)}


def nearest_e4m3(x: np.ndarray) -> np.ndarray:
    """The nearest value of the list of all, ties to the one whose last bit is 0; saturating."""
    x = np.clip(np.asarray(x, np.float64), -448, 448)
    upper = np.clip(np.searchsorted(E4M3, x), 1, len(E4M3) - 1)
    below, above = E4M3[upper - 1], E4M3[upper]
    # E4M3 in ascending order holds -448 first. Codes grow with the magnitude, and zero's is even.
    even = (np.abs(upper - len(E4M3) // 2)) % 2 == 0
    down = (x - below < above - x) | ((x - below == above - x) & ~even)
    return np.where(np.isnan(x), np.nan, np.where(down, below, above))


def quantized(x: np.ndarray, scale: np.ndarray, dtype: Any) -> np.ndarray:
    """Without torch: the quotient in float32, which is exact enough for 16-bit types."""
    quotient = (np.float32(x) / np.float32(scale)).astype(np.float64)
    if dtype is tp.float8:
        return nearest_e4m3(quotient)
    return np.clip(np.round(quotient), *RANGES[dtype])


def _scaled(draw: Draw) -> tuple[tuple, tuple, Any, Any]:
    """An input's shape, a scale's shape, dim, and how the scale spreads over the input."""
    kind = draw.choice(["tensor", "channel", "blocks 0", "blocks 1", "rows"])
    if kind == "tensor":
        return draw.shape(), (), None, lambda s, shape: s
    if kind == "channel":
        shape = draw.shape((1, 3))
        dim = draw.dim(len(shape))
        view = [1] * len(shape)
        view[dim] = shape[dim]
        return shape, (shape[dim],), dim, lambda s, shape: s.reshape(view)
    if kind == "rows":
        shape = draw.shape((1, 3), (1, 5))
        return shape, (*shape[:-1], 1), None, lambda s, shape: s
    axis = int(kind[-1])
    blocks, size, other = draw.integer(1, 3), draw.integer(1, 3), draw.integer(2, 5)
    shape, scale = [other, other], [other, other]
    shape[axis], scale[axis] = blocks * size, blocks

    def spread(s: np.ndarray, shape: tuple) -> np.ndarray:
        index = np.arange(shape[axis]) // (shape[axis] // s.shape[axis])
        return np.take(s, index, axis)

    return tuple(shape), tuple(scale), None, spread


def _scale(draw: Draw, shape: tuple, dtype: Any) -> tp.Tensor:
    """Powers of two and other numbers; the first give exact ties."""
    exponents = draw.rng.integers(-4, 3, shape)
    scale = 2.0**exponents * draw.rng.choice([1.0, 1.0, 0.7, 1.3], shape)
    return tensor(scale, dtype)


def _quantize(name: str, target: Any) -> None:
    @case(name, "F")
    def build(draw: Draw, dtype: Any) -> Sample:
        shape, scale_shape, dim, spread = _scaled(draw)
        scale = _scale(draw, scale_shape, dtype if issubclass(dtype, tp.floating) else tp.float32)
        x = values(draw.rng, shape, dtype) * (20 if target is tp.float8 else 2)
        return Sample(
            lambda x, s: tp.quantize(x, s, target, dim),
            [tensor(x, dtype), scale],
            lambda x, s: quantized(x, spread(s, x.shape), target),
            {"dtype": target, "dynamic": dim is not None or not scale_shape, "rtol": 0},
        )


for _target in RANGES:
    _quantize("quantize", _target)


def _dequantize(target: Any) -> None:
    @case("dequantize", "i4 i8 f8")
    def build(draw: Draw, dtype: Any) -> Sample:
        shape, scale_shape, dim, spread = _scaled(draw)
        return Sample(
            lambda q, s: tp.dequantize(q, s, target, dim),
            [draw.tensor(shape, dtype), _scale(draw, scale_shape, target)],
            lambda q, s: q * spread(s, q.shape),
            {"dtype": target, "dynamic": dim is not None or not scale_shape},
        )


for _target in F:
    _dequantize(_target)


def _dynamic(target: Any) -> None:
    @case("dynamic_quantize", "F")
    def build(draw: Draw, dtype: Any) -> Sample:
        shape = draw.shape((1, 3), (0, 5))
        dim = draw.choice([None, -1, len(shape) - 1])
        high = RANGES[target][1]
        x = draw.tensor(shape, dtype)

        def function(x: tp.Tensor) -> Any:
            q, scale = tp.dynamic_quantize(x, target, dim)
            return tp.dequantize(q, scale, x.dtype), scale

        def reference(x: np.ndarray) -> Any:
            axis = None if dim is None else -1
            amax = np.max(np.abs(x), axis=axis, keepdims=dim is not None, initial=0)
            smallest = 2.0**-14 if dtype is tp.float16 else 2.0**-126
            return x, np.maximum(amax / high, smallest)

        largest = x.torch().double().abs().max().item() if x.torch().numel() else 0
        # Half a step of the quantization, which is larger for larger float8 numbers.
        step = largest / high * (32 if target is tp.float8 else 1)
        options = {"dtype": [dtype, dtype], "atol": 0.5 * step * 1.02 + 1e-4, "rtol": 0.02}
        return Sample(function, [x], reference, options)


for _target in RANGES:
    _dynamic(_target)


def _cast(target: Any) -> None:
    types = " ".join(str(kind) for kind in ALL if is_accepted_cast(kind, target))

    @case("cast", types)
    def build(draw: Draw, dtype: Any) -> Sample:
        array = values(draw.rng, draw.shape(), dtype)
        if target is tp.int8 and dtype is not tp.bool:
            array = np.clip(array, -128, 127)

        def reference(x: np.ndarray) -> np.ndarray:
            if target in (tp.int4, tp.float8):
                return quantized(x.astype(np.float64), np.ones(()), target)
            if target is tp.bool:
                return x != 0
            return np.trunc(x) if issubclass(target, tp.integer) else x.astype(np.float64)

        return Sample(
            lambda x: tp.cast(x, target), [tensor(array, dtype)], reference, {"dtype": target}
        )


for _target in ALL:
    _cast(_target)
