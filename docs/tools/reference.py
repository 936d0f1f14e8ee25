"""The table of operations: writes ``docs/reference/operations.md`` from schemas and docstrings.

    python docs/tools/reference.py            write it
    python docs/tools/reference.py --check    fail if the file is not what would be written
    python docs/tools/reference.py --count    how much of the public API has what it has to have

Nothing on the page is typed here: to change it, change the schema or the docstring.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
# The page is the same on every machine.
os.environ.setdefault("TRIPY_DEVICE", "cpu")

import tripy as tp  # noqa: E402
from docs.tools import observe, public  # noqa: E402
from docs.tools.observe import Slot, Use  # noqa: E402
from tripy import dtypes, ops  # noqa: E402
from tripy.graph import SCHEMAS  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "operations.md"
# Short forms, in the order they are written in.
SHORT = {
    "F": dtypes.FLOATS, "f8": (dtypes.float8,), "i8": (dtypes.int8,), "i4": (dtypes.int4,),
    "I": dtypes.INTS, "b": (dtypes.bool,),
}  # fmt: skip


def short(types: Iterable[dtypes.dtype]) -> str:
    """Data types in short forms: ``F i8 I b``, ``any``, ``any but f8``."""
    left = set(types)
    missing = set(dtypes.ALL) - left
    if len(missing) <= 1:
        return f"any but {short(missing)}" if missing else "any"
    words = []
    for word, group in SHORT.items():
        if left >= set(group):
            words.append(word)
            left -= set(group)
        words += [t.name for t in group if t in left]
        left -= set(group)
    return " ".join(words)


def typed(use: Use, found: Any, named: bool = True) -> str:
    """Operands and results with their data types: ``input: T, index: I → T; T: any``."""
    parameters = public.signature_of(found).parameters
    slots = [*use.operands.values(), *(r for r in use.results if r is not None)]
    roots = [slot.root() for slot in slots]
    letters: dict[Slot, str] = {}
    for root in roots:
        if root not in letters and len(root.types) > 1 and roots.count(root) > 1:
            free = (n for n in (root.hint, "T", "U", "V") if n not in letters.values())
            letters[root] = next(free)

    def text(slot: Optional[Slot]) -> str:
        if slot is None:  # A Python value.
            return str(inspect.signature(found).return_annotation)
        return letters.get(slot.root()) or short(slot.types)

    def operand(name: str, slot: Slot) -> str:
        many = "…" if name in use.variadic else ""
        if not named:
            return text(slot) + many
        optional = name in parameters and parameters[name].default is None
        return f"{name}{'?' if optional else ''}: {text(slot)}{many}"

    operands = ", ".join(operand(name, slot) for name, slot in use.operands.items())
    results = [text(slot) for slot in use.results]
    if len(use.results) > 1 and len(set(results)) == 1:  # As many as wanted: split.
        results = [f"{results[0]}…"]
    lines = [f"`{operands} → {', '.join(results)}`"]
    lines += [f"{letter}: {short(root.types)}" for root, letter in letters.items()]
    return "; ".join(lines)


def signature(found: Any) -> str:
    """The arguments with their defaults, without annotations."""
    parts = []
    for parameter in public.signature_of(found).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(str(parameter.replace(annotation=parameter.empty)).replace("=<", "="))
    return ", ".join(parts)


def markdown(text: str) -> str:
    """A docstring's text in one line of Markdown."""
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`")


def section(found: Any, title: str) -> str:
    """A section of a Google docstring, such as ``Returns``."""
    text = inspect.getdoc(found) or ""
    match = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    return markdown(match.group(1)) if match else ""


def first_sentence(found: Any) -> str:
    """The first line of a docstring, which is a sentence."""
    return markdown((inspect.getdoc(found) or "").split("\n\n")[0])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    ] + [""]


def families() -> dict[str, list[str]]:
    """The public functions, by the title of the file that they are in."""
    modules = sorted({getattr(tp, name).__module__ for name in ops.__all__})
    return {
        markdown(first_sentence(sys.modules[module])).rstrip("."): [
            name for name in ops.__all__ if getattr(tp, name).__module__ == module
        ]
        for module in modules
    }


COLUMNS = ["", "data types", "meaning", "result"]


def function_row(name: str) -> list[str]:
    """A function: how it is called, its data types, the first line of its docstring, its result."""
    found, use = getattr(tp, name), observe.function(name)
    return [f"`{name}({signature(found)})`", typed(use, found), first_sentence(found),
            section(found, "Returns")]  # fmt: skip


def module_row(name: str) -> list[str]:
    """The same for a module; containers have the data types of what they hold."""
    found = getattr(tp, name)
    types = "those of what it holds"
    if public.is_layer(name):
        types = typed(observe.module(name), found)
    return [f"`{name}({signature(found)})`", types, first_sentence(found),
            section(found.forward, "Returns")]  # fmt: skip


def operator_row(method: str, symbol: str, use: Use) -> list[str]:
    """An operator: as Python writes it, its data types, the first line of its docstring."""
    found = getattr(tp.Tensor, method)
    return [f"`{symbol}`", typed(use, found, named=False), first_sentence(found)]


def schema_rows() -> Iterable[list[str]]:
    """The operations themselves, and what records each."""
    users: dict[str, list[str]] = {name: [] for name in SCHEMAS}
    layers = [name for name in modules() if public.is_layer(name)]
    recorded = [
        *((name, observe.function(name)) for name in ops.__all__),
        *((symbol, use) for _, symbol, use in observe.operators()),
        *((name, observe.module(name)) for name in layers),
    ]
    for name, use in recorded:
        for op in use.operations:
            users[op].append(f"`{name}`")
    for schema in sorted(SCHEMAS.values(), key=lambda each: each.name):
        inputs = ", ".join(
            f"{i.name}{'?' if i.optional else ''}: {i.type}{'…' if i.variadic else ''}"
            for i in schema.inputs
        )
        outputs = ", ".join(kind.removeprefix("@") for kind in schema.outputs)
        types = [
            f"{name}: {short(accepted)}"
            for name, accepted in schema.types.items()
            if name not in dtypes.BY_NAME
        ]
        text = "; ".join([f"`{inputs} → {outputs}`".replace("` ", "`"), *types])
        by = "the compiler's rewrites only" if schema.internal else ", ".join(users[schema.name])
        # A size of a shape, where it is known only at run time, is recorded by no call.
        yield [f"`{schema.name}`", text, by or "`Tensor.shape`"]


def modules() -> list[str]:
    """The names of the modules."""
    return [entry.name for entry in public.entries() if entry.kind == "module"]


INTRODUCTION = """\
# Operations

<!-- Written by docs/tools/reference.py from the schemas and docstrings; edit those. -->

What each public function, operator and module takes and gives, from the table of schemas that
checks it.

Operands and results with the same letter have the same data type, one of those listed after the
letter. `input…` is a sequence of tensors, and `mask?` may be left out. An argument that is not
listed with the data types is a Python value: a number, a shape, a choice.

"""


def page() -> str:
    """The whole page."""
    legend = [[f"`{word}`", ", ".join(f"`{t}`" for t in types)] for word, types in SHORT.items()]
    lines = table(["short form", "data types"], [*legend, ["`any`", "all nine"]])
    lines += ["## Operators of tensors", ""]
    lines += table(COLUMNS[:3], [operator_row(*each) for each in observe.operators()])
    for title, names in families().items():
        lines += [f"## {title}", "", *table(COLUMNS, map(function_row, names))]
    lines += ["## Modules", "", *table(COLUMNS, map(module_row, modules()))]
    lines += ["## Operations of the graph", ""]
    lines += ["What compiled functions print, passes rewrite and backends compute.", ""]
    lines += table(["", "inputs → outputs", "recorded by"], schema_rows())
    return INTRODUCTION + "\n".join(lines).rstrip() + "\n"


def count() -> str:
    """How many public names there are, and how many have what they have to have."""
    entries = public.entries()
    kinds: dict[str, int] = {}
    for entry in entries:
        kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
    internal = sum(schema.internal for schema in SCHEMAS.values())
    lines = [
        f"public names: {len(tp.__all__)}",
        ", ".join(f"{kind}: {number}" for kind, number in sorted(kinds.items())),
        f"schemas: {len(SCHEMAS)}, of which {internal} are made by rewrites only",
    ]
    for what, holds in public.PREDICATES.items():
        asked = [entry for entry in entries if what in public.required(entry)]
        lacking = [entry.name for entry in asked if not holds(entry)]
        text = f"{what}: {len(asked) - len(lacking)} of {len(asked)}"
        lines.append(text + (f"; not {', '.join(lacking)}" if lacking else ""))
    return "\n".join(lines)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    parser.add_argument("--count", action="store_true", help="print what is covered")
    options = parser.parse_args(arguments)
    if options.count:
        print(count())
        return 0
    text = page()
    if not options.check:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print(f"{PAGE} is not up to date: run python docs/tools/reference.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
