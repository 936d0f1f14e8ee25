"""Messages: what was got, what is accepted, what to try, and the user's own line with a caret."""

from __future__ import annotations

import linecache
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import tripy as tp
from tests.helpers import raises
from tripy import errors

ROOT = Path(__file__).resolve().parent.parent


def message(function, *args):
    with pytest.raises(tp.TripyException) as caught:
        function(*args)
    return str(caught.value)


def test_the_form_of_a_message():
    def wrong():
        a = tp.ones((2, 3))
        b = tp.ones((2, 3))
        return a @ b

    lines = message(wrong).splitlines()
    assert lines[0] == "matmul: the summed dimensions differ."
    assert lines[1] == "  got:      lhs: float32[2, 3], rhs: float32[2, 3]"
    assert lines[2].startswith("  expected: lhs.shape[-1] == rhs.shape[-2]")
    text = "\n".join(lines)
    assert "lhs was made here:" in text
    assert "rhs was made here:" in text
    assert text.index("a = tp.ones") < text.index("b = tp.ones") < text.index("return a @ b")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 knows lines, not columns")
def test_carets_stand_under_the_expression():
    def wrong():
        é = tp.ones((2, 3))  # Two bytes in UTF-8, one column.
        return [0, é @ tp.zeros((2, 3)), 1]

    lines = message(wrong).splitlines()
    shown = {line.strip() for line in lines}
    assert "".join(line for line in shown if "[0, é @" in line).endswith(
        "| return [0, é @ tp.zeros((2, 3)), 1]"
    )
    position = next(i for i, line in enumerate(lines) if "The error was raised" in line)
    source, carets = lines[position + 2 : position + 4]
    start = carets.index("^")
    assert source[start : start + carets.count("^")] == "é @ tp.zeros((2, 3))"


def test_an_expression_of_several_lines():
    def wrong():
        return tp.concatenate(
            [tp.ones((2,)), tp.ones((2, 2))],
            0,
        )

    text = message(wrong)
    assert "| return tp.concatenate(" in text
    carets = [line for line in text.splitlines() if "^" in line][-1]
    assert carets.count("^") >= len("tp.concatenate(")


def test_frames_of_the_library_are_not_shown():
    text = message(lambda: tp.Linear(2, 3)(tp.ones((2, 2))))
    assert f"tripy{os.sep}nn" not in text
    assert "File " not in text


def test_the_line_of_a_helper_is_the_line_of_the_user():
    def helper(x):
        return tp.reshape(x, (7,))

    with raises("reshape: the number of elements changes", "return tp.reshape(x, (7,))"):
        helper(tp.ones((2, 3)))


def test_each_tensor_is_shown_once():
    x = tp.ones((2, 3))
    text = message(lambda: x @ x)
    assert text.count("x = tp.ones((2, 3))") <= 2
    assert text.count("The error was raised here") == 1


def test_code_without_a_source_still_has_a_place():
    scope = {"tp": tp}
    exec(
        compile("def f():\n    return tp.ones((2, 3)) @ tp.ones((2, 3))", "<made up>", "exec"),
        scope,
    )
    assert "--> <made up>:2 in f()" in message(scope["f"])


def test_a_source_that_changed_since_is_no_second_error(tmp_path):
    path = tmp_path / "gone.py"
    path.write_text("import tripy as tp\ndef f():\n    return tp.ones((2,)) @ tp.ones((3,))\n")
    scope: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    path.unlink()
    linecache.clearcache()
    assert f"{path}:3 in f()" in message(scope["f"])


def test_lazy_failures_show_the_line_that_recorded():
    def pick(x):
        return tp.gather(x, 0, tp.Tensor([9]))

    lazy = pick(tp.ones((2,)))
    with raises("gather: an index is out of range", "tp.gather(x, 0, tp.Tensor([9]))"):
        lazy.eval()


def test_attributes_of_the_exception():
    error = tp.TripyException("summary.", got=1, expected=2, hint=3)
    assert error.summary == "summary."
    assert str(error).splitlines()[:4] == [
        "summary.", "  got:      1", "  expected: 2", "  try:      3",
    ]  # fmt: skip
    assert isinstance(error, Exception)
    assert pickle.loads(pickle.dumps(str(error))) == str(error)


def test_frames_inside_tripy_on_request(monkeypatch):
    monkeypatch.setattr(tp.config, "extra_error_information", ["frames"])
    text = message(lambda: tp.ones((2,)) @ tp.ones((3,)))
    assert "Inside tripy:" in text
    section = text.split("Inside tripy:")[1]
    assert f"tripy{os.sep}graph{os.sep}schema.py" in section
    monkeypatch.undo()
    assert errors.extra_information == []
    text = message(lambda: tp.ones((2,)) @ tp.ones((3,)))
    assert "Inside tripy:" not in text


PROGRAM = """
import tripy as tp

def scale(x):
    return x * tp.ones((4,))

fast = tp.compile(scale, args=[tp.InputInfo(((1, 2, 8),), tp.float32)])
fast(tp.ones((3,)))
"""


def test_an_uncaught_error_ends_with_the_users_lines(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 1
    end = result.stderr.split("tripy.errors.TripyException: ")[1]
    assert end.startswith("mul: the shapes cannot be broadcast together.")
    assert "5 | return x * tp.ones((4,))" in end
    assert "8 | fast(tp.ones((3,)))" in end
