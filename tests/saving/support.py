"""What tests of saved files share."""

from __future__ import annotations

import numpy as np

import tripy as tp
from tests.compiler.support import same


def info(*shape, dtype=tp.float32):
    return tp.InputInfo(shape, dtype)


def again(fast, folder, *arguments, **tolerance):
    """Save, load, and compare what both give."""
    path = folder / "function.tripy"
    fast.save(path)
    loaded = tp.Executable.load(path)
    same(loaded(*arguments), fast(*arguments), **tolerance)
    kinds = [
        [(p.name, p.kind) for p in f.__signature__.parameters.values()] for f in (loaded, fast)
    ]
    assert kinds[0] == kinds[1]
    assert str(loaded.input_infos) == str(fast.input_infos)
    return loaded


def model(quant_dtype=tp.int8, inner=6):
    rng = np.random.default_rng(1)
    layers = {"up": tp.Linear(inner, 8, quant_dtype=quant_dtype), "act": tp.gelu,
              "down": tp.Linear(8, 3, quant_dtype=quant_dtype, weight_quant_dim=0)}  # fmt: skip
    module = tp.Sequential(layers)
    for layer in (module.up, module.down):
        layer.weight = tp.Tensor(rng.normal(size=layer.weight.shape).astype(np.float32))
        layer.bias = tp.Tensor(rng.normal(size=layer.bias.shape).astype(np.float32))
        layer.weight_scale = 0.03 if layer.weight_quant_dim is None else [0.02, 0.03, 0.04]
        if quant_dtype is not tp.int4:
            layer.input_scale = 0.05
    return module
