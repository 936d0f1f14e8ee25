"""Modules and functions one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Union

from tripy.errors import TripyException
from tripy.nn.module import Module


class Sequential(Module):
    """Each module or function is called with the result of the one before.

    Args:
        *modules: Modules and other callables; or one dict of them by name, in its order. Without a
            dict the names are ``"0"``, ``"1"``, …

    Raises:
        TripyException: For something that cannot be called, and for a name that is empty, has a dot
            or is that of a method.

    Example:
        >>> import tripy as tp
        >>> model = tp.Sequential({"up": tp.Linear(2, 8), "act": tp.relu, "down": tp.Linear(8, 2)})
        >>> model.initialize_dummy_parameters()
        >>> model(tp.ones((1, 2))).tolist()
        [[25.0, 25.0]]
        >>> len(model), model.up is model["up"] is model[0]
        (3, True)
    """

    def __init__(self, *modules: Any) -> None:
        if len(modules) == 1 and isinstance(modules[0], dict):
            named: dict[str, Callable] = modules[0]
        else:
            named = {str(index): module for index, module in enumerate(modules)}
        self._names: tuple[str, ...] = ()
        for name, module in named.items():
            self._check_name(name)
            if not callable(module):
                raise TripyException(
                    f"Sequential: item {name!r} cannot be called.",
                    got=f"{type(module).__name__}: {module!r:.80}",
                    expected="a tp.Module or a function",
                )
            setattr(self, name, module)
        self._names = tuple(named)

    def _check_name(self, name: Any) -> None:
        if not isinstance(name, str) or not name or "." in name or name in dir(self):
            raise TripyException(
                "Sequential: a name is not usable.",
                got=f"{name!r}",
                expected="text without dots that is not the name of a method of Module",
            )

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._names)

    def __getitem__(self, key: Union[int, str]) -> Any:
        """The module at a position, also counted from the end, or of a name.

        Raises:
            TripyException: Where there is none.

        Example:
            >>> import tripy as tp
            >>> model = tp.Sequential(tp.Linear(2, 3), tp.relu)
            >>> model[-1] is tp.relu, model["0"] is model[0]
            (True, True)
        """
        if isinstance(key, str) and key in self._names:
            return getattr(self, key)
        if isinstance(key, int) and -len(self) <= key < len(self):
            return getattr(self, self._names[key])
        raise TripyException(
            "Sequential: there is no such item.",
            got=f"[{key!r}]",
            expected=f"an int from {-len(self)} to {len(self) - 1}, or one of "
            + ", ".join(map(repr, self._names))
            if self._names
            else "nothing: the Sequential is empty",
        )

    def forward(self, x: Any) -> Any:
        """Apply all, in order.

        Args:
            x: What the first one takes.

        Returns:
            What the last one gives.

        Example:
            >>> import tripy as tp
            >>> tp.Sequential(tp.exp, tp.log)(tp.zeros((2,))).tolist()
            [0.0, 0.0]
        """
        for module in self:
            x = module(x)
        return x
