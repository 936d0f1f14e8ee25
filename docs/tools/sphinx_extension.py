"""The Sphinx extension of the site: pages are run, names of the API are checked and linked.

What is written as inline code and begins with ``tp.`` or ``tq.`` is a link to the reference, and a
name that the reference does not have is an error; so prose cannot speak of what is not there.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

import tripy as tp
from docs.tools import api_pages, executed, reference

PREFIXES = {"tp": "tripy", "tq": "tripy.quantization"}
NAME = re.compile(r"^(?P<prefix>tp|tq)\.(?P<name>[A-Za-z_][\w.]*\w|[a-z])")
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Examples):$")


def write_reference(app: Sphinx) -> None:
    """Write the pages that are made from docstrings and schemas."""
    if Path(app.srcdir) != reference.PAGE.parents[1]:
        return
    if reference.PAGE.read_text() != reference.page():
        raise ExtensionError("docs/reference/operations.md: run python docs/tools/reference.py")
    api_pages.write()


def run_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a page's results into its text."""
    path = Path(app.env.doc2path(docname))
    if path in executed.pages():
        try:
            source[0] = executed.rendered(path)
        except executed.PageError as error:
            raise ExtensionError(str(error)) from error


class LinkNames(SphinxTransform):
    """Make inline code that names something of the API a link to it."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            found = NAME.match(literal.astext())
            inside = literal.parent
            while inside is not None and not isinstance(inside, (nodes.reference, nodes.title)):
                inside = inside.parent
            if (
                found is None
                or inside is not None
                or isinstance(literal.parent, addnodes.pending_xref)
            ):
                continue
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", refexplicit=True, refwarn=True,
                reftarget=f"{PREFIXES[found['prefix']]}.{found['name']}",
                refdoc=self.env.docname,
            )  # fmt: skip
            link.source, link.line = literal.source, literal.line
            literal.replace_self(link)
            link += literal


def prepare_docstring(
    app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Make a docstring fit for Sphinx, with the table of data types before its first section."""
    at = next((i for i, line in enumerate(lines) if SECTION.match(line)), len(lines))
    end = next((i for i, line in enumerate(lines) if line.startswith("Example")), len(lines))
    for i in range(end):  # An asterisk is an asterisk: [*x.shape, n].
        parts = lines[i].split("``")
        parts[::2] = [part.replace("*", "\\*") for part in parts[::2]]
        lines[i] = "``".join(parts)
    rows = []
    if what in ("function", "class") and name.startswith("tripy."):
        rows = api_pages.data_types(name.removeprefix("tripy."))
    if rows:
        table = [".. list-table::", "   :class: data-types", ""]
        for who, types in rows:
            table += [f"   * - {who}", f"     - {types}"]
        lines[at:at] = [*table, ""]
    if what == "property" and at == len(lines):
        # Napoleon takes what stands before a colon for the type: "Sizes: ints where known".
        app.env.temp_data[f"docstring of {name}"] = list(lines)


def restore_docstring(
    app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]
) -> None:
    """Undo what Napoleon made of a property's sentence."""
    lines[:] = app.env.temp_data.pop(f"docstring of {name}", None) or lines


def find_signature(
    app: Sphinx, what: str, name: str, found: Any, options: Any, signature: str, result: str
) -> tuple[str, str] | None:
    """The arguments of a module's ``__init__``, which Sphinx does not look at: it has a __new__.

    Classes that describe attributes and no arguments are not made by users: they get none.
    """
    if not isinstance(found, type):
        return None
    text = inspect.getdoc(found) or ""
    if "Attributes:" in text and "Args:" not in text:
        return "", result
    if not issubclass(found, tp.Module):
        return None
    if found.__init__ is object.__init__:
        return "", result
    return f"({reference.signature(found)})", result


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", write_reference)
    app.connect("source-read", run_page)
    # Before and after Napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)
    app.connect("autodoc-process-docstring", restore_docstring, priority=600)
    app.add_transform(LinkNames)
    app.connect("autodoc-process-signature", find_signature)
    return {"version": "1", "parallel_read_safe": False}
