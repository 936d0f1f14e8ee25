"""The pages of the API reference: for each public name, where on which page it is.

What stands there comes from docstrings, by Sphinx's autodoc, and from schemas: the tables of data
types are made from what :mod:`docs.tools.observe` has seen. Nothing on the pages is typed here but
their titles.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.ext.napoleon import GoogleDocstring

import tripy as tp
import tripy.quantization as tq
from docs.tools import observe, public, reference
from docs.tools.observe import Slot, Use
from tripy import ops

FOLDER = reference.ROOT / "docs" / "reference" / "api"
MADE = "% Written by docs/tools/api_pages.py from docstrings and schemas; edit those.\n"
COMPILING = ["compile", "Executable", "InputInfo", "NamedDimension", "DimensionInputInfo", "Bounds",
             "Stream", "default_stream", "generate"]  # fmt: skip
SETTINGS = ["logger", "device", "TripyException", "types"]


def pages() -> dict[str, str]:
    """The Markdown of each page, by the name of its file, in the order of the contents."""
    titles = reference.families()
    families = dict(zip((_slug(names) for names in titles.values()), titles.items()))
    made = {"tensor": _tensor()}
    for slug, (title, names) in families.items():
        module = getattr(tp, names[0]).__module__
        others = [name for name in tp.__all__ if _module(name) == module and name not in names]
        made[slug] = _page(title, map(_entry, [*names, *others]))
    made["modules"] = _page("Modules", map(_entry, ["Module", "Parameter", *reference.modules()]))
    made["compiling"] = _page("Compiling and running", map(_entry, COMPILING))
    made["toolkit"] = _quantization()
    made["settings"] = _settings()
    rest = sorted(set(tp.__all__) - _placed(made))
    if rest:  # Nothing public is without a page, also what is new.
        made["more"] = _page("More", map(_entry, rest))
    return {f"{name}.md": text for name, text in made.items()}


def write(folder: Path = FOLDER) -> None:
    """Write the pages, and take away those that are no longer there."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # Sphinx reads again what is newer.
            path.write_text(text)


def names_on(pages: dict[str, str]) -> set[str]:
    """The full names that pages describe, less those of settings."""
    directive = r"^ *\.\. (?:auto\w+|py:\w+):: ([\w.]+)"
    return {name for text in pages.values() for name in re.findall(directive, text, re.MULTILINE)}


def _placed(made: dict[str, str]) -> set[str]:
    return {name.removeprefix("tripy.") for name in names_on(made)} | {"config"}


def _slug(names: list[str]) -> str:
    return getattr(tp, names[0]).__module__.rpartition(".")[2].replace("_", "-")


def _module(name: str) -> str:
    return getattr(getattr(tp, name), "__module__", "")


def _page(title: str, entries: Iterable[str]) -> str:
    body = "\n".join(entries)
    return f"{MADE}\n# {title}\n\n````{{eval-rst}}\n{body}````\n"


def _entry(name: str) -> str:
    """A name of ``tripy``, with its public members."""
    found = getattr(tp, name)
    if inspect.ismodule(found):
        return _namespace(name, found)
    if not inspect.isclass(found) and not inspect.isfunction(found):  # An object, of a class.
        return _object(f"tripy.{name}", found)
    kind = "class" if inspect.isclass(found) else "function"
    kind = "exception" if inspect.isclass(found) and issubclass(found, Exception) else kind
    text = f".. auto{kind}:: tripy.{name}\n"
    for member, directive in _public_members(name):
        text += f"\n   .. {directive}:: tripy.{member}\n"
    return text + "\n" * (kind != "function")


def _public_members(name: str) -> Iterator[tuple[str, str]]:
    for entry in public.entries():
        if entry.name.startswith(f"{name}.") and entry.kind in ("method", "property"):
            # The call of a class is described with the class where it has nothing to add.
            yield entry.name, "autoproperty" if entry.kind == "property" else "automethod"


def _own_members(kind: type) -> Iterator[tuple[str, str]]:
    """Methods and properties that have a docstring, and how autodoc is asked for them."""
    for name, member in vars(kind).items():
        if not name.startswith("_") and inspect.getdoc(member):
            if isinstance(member, property):
                yield name, "autoproperty"
            elif inspect.isfunction(member) or isinstance(member, (classmethod, staticmethod)):
                yield name, "automethod"


def _object(name: str, found: Any) -> str:
    """An object that is public itself, such as ``tripy.logger``."""
    made = f".. py:data:: {name}\n\n{_converted(found.__doc__)}\n"
    for member, kind in _own_members(type(found)):
        described = vars(type(found))[member]
        signature = "" if kind == "autoproperty" else f"({reference.signature(described)})"
        word = "attribute" if kind == "autoproperty" else "method"
        made += f".. py:{word}:: {name}.{member}{signature}\n\n{_converted(described.__doc__)}\n"
    return made


def _namespace(name: str, found: ModuleType) -> str:
    """A module that holds names, such as ``tripy.types``."""
    made = f".. py:data:: tripy.{name}\n\n{_converted(found.__doc__)}\n"
    for node in ast.parse(inspect.getsource(found)).body:
        if isinstance(node, ast.Assign):
            [target] = node.targets
            text = f"``{ast.unparse(node.value)}``"
            made += f".. py:data:: tripy.{name}.{ast.unparse(target)}\n\n   {text}\n\n"
    return made


def _converted(docstring: Any) -> str:
    """A docstring as Sphinx reads it, for what autodoc does not describe."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    return textwrap.indent(str(GoogleDocstring(lines)), "   ") + "\n"


def _tensor() -> str:
    rows = [reference.operator_row(*each) for each in observe.operators()]
    table = "\n".join(reference.table(reference.COLUMNS[:3], rows))
    legend = (
        "Short forms of data types are explained in [the table of operations](../operations.md)."
    )
    text = _page("Tensors and data types", map(_entry, ["Tensor", "DimensionSize"]))
    kinds = sorted(entry.name for entry in public.entries() if entry.kind == "data type")
    types = "\n".join(f".. autoclass:: tripy.{name}\n   :no-index-entry:\n" for name in kinds)
    return (
        f"{text}\n## Operators\n\n{table}\n{legend}\n\n## Data types\n\n"
        f"````{{eval-rst}}\n{_entry('dtype')}\n{types}````\n"
    )


def _settings() -> str:
    source = inspect.getsource(tp.config)
    lines = []
    for name in tp.config._TYPES:
        found = re.search(
            rf"((?:^#[^\n]*\n)+)(?:^\w+:[^\n]*\n)*?^{name}:[^=\n]+(?:= ([^\n]+))?$",
            source,
            re.MULTILINE,
        )
        if found is None:
            raise ValueError(f"tp.config.{name} has no comment that says what it is")
        text = re.sub(r"^# ?", "", found[1], flags=re.MULTILINE)
        known = found[2] and "os.environ" not in found[2]
        value = f"   :value: {found[2]}\n" if known else ""
        lines.append(f".. py:data:: {name}\n{value}\n{textwrap.indent(text, '   ')}\n")
    example = (tp.config.__doc__ or "").partition("Example:\n")[2]
    settings = (
        ".. py:module:: tripy.config\n\n``tripy.config`` holds settings, which are changed by "
        f"assigning them; a wrong name or value is refused.\n\n{inspect.cleandoc(example)}\n\n"
    )
    leave = ".. py:currentmodule:: None\n"
    others = map(_entry, SETTINGS)
    return _page("Settings, devices and errors", [settings, *lines, leave, *others])


def _quantization() -> str:
    entries = []
    for name in sorted(tq.__all__, key=lambda each: (not each.islower(), each.lower())):
        found = getattr(tq, name)
        if inspect.isclass(found):
            entries.append(f".. autoclass:: tripy.quantization.{name}\n")
            for member, kind in _own_members(found):
                entries.append(f"   .. {kind}:: tripy.quantization.{name}.{member}\n")
            entries.append("")
        elif inspect.isfunction(found):
            entries.append(f".. autofunction:: tripy.quantization.{name}\n")
        else:
            text = _preset(found) if isinstance(found, tq.QuantizationConfig) else "All presets."
            entries.append(f".. py:data:: {name}\n\n   {text}\n")
    module = ".. py:module:: tripy.quantization\n"
    return _page("tripy.quantization", [module, *entries])


def _preset(config: tq.QuantizationConfig) -> str:
    parts = []
    for rule in config.rules:
        if rule.enable:
            kinds = " then ".join(str(quantizer) for quantizer in rule.quantizers)
            parts.append(f"``{rule.pattern}``: {kinds}")
    algorithm = config.algorithm
    found = f"{algorithm.method}, thresholds of weights: {algorithm.weight_calibrator}"
    return f"{'; '.join(parts)}. Scales by {found}."


def data_types(name: str) -> list[tuple[str, str]]:
    """Which arguments and results of a function or module share which data types.

    Args:
        name: A name of ``tripy``.

    Returns:
        Rows of words and data types; none for what computes no tensor by itself.
    """
    found = getattr(tp, name, None)
    if name in ops.__all__:
        return _rows(observe.function(name), found)
    if name in reference.modules() and public.is_layer(name):
        return _rows(observe.module(name), found)
    return []


def _rows(use: Use, found: Any) -> list[tuple[str, str]]:
    who: dict[Slot, list[str]] = {}
    for name, slot in use.operands.items():
        who.setdefault(slot.root(), []).append(f"``{name}``")
    several = len(use.results) > 1
    for position, result in enumerate(use.results, 1):
        if result is not None:
            who.setdefault(result.root(), []).append(f"result {position}" if several else "result")
    return [
        (", ".join(dict.fromkeys(names)), ", ".join(f"``{kind.name}``" for kind in slot.types))
        for slot, names in who.items()
    ]
