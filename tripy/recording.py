"""Recording: the stand-ins that a function is called with, and what it gives back."""

from __future__ import annotations

from typing import Any, Optional

from tripy.device import device as Device
from tripy.errors import TripyException, user_location
from tripy.graph import Graph, Node, Value, dims
from tripy.input_info import Bounds, DimensionInputInfo, InputInfo
from tripy.structure import Baked, Leaf, SizeLeaf, Structure, nested
from tripy.tensor import DimensionSize, Tensor


class Inputs:
    """Collects the runtime inputs of a function and makes their stand-ins."""

    def __init__(self, where: Device) -> None:
        self.where = where
        self.values: list[Value] = []
        self.leaves: dict[str, Any] = {}
        self.sizes: set[str] = set()
        self._named: dict[str, Bounds] = {}

    def structure(self, argument: Any, path: str) -> Structure:
        """The nesting of an argument, with a leaf for each InputInfo in it."""
        if isinstance(argument, InputInfo):
            self._add_tensor(argument, path)
            return Leaf(path, len(self.values) - 1)
        if isinstance(argument, DimensionInputInfo):
            self.leaves[path] = argument
            return SizeLeaf(path)
        if isinstance(argument, (list, tuple, dict)) and _holds_input(argument):
            return nested(argument, path, self.structure)
        return Baked(path, argument)

    def _named_size(self, name: str, bounds: Bounds) -> dims.Dim:
        known = self._named.setdefault(name, bounds)
        if known != bounds:
            raise TripyException(
                f"compile: the dimension {name!r} has two different bounds.",
                got=f"{tuple(known)} and {tuple(bounds)}",
                expected="the same NamedDimension everywhere",
            )
        return self._size(name, bounds)

    def _size(self, name: str, bounds: Bounds) -> dims.Dim:
        self.sizes.add(name)
        return dims.symbol(name, *bounds)

    def _add_tensor(self, info: InputInfo, path: str) -> None:
        shape = tuple(
            self._named_size(info.dimension_names[i], bounds)
            if i in info.dimension_names
            else self._size(f"{path}.shape[{i}]", bounds)
            for i, bounds in enumerate(info.shape_bounds)
        )
        value = Value(info.dtype, shape, self.where, name=path, location=user_location())
        value.is_input = True
        self.values.append(value)
        self.leaves[path] = info

    def stand_in(self, leaf: Structure) -> Any:
        if isinstance(leaf, Leaf):
            return Tensor._from_value(self.values[leaf.index])
        if isinstance(leaf, SizeLeaf):
            return DimensionSize._of(self._size(leaf.symbol, self.leaves[leaf.path].value_bounds))
        assert isinstance(leaf, Baked)
        return leaf.value


def _holds_input(argument: Any) -> bool:
    if isinstance(argument, (list, tuple)):
        return any(map(_holds_input, argument))
    if isinstance(argument, dict):
        return any(map(_holds_input, argument.values()))
    return isinstance(argument, (InputInfo, DimensionInputInfo))


def outputs_of(result: Any, outputs: list[Value], path: str, where: Device) -> Structure:
    """The nesting of a result, whose tensors are added to ``outputs``."""
    if isinstance(result, Tensor):
        value = result._value_on(where)
        if value.device != where:
            raise TripyException(
                f"compile: {path} is on another device.",
                got=f"{value.type_text} on {value.device}",
                expected=f"a tensor on {where}, where the function is compiled for",
                hint=f'tp.copy(tensor, tp.device("{where}"))',
                tensors=[(path, result)],
            )
        if value.data is None and value.node is None and not value.is_input:
            raise TripyException(
                f"compile: {path} is a parameter that has no value yet.",
                got=f"{value.name or 'a parameter'}: {value.type_text}, not assigned",
                expected="a tensor with values",
            )
        outputs.append(value)
        return Leaf(path, len(outputs) - 1)
    if isinstance(result, (list, tuple, dict)) and result:
        return nested(result, path, lambda item, where_: outputs_of(item, outputs, where_, where))
    raise TripyException(
        "compile: the function does not return Tensors.",
        got=f"{path} is {_describe(result)}",
        expected="a Tensor, or Tensors in a list, tuple or dict",
        hint="tp.Tensor(number) for a number" if isinstance(result, (bool, int, float)) else None,
    )


def _describe(result: Any) -> str:
    if result is None:
        return "None"
    if isinstance(result, (list, tuple, dict)):
        return f"an empty {type(result).__name__}"
    return f"{result!r:.60} of type {type(result).__name__}"


def check_inputs(graph: Graph, sizes: set[str]) -> None:
    """Refuse stand-ins that a function compiled earlier has left in a global or an attribute."""
    own = set(graph.inputs)
    readers: list[tuple[Value, Optional[Node]]] = [(value, None) for value in graph.outputs]
    for node in graph.nodes():
        readers += [(value, node) for value in node.inputs if value is not None]
        foreign = {s.name for v in node.outputs for d in v.shape for s in dims.symbols(d)} - sizes
        if foreign:
            raise _left_over(f"the size {min(foreign)}", node)
    for value, reader in readers:
        if value.is_input and value not in own:
            raise _left_over(f"{value.name}: {value.type_text}", reader)


def _left_over(got: str, reader: Optional[Node]) -> TripyException:
    return TripyException(
        "compile: a tensor or size is an input of another function that was compiled before.",
        got=got,
        expected="arguments of this function, and tensors that have values",
        hint="state is in the arguments: keep nothing of a call in a global or attribute",
        tensors=[("what reads it", reader)] if reader is not None else (),
    )
