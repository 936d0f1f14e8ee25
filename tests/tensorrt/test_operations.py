"""Every operation in every data type: an engine is built, and its network means what eager does.

The networks are computed by tests/tensorrt/network_interpreter.py, from TensorRT's documentation.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import tripy as tp
from tests import helpers
from tests.ops.cases import CASES, Case
from tests.tensorrt.support import (
    SeededDraw,
    compile_for,
    interpreted,
    needs_rtx,
    reason_it_cannot,
)

pytestmark = needs_rtx
SEEDS = 2


def _rows() -> list:
    return [
        pytest.param(case, dtype, id=f"{case.name}-{dtype}-{position}")
        for position, case in enumerate(CASES)
        for dtype in helpers.types_of(case.types)
    ]


@pytest.mark.parametrize(("case", "dtype"), _rows())
def test_built_and_computed(case: Case, dtype):
    start, compared = zlib.crc32(case.name.encode()), 0
    for seed in range(start, start + 10 * SEEDS):
        sample = case.build(SeededDraw(seed), dtype)
        try:
            for dynamic in (False, True):
                if not dynamic or sample.options.get("dynamic", True):
                    check(sample, dynamic, f"seed {seed}, {'dynamic' if dynamic else 'static'}")
        except OverflowError:
            continue  # What TensorRT computes of such values is not documented: others are drawn.
        compared += 1
        if compared == SEEDS:
            return
    pytest.fail(f"{compared} samples of {SEEDS} without undocumented overflow")


def check(sample, dynamic: bool, how: str) -> None:
    try:
        executable = compile_for(sample.function, sample.tensors, dynamic)
    except tp.TripyException as error:
        # Refused loudly, for one of the reasons that the documentation lists.
        assert reason_it_cannot(str(error)), f"{how}: {error}"
        return
    results = interpreted(executable, sample.tensors)
    expected = sample.function(*sample.tensors)
    expected = list(expected) if isinstance(expected, (list, tuple)) else [expected]
    for got, wanted in zip(results, expected, strict=True):
        options = {k: v for k, v in sample.options.items() if k in ("rtol", "atol")}
        rounds = 2 + 2 * sample.options.get("rounds", 1)  # Both sides round.
        values = np.asarray(helpers.plain(wanted))
        try:
            tensor = tp.Tensor(got, dtype=wanted.dtype)
            helpers.assert_close(tensor, values, wanted.dtype, rounds=rounds, **options)
        except AssertionError as error:
            raise AssertionError(f"{how}: {error}") from error
