"""Nested arguments and results: lists, tuples and dicts with tensors at their leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Optional

from tripy.errors import TripyException


class Structure:
    """A list, tuple or dict; subclasses are leaves.

    Attributes:
        path: How a user writes the place: ``data.b.list[1]``.
        kind: ``"list"``, ``"tuple"`` or ``"dict"``.
        children: The parts by key or index.
        make: Puts the parts of a named tuple together; None for the plain kinds. Saved files do
            not know it: there a named tuple has become a tuple.
    """

    def __init__(
        self,
        path: str,
        kind: str,
        children: dict[Any, Structure],
        make: Optional[Callable[[Iterable], Any]] = None,
    ) -> None:
        self.path, self.kind, self.children, self.make = path, kind, children, make

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
    """A size given at run time."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "size", {})

    @property
    def symbol(self) -> str:
        """The name of its size: other than that of a NamedDimension called like the argument."""
        return f"int({self.path})"

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
        value = self.value if self.plain else None
        if isinstance(value, float):
            value = {"float": value.hex()}  # JSON has neither infinity nor NaN.
        return {"kind": "baked", "path": self.path, "value": value}

    @property
    def plain(self) -> bool:
        """Whether it is a value that files can hold; of others they say None."""
        return self.value is None or isinstance(self.value, (bool, int, float, str))

    def accepts(self, argument: Any) -> bool:
        """Whether a caller that gives a value here gives the one that was baked in."""
        if argument is self.value:
            return True
        # repr, so that NaN is itself and 0.0 is not -0.0.
        return (
            self.plain and type(argument) is type(self.value) and repr(argument) == repr(self.value)
        )


def structure_from_json(data: Any) -> Structure:
    """The reverse of ``to_json``."""
    kind, path = data["kind"], data["path"]
    if kind == "tensor":
        return Leaf(path, data["index"])
    if kind == "size":
        return SizeLeaf(path)
    if kind == "baked":
        value = data["value"]
        return Baked(path, float.fromhex(value["float"]) if isinstance(value, dict) else value)
    return Structure(path, kind, {key: structure_from_json(item) for key, item in data["items"]})


def child_path(path: str, key: Any) -> str:
    """``path[1]``, ``path.key``; the first name of a path has no dot before it."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def nested(data: Any, path: str, part: Callable[[Any, str], Structure]) -> Structure:
    """The structure of a list, tuple or dict; ``part(item, path)`` gives that of each item."""
    if isinstance(data, dict):
        for key in data:
            if not isinstance(key, (str, int)):
                raise TripyException(
                    f"{path}: a dict has a key that is neither text nor an int.",
                    got=_short(key),
                    expected="str or int keys",
                )
        items = {key: part(item, child_path(path, key)) for key, item in data.items()}
        return Structure(path, "dict", items)
    items = {i: part(item, child_path(path, i)) for i, item in enumerate(data)}
    kind = "tuple" if isinstance(data, tuple) else "list"
    return Structure(path, kind, items, getattr(type(data), "_make", None))


def map_structure(structure: Structure, leaf: Callable[[Structure], Any]) -> Any:
    """The nested lists, tuples and dicts, with ``leaf(...)`` at each leaf."""
    if not structure.children and structure.kind not in ("list", "tuple", "dict"):
        return leaf(structure)
    parts = {key: map_structure(child, leaf) for key, child in structure.children.items()}
    if structure.kind == "dict":
        return parts
    if structure.make is not None:
        return structure.make(parts.values())
    return tuple(parts.values()) if structure.kind == "tuple" else list(parts.values())


def leaves(structure: Structure, argument: Any, found: list[tuple[Structure, Any]]) -> None:
    """Walk an argument along its structure and collect what stands at the leaves."""
    if isinstance(structure, (Leaf, SizeLeaf)):
        found.append((structure, argument))
    elif isinstance(structure, Baked):
        if not structure.accepts(argument):
            raise TripyException(
                f"{structure.path}: the value was fixed when the function was compiled.",
                got=_short(argument),
                expected=_short(structure.value),
                hint="tp.InputInfo or tp.DimensionInputInfo there, and compile again",
            )
    else:
        _walk(structure, argument, found)


def _walk(structure: Structure, argument: Any, found: list[tuple[Structure, Any]]) -> None:
    wanted: Any = dict if structure.kind == "dict" else (list, tuple)
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
            f"{structure.path}: the argument is nested in another way.",
            got=got,
            expected=expected,
        )
    for key, child in structure.children.items():
        leaves(child, argument[key], found)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
