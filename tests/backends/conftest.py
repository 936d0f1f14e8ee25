"""Kernels of the CPU are tested on the CPU, on machines with a GPU too."""

import pytest

import tripy as tp


@pytest.fixture(autouse=True)
def on_the_cpu():
    before = tp.config.default_device
    tp.config.default_device = tp.device("cpu")
    yield
    tp.config.default_device = before
