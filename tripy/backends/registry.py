"""The backends by name, the best one last."""

from __future__ import annotations

from tripy.backends.base import AbstractBackend
from tripy.backends.tensorrt.backend import TENSORRT
from tripy.backends.torch.backend import TORCH

BACKENDS: dict[str, AbstractBackend] = {"torch": TORCH, "tensorrt": TENSORRT}
