"""Networks over which TensorRT-RTX 1.7 fails or crashes, found by tests/tensorrt/fuzz.py.

They are said in another way that means the same.
"""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import randn, tensor
from tests.tensorrt.support import interpreted, needs_rtx
from tests.tensorrt.test_equivalents import BATCH, assert_near, attention, compiled

pytestmark = needs_rtx


@pytest.mark.parametrize("shape", [(8,), (6, 5), (4, 2, 7, 3), (BATCH, 3, 2)], ids=str)
@pytest.mark.parametrize("dim", [None, -1])
def test_int4_beside_a_softmax(shape, dim, rng):
    """Fused with one, it would give each thread an odd number of elements, which fails to build."""
    scale = 0.5 if dim is None else [0.25 * (i + 1) for i in range(shape[-1])]

    def function(x):
        x = tp.gelu(x)
        return tp.softmax(x, 0), tp.quantize(x, scale, tp.int4, dim)

    engine = compiled(function, tp.InputInfo(shape, tp.float32))
    x = randn(rng, [4 if size is BATCH else size for size in shape])
    got, expected = interpreted(engine, [x]), function(x)
    assert_near(got[0], expected[0], tp.float32)
    np.testing.assert_array_equal(got[1].numpy(), expected[1].numpy())


@pytest.mark.parametrize(
    ("source", "target"), [("int4", "int8"), ("int4", "float8"), ("int8", "float8")]
)
@pytest.mark.parametrize("dim", [0, 1])
def test_channels_quantized_to_another_type(source, target, dim, rng):
    """Two layers that are next to each other would become one, of a wrong type."""
    scale = [0.5 + 0.25 * i for i in range((4, 6)[dim])]

    def function(q):
        wide = tp.dequantize(q, scale, tp.float32, dim)
        return tp.quantize(wide, scale, getattr(tp, target), dim)

    q = tp.cast(randn(rng, (4, 6)), getattr(tp, source)).eval()
    engine = compiled(function, tp.InputInfo((4, 6), getattr(tp, source)))
    (got,) = interpreted(engine, [q])
    np.testing.assert_array_equal(got.float().numpy(), function(q).torch().float().numpy())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotary_embeddings_beside_a_growing_cache(axis, rng):
    """TensorRT's layer for pairs of neighbours does not build where sizes add up elsewhere."""
    cos, sin = (tensor(rng.normal(size=(1, 2)), tp.float32) for _ in range(2))

    def function(x, cache):
        return tp.rotary_embedding(x, cos, sin, True), tp.concatenate([cache, x], axis)

    sizes = [[5, 5, 5, 4], [5, 5, 5, 4]]
    sizes[0][axis], sizes[1][axis] = BATCH, (1, 2, 8)
    engine = compiled(function, *(tp.InputInfo(size, tp.float32) for size in sizes))
    shapes = [[5, 5, 5, 4], [5, 5, 5, 4]]
    shapes[0][axis], shapes[1][axis] = 3, 2
    tensors = [randn(rng, shape) for shape in shapes]
    for got, expected in zip(interpreted(engine, tensors), function(*tensors), strict=True):
        assert_near(got, expected, tp.float32)


@pytest.mark.parametrize(
    "choice",
    [
        lambda x, y: (y, y),
        lambda x, y: (tp.exp(x), tp.exp(x)),
        lambda x, y: (x + 1.0, x + 1.0),
        lambda x, y: (tp.topk(x, 2, 0)[0][:1], tp.topk(x, 2, 0)[0][:1]),
        lambda x, y: (tp.exp(x), tp.log(x)),
        lambda x, y: (x + 1.0, x + 2.0),
        lambda x, y: (x[:2], x[2:]),
        lambda x, y: (tp.split(x, 4)[0], tp.split(x, 4)[1]),
    ],
)
def test_a_choice_between_equals(choice, rng):
    """The builder ends the process over one whose condition is reshaped; others stay choices."""

    def function(x, y):
        (a, b), condition = choice(x, y), tp.reshape(x > 0, (2, 2, 1))
        return tp.where(condition, tp.reshape(a, (-1,))[:1], tp.reshape(b, (-1,))[:1])

    tensors = [randn(rng, (4,)), randn(rng, ())]
    infos = [tp.InputInfo((4,), tp.float32), tp.InputInfo((), tp.float32)]
    (got,) = interpreted(compiled(function, *infos), tensors)
    assert_near(got, function(*tensors), tp.float32)


@pytest.mark.parametrize("dtype", [tp.float32, tp.float16], ids=str)
@pytest.mark.parametrize("scale", [None, 0.25, 1.0])
def test_several_attentions_of_one_query(dtype, scale, rng):
    """The builder ends the process over several layers that read one scaled query."""

    def function(query, key, value):
        return [
            tp.scaled_dot_product_attention(query, *other, scale=scale)
            for other in ((key, value), (value, value), (query, query), (key, key))
        ]

    tensors, infos = attention(rng, dtype, 8)
    tensors[0], infos[0] = tensors[0][:, :2], tp.InputInfo((BATCH, 2, 2, 8), dtype)
    results = interpreted(compiled(function, *infos, target="sm_89"), tensors)
    for got, expected in zip(results, function(*tensors), strict=True):
        assert_near(got, expected, dtype)
