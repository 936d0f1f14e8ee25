"""The libraries that tests share arrays with, where they are installed."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="module")
def jax():
    """JAX on the processor, with 64-bit integers."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # Read when JAX is imported; elsewhere nothing imports it.
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax


@pytest.fixture(scope="module")
def ml_dtypes():
    """The data types that JAX adds to numpy."""
    return pytest.importorskip("ml_dtypes")


@pytest.fixture
def cupy():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return pytest.importorskip("cupy")
