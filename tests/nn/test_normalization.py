"""The normalization layers against PyTorch, in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import tripy as tp
from tests.helpers import F, plain, tensor
from tests.nn.support import refused

SEEDS, FLOATS = st.integers(0, 99), st.sampled_from(F)
# Results are of order 1 to 10 (see `_case`): a few roundings of such values.
TOLERANCE = {tp.float32: 1e-5, tp.float16: 2e-2, tp.bfloat16: 2e-1}
EPS = 1e-3


def _case(seed, shape, dtype):
    random = np.random.default_rng(seed)
    return tensor(random.standard_normal(shape), dtype)


def _double(tensor):
    return torch.from_numpy(plain(tensor))


def _check(layer, x, reference):
    """Eager against the reference on the same, already rounded, values; compiled like eager."""
    for index, (name, parameter) in enumerate(list(layer.named_parameters())):
        value = _case(index, parameter.shape, layer.dtype)
        if name == "running_var":
            value = abs(value) + 0.5
        setattr(layer, name, value)
    parameters = {name: _double(p) for name, p in layer.named_parameters()}
    result = layer(x)
    assert result.dtype is layer.dtype and result.shape == x.shape
    tolerance = TOLERANCE[layer.dtype]
    expected = reference(_double(x), **parameters)
    torch.testing.assert_close(_double(result), expected, rtol=tolerance, atol=tolerance)
    sizes = [(1, size, size + 2) for size in x.shape[:1]] + list(x.shape[1:])
    compiled = tp.compile(layer, args=[tp.InputInfo(sizes, layer.dtype)])
    torch.testing.assert_close(_double(compiled(x)), expected, rtol=tolerance, atol=tolerance)


@given(
    st.integers(0, 99), FLOATS, st.sampled_from([(4, 8), (3, 2, 7), (2, 3, 4, 5)]), st.booleans()
)
def test_layer_norm_and_rms_norm(seed, dtype, shape, two):
    x = _case(seed, shape, dtype)
    normalized = shape[-2:] if two else shape[-1]
    sizes = shape[-2:] if two else shape[-1:]
    if len(shape) > len(sizes):
        layer = tp.LayerNorm(normalized, dtype, EPS)
        _check(layer, x, lambda x, weight, bias: functional.layer_norm(x, sizes, weight, bias, EPS))
        layer = tp.RMSNorm(normalized, dtype, EPS)
        _check(layer, x, lambda x, weight: functional.rms_norm(x, sizes, weight, EPS))


@given(
    st.integers(0, 99),
    FLOATS,
    st.sampled_from([1, 2, 3]),
    st.sampled_from([(9,), (4, 5), (2, 3, 4)]),
)
def test_group_norm_and_instance_norm(seed, dtype, groups, spatial):
    x = _case(seed, (2, 2 * groups, *spatial), dtype)
    layer = tp.GroupNorm(groups, 2 * groups, dtype, EPS)
    _check(layer, x, lambda x, weight, bias: functional.group_norm(x, groups, weight, bias, EPS))
    layer = tp.InstanceNorm(2 * groups, dtype, EPS)
    _check(
        layer,
        x,
        lambda x, weight, bias: functional.instance_norm(x, None, None, weight, bias, eps=EPS),
    )


@given(SEEDS, FLOATS, st.sampled_from([(), (9,), (4, 5), (2, 3, 4)]))
def test_batch_norm(seed, dtype, spatial):
    def reference(x, weight, bias, running_mean, running_var):
        return functional.batch_norm(x, running_mean, running_var, weight, bias, eps=EPS)

    _check(tp.BatchNorm(3, dtype, EPS), _case(seed, (2, 3, *spatial), dtype), reference)


def test_large_float16_values_do_not_overflow():
    x = tensor([[[30000.0, -30000.0]]], tp.float16)
    layer = tp.GroupNorm(1, 1, tp.float16)
    layer.initialize_dummy_parameters()
    assert layer(x).tolist() == [[[2.0, 0.0]]]


def test_parameters():
    assert list(tp.LayerNorm((2, 3)).state_dict()) == ["weight", "bias"]
    assert tp.LayerNorm((2, 3)).weight.shape == (2, 3)
    assert list(tp.RMSNorm(3).state_dict()) == ["weight"]
    names = ["weight", "bias", "running_mean", "running_var"]
    assert list(tp.BatchNorm(3).state_dict()) == names


@pytest.mark.parametrize(
    ("make", "shape", "text"),
    [
        (lambda: tp.LayerNorm(4), (2, 3), "the last dimensions"),
        (lambda: tp.LayerNorm((3, 4)), (4,), "[..., 3, 4]"),
        (lambda: tp.RMSNorm(4), (), "[..., 4]"),
        (lambda: tp.GroupNorm(2, 4), (2, 3, 5), "4 channels"),
        (lambda: tp.GroupNorm(2, 4), (2, 4), "rank 3 or more"),
        (lambda: tp.InstanceNorm(4), (2, 4), "rank 3 or more"),
        (lambda: tp.BatchNorm(4), (4,), "rank 2 or more"),
    ],
)
def test_inputs_that_do_not_fit(make, shape, text):
    layer = make()
    layer.initialize_dummy_parameters()
    name, x, wrong = type(layer).__name__, tp.ones(shape), tp.ones(shape, dtype=tp.float16)
    with refused(f"{name}: the input's shape", str(shape), text):
        layer(x)
    with refused(f"{name}: the input's data type", "float16", "tp.cast"):
        layer(wrong)
    with refused(name, "not a tensor"):
        layer(3)


def test_arguments_that_are_refused():
    with refused("LayerNorm", "normalized_shape=0"):
        tp.LayerNorm(0)
    with refused("LayerNorm", "empty"):
        tp.LayerNorm(())
    with refused("LayerNorm", "normalized_shape"):
        tp.LayerNorm("four")
    with refused("RMSNorm", "eps=-1.0"):
        tp.RMSNorm(4, eps=-1.0)
    with refused("GroupNorm", "num_channels=4, num_groups=3"):
        tp.GroupNorm(3, 4)
    with refused("BatchNorm", "dtype=float8"):
        tp.BatchNorm(4, tp.float8)
