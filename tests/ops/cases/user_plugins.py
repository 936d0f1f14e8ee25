"""Cases of operations that a user has written."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import tripy as tp
from tests.ops.cases.table import Draw, Sample, case


@tp.register_plugin(
    "cases::rows", outputs=lambda x, y, copies: ((copies, x.shape[0] + 1, *x.shape[1:]), x.dtype)
)
def _rows(x: Any, y: Any, copies: int) -> Any:
    """x with its first row once more, as often as asked; y is there to have another type."""
    moved = x.view(torch.int8) if x.element_size() == 1 else x  # torch does not move float8.
    moved = moved[[0, *range(len(moved))]]
    return moved.expand(copies, *moved.shape).clone().view(x.dtype)


@case("plugin", "any")
def _plugin(draw: Draw, dtype: Any) -> Sample:
    shape, copies = draw.shape((1, 3), (1, 5)), draw.integer(0, 3)

    def reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        rows = x[[0, *range(len(x))]]
        return np.broadcast_to(rows, (copies, *rows.shape))

    return Sample(
        lambda x, y: tp.plugin("cases::rows", [x, y], copies=copies),
        [draw.tensor(shape, dtype), draw.tensor((2,), tp.int32)],
        reference,
    )
