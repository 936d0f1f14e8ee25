"""Quantized convolutions for tests: random layers, and what they compute in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tripy as tp
from tripy.backends.torch.kernels import cpu_int8_convolution

ONE_DNN = "oneDNN int8 convolution (int8 x int8, int32 sums)"
TRANSPOSED = "oneDNN int8 convolution, transposed (int8 x int8, int32 sums)"
FORWARD = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
BACKWARD = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}

needs_onednn = pytest.mark.skipif(
    bool(cpu_int8_convolution.why_not_int8()), reason=cpu_int8_convolution.why_not_int8()
)


def layer(rng, *args, kind=tp.int8, static=True, powers=False, transposed=False, **options):
    """A quantized layer whose weight is int8 already, with one scale an output channel."""
    make = tp.ConvTranspose if transposed else tp.Conv
    options.setdefault("weight_quant_dim", 1 if transposed else 0)
    module = make(*args, quant_dtype=kind, **options)
    if powers:
        weight = rng.integers(-128, 128, module.weight.shape).astype(np.int8)
        module.weight = tp.Tensor(torch.from_numpy(weight))
        scale = 2.0 ** rng.integers(-3, 2, module.weight_scale.shape)
        bias = rng.integers(-99, 99, module.out_channels)
    else:
        weight = rng.standard_normal(module.weight.shape)
        high = {tp.int8: 127, tp.int4: 7, tp.float8: 448}[kind]
        module.weight = tp.Tensor(weight.astype(np.float32), dtype=module.dtype)
        scale = 3 / high * rng.uniform(0.5, 1, module.weight_scale.shape)
        bias = rng.standard_normal(module.out_channels)
    module.weight_scale = tp.Tensor(np.asarray(scale, np.float32), dtype=module.dtype)
    if module.bias is not None:
        module.bias = tp.Tensor(bias.astype(np.float32), dtype=module.dtype)
    if static:
        scale = 0.5 if powers else 4 / (448 if kind is tp.float8 else 127)
        module.input_scale = tp.Tensor(np.float32(scale), dtype=module.dtype)
    return module


def compiled(module, x, dtype=tp.float32):
    return tp.compile(module, args=[tp.InputInfo(tuple(x.shape), dtype)])


def rows(executable):
    found = executable.report().rows
    return [row for row in found if row.operation == "quantized_convolution"]


def kernels(executable):
    return [row.kernel for row in rows(executable)]


def exact(module, x):
    """The layer in float64 from its integers; and the sum of absolute values, for bounds."""
    rank, dim = x.ndim, module.weight_quant_dim
    stored = module.weight
    if stored.dtype is not tp.int8:
        stored = tp.quantize(stored, module.weight_scale, tp.int8, dim)
    scale = module.weight_scale.numpy().astype(np.float64)
    if dim is not None:
        scale = scale.reshape([-1 if d == dim else 1 for d in range(rank)])
    weight = torch.from_numpy(stored.numpy() * scale)
    step = module.input_scale.numpy()
    x = torch.from_numpy(np.clip(np.rint(x / step), -128, 127) * np.float64(step))
    widths = [width for pair in reversed(module.padding) for width in pair]
    options = {"stride": module.stride, "dilation": module.dilation, "groups": module.groups}

    def run(x, weight):
        if isinstance(module, tp.Conv):
            return FORWARD[rank](F.pad(x, widths), weight, **options).numpy()
        cut = [-width for width in widths]
        return F.pad(BACKWARD[rank](x, weight, **options), cut).numpy()

    bias = 0.0
    if module.bias is not None:
        bias = module.bias.numpy().astype(np.float64).reshape(-1, *[1] * (rank - 2))
    return run(x, weight) + bias, run(x.abs(), weight.abs()) + np.abs(bias)


def random_layer(rng, transposed):
    """Any legal arguments, and an input."""
    while True:
        count, groups = rng.integers(1, 4), int(rng.choice([1, 1, 2, 3, 16]))
        inputs, outputs = (int(rng.choice([1, 1, 2, 3, 4, 8, 17])) for _ in range(2))
        kernel = rng.integers(1, 6 if count < 3 else 4, count)
        stride, dilation = rng.integers(1, 4, count), rng.choice([1, 1, 2, 3], count)
        padding = rng.choice([0, 0, 1, 2, 5], (count, 2))
        sizes = rng.integers(1, {1: 40, 2: 16, 3: 7}[int(count)], count)
        reach = dilation * (kernel - 1) + 1
        if transposed:
            fits = ((sizes - 1) * stride + reach > padding.sum(1)).all()
        else:
            fits = (sizes + padding.sum(1) >= reach).all()
        if not fits:
            continue
        module = layer(
            rng, groups * inputs, groups * outputs, tuple(map(int, kernel)),
            tuple(map(int, stride)), [tuple(map(int, pair)) for pair in padding],
            tuple(map(int, dilation)), groups, bool(rng.integers(2)), powers=True,
            transposed=transposed,
            weight_quant_dim=[None, 1 if transposed else 0][rng.integers(2)],
        )  # fmt: skip
        shape = (int(rng.integers(1, 4)), groups * inputs, *sizes)
        return module, (rng.integers(-128, 128, shape) * 0.5).astype(np.float32)
