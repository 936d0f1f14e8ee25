"""What tests of interoperation share: addresses, values, and views of a matrix.

Memory is shared wherever the layout allows it; that is told by addresses, and by a value written on
one side and read on the other.
"""

from __future__ import annotations

import numpy as np
import torch

import tripy as tp
from tests.helpers import TORCH

CPU = tp.device("cpu")
VALUES = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
# The types that numpy has without another package.
IN_NUMPY = {
    tp.float32: np.float32, tp.float16: np.float16, tp.int8: np.int8, tp.int32: np.int32,
    tp.int64: np.int64, tp.bool: np.bool_,
}  # fmt: skip
IN_DLPACK = {kind: TORCH[kind] for kind in TORCH if kind is not tp.int4}


def address(array):
    """Where an array's first element lies."""
    if isinstance(array, tp.Tensor):
        array = array.torch()
    if isinstance(array, torch.Tensor):
        return array.data_ptr()
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0]
    if hasattr(array, "__cuda_array_interface__"):
        return array.__cuda_array_interface__["data"][0]
    return array.unsafe_buffer_pointer()


def torch_values(dtype):
    """VALUES in memory of torch's own."""
    return torch.tensor(VALUES.tolist()).to(TORCH[dtype])


def sample(dtype):
    """A computed tensor on the processor."""
    return tp.Tensor(torch_values(dtype), dtype=dtype, device=CPU)


# The views of a matrix of 3 rows and 4 columns, and whether torch can share their memory.
VIEWS = {
    "whole": (lambda a: a, True), "transposed": (lambda a: a.T, True),
    "columns": (lambda a: a[:, 1:3], True), "every second": (lambda a: a[::2, ::2], True),
    "one element": (lambda a: a[1, 1], True), "no rows": (lambda a: a[3:], True),
    "row": (lambda a: a[1], True), "new dimension": (lambda a: a[:, None], True),
    "backwards": (lambda a: a[::-1], False), "both backwards": (lambda a: a[::-2, ::-1], False),
}  # fmt: skip
POSITIVE = [name for name, (_, shared) in VIEWS.items() if shared]
