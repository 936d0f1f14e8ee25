"""tp.Linear without quantization."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tripy as tp
from tests.helpers import F, plain, tensor
from tests.nn.support import product_bound, refused


@given(
    seed=st.integers(0, 99),
    dtype=st.sampled_from(F),
    batch=st.sampled_from([(), (3,), (2, 1, 4)]),
    bias=st.booleans(),
)
def test_is_the_product_and_the_bias(seed, dtype, batch, bias):
    random = np.random.default_rng(seed)
    inner, out = map(int, random.integers(1, 40, 2))
    x = tensor(random.standard_normal((*batch, inner)), dtype)
    linear = tp.Linear(inner, out, bias, dtype)
    linear.weight = tensor(random.standard_normal((out, inner)), dtype)
    expected = plain(x) @ plain(linear.weight).T
    bound = product_bound(plain(x), plain(linear.weight).T, dtype)
    if bias:
        linear.bias = tensor(random.standard_normal(out), dtype)
        expected = expected + plain(linear.bias)
        bound = bound + np.abs(expected) * 2.0**-8  # One rounding more, of the sum.
    result = linear(x)
    assert result.dtype is dtype and result.shape == (*batch, out)
    assert np.all(np.abs(plain(result) - expected) <= bound)
    compiled = tp.compile(linear, args=[tp.InputInfo((*batch, inner), dtype)])
    assert np.all(np.abs(plain(compiled(x)) - expected) <= bound)


def test_parameters():
    linear = tp.Linear(20, 30)
    assert linear.weight.shape == (30, 20) and linear.bias.shape == (30,)
    assert (linear.in_features, linear.out_features, linear.dtype) == (20, 30, tp.float32)
    assert linear.quant_dtype is None and linear.weight_quant_dim is None
    assert tp.Linear(20, 30, bias=False).bias is None
    assert list(linear.state_dict()) == ["weight", "bias"]
    assert not hasattr(linear, "weight_scale")


@pytest.mark.parametrize("shape", [(2, 3), (), (4,), (0, 3)])
def test_a_wrong_last_dimension(shape):
    linear = tp.Linear(2, 5)
    linear.initialize_dummy_parameters()
    x = tp.ones(shape)
    with refused("Linear", str(shape), "the last dimension is 2", "x = tp.ones(shape)"):
        linear(x)


def test_a_wrong_last_dimension_while_compiling():
    linear = tp.Linear(2, 5)
    linear.initialize_dummy_parameters()
    wrong, unknown = tp.InputInfo((4, 3), tp.float32), tp.InputInfo(((1, 2, 4),), tp.float32)
    with refused("Linear", "the last dimension is 2"):
        tp.compile(linear, args=[wrong])
    compiled = tp.compile(linear, args=[unknown])
    assert compiled(tp.ones((2,)).eval()).tolist() == [3.0] * 5
    x = tp.ones((3,)).eval()
    with refused("summed dimensions", line="tp.compile(linear"):
        compiled(x)


def test_a_wrong_data_type():
    linear = tp.Linear(2, 5)
    linear.initialize_dummy_parameters()
    x = tp.ones((1, 2), dtype=tp.float16)
    with refused("Linear: the input's data type", "float16[1, 2]", "float32", "tp.cast"):
        linear(x)
    with refused("Linear", "not a tensor"):
        linear(np.ones((1, 2), np.float32))


def test_arguments_that_are_refused():
    with refused("Linear", "in_features=0"):
        tp.Linear(0, 2)
    with refused("Linear", "out_features", "2.5"):
        tp.Linear(2, 2.5)
    with refused("Linear", "dtype=int8"):
        tp.Linear(2, 2, dtype=tp.int8)
    with refused("Linear", "dtype=int32", "tp.int4"):
        tp.Linear(2, 2, quant_dtype=tp.int32)
    with refused("Linear", "weight_quant_dim=2", "None, 0, 1"):
        tp.Linear(2, 2, quant_dtype=tp.int8, weight_quant_dim=2)
    with refused("Linear", "bias=1"):
        tp.Linear(2, 2, bias=1)
