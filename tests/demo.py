"""The example's demo GPT, as tests use it."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

# The example's files import each other by name, as they do when it is run as a script.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "nanogpt"))

from model import GPT
from weight_loader import DEMO, load_demo_weights, read_config


@functools.cache
def demo(mode: str) -> GPT:
    """The demo in a quantization mode, loaded once."""
    model = GPT(read_config(DEMO, mode))
    load_demo_weights(model, mode)
    return model
