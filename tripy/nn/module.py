"""Modules: trees of parameters and of the functions that use them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tripy import ops
from tripy.errors import TripyException
from tripy.nn.parameter import Declaration, Parameter, Problem, is_parameter, is_unset
from tripy.nn.slots import Slot, keep_ties, leaves
from tripy.tensor import Tensor


class Module:
    """A function with parameters, and with other modules as its children.

    Tensors and modules that are assigned as attributes become parameters and children, as do those
    in lists, tuples and dicts that are attributes. A subclass defines ``forward``. A new value of a
    parameter has to have its shape and data type.

    Example:
        >>> import tripy as tp
        >>> class Scaled(tp.Module):
        ...     def __init__(self):
        ...         self.factor = tp.Parameter([1.0, 2.0])
        ...         self.layers = [tp.Linear(2, 2), tp.Linear(2, 2, bias=False)]
        ...
        ...     def forward(self, x):
        ...         for layer in self.layers:
        ...             x = layer(x)
        ...         return x * self.factor
        >>> module = Scaled()
        >>> module.initialize_dummy_parameters()
        >>> module(tp.ones((1, 2))).tolist()
        [[6.0, 12.0]]
        >>> list(module.state_dict())
        ['factor', 'layers.0.weight', 'layers.0.bias', 'layers.1.weight']
    """

    _declarations: dict[str, Declaration]
    _complete: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        # Here, and not in __init__, so that a subclass need not call super().__init__().
        del args, kwargs
        module = super().__new__(cls)
        module.__dict__.update(_declarations={}, _complete=False)
        return module

    def _declare(self, name: str, declaration: Declaration, present: bool = True) -> None:
        """Have a parameter of that name: without a value yet, or None if it is not ``present``."""
        self._declarations[name] = declaration
        self.__dict__[name] = declaration.unset(name) if present else None

    def __setattr__(self, name: str, value: Any) -> None:
        declaration, current = self._declarations.get(name), self.__dict__.get(name)
        if declaration is None and isinstance(current, Tensor) and is_parameter(current):
            declaration = Declaration.like(current)
        if declaration is not None:
            value = declaration.examine(value)
            if isinstance(value, Problem):
                raise value.error(f"{type(self).__name__}.{name}")
        elif is_parameter(value) and not isinstance(value, Parameter):
            value = Parameter(value)
        self.__dict__["_complete"] = False
        super().__setattr__(name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; a subclass defines it.

        Raises:
            TripyException: In a class that does not define it.

        Example:
            >>> import tripy as tp
            >>> class Double(tp.Module):
            ...     def forward(self, x):
            ...         return x * 2
            >>> Double()(tp.Tensor(2.0)).tolist()
            4.0
        """
        raise TripyException(
            f"{type(self).__name__} has no forward.",
            got="a call of the module",
            expected="a method `forward` in the class",
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``forward``, after making sure that every parameter of the tree has a value.

        Raises:
            TripyException: Where parameters have no value; all of them are listed.

        Example:
            >>> import tripy as tp
            >>> try:
            ...     tp.Linear(2, 3)(tp.ones((1, 2)))
            ... except tp.TripyException as error:
            ...     print(str(error).splitlines()[0])
            Linear: 2 parameters have no value.
        """
        if not self._complete:
            self._require_values()
        return self.forward(*args, **kwargs)

    def _require_values(self) -> None:
        unset = [
            f"{name}: {slot.value._value.type_text}"
            for name, slot in self._tree().items()
            if slot.value is not None and is_unset(slot.value)
        ]
        if unset:
            plural = "parameters have" if len(unset) > 1 else "parameter has"
            raise TripyException(
                f"{type(self).__name__}: {len(unset)} {plural} no value.",
                got=_listed(unset),
                expected="a value for each, assigned or loaded with load_state_dict",
                hint="module.initialize_dummy_parameters() where any values will do",
            )
        # Assigning makes a module incomplete again, so a complete tree is walked only once.
        for module in self._modules():
            module.__dict__["_complete"] = True

    def _slots(self) -> Iterator[Slot]:
        """Everything the module itself holds, in order of assignment."""
        for name, value in list(vars(self).items()):
            store = partial(self.__dict__.__setitem__, name)
            if name in self._declarations:
                yield Slot(name, value, store, self._declarations[name])
            else:
                yield from leaves(name, value, store)

    def _modules(self, above: tuple[Module, ...] = ()) -> Iterator[Module]:
        """The module and all below it."""
        for name, child in self.named_children():
            self._reject_cycle(name, child, above)
            yield from child._modules((*above, self))
        yield self

    def _reject_cycle(self, name: str, child: Module, above: tuple[Module, ...]) -> None:
        if any(child is each for each in (*above, self)):
            raise TripyException(
                "A module contains itself.",
                got=f"{type(self).__name__}.{name} is a {type(child).__name__} that holds it",
                expected="a tree of modules",
                hint="keep the reference in a function or a weakref.ref",
            )

    def _tree(self, prefix: str = "", above: tuple[Module, ...] = ()) -> dict[str, Slot]:
        """All parameters by dotted name: those of the module itself, then its children's."""
        found: dict[str, Slot] = {}
        slots = list(self._slots())
        for slot in slots:
            if slot.declaration is not None or is_parameter(slot.value):
                self._add(found, {prefix + slot.name: slot})
        for slot in slots:
            if isinstance(slot.value, Module):
                self._reject_cycle(slot.name, slot.value, above)
                below = slot.value._tree(f"{prefix}{slot.name}.", (*above, self))
                self._add(found, below)
        return found

    def _add(self, found: dict[str, Slot], more: dict[str, Slot]) -> None:
        for name in more:
            if name in found:
                raise TripyException(
                    f"{type(self).__name__}: two parameters have one name.",
                    got=name,
                    expected="names that differ, also where a dict's keys are written as text",
                )
        found.update(more)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The module's own parameters; :meth:`state_dict` has those of the whole tree.

        Yields:
            Name and parameter. One in a list, tuple or dict is named ``list.0`` or ``dict.key``.

        Example:
            >>> import tripy as tp
            >>> [name for name, _ in tp.Linear(2, 3).named_parameters()]
            ['weight', 'bias']
        """
        for slot in self._slots():
            if is_parameter(slot.value):
                yield slot.name, slot.value

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules right below this one.

        Yields:
            Name and module. One in a list, tuple or dict is named ``list.0`` or ``dict.key``.

        Example:
            >>> import tripy as tp
            >>> [name for name, _ in tp.Sequential(tp.Linear(2, 3), tp.relu).named_children()]
            ['0']
        """
        for slot in self._slots():
            if isinstance(slot.value, Module):
                yield slot.name, slot.value

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters of the whole tree.

        Returns:
            Parameters by dotted name, also those that have no value yet. A parameter that several
            modules share appears under each name.

        Example:
            >>> import tripy as tp
            >>> list(tp.Sequential(tp.Linear(2, 3), tp.relu).state_dict())
            ['0.weight', '0.bias']
        """
        return {n: slot.value for n, slot in self._tree().items() if slot.value is not None}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> tuple[set[str], set[str]]:
        """Give the parameters of the tree new values: all of them, or none where one does not fit.

        A tripy Tensor is taken as it is; other arrays go where the parameter lives. Parameters that
        are one object stay one as long as the values given for them are equal, and a value for one
        of their names is enough.

        Args:
            state_dict: By dotted name, tensors or anything that :class:`Tensor` accepts.
            strict: Whether names that are missing or unexpected are an error.

        Returns:
            The names of the parameters for which there is no value, and the names for which there
            is no parameter. Optional parameters that are not set are not missing.

        Raises:
            TripyException: For values whose shape or data type does not fit, and, if ``strict``,
                for missing and unexpected names. All are listed, and nothing has been loaded.

        Example:
            >>> import tripy as tp
            >>> linear = tp.Linear(2, 1)
            >>> linear.load_state_dict({"weight": [[1.0, 2.0]]}, strict=False)
            ({'bias'}, set())
            >>> linear.load_state_dict({"weight": tp.ones((1, 2)), "bias": tp.zeros((1,))})
            (set(), set())
        """
        if not isinstance(state_dict, Mapping):
            raise TripyException(
                "load_state_dict: the state is not a dict.",
                got=f"{state_dict!r:.80} of type {type(state_dict).__name__}",
                expected="a dict from dotted names to tensors, as state_dict() gives it",
            )
        slots = self._tree()
        expected = [name for name, slot in slots.items() if slot.value is not None]
        known = {n for n, s in slots.items() if s.value is not None or s.declaration.loads}  # type: ignore[union-attr]
        unexpected = [name for name in state_dict if name not in known]
        values, problems = {}, []
        for name, given in state_dict.items():
            if name in known:
                value = slots[name].examine(given)
                if isinstance(value, Problem):
                    problems.append(
                        f"{name}: {value.summary} Got {value.got}; expected {value.expected}."
                    )
                else:
                    values[name] = value
        keep_ties(slots, values)
        missing = [n for n in expected if n not in values and n not in state_dict]
        if strict:
            problems += [f"{name}: missing." for name in missing]
            problems += [f"{name}: unexpected." for name in unexpected]
        if problems:
            raise TripyException(
                f"load_state_dict: the state does not fit {type(self).__name__}; "
                "nothing was loaded.",
                got=_listed(problems),
                expected="for each parameter a value of its shape and data type",
                hint="strict=False to allow names that are missing or unexpected"
                if strict and (missing or unexpected)
                else None,
            )
        for name, value in values.items():
            slots[name].store(value)
        return set(missing), set(unexpected)

    def initialize_dummy_parameters(self) -> None:
        """Give every parameter of the tree that has no value, and needs one, ones.

        Parameters that are set, and optional ones that are None, stay as they are.

        Example:
            >>> import tripy as tp
            >>> linear = tp.Linear(2, 1)
            >>> linear.initialize_dummy_parameters()
            >>> linear.weight.tolist()
            [[1.0, 1.0]]
        """
        made: dict[int, Parameter] = {}
        for slot in self._tree().values():
            if slot.value is not None and is_unset(slot.value):
                # A parameter with several names gets one value.
                if id(slot.value) not in made:
                    made[id(slot.value)] = Parameter(ops.ones_like(slot.value))
                slot.store(made[id(slot.value)])

    def _summary(self) -> str:
        """What print shows after the class's name."""
        return ""

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self, above: tuple[Module, ...] = ()) -> list[str]:
        rows = []
        for slot in self._slots():
            value = slot.value
            if isinstance(value, Module):
                self._reject_cycle(slot.name, value, above)
                first, *more = value._lines((*above, self))
                rows += [f"{slot.name}: {first}", *more]
            elif is_parameter(value):
                rows.append(f"{slot.name}: {value._value.type_text}")
                rows[-1] += ", not set" if is_unset(value) else ""
            elif inspect.isroutine(value):
                rows.append(f"{slot.name}: {getattr(value, '__name__', 'function')}()")
        summary = self._summary()
        head = type(self).__name__ + (f" [{summary}]" if summary else "")
        return [f"{head}(", *(f"    {row}" for row in rows), ")"] if rows else [f"{head}()"]


def _listed(rows: list[str]) -> str:
    """Rows one below the other, as a message shows them."""
    return rows[0] if len(rows) == 1 else "".join(f"\n    {row}" for row in rows)
