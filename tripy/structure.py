"""Nested arguments and results: lists, tuples and dicts with tensors at their leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from tripy.errors import TripyException


class Structure:
    """A list, tuple or dict; subclasses are leaves.

    Attributes:
        path: How a user writes the place: ``data.b.list[1]``.
        kind: ``"list"``, ``"tuple"`` or ``"dict"``.
        children: The parts by key or index.
    """

    def __init__(self, path: str, kind: str, children: dict[Any, Structure]) -> None:
        self.path, self.kind, self.children = path, kind, children

    def has_leaves(self) -> bool:
        """Whether anything in it is given at run time."""
        return any(child.has_leaves() for child in self.children.values())

    def to_json(self) -> Any:
        items = [[key, child.to_json()] for key, child in self.children.items()]
        return {"kind": self.kind, "path": self.path, "items": items}


class Leaf(Structure):
    """A tensor: number ``index`` of the inputs or outputs."""

    def __init__(self, path: str, index: int) -> None:
        super().__init__(path, "tensor", {})
        self.index = index

    def has_leaves(self) -> bool:
        return True

    def to_json(self) -> Any:
        return {"kind": "tensor", "path": self.path, "index": self.index}


class SizeLeaf(Structure):
    """A size given at run time; its symbol is named after its path."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "size", {})

    def has_leaves(self) -> bool:
        return True

    def to_json(self) -> Any:
        return {"kind": "size", "path": self.path}


class Baked(Structure):
    """A value that was fixed when the function was compiled."""

    def __init__(self, path: str, value: Any) -> None:
        super().__init__(path, "baked", {})
        self.value = value

    def has_leaves(self) -> bool:
        return False

    def to_json(self) -> Any:
        plain = self.value is None or isinstance(self.value, (bool, int, float, str))
        return {"kind": "baked", "path": self.path, "value": self.value if plain else None}


def structure_from_json(data: Any) -> Structure:
    """The reverse of ``to_json``."""
    kind, path = data["kind"], data["path"]
    if kind == "tensor":
        return Leaf(path, data["index"])
    if kind == "size":
        return SizeLeaf(path)
    if kind == "baked":
        return Baked(path, data["value"])
    return Structure(path, kind, {key: structure_from_json(item) for key, item in data["items"]})


def child_path(path: str, key: Any) -> str:
    return f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"


def map_structure(structure: Structure, leaf: Callable[[Structure], Any]) -> Any:
    """The nested lists, tuples and dicts, with ``leaf(...)`` at each leaf."""
    if not structure.children and structure.kind not in ("list", "tuple", "dict"):
        return leaf(structure)
    parts = {key: map_structure(child, leaf) for key, child in structure.children.items()}
    if structure.kind == "dict":
        return parts
    return tuple(parts.values()) if structure.kind == "tuple" else list(parts.values())


def leaves(structure: Structure, argument: Any, found: list[tuple[Structure, Any]]) -> None:
    """Walk an argument along its structure and collect what stands at the leaves."""
    if isinstance(structure, (Leaf, SizeLeaf)):
        found.append((structure, argument))
    elif isinstance(structure, Baked):
        same = argument is structure.value
        if not same and isinstance(structure.value, (bool, int, float, str)):
            same = type(argument) is type(structure.value) and argument == structure.value
        if not same:
            raise TripyException(
                f"{structure.path}: the value was fixed when the function was compiled.",
                got=_short(argument),
                expected=_short(structure.value),
                hint="tp.InputInfo or tp.DimensionInputInfo there, and compile again",
            )
    else:
        _walk(structure, argument, found)


def _walk(structure: Structure, argument: Any, found: list[tuple[Structure, Any]]) -> None:
    wanted = dict if structure.kind == "dict" else (list, tuple)
    keys: Optional[list] = None
    if isinstance(argument, wanted):
        keys = list(argument) if isinstance(argument, dict) else list(range(len(argument)))
    if keys is None or set(keys) != set(structure.children):
        got = type(argument).__name__
        if keys is not None:
            got += f" with {keys}" if structure.kind == "dict" else f" of {len(keys)}"
        expected = (
            f"a dict with {list(structure.children)}"
            if structure.kind == "dict"
            else f"a {structure.kind} of {len(structure.children)}"
        )
        raise TripyException(
            f"{structure.path}: the argument is nested in another way.", got=got, expected=expected
        )
    for key, child in structure.children.items():
        leaves(child, argument[key], found)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
