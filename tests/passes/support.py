"""What tests of rewrites share: building blocks written with operations, and graphs to look at."""

from __future__ import annotations

from typing import Any

import numpy as np

import tripy as tp

# Half the distance between neighbours of 1: how far one operation rounds.
UNIT = {tp.float32: 2.0**-24, tp.float16: 2.0**-11, tp.bfloat16: 2.0**-8}
RANGE = {tp.int8: 127, tp.int4: 7, tp.float8: 448}


def operations(fast: tp.Executable) -> list[str]:
    """The operations of a compiled function, in order."""
    return [node.op for node in fast.graph.nodes()]


def node(fast: tp.Executable, op: str) -> Any:
    """The one node of an operation."""
    (found,) = [n for n in fast.graph.nodes() if n.op == op]
    return found


def random(rng: np.random.Generator, *shape: int, dtype: Any = tp.float32) -> tp.Tensor:
    values = rng.normal(size=shape).astype(np.float32)
    return tp.cast(tp.Tensor(values), dtype).eval()


def info(*shape: Any, dtype: Any = tp.float32) -> tp.InputInfo:
    return tp.InputInfo(shape, dtype)


def quantized(x: tp.Tensor, scale: Any, kind: Any = tp.int8, dim: Any = None) -> tp.Tensor:
    """``dequantize(quantize(x))``."""
    return tp.dequantize(tp.quantize(x, scale, kind, dim), scale, x.dtype, dim)


def linear(rng: np.random.Generator, **options: Any) -> tp.Linear:
    """A quantized Linear(6, 4) with random values; ``input_scale`` may be among the options."""
    input_scale = options.pop("input_scale", 0.05)
    layer = tp.Linear(6, 4, **{"quant_dtype": tp.int8, "weight_quant_dim": 0, **options})
    layer.weight = random(rng, 4, 6, dtype=layer.dtype)
    if layer.bias is not None:
        layer.bias = random(rng, 4, dtype=layer.dtype)
    layer.weight_scale = [0.03, 0.02, 0.05, 0.01] if layer.weight_quant_dim == 0 else 0.03
    layer.input_scale = input_scale
    return layer
