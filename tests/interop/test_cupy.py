"""CuPy's arrays, in and out: on a GPU only."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import raises
from tests.interop.support import CPU, IN_NUMPY, POSITIVE, VALUES, VIEWS, address, torch_values


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", IN_NUMPY, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_from_cupy(cupy, dtype, view):
    function, shared = VIEWS[view]
    array = cupy.asarray(VALUES.astype(IN_NUMPY[dtype]))
    part = function(array)
    x = tp.Tensor(part)
    assert (x.dtype, x.shape, x.device) == (dtype, part.shape, tp.device("gpu"))
    assert x.tolist() == part.get().tolist()
    if part.size:
        assert (address(x) == address(part)) == shared
        array[...] = array == 0
        cupy.cuda.get_current_stream().synchronize()
        assert (x.torch().tolist() == part.get().tolist()) == shared


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", IN_NUMPY, ids=str)
@pytest.mark.parametrize("view", POSITIVE)
def test_to_cupy(cupy, dtype, view):
    x = tp.Tensor(VIEWS[view][0](torch_values(dtype).cuda()))
    array = cupy.from_dlpack(x)
    assert (array.dtype, array.shape) == (IN_NUMPY[dtype], x.shape)
    assert array.get().tolist() == x.tolist()
    if array.size:
        assert address(array) == address(x)
        array[...] = 1
        cupy.cuda.get_current_stream().synchronize()
        assert bool((x.torch() == 1).all())


@pytest.mark.gpu
def test_cupy_in_streams_of_its_own(cupy):
    """What another stream has still to compute is waited for, both ways."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        array = cupy.ones((2048, 2048), dtype=cupy.float32)
        for _ in range(20):
            array = array @ array / 2048
        x = tp.Tensor(array + 1)
    assert bool((x.torch() == 2).all())
    y = x * 3.0
    with stream:
        assert float(cupy.from_dlpack(y).max()) == 6.0


@pytest.mark.gpu
def test_cupy_and_the_processor(cupy):
    array = cupy.arange(3, dtype=cupy.int32)
    assert tp.Tensor(array, device=CPU).device == CPU
    x = tp.Tensor(array)
    assert tuple(x.__dlpack_device__()) == (2, 0)
    assert x.numpy().tolist() == [0, 1, 2]
    assert np.from_dlpack(x, device="cpu").tolist() == [0, 1, 2]
    with raises("does not have the array's data type", "tp.Tensor(cupy.ones(2))"):
        tp.Tensor(cupy.ones(2))
    assert tp.Tensor(cupy.ones(2), dtype=tp.float16).tolist() == [1.0, 1.0]


@pytest.mark.gpu
def test_bfloat16_of_cupy(cupy, ml_dtypes):
    try:
        array = cupy.asarray(VALUES).astype(ml_dtypes.bfloat16)
        array.__dlpack__()
    except (TypeError, ValueError, BufferError, NotImplementedError):
        pytest.skip("this CuPy has no bfloat16, or cannot share it")
    x = tp.Tensor(array)
    assert x.dtype is tp.bfloat16
    assert address(x) == address(array)
    assert x.tolist() == VALUES.tolist()
