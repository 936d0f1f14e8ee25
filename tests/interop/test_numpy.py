"""numpy's arrays, in and out; also with the data types that JAX adds to them."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.interop.support import (
    CPU,
    IN_NUMPY,
    POSITIVE,
    VALUES,
    VIEWS,
    address,
    sample,
    torch_values,
)


@pytest.mark.parametrize("dtype", IN_NUMPY, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_from_numpy(dtype, view):
    function, shared = VIEWS[view]
    array = VALUES.astype(IN_NUMPY[dtype])
    part = function(array)
    part = part if isinstance(part, np.ndarray) else array[1:2, 1].reshape(())
    x = tp.Tensor(part)
    assert (x.dtype, x.shape, x.device) == (dtype, part.shape, CPU)
    assert x.tolist() == part.tolist()
    if part.size:
        assert (address(x) == address(part)) == shared
        array[...] = array == 0
        assert (x.tolist() == part.tolist()) == shared


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("view", VIEWS)
def test_from_numpy_with_the_types_of_jax(ml_dtypes, name, view):
    function, shared = VIEWS[view]
    array = (VALUES * 1.5).astype(getattr(ml_dtypes, name))
    part = function(array)
    part = part if isinstance(part, np.ndarray) else array[1:2, 1].reshape(())
    x = tp.Tensor(part)
    assert x.dtype is {"bfloat16": tp.bfloat16, "float8_e4m3fn": tp.float8}[name]
    assert x.shape == part.shape
    assert x.tolist() == part.astype(np.float32).tolist()
    if part.size:
        assert (address(x) == address(part)) == shared


def test_numbers_of_the_types_of_jax(ml_dtypes):
    assert tp.Tensor(ml_dtypes.bfloat16(1.5)).shape == ()
    assert tp.Tensor(ml_dtypes.float8_e4m3fn(1.5)).tolist() == 1.5


@pytest.mark.parametrize("dtype", IN_NUMPY, ids=str)
@pytest.mark.parametrize("view", POSITIVE)
def test_to_numpy(dtype, view):
    x = tp.Tensor(VIEWS[view][0](torch_values(dtype)))
    for array in (np.from_dlpack(x), x.numpy(), np.asarray(x)):
        assert array.dtype == IN_NUMPY[dtype]
        assert array.tolist() == x.tolist()
        if array.size:
            assert array.strides == tuple(s * array.itemsize for s in x.torch().stride())
            assert address(array) == address(x)
    if view != "no rows":
        np.from_dlpack(x)[...] = 1
        assert np.all(x.numpy() == 1)


@pytest.mark.parametrize("dtype", [tp.bfloat16, tp.float8], ids=str)
def test_to_numpy_what_it_does_not_have(dtype):
    x = sample(dtype)
    assert x.numpy().dtype == np.float32
    assert np.asarray(x).tolist() == VALUES.tolist()
    with pytest.raises(ValueError, match="numpy cannot share the tensor's memory"):
        np.asarray(x, copy=False)


def test_conversions_by_numpy():
    x = sample(tp.float32)
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert address(np.array(x, copy=True)) != address(x)
    assert address(np.asarray(x, copy=False)) == address(x)
    assert address(np.from_dlpack(x, copy=True)) != address(x)
    with pytest.raises(ValueError, match="cannot share"):
        np.asarray(x, dtype=np.float64, copy=False)


@pytest.mark.parametrize("name", ["float32", "int64", "bfloat16"])
def test_read_only_memory_is_copied(ml_dtypes, name):
    array = VALUES.astype(getattr(ml_dtypes, name, name))
    array.flags.writeable = False
    x = tp.Tensor(array)
    x.torch()[0, 0] = 1
    assert (float(array[0, 0]), x.tolist()[0][0]) == (0, 1)


def test_layouts_that_torch_does_not_have_are_copied():
    records = np.zeros(3, dtype=[("value", "<f4"), ("mark", "i1")])
    records["value"] = [1, 2, 3]
    assert tp.Tensor(records["value"]).tolist() == [1.0, 2.0, 3.0]
    unaligned = np.frombuffer(b"\0" + np.float32([1, 2]).tobytes(), np.uint8)[1:].view(np.float32)
    assert tp.Tensor(unaligned).tolist() == [1.0, 2.0]
    repeated = np.broadcast_to(np.float32([1, 2]), (3, 2))
    assert tp.Tensor(repeated).tolist() == [[1.0, 2.0]] * 3
    assert tp.Tensor(np.arange(3, dtype=">i4")).tolist() == [0, 1, 2]
