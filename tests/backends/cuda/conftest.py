"""Kernels for GPUs: on a GPU where there is one, else through Triton's interpreter on the CPU."""

import os

import pytest
import torch

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
