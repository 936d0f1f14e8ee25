"""Finds the Python blocks of Markdown pages, and reads their tags; executed.py lists these."""

from __future__ import annotations

import importlib.util
import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

RUN = ("py", "python")
# Languages of blocks that nobody expects to run as Python.
SHOWN = ("text", "sh", "json", "toml", "markdown", "make")
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<info>[^`]*?) *$")
TAG = re.compile(r"#\s*doc:\s*(?P<name>[\w-]+)[ \t]*(?P<rest>[^\n]*)$")
PAGE_TAG = re.compile(r"^<!--\s*doc:\s*(?P<name>[\w-]+)\s*(?P<rest>.*?)\s*-->$")
CODE_DIRECTIVES = ("code", "code-block", "code-cell", "sourcecode", "doctest", "testcode")
INCLUDE = re.compile(r"^```\{include\} (\S+\.md)\n```$", re.MULTILINE)


class PageError(Exception):
    """A page that is not as it should be; the message begins with file and line."""


def _installed(*names: str) -> Callable[[], bool]:
    return lambda: any(importlib.util.find_spec(name) is not None for name in names)


# What a block may need: in words, and whether it is there.
NEEDS: dict[str, tuple[str, Callable[[], bool]]] = {
    "gpu": ("an NVIDIA GPU", torch.cuda.is_available),
    "tensorrt": ("TensorRT", _installed("tensorrt", "tensorrt_rtx")),
    "tensorrt-rtx": ("TensorRT-RTX", _installed("tensorrt_rtx")),
    "transformers": ("transformers", _installed("transformers")),
    "modelopt": ("nvidia-modelopt", _installed("modelopt")),
    # Never by itself: whoever runs the documentation says that it may.
    "download": ("a download", lambda: os.environ.get("TRIPY_DOWNLOADS") == "1"),
}


@dataclass
class Block:
    """One Python block of a page.

    Attributes:
        first: Index of the line with the opening fence.
        last: Index of the line with the closing fence.
        indent: What the fences are indented with.
        code: What is run: as many lines as stand between the fences.
        shown: The lines that readers see.
        needs: Names from NEEDS.
        locals: Names whose values are shown.
        pictures: Names whose values are SVG.
        raises: Whether it has to raise an exception.
        hidden: Whether it is not shown.
        reason: Why it is never run; "" if it is.
    """

    first: int
    last: int
    indent: str
    code: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    needs: tuple[str, ...] = ()
    locals: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    raises: bool = False
    hidden: bool = False
    reason: str = ""

    def why_not(self) -> str:
        """Why it is not run here; "" if it is."""
        missing = [words for words, there in map(NEEDS.__getitem__, self.needs) if not there()]
        return self.reason or (f"it needs {' and '.join(missing)}" if missing else "")


def read(path: Path) -> str:
    """A page's text, with the Markdown files that it includes."""
    return INCLUDE.sub(lambda found: read(path.parent / found[1]).rstrip(), path.read_text())


def blocks(text: str, page: str) -> list[Block]:
    """The Python blocks of a page.

    Args:
        text: The page.
        page: Its name, for messages.

    Raises:
        PageError: For a code block that would not be run and is no other language, and for tags
            that there are not.
    """
    found: list[Block] = []
    needs: tuple[str, ...] = ()
    outer: list[str] = []  # Fences of directives that hold Markdown.
    lines = text.splitlines()
    index = 0
    while index < len(lines):
        line = lines[index]
        where = f"{page}:{index + 1}"
        tag, fence = PAGE_TAG.match(line), FENCE.match(line)
        if tag:
            if tag["name"] != "needs":
                raise PageError(f"{where}: got {line}; expected <!-- doc: needs NAME -->")
            needs = _names(tag["rest"], NEEDS, where)
        elif fence and not fence["info"] and fence["fence"] in outer:
            outer.remove(fence["fence"])
        elif fence and fence["info"].startswith("{"):
            directive = fence["info"].strip("{}").split("}")[0]
            if directive in CODE_DIRECTIVES:
                raise PageError(f"{where}: got {{{directive}}}, which is not run; expected ```py")
            outer.append(fence["fence"])
        elif fence:
            end = _end(lines, index, fence, where)
            if fence["info"] in RUN:
                inside = lines[index + 1 : end]
                found.append(_block(index, end, fence["indent"], inside, needs, page))
            elif fence["info"] not in SHOWN and (fence["info"] or _is_python(lines, index, end)):
                raise PageError(
                    f"{where}: got a block of {fence['info'] or 'Python, without a language'}; "
                    f"expected py, which is run, or one of {', '.join(SHOWN)}"
                )
            index = end
        elif line.startswith(("    ", "\t")) and (index == 0 or not lines[index - 1].strip()):
            raise PageError(f"{where}: got an indented block, which is not run; expected ```py")
        index += 1
    return found


def _end(lines: list[str], first: int, fence: re.Match, where: str) -> int:
    for index in range(first + 1, len(lines)):
        closing = lines[index].strip()
        if closing.startswith(fence["fence"]) and not closing.strip(fence["fence"][0]):
            return index
    raise PageError(f"{where}: the block does not end")


def _is_python(lines: list[str], first: int, end: int) -> bool:
    try:
        compile(textwrap.dedent("\n".join(lines[first + 1 : end])), "block", "exec")
    except SyntaxError:
        return False
    return True


def _names(text: str, known: Any, where: str) -> tuple[str, ...]:
    names = tuple(re.split(r"[\s,]+", text.strip()))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise PageError(f"{where}: got {', '.join(unknown)}; expected {', '.join(known)}")
    return names


def _block(
    first: int, last: int, indent: str, lines: list[str], needs: tuple[str, ...], page: str
) -> Block:
    block = Block(first, last, indent, needs=needs)
    for number, raw in enumerate(lines, first + 2):
        line, where = raw.removeprefix(indent), f"{page}:{number}"
        tag = TAG.search(line)
        name, rest = (tag["name"], tag["rest"].strip()) if tag else ("", "")
        alone = tag is not None and not line[: tag.start()].strip()
        block.code.append("" if alone else line)
        if tag is None:
            block.shown.append(line)
        elif name == "omit" and not rest:
            block.hidden |= alone
        elif not alone:
            raise PageError(f"{where}: got # doc: {name} behind code; expected a line of its own")
        elif name == "print-locals" and rest:
            block.locals += tuple(re.split(r"[\s,]+", rest))
        elif name == "show-svg" and rest:
            block.pictures += tuple(re.split(r"[\s,]+", rest))
        elif name == "allow-exception" and not rest:
            block.raises = True
        elif name == "needs":
            block.needs += _names(rest, NEEDS, where)
        elif name == "no-eval" and rest:
            block.reason = rest
        else:
            expected = (
                "print-locals NAMES, show-svg NAMES, allow-exception, needs NAMES, no-eval REASON "
                "or omit"
            )
            raise PageError(f"{where}: got # doc: {name} {rest}; expected {expected}")
    return block
