"""Operations that a user has written: their functions on torch tensors, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Optional

from tripy.errors import TripyException
from tripy.graph import Node


class Plugin(NamedTuple):
    """An operation that a user has registered.

    Attributes:
        name: ``"namespace::name"``.
        function: What it computes: torch tensors in and out, attributes by name.
        outputs: Its results' shapes and data types, from the inputs and the attributes.
        version: The version that TensorRT knows it by.
    """

    name: str
    function: Callable[..., Any]
    outputs: Callable[..., Any]
    version: str


PLUGINS: dict[str, Plugin] = {}


def register(plugin: Plugin) -> None:
    """Enter a plugin into the table.

    Raises:
        TripyException: If the name is taken by a function that is called otherwise. One of the same
            name is the same one, defined again, as in a notebook's cell that is run twice.
    """
    known = PLUGINS.get(plugin.name)
    if known is not None and _called(known) != _called(plugin):
        raise TripyException(
            "register_plugin: the name is taken.",
            got=f"{plugin.name} for {_called(plugin)}",
            expected=f"another name: {_called(known)} is registered as {plugin.name}",
            hint="a namespace of your own",
        )
    PLUGINS[plugin.name] = plugin


def _called(plugin: Plugin) -> str:
    return getattr(plugin.function, "__qualname__", type(plugin.function).__name__)


def known_names(near: str) -> tuple[str, Optional[str]]:
    """What is registered, and a hint with the names that are close to a wrong one."""
    close = difflib.get_close_matches(near, PLUGINS, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else None
    return ", ".join(sorted(PLUGINS)) or "none is registered", hint


def require(nodes: Iterable[Node]) -> None:
    """Refuse a program from a file whose plugins are not all registered.

    Raises:
        TripyException: Naming those that are missing.
    """
    used = {node.attrs["name"] for node in nodes if node.op == "plugin"}
    missing = sorted(used - set(PLUGINS))
    if missing:
        names = ", ".join(missing)
        raise TripyException(
            f"Executable.load: the program uses plugins that are not registered: {names}.",
            got=f"registered: {known_names(names)[0]}",
            expected="all of its plugins; a file holds no code",
            hint=f'@tp.register_plugin("{missing[0]}", ...) before loading',
        )
