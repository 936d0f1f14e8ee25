"""The walk of the public API: every public name, and what each has to have.

The tests fail on a name that lacks something; ``reference.py --count`` prints how many have it.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tripy as tp
from docs.tools import observe
from tripy import nn, ops
from tripy.graph import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]


class Entry(NamedTuple):
    """One public thing.

    Attributes:
        name: ``softmax``, ``Linear`` or ``Tensor.tolist``.
        kind: function, operator, module, class, method, property, data type or namespace.
        found: The thing itself.
    """

    name: str
    kind: str
    found: Any


def entries() -> list[Entry]:
    """All public names, the methods and properties of the classes among them, and operators."""
    return list(_entries())


def _entries() -> Iterator[Entry]:
    for name in sorted(tp.__all__):
        found = getattr(tp, name)
        yield Entry(name, _kind(name, found), found)
        if inspect.isclass(found):
            yield from _members(name, found)
    for method, _, _ in observe.operators():
        yield Entry(f"Tensor.{method}", "operator", getattr(tp.Tensor, method))


def _kind(name: str, found: Any) -> str:
    if isinstance(found, tp.dtype) or found in (tp.floating, tp.integer):
        return "data type"
    if inspect.isclass(found):
        return "module" if issubclass(found, tp.Module) and found is not tp.Module else "class"
    if name in ops.__all__ or inspect.isfunction(found):
        return "function"
    return "namespace"


def _members(name: str, kind: type) -> Iterator[Entry]:
    """Methods and properties, those of private base classes too, each once."""
    public = {getattr(tp, other) for other in tp.__all__ if inspect.isclass(getattr(tp, other))}
    for base in kind.__mro__:
        if base is not kind and (base in public or not base.__module__.startswith("tripy")):
            continue
        for key, member in vars(base).items():
            if key.startswith("_") and key != "__call__":
                continue
            if isinstance(member, property):
                yield Entry(f"{name}.{key}", "property", member)
            elif inspect.isfunction(member) or isinstance(member, (classmethod, staticmethod)):
                yield Entry(f"{name}.{key}", "method", getattr(kind, key))


def signature_of(found: Any) -> inspect.Signature:
    """How a function is called, or a class; of a class that has a __new__ too, by its __init__."""
    return inspect.signature(found.__init__ if inspect.isclass(found) else found)


def is_layer(name: str) -> bool:
    """Whether a class is a module that computes something itself, and does not only hold others."""
    return name in nn.__all__ and "dtype" in signature_of(getattr(tp, name)).parameters


# What each kind has to have; the predicates are below.
def has_schema(entry: Entry) -> bool:
    """Whether all that it records has a schema, and is computed by a backend."""
    name = entry.name
    if entry.kind == "operator":
        uses = [use for method, _, use in observe.operators() if f"Tensor.{method}" == name]
        return bool(uses) and all(SCHEMAS[op] for use in uses for op in use.operations)
    use = observe.module(name) if entry.kind == "module" else observe.function(name)
    # Comparisons of whole tensors end in a Python bool, maybe before anything is recorded.
    return bool(use.operations or use.results == (None,)) and all(
        op in SCHEMAS and not SCHEMAS[op].internal for op in use.operations
    )


def has_docstring(entry: Entry) -> bool:
    """Whether there is a docstring of its own."""
    found = entry.found
    if entry.kind == "operator":  # object has docstrings for some, which say nothing of tensors.
        return bool(found.__doc__)
    return bool(inspect.getdoc(found))


def has_example(entry: Entry) -> bool:
    """Whether the docstring has an example that starts from nothing; a test runs it."""
    return ">>> import tripy as tp" in (inspect.getdoc(entry.found) or "")


def missing_annotations(entry: Entry) -> list[str]:
    """The parameters without annotation, and "return" if the result has none."""
    found = entry.found
    if isinstance(found, property):
        functions: list[Callable] = [f for f in (found.fget, found.fset) if f is not None]
    elif inspect.isclass(found):
        own = vars(found).get("__init__") or getattr(found, "__init__", None)
        functions = [own] if inspect.isfunction(own) else []
    else:
        functions = [found]
    return [name for function in functions for name in _missing(function)]


def _missing(function: Callable) -> Iterator[str]:
    signature = inspect.signature(function)
    for position, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.annotation is parameter.empty and not (
            position == 0 and name in ("self", "cls")
        ):
            yield name
    if signature.return_annotation is signature.empty:
        yield "return"


def has_annotations(entry: Entry) -> bool:
    """Whether all parameters and the result are annotated."""
    return not missing_annotations(entry)


@functools.cache
def _tests() -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("*.py")))


@functools.cache
def _cases() -> frozenset[str]:
    from tests.ops.cases import CASES  # noqa: PLC0415  (the documentation is made without tests)

    return frozenset(case.name for case in CASES)


def has_test(entry: Entry) -> bool:
    """Whether it is in the random test matrix; or, if it is not for that, used by a test."""
    name, owner = entry.name.rpartition(".")[2], entry.name.rpartition(".")[0]
    if entry.kind == "operator" or (entry.name in ops.__all__ and name not in AT_ONCE):
        return entry.name in _cases()
    if name == "__call__":
        return True  # What a test of the class cannot do without.
    if name == "forward":
        return re.search(rf"\btp\.{owner}\(|\({owner}\)", _tests()) is not None
    return re.search(rf"\.{name}\b", _tests()) is not None


# They compute a Python value at once, so the matrix, which compiles, does not have them.
AT_ONCE = ("allclose", "equal")

REQUIRED: dict[str, tuple[str, ...]] = {
    "function": ("schema", "docstring", "example", "annotations", "test"),
    "operator": ("schema", "docstring", "annotations", "test"),
    "module": ("schema", "docstring", "example", "annotations", "test"),
    "class": ("docstring", "example", "annotations", "test"),
    "method": ("docstring", "annotations", "test"),
    "property": ("docstring", "annotations", "test"),
    "data type": ("docstring", "test"),
    "namespace": ("docstring", "test"),
}
PREDICATES: dict[str, Callable[[Entry], bool]] = {
    "schema": has_schema, "docstring": has_docstring, "example": has_example,
    "annotations": has_annotations, "test": has_test,
}  # fmt: skip


def required(entry: Entry) -> tuple[str, ...]:
    """What an entry has to have."""
    needed = REQUIRED[entry.kind]
    if entry.name in ops.__all__ or is_layer(entry.name) or entry.kind == "operator":
        return needed
    # Functions that are no operations, such as compile, and containers.
    return tuple(each for each in needed if each != "schema")
