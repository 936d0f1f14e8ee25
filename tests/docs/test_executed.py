"""What runs the pages: which blocks it finds, what it refuses, and what it puts into a page."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import tripy as tp
from docs.tools import blocks, executed
from docs.tools.blocks import PageError
from tripy.graph import SCHEMAS


def page(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "page.md"
    path.write_text(text)
    return path


def rendered(tmp_path: Path, code: str, language: str = "py") -> str:
    return executed.rendered(page(tmp_path, f"Before\n\n```{language}\n{code}\n```\n\nAfter\n"))


@pytest.mark.parametrize("language", ["py", "python"])
def test_what_is_printed_stands_below_the_block(tmp_path, language):
    text = rendered(tmp_path, 'x = 1\nprint("two\\nlines", x)', language)
    assert text == (
        'Before\n\n```py\nx = 1\nprint("two\\nlines", x)\n```\n\n'
        "```{code-block} text\n:class: output\n\ntwo\nlines 1\n```\n\nAfter\n"
    )


def test_a_single_line_may_be_wrapped(tmp_path):
    assert ":class: output one-line\n\n1\n```" in rendered(tmp_path, "print(1)")


def test_a_block_that_prints_nothing_stands_alone(tmp_path):
    assert rendered(tmp_path, "x = 1") == "Before\n\n```py\nx = 1\n```\n\nAfter\n"


def test_blocks_share_a_namespace_and_pages_do_not(tmp_path):
    path = page(tmp_path, "```py\nx = 7\n```\n\n```py\nprint(x)\n```\n")
    assert "\n7\n" in executed.rendered(path)
    with pytest.raises(PageError, match=r"page\.md:1: the block fails: NameError: name 'x'"):
        executed.rendered(page(tmp_path, "```py\nprint(x)\n```\n"))


def test_locals(tmp_path):
    text = rendered(tmp_path, "# doc: print-locals x, y\nx = 5\ny = 'a\\nb'")
    assert "print-locals" not in text
    assert "\nx = 5\n```" in text and "\ny =\na\nb\n```" in text
    with pytest.raises(PageError, match="got no 'z' to show"):
        rendered(tmp_path, "# doc: print-locals z\nx = 5")


def test_pictures(tmp_path):
    text = rendered(tmp_path, "# doc: show-svg x\nx = '<svg></svg>'")
    assert "```{raw} html\n<svg></svg>\n```" in text


def test_what_is_omitted_runs_and_is_not_shown(tmp_path):
    text = rendered(tmp_path, "x = 1  # doc: omit\nprint(x + 1)")
    assert "x = 1" not in text and "\n2\n" in text
    text = rendered(tmp_path, "# doc: omit\nprint(3)")
    assert "print" not in text and "\n3\n" in text
    with pytest.raises(PageError, match="AssertionError"):
        rendered(tmp_path, "x = 1\nassert x == 2  # doc: omit")


def test_exceptions(tmp_path):
    code = "# doc: allow-exception\nimport tripy as tp\nprint(1)\ntp.ones((2,)) + tp.ones((3,))"
    text = rendered(tmp_path, code)
    assert "\n1\n" in text and "TripyException: add: the shapes cannot be broadcast" in text
    # The page's own line, by its number in the page.
    assert "--> page.md:7 in <module>()" in text and "allow-exception" not in text
    with pytest.raises(PageError, match=r"page\.md:3: the block fails: ZeroDivisionError"):
        rendered(tmp_path, "1 / 0")
    with pytest.raises(PageError, match=r"page\.md:3: got no exception"):
        rendered(tmp_path, "# doc: allow-exception\n1 / 1")


def test_no_eval_shows_the_reason_and_still_has_to_be_python(tmp_path):
    text = rendered(tmp_path, "# doc: no-eval it takes an hour\n1 / 0")
    assert "```py\n1 / 0\n```" in text and "Not run here: it takes an hour." in text
    with pytest.raises(PageError, match=r"page\.md:3: invalid syntax"):
        rendered(tmp_path, "# doc: no-eval it takes an hour\n1 /")


@pytest.mark.parametrize("how", ["tag", "page"])
@pytest.mark.parametrize("there", [True, False])
def test_what_a_block_needs(tmp_path, monkeypatch, there, how):
    monkeypatch.setitem(blocks.NEEDS, "gpu", ("an NVIDIA GPU", lambda: there))
    tag, comment = ("# doc: needs gpu\n", "") if how == "tag" else ("", "<!-- doc: needs gpu -->\n")
    text = executed.rendered(page(tmp_path, f"{comment}```py\n{tag}print(6 * 7)\n```\n"))
    assert ("\n42\n" in text) == there
    assert ("Not run here: it needs an NVIDIA GPU." in text) != there


def test_needs_that_are_known():
    assert set(blocks.NEEDS) >= {"gpu", "download", "modelopt", "tensorrt-rtx", "transformers"}
    for words, is_there in blocks.NEEDS.values():
        assert words and isinstance(is_there(), bool)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nx = 1\n```", "got a block of Python, without a language"),
        ("```python3\nx = 1\n```", "got a block of python3"),
        ("```pycon\n>>> 1\n```", "got a block of pycon"),
        ("```{code-block} py\nx = 1\n```", "which is not run"),
        (":::{note}\n:::\n\n    x = 1\n", "got an indented block"),
        ("```py\nx = 1\n", "the block does not end"),
        ("```py\n# doc: no-eval\nx = 1\n```", "got # doc: no-eval"),
        ("```py\n# doc: needs unicorn\nx = 1\n```", "got unicorn; expected gpu"),
        ("```py\n# doc: print-local x\nx = 1\n```", "got # doc: print-local"),
        ("```py\nx = 1  # doc: allow-exception\n```", "expected a line of its own"),
        ("<!-- doc: omit -->\n", "expected <!-- doc: needs NAME -->"),
    ],
)
def test_what_would_not_be_run_is_refused(text, message):
    with pytest.raises(PageError, match=message) as caught:
        blocks.blocks(text, "page.md")
    assert str(caught.value).startswith("page.md:")


def test_other_languages_and_directives():
    text = (
        "```sh\npython x.py\n```\n\n```\nmake demo   # no Python\n```\n\n"
        "````{note}\n```py\nx = 1\n```\n````\n\n- a list\n\n  ```py\n  y = 2\n  ```\n"
    )
    first, second = blocks.blocks(text, "page.md")
    assert (first.code, second.code, second.indent) == (["x = 1"], ["y = 2"], "  ")


def test_pages_that_are_included_are_run_with_those_that_include_them(tmp_path):
    (tmp_path / "inner.md").write_text("```py\nprint(x + 1)\n```\n")
    path = page(tmp_path, "```py\nx = 1\n```\n\n```{include} inner.md\n```\n")
    assert "\n2\n" in executed.rendered(path)
    names = [each.relative_to(executed.ROOT).as_posix() for each in executed.pages()]
    assert "docs/guides/tensorrt.md" in names and "docs/tensorrt.md" not in names
    assert "README.md" in names and not any("reference/api" in name for name in names)


def test_a_page_leaves_everything_as_it_was(tmp_path):
    before, folders, operations = Path.cwd(), list(sys.path), dict(SCHEMAS)
    device, verbosity = tp.config.default_device, tp.logger.verbosity
    code = (
        "import os, sys, tripy as tp\nfrom tripy.graph import SCHEMAS\n"
        "open('left', 'w').close()\nsys.path.insert(0, 'x')\ntp.logger.verbosity = 'error'\n"
        "SCHEMAS['mine'] = SCHEMAS['add']\ntp.config.default_device = tp.device('cpu')"
    )
    rendered(tmp_path, code)
    assert (Path.cwd(), sys.path, SCHEMAS) == (before, folders, operations)
    assert (tp.config.default_device, tp.logger.verbosity) == (device, verbosity)
    assert not (before / "left").exists() and os.listdir(tmp_path) == ["page.md"]


def test_as_a_script(tmp_path, capsys):
    path = page(tmp_path, "```py\nprint(5)\n```\n")
    assert executed.main([str(path)]) == 0
    assert "\n5\n" in capsys.readouterr().out
