"""A hundred random graphs; ``python -m tests.fuzz --count 2000`` runs more."""

from __future__ import annotations

import importlib

import pytest

import tripy as tp
from tests import fuzz, fuzz_steps
from tripy.graph import SCHEMAS

importlib.import_module("tests.fuzz_shapes")


@pytest.mark.parametrize("first", range(0, 100, 5))
def test_eager_and_compiled_agree(first):
    for seed in range(first, first + 5):
        fuzz.check_seed(seed)


def test_every_operation_can_be_drawn():
    public = {name for name, schema in SCHEMAS.items() if not schema.internal}
    assert public == fuzz_steps.COVERED


def test_a_failure_is_reported_with_its_graph_and_command(monkeypatch):
    compare = fuzz.Program._compare

    def wrong(self, fast, outputs, number, how):
        compare(self, fast, outputs, number, how)
        assert how != "static", "planted"

    monkeypatch.setattr(fuzz.Program, "_compare", wrong)
    with pytest.raises(fuzz.Failure) as caught:
        fuzz.check_seed(3)
    message = str(caught.value)
    assert message.startswith("planted")
    assert "seed 3, sizes" in message
    assert "python -m tests.fuzz --seed 3" in message
    assert "  return v" in message


def test_one_seed_is_one_graph():
    assert str(fuzz.program_of(5)) == str(fuzz.program_of(5))
    assert str(fuzz.program_of(5)) != str(fuzz.program_of(6))
    assert isinstance(fuzz.program_of(5).value(0), tp.Tensor)
