"""Where a module's parameters and children are: in its attributes, and in lists, tuples and dicts.

A slot is one such place; it can put something else there, also into a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Optional

from tripy import config, dtypes, ops
from tripy.errors import TripyException
from tripy.nn.parameter import Declaration, Parameter, Problem, is_unset
from tripy.tensor import Tensor


class Slot(NamedTuple):
    """A place in a module that holds a parameter (or None), or a child."""

    name: str
    value: Any
    store: Callable[[Any], None]
    declaration: Optional[Declaration] = None

    def examine(self, given: Any) -> Any:
        """A value for the parameter, from whatever was given; or the problem with it."""
        rule = self.declaration or Declaration.like(self.value)
        if given is not None and not isinstance(given, Tensor):
            where = self.value.device if self.value is not None else config.default_device
            plain = not hasattr(given, "__dlpack__") and not hasattr(given, "dtype")
            try:
                given = Tensor(given, dtype=rule.dtypes[0] if plain else None, device=where)
            except TripyException as error:
                kind = getattr(given, "dtype", type(given).__name__)
                return Problem(error.summary, str(kind), "a tensor")
        value = rule.examine(given)
        if isinstance(value, Parameter) and is_unset(value):
            if self.value is None or not is_unset(self.value):
                return Problem("the new value is not set.", repr(given), "a tensor with values")
            return self.value
        return value


def leaves(name: str, value: Any, store: Callable[[Any], None]) -> Iterator[Slot]:
    """A value, or what the list, tuple or dict holds, with a way to replace each."""
    if isinstance(value, (list, dict)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in list(items):
            yield from leaves(f"{name}.{key}", item, partial(value.__setitem__, key))
    elif isinstance(value, tuple):
        parts = list(value)  # Shared by the stores, so that one does not undo another.
        make = getattr(type(value), "_make", type(value))
        for index, item in enumerate(value):
            yield from leaves(f"{name}.{index}", item, partial(_put, parts, index, store, make))
    else:
        yield Slot(name, value, store)


def _put(parts: list, index: int, store: Callable, make: Callable, item: Any) -> None:
    parts[index] = item
    store(make(parts))


def keep_ties(slots: dict[str, Slot], values: dict[str, Any]) -> None:
    """Where one parameter has several names, let it stay one parameter if it can."""
    groups: dict[int, list[str]] = {}
    for name, slot in slots.items():
        if slot.value is not None:
            groups.setdefault(id(slot.value), []).append(name)
    for names in groups.values():
        given = [values[name] for name in names if name in values]
        if len(names) > 1 and given and all(_equal(given[0], other) for other in given[1:]):
            for name in names:
                if not isinstance(slots[name].examine(given[0]), Problem):
                    values[name] = given[0]


def _equal(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if left is None or right is None or is_unset(left) or is_unset(right):
        return False
    if left.dtype is not right.dtype or left.device != right.device:
        return False
    return left.dtype not in (dtypes.float8, dtypes.int4) and ops.equal(left, right)
