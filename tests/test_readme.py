"""The README's code runs and prints what the README says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tripy.backends.torch.kernels.cpu_int8 import int8_products_are_exact

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```(?:[^`]*?```text\n(.*?)```)?", README, re.DOTALL)


@pytest.mark.parametrize(("code", "expected"), BLOCKS)
def test_blocks(code, expected):
    if not int8_products_are_exact():
        pytest.skip("the report shows the kernel of a processor with VNNI or AMX")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue() == expected or not expected


def test_there_are_blocks():
    assert len(BLOCKS) == 2
    assert BLOCKS[0][1]


def test_places_are_there():
    table = re.findall(r"^\| (`.+?) \|", README, re.MULTILINE)
    assert table
    for row in table:
        for place in re.findall(r"`([^`]+)`", row):
            assert (ROOT / place).exists() or (ROOT / "tripy" / place).exists(), place


def test_commands_are_in_the_makefile():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"make (demo|test|clean)", README):
        assert command in targets
