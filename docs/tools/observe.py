"""What a public function records, and which data types its arguments may therefore have.

A function's docstring has an example that runs. Running it and looking at the nodes that are
recorded tells which argument ends up as which input of which operation; the schemas of these
operations know the data types. So a function made of several operations needs no table of its own:
its argument may be what all of them accept.

A few functions accept less than what they record, and check that themselves with
``arguments.tensor_of`` and ``arguments.dtype``; these checks are looked at in the same way.
"""

from __future__ import annotations

import doctest
import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Optional
from unittest.mock import patch

import tripy as tp
from tripy import dtypes
from tripy.graph import SCHEMAS, Node, Value
from tripy.ops import arguments
from tripy.tensor import recording


class Slot:
    """A data type that is not fixed: that of all arguments and results which have to share it."""

    def __init__(self, types: Sequence[dtypes.dtype] = dtypes.ALL, hint: str = "T") -> None:
        self._parent: Optional[Slot] = None
        self._types, self._hint = tuple(types), hint

    def root(self) -> Slot:
        return self if self._parent is None else self._parent.root()

    @property
    def types(self) -> tuple[dtypes.dtype, ...]:
        return self.root()._types

    @property
    def hint(self) -> str:
        """What schemas call it."""
        return self.root()._hint

    def narrow(self, types: Sequence[dtypes.dtype], hint: str = "") -> None:
        root = self.root()
        root._types = tuple(t for t in root._types if t in types)
        root._hint = hint or root._hint

    def unify(self, other: Slot) -> None:
        left, right = self.root(), other.root()
        if left is not right:
            left.narrow(right._types)
            right._parent = left


class Use(NamedTuple):
    """What was seen of one public function.

    Attributes:
        operations: The operations recorded, each once, in order.
        operands: The data type of each argument that is a tensor or a data type.
        results: The data type of each result; None for a Python value.
        variadic: Arguments that are sequences of tensors.
    """

    operations: tuple[str, ...]
    operands: dict[str, Slot]
    results: tuple[Optional[Slot], ...]
    variadic: frozenset[str]


class _Watcher:
    """Follows the arguments of one call through the operations that it records."""

    def __init__(self, bound: dict[str, Any]) -> None:
        self.bound = bound
        self.slots: dict[str, Slot] = {}
        self.operations: list[str] = []
        self.tags: dict[int, Slot] = {}
        self.kept: list[Any] = []  # Tags are kept by id: what has one has to live on.
        self.variadic: set[str] = set()
        for name, value in bound.items():
            if isinstance(value, tp.Tensor):
                self._tag(value._value, self.slot(name))
            elif isinstance(value, dtypes.dtype):
                self.slot(name)
            elif isinstance(value, (list, tuple)) and any(isinstance(v, tp.Tensor) for v in value):
                self.variadic.add(name)
                for each in value:
                    self._tag(each._value, self.slot(name))

    def slot(self, name: str) -> Slot:
        return self.slots.setdefault(name, Slot())

    def _tag(self, value: Value, slot: Slot) -> None:
        self.tags[id(value)] = slot
        self.kept.append(value)

    def node(self, node: Node) -> None:
        """Learn from a node what its inputs may be, and what its outputs are."""
        schema = SCHEMAS[node.op]
        if node.op not in self.operations:
            self.operations.append(node.op)
        inputs = list(schema.inputs)
        if inputs and inputs[-1].variadic:
            inputs += [inputs[-1]] * (len(node.inputs) - len(inputs))
        variables: dict[str, Slot] = {}
        for each, value in zip(inputs, node.inputs):
            slot = None if value is None else self.tags.get(id(value))
            given = self.bound.get(each.name)
            if (slot is None and each.name in self.bound) or (
                isinstance(given, tp.Tensor) and given._value is value
            ):
                # A number that became a tensor, an optional tensor left out, or a tensor that is
                # given twice.
                slot = self.slot(each.name)
            if slot is None:
                continue
            # Fixed by an operation before: this one does not say what an argument may be.
            if len(slot.types) > 1:
                slot.narrow(schema.types[each.type], each.type if each.type.isupper() else "")
                variables.setdefault(each.type, slot).unify(slot)
        kinds = schema.outputs * (len(node.outputs) if len(schema.outputs) == 1 else 1)
        for kind, value in zip(kinds, node.outputs):
            if kind.startswith("@"):
                accepted = schema.types.get(kind[1:], dtypes.ALL)
                if isinstance(node.attrs.get(kind[1:]), tuple):  # The user says which one.
                    self._tag(value, Slot(accepted))
                    continue
                slot = self.slots.get(kind[1:]) or (
                    self.slot(kind[1:]) if kind[1:] in self.bound else Slot((value.dtype,))
                )
                if len(slot.types) > 1:
                    slot.narrow(accepted)
            elif kind in dtypes.BY_NAME:
                slot = Slot((dtypes.BY_NAME[kind],))
            else:
                slot = variables.get(kind) or Slot((value.dtype,))
            self._tag(value, slot)

    def checked(self, value: Any, accepted: Sequence[dtypes.dtype]) -> None:
        """Learn from a check of the function's own what an argument may be."""
        for name, bound in self.bound.items():
            if value is bound or (isinstance(bound, tp.Tensor) and value is bound.dtype):
                self.slot(name).narrow(accepted)

    def use(self, result: Any) -> Use:
        results = result if isinstance(result, (tuple, list)) else [result]
        found = [self.tags.get(id(r._value)) if isinstance(r, tp.Tensor) else None for r in results]
        asked = self.slots.get("dtype")
        roots = [slot.root() for slot in found if slot is not None]
        if asked is not None and roots and asked.root() not in roots:
            roots[0].unify(asked)  # Asked for by its type, which no attribute has.
        order = {name: self.slots[name] for name in self.bound if name in self.slots}
        return Use(tuple(self.operations), order, tuple(found), frozenset(self.variadic))


def _watched(
    function: Callable, bound: dict[str, Any], args: tuple, kwargs: dict[str, Any]
) -> tuple[Any, Use]:
    watcher = _Watcher(bound)
    make, tensor_of, dtype = recording.make_node, arguments.tensor_of, arguments.dtype

    def make_node(*inner: Any, **named: Any) -> Node:
        node = make(*inner, **named)
        watcher.node(node)
        return node

    def check_tensor(op: str, value: Any, accepted: Any, *rest: Any) -> Any:
        watcher.checked(value, accepted)
        return tensor_of(op, value, accepted, *rest)

    def check_dtype(op: str, value: Any, accepted: Any = dtypes.ALL) -> Any:
        watcher.checked(value, accepted)
        return dtype(op, value, accepted)

    with ExitStack() as stack:
        stack.enter_context(patch.object(recording, "make_node", make_node))
        stack.enter_context(patch.object(arguments, "tensor_of", check_tensor))
        stack.enter_context(patch.object(arguments, "dtype", check_dtype))
        result = function(*args, **kwargs)
        return result, watcher.use(result)


def _run_example(text: str) -> None:
    scope: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples(text):
        exec(compile(example.source, "<example>", "single"), scope)


def _observed(owner: Any, name: str, texts: Sequence[str], bind: Callable) -> list[Use]:
    """Run examples with one function replaced by one that is watched: what each call showed."""
    function, uses = getattr(owner, name), []

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result, use = _watched(function, bind(args, kwargs), args, kwargs)
        uses.append(use)
        return result

    with patch.object(owner, name, wrapper), patch("sys.displayhook", lambda value: None):
        for text in texts:
            _run_example(text)
    if not uses:
        raise ValueError(f"the example of {name} does not call it")
    return uses


def _bound(signature: inspect.Signature, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


@functools.cache
def function(name: str) -> Use:
    """What the example of ``tp.<name>`` records."""
    found = getattr(tp, name)
    signature = inspect.signature(found)
    text = inspect.getdoc(found) or ""
    return _observed(tp, name, [text], lambda a, k: _bound(signature, a, k))[0]


@functools.cache
def module(name: str) -> Use:
    """What the forward function of ``tp.<name>`` records.

    Its operands are the input, the parameters, and the data types that the layer is made with.
    """
    found = getattr(tp, name)
    forward, make = inspect.signature(found.forward), inspect.signature(found.__init__)

    def bind(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = _bound(forward, args, kwargs)
        return {**bound, **dict(bound.pop("self").named_parameters())}

    use = _observed(found, "forward", [inspect.getdoc(found.forward) or ""], bind)[0]
    texts = [inspect.getdoc(found) or ""]
    for made in _observed(found, "__init__", texts, lambda a, k: _bound(make, a, k)):
        for key, slot in made.operands.items():
            use.operands.setdefault(key, Slot()).narrow(slot.types)
    if "dtype" in use.operands and use.results[0] is not None:
        use.results[0].unify(use.operands["dtype"])
    return use


@functools.cache
def operators() -> tuple[tuple[str, str, Use], ...]:
    """Each operator of tensors: its method, how Python writes it, and what it records."""
    methods = [name for kind in tp.Tensor.__mro__[1::-1] for name in vars(kind)]
    found = []
    for name in methods:
        text = getattr(getattr(operator, name, None), "__doc__", None) or ""
        if name.startswith("__") and text.startswith("Same as "):
            symbol = text.removeprefix("Same as ").strip().removesuffix(".")
            found.append((name, symbol, _operator(name)))
    return tuple(found)


def _operator(name: str) -> Use:
    """One operator, applied to tensors of the first data type that it takes."""
    method = getattr(tp.Tensor, name)
    names = list(inspect.signature(method).parameters)
    for kind in (tp.float32, tp.bool):
        one = tp.ones((1, 1), dtype=kind)
        operands = (one, 0 if name == "__getitem__" else tp.ones((1, 1), dtype=kind))[: len(names)]
        try:
            return _watched(method, dict(zip(names, operands)), operands, {})[1]
        except tp.TripyException:
            continue
    raise ValueError(f"{name} takes neither float32 nor bool")
