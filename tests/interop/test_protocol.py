"""DLPack itself: its versions, its arguments, what cannot be shared, who frees the memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tripy as tp
from tests.helpers import raises
from tests.interop.support import CPU, VALUES, address, sample


class Foreign:
    """An object that can do nothing but DLPack, of a version from before keywords or after."""

    def __init__(self, array, old=False):
        self.array, self.old, self.asked = array, old, []

    def __dlpack__(self, **kwargs):
        self.asked.append(kwargs)
        if self.old and set(kwargs) - {"stream"}:
            raise TypeError("__dlpack__() got an unexpected keyword argument")
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("old", [False, True])
def test_producers_of_either_version(old):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = tp.Tensor(Foreign(array.T, old))
    assert address(x) == address(array)
    assert x.tolist() == array.T.tolist()


def test_negative_strides_are_copied():
    """torch would end the process over them."""
    array = np.arange(6, dtype=np.int32)[::-2]
    x = tp.Tensor(Foreign(array))
    assert x.tolist() == [5, 3, 1]
    assert address(x) != address(array)
    with raises("data is not an array", "tp.Tensor(Foreign(array, old=True))"):
        tp.Tensor(Foreign(array, old=True))  # It cannot be asked for a copy.


class Wrapping:
    """An array whose negative strides are large positive ones when they are exported: CuPy 14's."""

    def __init__(self, array):
        self.array, self.strides = array, array.strides

    def copy(self):
        return self.array.copy()

    def __dlpack__(self, **kwargs):
        raise AssertionError("torch would end the process over what is exported here")


def test_negative_strides_that_do_not_show():
    assert tp.Tensor(Wrapping(np.arange(6, dtype=np.int32)[::-2])).tolist() == [5, 3, 1]


def test_consumers_of_either_version():
    x = sample(tp.float32)
    assert tuple(x.__dlpack_device__()) == (1, 0)
    for version in (None, (0, 8)):
        assert '"dltensor"' in repr(x.__dlpack__(max_version=version))
    for version in ((1, 0), (1, 3)):
        assert '"dltensor_versioned"' in repr(x.__dlpack__(max_version=version))
    assert '"dltensor"' in repr(x.__dlpack__(stream=None, dl_device=(1, 0)))
    shared = torch.utils.dlpack.from_dlpack(x.__dlpack__(copy=False))
    copied = torch.utils.dlpack.from_dlpack(x.__dlpack__(copy=True))
    assert address(shared) == address(x) != address(copied)


@pytest.mark.parametrize(
    "arguments", [{"stream": 1}, {"stream": "now"}, {"dl_device": (10, 0)}, {"unknown": 1}], ids=str
)
def test_what_cannot_be_exported(arguments):
    """BufferError is what the protocol has for it."""
    x = sample(tp.float32)
    with raises("cannot be exported in this way", "x.__dlpack__(**arguments)") as caught:
        x.__dlpack__(**arguments)
    assert isinstance(caught.value, BufferError)
    with pytest.raises(BufferError, match="int4 has no DLPack form"):
        sample(tp.int4).__dlpack__()


def test_memory_outlives_its_owner():
    x = tp.Tensor(np.arange(100_000, dtype=np.int32))
    array = torch.from_dlpack(x)
    numbers = np.from_dlpack(tp.Tensor(torch.arange(100_000)))
    del x
    assert array.sum() == numbers.sum() == 4_999_950_000


def test_a_compiled_function_takes_arrays_of_others(jax):
    fast = tp.compile(lambda x: x * 2.0, args=[tp.InputInfo((3, 4), tp.float32)], device=CPU)
    expected = (VALUES * 2.0).tolist()
    array = VALUES.astype(np.float32)
    for given in (array, torch.from_numpy(array), jax.numpy.asarray(array), Foreign(array)):
        assert jax.dlpack.from_dlpack(fast(tp.Tensor(given))).tolist() == expected
        assert np.from_dlpack(fast(tp.Tensor(given))).tolist() == expected
