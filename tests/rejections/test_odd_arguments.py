"""Any argument of any function replaced by something odd: accepted, or refused with a message.

What is refused is in the other files; here nothing may end in an exception of Python's, torch's or
numpy's, and every message has its parts.
"""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.ops import cases  # noqa: F401  (It registers the plugin that is called here.)
from tests.rejections.support import PACKAGE
from tripy import nn, ops

X = tp.ones((2, 3)).eval()
V, B = tp.ones((3,)).eval(), tp.ones((2, 3), dtype=tp.bool).eval()
IMAGE, CACHE = tp.ones((1, 2, 4, 4)).eval(), tp.ones((1, 1, 4, 2)).eval()
POOL = {"input": IMAGE, "kernel_dims": (2, 2), "stride": (1, 1), "padding": [(0, 0), (0, 0)]}
REDUCE = {"input": X, "dim": 0, "keepdim": False}
SCALED = {"scale": 1.0, "dim": None}
CONV = {
    "in_channels": 2, "out_channels": 2, "kernel_dims": (3,), "stride": (1,), "padding": [(0, 0)],
    "dilation": (1,), "groups": 1, "bias": True, "dtype": tp.float32, "quant_dtype": None,
    "weight_quant_dim": None,
}  # fmt: skip
# A call that is accepted, for each function and class.
CALLS = {
    "allclose": {"input": X, "other": X, "rtol": 1e-5, "atol": 1e-8},
    "arange": {"start": 0, "stop": 3, "step": 1, "dtype": tp.float32},
    "avgpool": {**POOL, "count_include_pad": True}, "maxpool": POOL,
    "cast": {"input": X, "dtype": tp.int32},
    "concatenate": {"tensors": [X, X], "dim": 0}, "stack": {"tensors": [X, X], "dim": 0},
    "copy": {"input": X, "device": tp.device("cpu")},
    "dequantize": {"input": tp.cast(X, tp.int8), "dtype": tp.float32, **SCALED},
    "quantize": {"input": X, "dtype": tp.int8, **SCALED},
    "dynamic_quantize": {"input": X, "dtype": tp.int8, "dim": None},
    "equal": {"input": X, "other": X}, "expand": {"input": X, "sizes": (2, 3)},
    "flatten": {"input": X, "start_dim": 0, "end_dim": -1}, "flip": {"input": X, "dim": 0},
    "full": {"shape": (2,), "value": 1, "dtype": tp.float32},
    "full_like": {"input": X, "value": 1, "dtype": tp.float32},
    "gather": {"input": X, "dim": 0, "index": tp.Tensor([0, 1])},
    "gelu": {"input": X, "approximate": "none"},
    "iota": {"shape": (2,), "dim": 0, "dtype": tp.float32},
    "iota_like": {"input": X, "dim": 0, "dtype": tp.float32},
    "kv_cache_update": {"cache": CACHE, "update": CACHE, "write_indices": tp.Tensor([0])},
    "masked_fill": {"input": X, "mask": B, "value": 1.0},
    "where": {"condition": B, "input": X, "other": X},
    "outer": {"vec1": V, "vec2": V},
    "pad": {"input": X, "pad": [(0, 1), (1, 0)], "mode": "constant", "value": 0},
    "plugin": {"name": "cases::rows", "inputs": [X, X], "copies": 2},
    "permute": {"input": X, "perm": (1, 0)}, "transpose": {"input": X, "dim0": 0, "dim1": 1},
    "repeat": {"input": X, "repeats": 2, "dim": 0}, "reshape": {"input": X, "shape": (3, 2)},
    "resize": {"input": X, "output_shape": (4, 6), "mode": "linear", "align_corners": False},
    "rotary_embedding": {"input": CACHE, "cos": CACHE[..., :1], "sin": CACHE[..., :1],
                         "interleaved": False},
    "scaled_dot_product_attention": {"query": CACHE, "key": CACHE, "value": CACHE, "mask": None,
                                     "is_causal": False, "scale": None},
    "split": {"input": X, "num_split_or_sizes": 2, "dim": 0},
    "squeeze": {"input": tp.ones((1, 2)), "dims": 0}, "unsqueeze": {"input": X, "dim": 0},
    "softmax": {"input": X, "dim": 0}, "cumsum": {"input": X, "dim": 0},
    "topk": {"input": X, "k": 1, "dim": 0}, "var": {**REDUCE, "correction": 1},
    **{name: {**REDUCE, "input": B} for name in ("all", "any")},
    **dict.fromkeys(("argmax", "argmin", "max", "mean", "min", "prod", "sum"), REDUCE),
    **{name: {"lhs": X, "rhs": X} for name in ("maximum", "minimum")},
    **{name: {"shape": (2,), "dtype": tp.float32} for name in ("ones", "zeros")},
    **{name: {"input": X, "dtype": tp.float32} for name in ("ones_like", "zeros_like")},
    **{name: {"tensor": X, "diagonal": 0} for name in ("tril", "triu")},
    **{name: {"input": X} for name in (
        "cos", "exp", "log", "relu", "rsqrt", "sigmoid", "silu", "sin", "sqrt", "tanh")},
    "BatchNorm": {"num_features": 2, "dtype": tp.float32, "eps": 1e-5},
    "Conv": CONV, "ConvTranspose": CONV,
    "Embedding": {"num_embeddings": 2, "embedding_dim": 2, "dtype": tp.float32},
    "GroupNorm": {"num_groups": 1, "num_channels": 2, "dtype": tp.float32, "eps": 1e-5},
    "InstanceNorm": {"num_channels": 2, "dtype": tp.float32, "eps": 1e-5},
    "LayerNorm": {"normalized_shape": 2, "dtype": tp.float32, "eps": 1e-5},
    "RMSNorm": {"normalized_shape": 2, "dtype": tp.float32, "eps": 1e-5},
    "Linear": {"in_features": 2, "out_features": 2, "bias": True, "dtype": tp.float32,
               "quant_dtype": None, "weight_quant_dim": None},
    "Parameter": {"data": [1.0], "dtype": tp.float32, "device": tp.device("cpu")},
    "Tensor": {"data": [1.0], "dtype": tp.float32, "device": tp.device("cpu")},
    "DimensionSize": {"data": 3}, "device": {"text": "cpu"}, "Stream": {"priority": 0},
    "default_stream": {"device": tp.device("cpu")},
    "InputInfo": {"shape": (2,), "dtype": tp.float32},
    "NamedDimension": {"name": "n", "min": 1, "opt": 1, "max": 1},
    "DimensionInputInfo": {"value_bounds": (1, 1, 1)},
}  # fmt: skip
# No sizes here that would be accepted, and then be too much for the memory.
ODD = [
    None, "text", b"bytes", object(), 1.5, -9, 0, 2**70, 1j, True, float("nan"), [], [1.5], ["a"],
    [[1], [2]], {}, {1}, float, len, tp.floating, tp.float8, tp.ones((2, 3)), tp.Tensor(1.0),
    tp.DimensionSize(2), np.ones(2), np.array(1), tp.InputInfo((2,), tp.float32), "gpu:99",
]  # fmt: skip
CASES = [(name, argument) for name, call in CALLS.items() for argument in call]


def test_no_function_is_missing():
    assert set(ops.__all__) | set(nn.__all__) <= set(CALLS) | {"Module", "Sequential"}


@pytest.mark.parametrize(("name", "argument"), CASES, ids=str)
def test_odd_arguments(name, argument):
    function, call = getattr(tp, name), CALLS[name]
    function(**call)
    refused = 0
    for value in ODD:
        try:
            result = function(**{**call, argument: value})
            for part in result if isinstance(result, tuple) else (result,):
                if type(part) is tp.Tensor:
                    part.eval()
        except tp.TripyException as error:
            text, refused = str(error), refused + 1
            assert "\n  got: " in text and "\n  expected: " in text, text
            assert "result = function(**{**call, argument: value})" in text, text
            assert PACKAGE not in text, text
    assert refused
