"""What tests of the TensorRT backend share: engines built with no GPU, and networks computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tripy as tp
from tests import helpers
from tests.ops.cases import Draw
from tripy.backends.tensorrt import build
from tripy.backends.tensorrt.distribution import Distribution, installed

ROOT = Path(__file__).resolve().parents[2]
RTX = installed("tensorrt_rtx")
needs_rtx = pytest.mark.skipif(
    isinstance(RTX, str), reason=f"tensorrt_rtx is {RTX}: pip install tensorrt-rtx-cu13"
)
TARGETS = ("sm_75", "sm_89", "sm_120")


class SeededDraw(Draw):
    """Random choices from a seed: building an engine is too slow for hypothesis' many examples."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def choice(self, items: Sequence[Any]) -> Any:
        return items[self.integer(0, len(items) - 1)]

    def flag(self) -> bool:
        return bool(self.integer(0, 1))


def compile_for(function: Callable, tensors: Sequence[tp.Tensor], dynamic: bool, **options: Any):
    """A function compiled ahead of time for tensors of these shapes, or of a range around them."""
    options.setdefault("target", "sm_89")
    return helpers.compile_for(function, tensors, dynamic, backend="tensorrt", **options)


def drafted(executable: tp.Executable, targets: Sequence[str] = ("sm_89",)) -> build.Draft:
    """The network of a compiled function, written once more."""
    assert isinstance(RTX, Distribution)
    return build.draft(RTX, executable.graph, targets, 3)


def interpreted(executable: tp.Executable, tensors: Sequence[tp.Tensor], **sizes: int) -> list:
    """What the network computes by TensorRT's documentation, as torch tensors."""
    from tests.tensorrt import network_interpreter  # noqa: PLC0415  (It needs TensorRT.)

    made = drafted(executable)
    inputs = {name: t.torch() for name, t in zip(made.names.inputs, tensors)}
    for symbol, name in made.names.sizes.items():
        inputs[name] = torch.tensor([sizes[symbol]], dtype=torch.int64)
    results = network_interpreter.run(made.net.trt, made.net.raw, inputs)
    return [results[name] for name in made.names.outputs]


# What TensorRT cannot do, by what it says; docs/tensorrt.md lists the same.
REASONS = {
    "Sub-byte quantization with odd tensor volume": "int4 tensors of an odd number of elements",
    "no whole length": "resizing by scales that do not give whole lengths",
    "Constant has payload element type none": "int4 constants of two elements as results",
    "has no plugin layers": "plugins, of TensorRT-RTX",
    "no product of numbers that were quantized to": "float8 times int8 or int4",
    "pads less than the kernel's size": "pooling padded by the kernel's size or more",
}


def reason_it_cannot(message: str) -> str:
    """Which of the known limits a refusal comes from; "" for none."""
    return next((REASONS[text] for text in REASONS if text in message), "")
