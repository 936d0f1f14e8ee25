"""torch's tensors, in and out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tripy as tp
from tests.helpers import raises
from tests.interop.support import IN_DLPACK, POSITIVE, VIEWS, address, torch_values


@pytest.mark.parametrize("dtype", IN_DLPACK, ids=str)
@pytest.mark.parametrize("view", POSITIVE)
def test_torch_both_ways(dtype, view):
    whole = torch_values(dtype)
    array = VIEWS[view][0](whole)
    x = tp.Tensor(array)
    assert (x.dtype, x.shape) == (dtype, tuple(array.shape))
    for back in (torch.from_dlpack(x), torch.utils.dlpack.from_dlpack(x.__dlpack__()), x.torch()):
        assert (back.dtype, back.shape, back.stride()) == (array.dtype, x.shape, array.stride())
        assert back.data_ptr() == array.data_ptr() == address(x)
    if array.numel():
        whole.fill_(1)
        assert bool((x.torch().float() == 1).all())
        torch.from_dlpack(x).fill_(0)
        assert not whole.float().all()


def test_tensors_that_need_gradients():
    array = torch.ones(2, 3, requires_grad=True)
    x = tp.Tensor(array * 2)
    assert not x.torch().requires_grad
    assert x.tolist() == [[2.0] * 3] * 2
    assert address(tp.Tensor(array)) == array.data_ptr()
    assert torch.from_dlpack(tp.Tensor(torch.nn.Parameter(array))).requires_grad is False


def test_an_expanded_tensor_gets_memory_for_each_element():
    x = tp.Tensor(torch.ones(1, 3).expand(2, 3))
    torch.from_dlpack(x)[0] = 5
    assert x.tolist() == [[5.0] * 3, [1.0] * 3]


def test_a_view_whose_sign_is_still_to_be_changed():
    """torch exports its memory as it is; only the copy has the right sign."""
    array = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert array.is_neg()
    x = tp.Tensor(array)
    assert x.tolist() == np.from_dlpack(x).tolist() == x.numpy().tolist() == [-2.0, 4.0]


def test_tensors_without_memory_are_refused():
    with raises(r"data is not an array[\s\S]*got: +a torch tensor on meta", "tp.Tensor(torch.ones"):
        tp.Tensor(torch.ones(2, device="meta"))
