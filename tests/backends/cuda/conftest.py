"""Kernels for GPUs: on a GPU where there is one, else through Triton's interpreter on the CPU."""

import os

import pytest
import torch

import tripy as tp
from tripy.backends.torch.kernels.cuda import available

GPU = torch.cuda.is_available()
if not GPU:  # Read when a kernel is defined, that is, before its file is imported.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def device() -> torch.device:
    """Where kernels run in this test: CUDA, or the CPU under the interpreter."""
    return torch.device("cuda" if GPU else "cpu")


@pytest.fixture
def gpu() -> torch.device:
    """A GPU; the test is skipped where there is none."""
    if not GPU:
        pytest.skip("needs an NVIDIA GPU")
    return torch.device("cuda")


@pytest.fixture
def emulated(monkeypatch, device):
    """Programs as on a GPU: on one where there is one, else by the interpreter on the CPU.

    New tensors live there; arrays of numpy stay on the CPU unless ``device=`` is given.
    """
    where = tp.device("gpu" if device.type == "cuda" else "cpu")
    if device.type == "cpu":
        monkeypatch.setattr(available, "EMULATED", True)
    before = tp.config.default_device
    tp.config.default_device = where
    yield where
    tp.config.default_device = before
