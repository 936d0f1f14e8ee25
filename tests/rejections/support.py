"""How a rejection is tested: a few lines of a user's, the last of which must be refused.

The lines are run as a file of their own, so that the message can show nothing but them; a table of
lambdas would show the row, and with it the text that the test looks for.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import tripy as tp

# What every program starts with; examples need little more.
SETUP = """\
x = tp.ones((2, 3))
n = tp.ones((2, 3), dtype=tp.int32)
m = tp.ones((2, 3), dtype=tp.bool)
q = tp.cast(x, tp.int8)
f8 = tp.cast(x, tp.float8)
info = tp.InputInfo((2, 3), tp.float32)
"""
PACKAGE = os.path.dirname(tp.__file__) + os.sep


class Row(NamedTuple):
    """One case that must be refused.

    Attributes:
        code: What a user writes after SETUP. The last line is the one to be refused, and to be
            shown; where another one is, it ends in ``  # here``.
        summary: How the message begins.
        got: What the message says was passed.
        expected: What the message says is accepted.
    """

    code: str
    summary: str
    got: str
    expected: str


def rows(table: list[tuple[str, str, str, str]]) -> Any:
    """The table as a parameter of a test, named after the last line of each row's code."""
    return pytest.mark.parametrize(
        "row", [pytest.param(Row(*row), id=row[0].splitlines()[-1]) for row in table]
    )


def run(code: str) -> dict[str, Any]:
    """Run a user's program as a file that messages can show lines of."""
    source = SETUP + code + "\n"
    linecache.cache["user.py"] = (len(source), None, source.splitlines(keepends=True), "user.py")
    scope: dict[str, Any] = {"tp": tp, "np": np, "torch": torch}
    exec(compile(source, "user.py", "exec"), scope)
    return scope


def message(code: str) -> str:
    """What a program that must be refused says."""
    with pytest.raises(tp.TripyException) as caught:
        run(code)
    return str(caught.value)


def check_message(text: str, code: str, summary: str, got: str, expected: str) -> None:
    """The parts of a message, and the user's own line with a caret under a part of it."""
    lines = text.splitlines()
    assert lines[0].startswith(summary), text
    parts = {"got": "", "expected": ""}
    label = ""
    for line in lines[1:]:
        if not line.startswith("  "):
            break
        label = line[2:].split(":")[0] if line[2] != " " else label
        parts[label] = parts.get(label, "") + line[2:].removeprefix(f"{label}:") + "\n"
    assert got in parts["got"], text
    assert expected in parts["expected"], text
    marked = [line for line in code.splitlines() if line.endswith("# here")]
    wrong = (marked or code.splitlines())[-1].strip()
    shown = [position for position, line in enumerate(lines) if line.endswith(f"| {wrong}")]
    assert shown, f"the message does not show {wrong!r}:\n{text}"
    for position in shown:
        source, carets = lines[position], lines[position + 1]
        start, end = carets.find("^"), carets.rfind("^")
        assert source.index("| ") + 2 <= start <= end < len(source), text
        if sys.version_info >= (3, 11) and "# here" not in source:
            ast.parse(source[start : end + 1])  # A whole expression or statement is marked.
    assert PACKAGE not in text, f"the message shows a line of the library:\n{text}"


def check(row: Row) -> None:
    """A row of a table."""
    check_message(message(row.code), *row)
