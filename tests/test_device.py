"""Devices: parsing, defaults, and two of them in one operation."""

from __future__ import annotations

import pytest
import torch

import tripy as tp
from tests.helpers import raises, where


@pytest.mark.parametrize(
    ("text", "kind", "index"),
    [
        ("cpu", "cpu", 0),
        ("gpu", "gpu", 0),
        ("gpu:0", "gpu", 0),
        ("gpu:12", "gpu", 12),
        ("cpu:0", "cpu", 0),
    ],
)
def test_parsing(text, kind, index):
    device = tp.device(text)
    assert (device.kind, device.index) == (kind, index)
    assert str(device) == f"{kind}:{index}"
    assert device == tp.device(device)
    assert hash(device) == hash(tp.device(f"{kind}:{index}"))
    assert repr(device) == f'device("{kind}:{index}")'


@pytest.mark.parametrize(
    "text", ["cuda", "gpu:", "gpu:-1", "gpu:a", "", "GPU", "cpu:1:2", "gpu 0", "gpu:1.5", None, 0]
)
def test_what_is_no_device(text):
    with raises("device: not a device"):
        tp.device(text)


def test_devices_differ():
    assert tp.device("cpu") != tp.device("gpu")
    assert tp.device("gpu:0") != tp.device("gpu:1")
    assert tp.device("cpu") != "cpu"


def test_a_device_that_is_not_there_is_refused():
    missing = tp.device(f"gpu:{torch.cuda.device_count()}")
    with raises("The device is not there"):
        tp.Tensor([1.0], device=missing)
    with raises("The device is not there"):
        tp.copy(tp.ones((2,)), missing).eval()


def test_the_default_device(monkeypatch):
    assert tp.ones((2,)).device == tp.Tensor([1.0]).device == where()
    monkeypatch.setattr(tp.config, "default_device", tp.device("cpu"))
    assert tp.ones((2,)).device == tp.Tensor([1.0]).device == tp.device("cpu")


@pytest.mark.gpu
def test_two_devices_in_one_operation_are_refused():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    x, y = tp.Tensor([1.0], device=tp.device("cpu")), tp.Tensor([1.0], device=tp.device("gpu"))
    with raises("add: the inputs live on different devices") as caught:
        x + y
    assert "tp.copy" in str(caught.value)
    assert (tp.copy(x, tp.device("gpu")) + y).device == tp.device("gpu")
    assert (y + 1).device == (y + tp.DimensionSize(1)).device == tp.device("gpu")
    with raises("differ in data type or device"):
        tp.equal(x, y)


@pytest.mark.gpu
def test_arrays_stay_where_they_are():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    array = torch.ones(2, device="cuda")
    x = tp.Tensor(array)
    assert x.device == tp.device("gpu")
    assert x.torch().data_ptr() == array.data_ptr()
    assert tp.Tensor(array, device=tp.device("cpu")).device == tp.device("cpu")
    assert tp.Tensor(torch.ones(2)).device == tp.device("cpu")
    assert tp.ones_like(x).device == tp.device("gpu")
