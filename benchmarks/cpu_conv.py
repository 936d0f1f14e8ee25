"""Convolutions on two CPU threads: tripy's int8 beside PyTorch's float32 in the same process.

    python benchmarks/cpu_conv.py [--rounds 15] [--batch 1]

Shapes of ResNet-50, of a depthwise network and of a decoder that enlarges its input; random weights
and inputs. Each int8 layer takes float32 and gives float32, quantizing its input itself; the chain
(3x3, ReLU, 3x3, ReLU, 3x3) stays int8 between its layers, and so do the two residual blocks of
ResNet-50 (1x1, ReLU, 3x3, ReLU, 1x1, added to what came in, ReLU), whose residual is int8 too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("TRIPY_DEVICE", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
import numpy as np
import torch

import tripy as tp


class Shape(NamedTuple):
    """A layer: the sides of its square input and kernel, and how it moves."""

    name: str
    inputs: int
    outputs: int
    size: int
    kernel: int
    stride: int = 1
    groups: int = 1
    transposed: bool = False

    @property
    def padding(self) -> int:
        return (self.kernel - self.stride) // 2 if self.transposed else self.kernel // 2

    def products(self) -> int:
        """Multiplications of one image."""
        side = self.size if self.transposed else -(-self.size // self.stride)
        return self.inputs * self.outputs // self.groups * (self.kernel * side) ** 2


SHAPES = (
    Shape("7x7 /2, 3 to 64, 224", 3, 64, 224, 7, 2),
    Shape("3x3, 64, 56", 64, 64, 56, 3),
    Shape("1x1, 256 to 64, 56", 256, 64, 56, 1),
    Shape("3x3, 128, 28", 128, 128, 28, 3),
    Shape("3x3, 256, 14", 256, 256, 14, 3),
    Shape("3x3, 512, 7", 512, 512, 7, 3),
    Shape("depthwise 3x3, 128, 56", 128, 128, 56, 3, 1, 128),
    Shape("transposed 4x4 x2, 128 to 64, 28", 128, 64, 28, 4, 2, 1, True),
)


def int8_layer(shape: Shape, seed: int = 0) -> tp.Module:
    """A layer with int8 weights, one scale an output channel, and a static input scale."""
    random = np.random.default_rng(seed)
    kind = tp.ConvTranspose if shape.transposed else tp.Conv
    layer = kind(
        shape.inputs, shape.outputs, (shape.kernel,) * 2, (shape.stride,) * 2,
        ((shape.padding,) * 2,) * 2, groups=shape.groups, quant_dtype=tp.int8,
        weight_quant_dim=1 if shape.transposed else 0,
    )  # fmt: skip
    # Results then spread as far as inputs do, so one input scale suits all.
    summed = shape.inputs // shape.groups * shape.kernel**2
    weight = random.standard_normal(layer.weight.shape).astype(np.float32) / summed**0.5
    axes = (0, 2, 3) if shape.transposed else (1, 2, 3)
    layer.weight, layer.weight_scale = tp.Tensor(weight), tp.Tensor(np.abs(weight).max(axes) / 127)
    layer.bias, layer.input_scale = tp.zeros((shape.outputs,)), 4 / 127
    return layer


def float_layer(layer: tp.Module, shape: Shape) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same in PyTorch, not quantized."""
    kind = torch.nn.ConvTranspose2d if shape.transposed else torch.nn.Conv2d
    twin = kind(
        shape.inputs, shape.outputs, shape.kernel, shape.stride, shape.padding, groups=shape.groups
    )
    with torch.no_grad():
        twin.weight.copy_(layer.weight.torch())
        twin.bias.zero_()
    return torch.inference_mode()(twin)


def compare(
    name: str, ours: Callable, theirs: Callable, x: torch.Tensor, rounds: int, products: int
) -> tuple[list[str], dict[str, object]]:
    """One row of the table: float32 contiguous and channels last, and int8."""
    executable = tp.compile(ours, args=[tp.InputInfo(tuple(x.shape), tp.float32)])
    last, given = x.contiguous(memory_format=torch.channels_last), tp.Tensor(x)

    peer = torch.inference_mode()(theirs)
    seconds = common.interleaved(
        {
            "float32": lambda: peer(x),
            "float32 channels last": lambda: peer(last),
            "int8": lambda: executable(given).eval(),
        },
        rounds,
    )
    plain, channels_last, int8 = (median(times) for times in seconds.values())
    wanted, found = peer(x), executable(given).torch()
    error = float((found - wanted).norm() / wanted.norm())
    best = min(plain, channels_last)
    row = [name, *map(common.spread, seconds.values()), f"{best / int8:.2f}",
           f"{2 * products / int8 / 1e9:.0f}", f"{error:.4f}"]  # fmt: skip
    figures = {
        "float32 ms": plain * 1e3, "float32 channels last ms": channels_last * 1e3,
        "int8 ms": int8 * 1e3, "x the faster float32": best / int8, "relative error": error,
        "kernels": [r.kernel for r in executable.report().rows],
    }  # fmt: skip
    return row, figures


def chain(layers: Sequence[Callable], relu: Callable) -> Callable:
    """Layers with ReLU between them."""

    def run(x: Any) -> Any:
        for i, layer in enumerate(layers):
            x = layer(relu(x) if i else x)
        return x

    return run


def residual_blocks(blocks: Sequence[Sequence[tp.Module]]) -> Callable[[tp.Tensor], tp.Tensor]:
    """Each adds to its input, which is int8 for both: one rounding, one scale."""
    scale = tp.Parameter(8 / 127)
    for first, *_ in blocks:
        first.input_scale = scale

    def run(x: tp.Tensor) -> tp.Tensor:
        q = tp.quantize(x, scale, tp.int8)
        for block in blocks:
            h = tp.dequantize(q, scale, tp.float32)
            q = tp.quantize(tp.relu(chain(block, tp.relu)(h) + h), scale, tp.int8)
        return tp.dequantize(q, scale, tp.float32)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tp.config.default_device = tp.device("cpu")
    print("  ".join(f"{key}: {value}" for key, value in common.machine().items()))
    rows, results = [], {}
    for shape in SHAPES:
        layer = int8_layer(shape)
        x = torch.randn(options.batch, shape.inputs, shape.size, shape.size)
        products = shape.products() * options.batch
        row, results[shape.name] = compare(
            shape.name, layer, float_layer(layer, shape), x, options.rounds, products
        )
        rows.append(row)
    shape = SHAPES[1]
    layers = [int8_layer(shape, seed) for seed in range(3)]
    name = "chain of three 3x3, 64, 56"
    row, results[name] = compare(
        name,
        chain(layers, tp.relu),
        chain([float_layer(layer, shape) for layer in layers], torch.relu),
        torch.randn(options.batch, shape.inputs, shape.size, shape.size),
        options.rounds,
        3 * shape.products() * options.batch,
    )
    rows.append(row)
    for size, wide in ((56, 256), (14, 1024)):
        name = f"two residual blocks, {wide}, {size}"
        narrow = wide // 4
        shapes = [Shape("", wide, narrow, size, 1), Shape("", narrow, narrow, size, 3),
                  Shape("", narrow, wide, size, 1)]  # fmt: skip
        blocks = [[int8_layer(s, seed) for seed, s in enumerate(shapes)] for _ in range(2)]
        twins = [chain([float_layer(*pair) for pair in zip(b, shapes)], torch.relu) for b in blocks]
        row, results[name] = compare(
            name,
            residual_blocks(blocks),
            lambda x, twins=twins: [x := torch.relu(twin(x) + x) for twin in twins][-1],
            torch.randn(options.batch, wide, size, size),
            options.rounds,
            2 * sum(s.products() for s in shapes) * options.batch,
        )
        rows.append(row)
    header = ["", "float32 ms (middle half)", "float32 channels last", "int8", "x faster float32",
              "int8 Gop/s", "relative error"]  # fmt: skip
    print(common.table(header, rows))
    common.finish("cpu_conv", results)


if __name__ == "__main__":
    main()
