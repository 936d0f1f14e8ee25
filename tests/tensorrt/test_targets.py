"""Every operation in every data type is built for the oldest and the newest GPUs too."""

from __future__ import annotations

import pytest

import tripy as tp
from tests import helpers
from tests.ops.cases import CASES, Case
from tests.tensorrt.support import SeededDraw, compile_for, needs_rtx, reason_it_cannot

pytestmark = needs_rtx
# What Turing lacks, by what TensorRT-RTX says.
TURING = ("FP32 GEMM is not supported", "Cannot compile for target(s) sm75", "for Turing (SM75)")


@pytest.mark.parametrize("target", ["sm_75", "sm_120"])
# TensorRT-RTX has no plugin layers: tests/tensorrt/test_plugins.py.
@pytest.mark.parametrize("op", sorted({case.op for case in CASES} - {"plugin"}))
def test_built(op, target):
    cases = [case for case in CASES if case.op == op]
    built = [
        (case.name, dtype)
        for case in cases
        for dtype in helpers.types_of(case.types)
        if is_built(case, dtype, target)
    ]
    assert built  # On Turing, float16 and int8 at least.


def is_built(case: Case, dtype, target: str) -> bool:
    """Whether an engine is built for one of a few samples; what is refused has to have a reason."""
    for seed in range(6 if target == "sm_75" else 1):
        sample = case.build(SeededDraw(CASES.index(case) * 100 + seed), dtype)
        try:
            compile_for(sample.function, sample.tensors, False, target=target)
        except tp.TripyException as error:
            turing = target == "sm_75" and any(text in str(error) for text in TURING)
            assert turing or reason_it_cannot(str(error)), f"{dtype}, seed {seed}: {error}"
        else:
            return True
    return False
