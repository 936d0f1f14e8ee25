"""``compile``: record a function as a graph and hand it to a backend."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from tripy.backends.base import AbstractBackend
from tripy.backends.torch import storage
from tripy.backends.torch.backend import TORCH
from tripy.device import device as Device
from tripy.errors import TripyException, user_location
from tripy.executable import Executable
from tripy.graph import Graph, Value, dims
from tripy.input_info import Bounds, DimensionInputInfo, InputInfo
from tripy.structure import Baked, Leaf, SizeLeaf, Structure, child_path, map_structure
from tripy.tensor import DimensionSize, Tensor, tracing

BACKENDS: dict[str, AbstractBackend] = {"torch": TORCH}


def compile(
    func: Callable[..., Any],
    optimization_level: int = 3,
    *,
    args: Sequence[Any] = (),
    kwargs: Optional[Mapping[str, Any]] = None,
    backend: str = "auto",
    device: Optional[Device] = None,
) -> Executable:
    """Compile a function or module.

    The function is called once with stand-ins for its inputs. Parameters, and arguments that are
    neither InputInfo nor DimensionInputInfo, are baked in.

    Args:
        func: A function or Module that takes and returns Tensors.
        optimization_level: 0 runs operations one by one as recorded; 1 to 5 rewrite the graph,
            higher ones may search longer for fast kernels.
        args: Its positional arguments, with InputInfo or DimensionInputInfo (also inside lists,
            tuples and dicts) in place of what is given at run time.
        kwargs: Its keyword arguments, in the same way.
        backend: ``"torch"``, or ``"auto"`` for the best one that is usable.
        device: Where it runs; by default ``tp.config.default_device``.

    Returns:
        A callable that takes the runtime inputs.

    Raises:
        TripyException: For arguments that do not fit the function, a result that is not made of
            Tensors, a tensor computed while compiling, and anything an operation refuses.

    Example:
        >>> import tripy as tp
        >>> def double(x):
        ...     return x * 2
        >>> rows = tp.NamedDimension("rows", 1, 2, 8)
        >>> fast = tp.compile(double, args=[tp.InputInfo((rows, 2), tp.float32)])
        >>> fast(tp.ones((3, 2))).tolist()
        [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    """
    start = time.perf_counter()
    if not callable(func):
        raise TripyException(
            "compile: func cannot be called.", got=repr(func), expected="a function or a Module"
        )
    if not isinstance(optimization_level, int) or not 0 <= optimization_level <= 5:
        raise TripyException(
            "compile: the optimization level is out of range.",
            got=f"optimization_level={optimization_level!r}",
            expected="an int from 0 to 5",
        )
    where = device or storage.default_device()
    chosen, why = _choose(backend, where)
    signature = inspect.signature(getattr(func, "forward", func))
    try:
        bound = signature.bind(*args, **(kwargs or {}))
    except TypeError as error:
        raise TripyException(
            f"compile: the arguments do not fit the function: {error}.",
            got=f"{len(args)} positional and keyword arguments {sorted(kwargs or {})}",
            expected=f"{getattr(func, '__name__', type(func).__name__)}{signature}",
        ) from None
    inputs = _Inputs(where)
    structures: dict[str, Structure] = {}
    with tracing():
        for name, argument in bound.arguments.items():
            structure = inputs.structure(argument, name)
            bound.arguments[name] = map_structure(structure, inputs.stand_in)
            if structure.has_leaves():
                structures[name] = structure
        result = func(*bound.args, **bound.kwargs)
        outputs: list[Value] = []
        result_structure = _outputs(result, outputs, "the result", where)
    graph = Graph(inputs.values, outputs).copy()
    program = chosen.compile(graph, where, optimization_level)
    kept = [signature.parameters[name] for name in structures]
    return Executable(
        program,
        where,
        signature.replace(parameters=_without_defaults(kept), return_annotation=signature.empty),
        structures,
        inputs.leaves,
        result_structure,
        backend=f"{chosen.name} on {where}: {why}",
        compile_seconds=time.perf_counter() - start,
    )


def _without_defaults(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Runtime inputs have to be given: what was a default has become an input."""
    return [p.replace(default=inspect.Parameter.empty) for p in parameters]


def _choose(backend: str, where: Device) -> tuple[AbstractBackend, str]:
    if backend != "auto" and backend not in BACKENDS:
        raise TripyException(
            "compile: there is no such backend.",
            got=f"backend={backend!r}",
            expected="one of " + ", ".join(map(repr, ["auto", *BACKENDS])),
        )
    name = "torch" if backend == "auto" else backend
    reason = BACKENDS[name].unusable(where)
    if reason is not None:
        raise TripyException(
            f"compile: the backend {name} cannot run on {where}.",
            got=reason,
            expected="a device that is there",
            hint='device=tp.device("cpu")',
        )
    return BACKENDS[name], "asked for" if backend != "auto" else "the only backend installed"


class _Inputs:
    """Collects the runtime inputs of a function and makes their stand-ins."""

    def __init__(self, where: Device) -> None:
        self.where = where
        self.values: list[Value] = []
        self.leaves: dict[str, Any] = {}
        self._symbols: dict[str, tuple[Bounds, dims.Dim]] = {}

    def structure(self, argument: Any, path: str) -> Structure:
        """The nesting of an argument, with a leaf for each InputInfo in it."""
        if isinstance(argument, InputInfo):
            self._add_tensor(argument, path)
            return Leaf(path, len(self.values) - 1)
        if isinstance(argument, DimensionInputInfo):
            self._symbol(path, argument.value_bounds)
            self.leaves[path] = argument
            return SizeLeaf(path)
        if isinstance(argument, (list, tuple, dict)) and _holds_input(argument):
            items = argument.items() if isinstance(argument, dict) else enumerate(argument)
            children = {key: self.structure(v, child_path(path, key)) for key, v in items}
            return Structure(path, type(argument).__name__, children)
        return Baked(path, argument)

    def _symbol(self, name: str, bounds: Bounds) -> dims.Dim:
        known = self._symbols.get(name)
        if known is not None and known[0] != bounds:
            raise TripyException(
                f"compile: the dimension {name!r} has two different bounds.",
                got=f"{tuple(known[0])} and {tuple(bounds)}",
                expected="the same NamedDimension everywhere",
            )
        if known is None:
            self._symbols[name] = (bounds, dims.symbol(name, *bounds))
        return self._symbols[name][1]

    def _add_tensor(self, info: InputInfo, path: str) -> None:
        shape = tuple(
            self._symbol(info.dimension_names.get(i, f"{path}.shape[{i}]"), bounds)
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
            return DimensionSize._of(self._symbols[leaf.path][1])
        assert isinstance(leaf, Baked)
        return leaf.value


def _holds_input(argument: Any) -> bool:
    if isinstance(argument, (list, tuple)):
        return any(map(_holds_input, argument))
    if isinstance(argument, dict):
        return any(map(_holds_input, argument.values()))
    return isinstance(argument, (InputInfo, DimensionInputInfo))


def _outputs(result: Any, outputs: list[Value], path: str, where: Device) -> Structure:
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
        outputs.append(value)
        return Leaf(path, len(outputs) - 1)
    if isinstance(result, (list, tuple, dict)) and result:
        items = result.items() if isinstance(result, dict) else enumerate(result)
        children = {k: _outputs(v, outputs, child_path(path, k), where) for k, v in items}
        return Structure(path, "dict" if isinstance(result, dict) else type(result).__name__,
                         children)  # fmt: skip
    raise TripyException(
        "compile: the function does not return Tensors.",
        got=f"{path} is {type(result).__name__}",
        expected="a Tensor, or Tensors in a list, tuple or dict",
    )
