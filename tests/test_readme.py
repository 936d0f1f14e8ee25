"""The README's code runs and prints what the README says.

What else holds for every page, such as links and commands, is in tests/docs/test_pages.py.
"""

from __future__ import annotations

import re

import pytest

from docs.tools import executed
from tripy.backends.torch.kernels.cpu_int8 import int8_products_are_exact

ROOT = executed.ROOT
PAGE = ROOT / "README.md"
README = PAGE.read_text()
BLOCKS = executed.blocks(README, PAGE.name)


@pytest.fixture(scope="module")
def results():
    return executed.run(BLOCKS, README, PAGE)


def stated(block: executed.Block) -> str:
    """The next block of text, if it stands before the next block of Python."""
    rest = "\n".join(README.splitlines()[block.last + 1 :])
    found = re.match(r"(?:(?!```)[^\n]*\n)*```text\n(.*?)\n```", rest, re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_blocks(results, number):
    if not int8_products_are_exact():
        pytest.skip("the report shows the kernel of a processor with VNNI or AMX")
    expected = stated(BLOCKS[number])
    assert not expected or "\n".join(results[number].texts) == expected


def test_there_are_blocks():
    assert len(BLOCKS) >= 2
    assert stated(BLOCKS[0])
    assert all(block.why_not() == "" for block in BLOCKS)


def test_a_block_of_the_readme_has_no_tags():
    """Where the README is read, nothing takes them out."""
    assert "# doc:" not in README


def test_places_are_there():
    table = re.findall(r"^\| (`.+?) \|", README, re.MULTILINE)
    assert table
    for row in table:
        for place in re.findall(r"`([^`]+)`", row):
            assert (ROOT / place).exists() or (ROOT / "tripy" / place).exists(), place
