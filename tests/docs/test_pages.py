"""The pages of the documentation: their blocks run, and what they speak of is there.

The README's blocks are run by tests/test_readme.py, which also compares what they print.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tripy as tp
import tripy.quantization as tq
from docs.tools import executed
from docs.tools.bars import bars

ROOT = executed.ROOT
PAGES = executed.pages()
WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "docs" / "tensorrt.md"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


BY_PAGE = pytest.mark.parametrize("path", WRITTEN, ids=name_of)


@pytest.mark.parametrize("path", [p for p in PAGES if p.name != "README.md"], ids=name_of)
def test_blocks_run(path: Path):
    text = executed.read(path)
    executed.run(executed.blocks(text, path.name), text, path)


def test_guides_have_blocks():
    """Every guide has blocks that are run here, on any machine."""
    for path in (ROOT / "docs" / "guides").glob("*.md"):
        if path.name != "tensorrt.md":
            found = executed.blocks(executed.read(path), path.name)
            assert sum(not block.why_not() for block in found) >= 3, path


def resolved(name: str) -> Any:
    found: Any = {"tp": tp, "tq": tq, "tripy": tp}[name.split(".")[0]]
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


@BY_PAGE
def test_names_are_there(path: Path):
    """Whatever stands in inline code and begins with tp. or tq. is a name of the API."""
    for name in re.findall(r"(?<!`)`((?:tp|tq|tripy)\.[\w.]*\w)", prose(path)):
        if name.startswith("tripy.") and (ROOT / name.replace(".", "/")).exists():
            continue
        if not (ROOT / name).exists():  # No file such as tripy.egg
            resolved(name)


def prose(path: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^( *)(```+)[^\n]*\n.*?^\1\2$", "", path.read_text(), flags=re.M | re.S)


@BY_PAGE
def test_links_lead_to_files(path: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose(path)):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), target


@BY_PAGE
def test_places_are_there(path: Path):
    """Files and folders of the repository that are named in inline code."""
    top = {each.name for each in ROOT.iterdir() if each.is_dir()} - {"docs", ".venv"}
    for name in re.findall(r"(?<!`)`([\w./-]+/[\w./…-]*)`", prose(path)):
        if name.split("/")[0] in top:
            assert (ROOT / name.rstrip("…")).exists(), name


def test_good_examples_are_from_the_code():
    """CONTRIBUTING.md quotes files; what it calls not so good is from none."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"([^\n]*(?:\n[^\n]+)*)\n\n```py\n(.*?)```", text, re.S)
    quoted = 0
    for before, code in blocks:
        found = re.search(r"Good, from `([^`]+)`:$", before)
        if found:
            lines = [line.strip() for line in (ROOT / found[1]).read_text().splitlines()]
            wanted = [line.strip() for line in code.splitlines()]
            starts = range(len(lines) - len(wanted) + 1)
            assert any(lines[i : i + len(wanted)] == wanted for i in starts), found[1]
            quoted += 1
        else:
            assert "Not so good" in before
    assert quoted >= 3


def commands(path: Path) -> Iterator[list[str]]:
    """The lines of blocks of shell, and inline commands, as words."""
    text = path.read_text()
    lines = [
        line
        for block in re.findall(r"^ *```(?:sh)?\n(.*?)^ *```", text, re.M | re.S)
        for line in block.splitlines()
    ]
    lines += re.findall(r"(?<!`)`((?:python|make|pip) [^`…]+)`", prose(path))
    for line in lines:
        yield line.split("  #")[0].split()


@BY_PAGE
def test_commands_are_there(path: Path):
    for words in commands(path):
        words = [word.strip("'\"") for word in words]
        if words[:1] == ["make"]:
            targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
            assert all(word in targets or "=" in word for word in words[1:]), words
        elif words[:1] and words[0].rpartition("/")[2] == "pip" and words[1] == "install":
            extras = re.findall(r"(?:tripy|\.)\[([\w-]+)\]", " ".join(words))
            table = (ROOT / "pyproject.toml").read_text().partition("optional-dependencies]")[2]
            assert all(re.search(rf"^{extra} = ", table, re.M) for extra in extras), words
        elif words[:1] and words[0].rpartition("/")[2] == "python":
            check_python(words[1:])


def check_python(words: list[str]) -> None:
    """``python FILE --option`` or ``python -m MODULE --option``: all of them are there."""
    if words[0] == "-m":
        if words[1] in ("pip", "venv"):
            return
        spec = importlib.util.find_spec(words[1])
        assert spec is not None, words
        module = importlib.util.find_spec(f"{words[1]}.__main__") if (
            spec.submodule_search_locations
        ) else spec  # fmt: skip
        assert module is not None and module.origin is not None, words
        file, options = Path(module.origin), words[2:]
    else:
        file, options = ROOT / words[0], words[1:]
    text = file.read_text()
    for option in options:
        if option.startswith("--"):
            assert f'"{option.split("=")[0]}"' in text, words


def test_commands_are_found():
    found = [words for path in WRITTEN for words in commands(path)]
    assert ["make", "demo"] in found
    assert any("--calibration" in words for words in found)


@pytest.mark.parametrize(
    "words", [["examples/nothing.py"], ["-m", "tripy.nothing"], ["-m", "tests.fuzz", "--nothing"]]
)
def test_commands_that_are_not_there(words):
    with pytest.raises((AssertionError, FileNotFoundError)):
        check_python(words)


def test_bars():
    text = bars("<title>", {"a & b": 2.0, "none": 0.0}, "ms")
    assert "&lt;title&gt;" in text and "a &amp; b" in text and ">2 ms<" in text
    widths = [int(width) for width in re.findall(r'class="bar"[^>]* width="(\d+)"', text)]
    assert widths[0] == 290 and widths[1] == 1
