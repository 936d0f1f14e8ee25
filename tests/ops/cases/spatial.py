"""Cases of resizing and pooling. Resizing is compared with torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import tripy as tp
from tests.ops.cases.table import Draw, Sample, case, is_float

_TORCH_MODES = {
    ("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear",
    ("cubic", 2): "bicubic",
}  # fmt: skip


def _interpolated(x: np.ndarray, mode: str, align: bool, **how: Any) -> np.ndarray:
    """torch's interpolation, which leaves batch and channels as they are."""
    name = "nearest" if mode == "nearest" else _TORCH_MODES[mode, x.ndim - 2]
    align_corners = None if mode == "nearest" else align
    array = torch.from_numpy(x.astype(np.float64))
    result = torch.nn.functional.interpolate(
        array, mode=name, align_corners=align_corners, **how
    ).numpy()
    return np.clip(np.trunc(result), -128, 127) if x.dtype == np.int8 else result


@case("resize", "float32 float16 i8")
def _resize_to_sizes(draw: Draw, dtype: Any) -> Sample:
    mode = draw.choice(["nearest", "linear", "cubic"])
    count = 2 if mode == "cubic" else draw.integer(1, 3)
    shape = (draw.integer(1, 2), draw.integer(1, 2), *(draw.integer(1, 5) for _ in range(count)))
    align = draw.flag() if mode != "nearest" and is_float(dtype) else False
    # Twice the size has weights that float32 holds exactly, so that integers are cut off alike.
    sizes = [draw.integer(1, 8) if is_float(dtype) else 2 * size for size in shape[2:]]
    return Sample(
        lambda x: tp.resize(x, (*x.shape[:2], *sizes), mode, align),
        [draw.tensor(shape, dtype)],
        lambda x: _interpolated(x, mode, align, size=sizes),
        {"atol": 1e-5, "rounds": 2},
    )


@case("resize", "float32 float16 i8")
def _resize_by_scales(draw: Draw, dtype: Any) -> Sample:
    mode = draw.choice(["nearest", "linear", "cubic"])
    count = 2 if mode == "cubic" else draw.integer(1, 3)
    shape = (draw.integer(1, 2), draw.integer(1, 2), *(draw.integer(2, 5) for _ in range(count)))
    scales = [draw.choice([0.5, 1.5, 2.0, 2.5] if is_float(dtype) else [2.0]) for _ in range(count)]
    scales = [float(scale) for scale in scales]
    return Sample(
        lambda x: tp.resize(x, [1.0, 1.0, *scales], mode),
        [draw.tensor(shape, dtype)],
        lambda x: _interpolated(x, mode, False, scale_factor=scales),
        {"atol": 1e-5, "rounds": 2},
    )


def _window(draw: Draw) -> tuple[tuple, list, Any, Any]:
    """An input's shape, kernel, stride and padding; the last two may be left out."""
    count = draw.integer(2, 3)
    kernel = [draw.integer(1, 3) for _ in range(count)]
    sizes = [draw.integer(size, size + 3) for size in kernel]
    stride = draw.choice([None, [draw.integer(1, 3) for _ in range(count)]])
    pads = [(draw.integer(0, size - 1), draw.integer(0, size - 1)) for size in kernel]
    return (
        (draw.integer(0, 2), draw.integer(1, 2), *sizes),
        kernel,
        stride,
        draw.choice([None, pads]),
    )


def _windows(x: np.ndarray, kernel: list, stride: Any, pads: Any, value: float) -> np.ndarray:
    """All windows of an array: their elements are the last dimension."""
    x = np.pad(x, [(0, 0), (0, 0), *(pads or [(0, 0)] * len(kernel))], constant_values=value)
    axes = tuple(range(2, x.ndim))
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, axes)
    steps = stride or [1] * len(kernel)
    views = views[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]
    count = len(kernel)
    return views.reshape(*views.shape[:-count], int(np.prod(views.shape[-count:])))


@case("maxpool", "F i8")
def _maxpool(draw: Draw, dtype: Any) -> Sample:
    shape, kernel, stride, pads = _window(draw)
    return Sample(
        lambda x: tp.maxpool(x, kernel, stride, pads),
        [draw.tensor(shape, dtype)],
        lambda x: _windows(x.astype(float), kernel, stride, pads, -np.inf).max(-1),
    )


@case("avgpool", "F i8")
def _avgpool(draw: Draw, dtype: Any) -> Sample:
    shape, kernel, stride, pads = _window(draw)
    include = draw.flag()

    def reference(x: np.ndarray) -> np.ndarray:
        total = _windows(x.astype(np.float64), kernel, stride, pads, 0).sum(-1)
        inside = _windows(np.ones_like(x, np.float64), kernel, stride, pads, 0).sum(-1)
        mean = total / (np.prod(kernel) if include else inside)
        return np.trunc(mean) if x.dtype == np.int8 else mean

    return Sample(
        lambda x: tp.avgpool(x, kernel, stride, pads, include),
        [draw.tensor(shape, dtype)],
        reference,
        {"atol": 1e-5},
    )
