"""Runs the Python blocks of Markdown pages, and puts what they print into the page.

    python docs/tools/executed.py                 run all pages; list what was not run, and why
    python docs/tools/executed.py docs/index.md   run one, and print it as the site shows it

Every block that is fenced as ``py`` or ``python`` is run, block after block, in one namespace a
page. Lines with a tag say what else is wanted; they are taken out before the block is shown:

    # doc: print-locals a b    show the values of these names below the block
    # doc: show-svg a          show the SVG text that this name holds, as a picture
    # doc: allow-exception     the block has to raise; its message is shown below it
    # doc: needs gpu modelopt  run it only where these are (blocks.NEEDS)
    # doc: no-eval REASON      never run it; the reason is shown
    # doc: omit                alone in a line: run the block, but do not show it
    x = 1  # doc: omit         run this line, but do not show it

In the text, ``<!-- doc: needs gpu -->`` holds for all blocks after it. A code block that is written
in any other way, so that nothing would run it, is an error.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []
# Pages are the same on every machine. Blocks that need a GPU name it.
os.environ.setdefault("TRIPY_DEVICE", "cpu")

import torch  # noqa: E402

import tripy as tp  # noqa: E402
from docs.tools.blocks import (  # noqa: E402
    INCLUDE,
    Block,
    PageError,
    blocks,
    read,
)
from tripy.backends.tensorrt.lowering import LOWERINGS as LAYERS  # noqa: E402
from tripy.backends.torch.lowering import LOWERINGS  # noqa: E402
from tripy.backends.torch.plugins import PLUGINS  # noqa: E402
from tripy.graph import SCHEMAS  # noqa: E402

# A page may add operations; they are taken out of these again.
TABLES: tuple[dict, ...] = (SCHEMAS, LOWERINGS, LAYERS, PLUGINS)


@dataclass
class Result:
    """What running a block gave: what is shown below it, or why it was not run."""

    texts: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    why_not: str = ""


def run(found: Sequence[Block], text: str, path: Path) -> list[Result]:
    """Run the blocks of a page, one after the other, in a folder of their own.

    Raises:
        PageError: For a block that fails, or that was to fail and does not.
    """
    page = path.name
    scope: dict[str, Any] = {"__name__": "__main__", "__file__": str(path)}
    # So that errors of tripy show the page's own lines.
    linecache.cache[page] = (len(text), None, text.splitlines(keepends=True), page)
    with _a_place_of_its_own(), warnings.catch_warnings():
        warnings.simplefilter("error")  # Nobody should be shown how to get a warning.
        return [_run(block, page, scope) for block in found]


@contextlib.contextmanager
def _a_place_of_its_own() -> Iterator[None]:
    """A temporary folder, and everything that is global as it was afterwards."""
    before, folders, modules = Path.cwd(), list(sys.path), set(sys.modules)
    device, verbosity = tp.config.default_device, tp.logger.verbosity
    threads = torch.get_num_threads()
    tables = [(table, dict(table)) for table in TABLES]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
            sys.path[:] = folders
            tp.config.default_device, tp.logger.verbosity = device, verbosity
            for table, entries in tables:
                table.clear()
                table.update(entries)
            torch.set_num_threads(threads)
            for name in set(sys.modules) - modules:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if file.startswith(str(ROOT / "examples")):  # They have names such as "model".
                    del sys.modules[name]


def _run(block: Block, page: str, scope: dict[str, Any]) -> Result:
    where = f"{page}:{block.first + 1}"
    source = "\n" * (block.first + 1) + "\n".join(block.code) + "\n"
    try:
        code = compile(source, page, "exec")  # Also of what is not run.
    except SyntaxError as error:
        raise PageError(f"{where}: {error}") from None
    if block.why_not():
        return Result(why_not=block.why_not())
    printed = io.StringIO()
    raised: Optional[Exception] = None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            exec(code, scope)
        except Exception as error:
            raised = error
    if raised is not None and not block.raises:
        raise PageError(f"{where}: the block fails: {type(raised).__name__}: {raised}") from raised
    if raised is None and block.raises:
        raise PageError(f"{where}: got no exception; expected one, after # doc: allow-exception")
    texts = [printed.getvalue().rstrip("\n")]
    if raised is not None:
        texts.append(f"{type(raised).__name__}: {raised}")
    for name in (*block.locals, *block.pictures):
        if name not in scope:
            raise PageError(f"{where}: got no {name!r} to show; expected a name of the page")
    for name in block.locals:
        value = str(scope[name])
        texts.append(f"{name} ={chr(10) if chr(10) in value else ' '}{value}")
    pictures = [str(scope[name]) for name in block.pictures]
    return Result([text for text in texts if text], pictures)


def rendered(path: Path) -> str:
    """A page as the site shows it: its blocks run, with what they gave below them."""
    text = read(path)
    found = blocks(text, path.name)
    lines, made, position = text.splitlines(), [], 0
    for block, result in zip(found, run(found, text, path)):
        made += lines[position : block.first]
        made += [block.indent + line for line in _shown(block, result)]
        position = block.last + 1
    return "\n".join([*made, *lines[position:]]) + "\n"


def _shown(block: Block, result: Result) -> list[str]:
    shown = "\n".join(block.shown).strip("\n").splitlines()
    lines = [] if block.hidden or not shown else ["```py", *shown, "```"]
    for text in result.texts:
        fence = max(["``", *re.findall("`+", text)], key=len) + "`"
        lines += [
            "",
            f"{fence}{{code-block}} text",
            f":class: output{'' if chr(10) in text else ' one-line'}",
            "",
            *text.splitlines(),
            fence,
        ]
    for picture in result.pictures:
        lines += ["", "```{raw} html", *picture.splitlines(), "```"]
    if result.why_not and lines:
        lines += ["", "```{container} not-run", f"Not run here: {result.why_not}.", "```"]
    return lines


def pages() -> list[Path]:
    """The README and the Markdown pages of the site that are written by hand."""
    docs = ROOT / "docs"
    found = [
        page
        for page in sorted(docs.rglob("*.md"))
        if not any(part.startswith("_") or part == "api" for part in page.relative_to(docs).parts)
    ]
    included = {
        (page.parent / name).resolve()
        for page in found
        for name in INCLUDE.findall(page.read_text())
    }
    return [ROOT / "README.md", *(page for page in found if page not in included)]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    given = [Path(name).resolve() for name in (arguments or sys.argv[1:])]
    for path in given or pages():
        text = read(path)
        found = blocks(text, path.name)
        if given:
            print(rendered(path))
            continue
        results = run(found, text, path)
        print(f"{path.relative_to(ROOT)}: {sum(not r.why_not for r in results)} run")
        for block, result in zip(found, results):
            if result.why_not:
                print(f"  line {block.first + 1} not run: {result.why_not}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
