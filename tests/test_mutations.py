"""The mutation table fits the library; ``python -m tests.tools.mutations`` tries it out."""

from __future__ import annotations

from tests.tools import mutations
from tests.tools.mutation_table import MUTATIONS, Mutation


def test_every_row_is_alive():
    assert mutations.stale(MUTATIONS) == []
    assert len(MUTATIONS) >= 40


def test_a_row_that_has_rotted_is_found():
    here, once = "tests/test_mutations.py", "The mutation " + "table fits"
    assert mutations.stale([Mutation("gone", here, "no such " + "text", "", (here,))])
    assert mutations.stale([Mutation("twice", here, "mutations", "", (here,))])
    assert mutations.stale([Mutation("file", "tripy/gone.py", "a", "b", (here,))])
    assert mutations.stale([Mutation("tests", here, once, "", ("tests/gone.py",))])
    assert not mutations.stale([Mutation("alive", here, once, "", (here,))])


def test_rows_are_listed_by_name(capsys):
    name = MUTATIONS[0].name
    assert mutations.main(["--list", "--only", name]) == 0
    assert name in capsys.readouterr().out


def test_a_change_is_made_and_taken_back(tmp_path):
    (tmp_path / "number.py").write_text("NUMBER = 1\n")
    test = "from number import NUMBER\n\n\ndef test_number():\n    assert NUMBER == 1\n"
    (tmp_path / "test_number.py").write_text(test)
    tests = ("test_number.py",)
    assert mutations.run(tmp_path, tests).status == 0
    changed = mutations.try_out(Mutation("two", "number.py", "= 1", "= 2", tests), tmp_path)
    assert (changed.status, changed.first) == (1, "test_number.py::test_number")
    assert mutations.run(tmp_path, tests).status == 0
