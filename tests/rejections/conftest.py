"""Messages name devices: these tests run on the processor, whatever else there is."""

from __future__ import annotations

import pytest

import tripy as tp


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    monkeypatch.setattr(tp.config, "default_device", tp.device("cpu"))
