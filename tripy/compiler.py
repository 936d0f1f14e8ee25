"""``compile``: record a function as a graph and hand it to a backend."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Union

from tripy import config
from tripy.backends.base import AbstractBackend
from tripy.backends.torch.backend import TORCH
from tripy.device import device as Device
from tripy.errors import TripyException, user_location
from tripy.executable import Executable
from tripy.graph import Graph, Node, Value, dims
from tripy.input_info import Bounds, DimensionInputInfo, InputInfo
from tripy.logger import logger
from tripy.structure import Baked, Leaf, SizeLeaf, Structure, map_structure, nested
from tripy.tensor import DimensionSize, Tensor, tracing

BACKENDS: dict[str, AbstractBackend] = {"torch": TORCH}


def compile(
    func: Callable[..., Any],
    optimization_level: int = 3,
    *,
    args: Sequence[Any] = (),
    kwargs: Optional[Mapping[str, Any]] = None,
    backend: str = "auto",
    device: Union[Device, str, None] = None,
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
    _check_arguments(func, optimization_level, args, kwargs)
    where = config.default_device if device is None else Device(device)
    chosen, why = _choose(backend, where)
    logger.verbose(f"compile: backend {chosen.name} on {where}, {why}")
    signature = _signature(func)
    try:
        bound = signature.bind(*args, **(kwargs or {}))
    except TypeError as error:
        raise TripyException(
            f"compile: the arguments do not fit the function: {error}.",
            got=f"{len(args)} positional and keyword arguments {sorted(kwargs or {})}",
            expected=f"{_name(func)}{signature}",
        ) from None
    inputs = _Inputs(where)
    structures: dict[str, Structure] = {}
    parameters: list[inspect.Parameter] = []
    with tracing():
        for name, argument in bound.arguments.items():
            parameter = signature.parameters[name]
            keywords = parameter.kind is inspect.Parameter.VAR_KEYWORD
            structure = inputs.structure(argument, "" if keywords else name)
            bound.arguments[name] = map_structure(structure, inputs.stand_in)
            # What **name has caught are arguments of the compiled function like any others.
            parts = structure.children if keywords else {name: structure}
            for key, part in parts.items():
                if part.has_leaves():
                    structures[key] = part
                    parameters.append(_runtime_parameter(parameter, key))
        result = func(*bound.args, **bound.kwargs)
        outputs: list[Value] = []
        result_structure = _outputs(result, outputs, "result", where)
    logger.timing(f"recording: {(time.perf_counter() - start) * 1e3:.1f} ms")
    graph = Graph(inputs.values, outputs).copy(_parameter_names(func))
    _check_inputs(graph)
    program = chosen.compile(graph, where, optimization_level)
    return Executable(
        program,
        where,
        inspect.Signature(parameters),
        structures,
        inputs.leaves,
        result_structure,
        backend=f"{chosen.name} on {where}: {why}",
        compile_seconds=time.perf_counter() - start,
    )


def _name(func: Any) -> str:
    return getattr(func, "__name__", type(func).__name__)


def _check_arguments(func: Any, optimization_level: Any, args: Any, kwargs: Any) -> None:
    if not callable(func):
        raise TripyException(
            "compile: func cannot be called.", got=repr(func), expected="a function or a Module"
        )
    is_level = isinstance(optimization_level, int) and not isinstance(optimization_level, bool)
    if not is_level or not 0 <= optimization_level <= 5:
        raise TripyException(
            "compile: the optimization level is out of range.",
            got=f"optimization_level={optimization_level!r}",
            expected="an int from 0 to 5",
        )
    if not isinstance(args, (list, tuple)):
        raise TripyException(
            "compile: args is not a list.",
            got=f"args={args!r}",
            expected="a list of the positional arguments, one for each",
            hint=f"args=[{args!r}]",
        )
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(map(_is_text, kwargs))):
        raise TripyException(
            "compile: kwargs is not a dict of arguments by name.",
            got=f"kwargs={kwargs!r}",
            expected="a dict from names to arguments",
        )


def _is_text(key: Any) -> bool:
    return isinstance(key, str)


def _signature(func: Callable) -> inspect.Signature:
    try:
        return inspect.signature(getattr(func, "forward", func))
    except ValueError:
        raise TripyException(
            "compile: Python does not know the function's arguments.",
            got=repr(func),
            expected="a function written in Python, or a Module",
            hint="a lambda that calls it",
        ) from None


def _parameter_names(func: Any) -> dict[Value, str]:
    """What a module, or the module that a method belongs to, calls its parameters."""
    module = func if hasattr(func, "state_dict") else getattr(func, "__self__", None)
    if not hasattr(module, "state_dict"):
        return {}
    names: dict[Value, str] = {}
    for name, parameter in module.state_dict().items():
        names.setdefault(parameter._value, name)  # A tied one keeps its first name.
    return names


def _check_inputs(graph: Graph) -> None:
    """Refuse stand-ins that a function compiled earlier has left in a global or an attribute."""
    own = set(graph.inputs)
    readers: list[tuple[Value, Optional[Node]]] = [(value, None) for value in graph.outputs]
    for node in graph.nodes():
        readers += [(value, node) for value in node.inputs if value is not None]
    for value, reader in readers:
        if value.is_input and value not in own:
            raise TripyException(
                "compile: a tensor is an input of another function that was compiled before.",
                got=f"{value.name}: {value.type_text}",
                expected="tensors that are arguments of this function, or have values",
                hint="state is in the arguments: keep no tensor of a call in a global or attribute",
                location=reader.location if reader is not None else None,
            )


def _runtime_parameter(parameter: inspect.Parameter, name: str) -> inspect.Parameter:
    """A function's parameter as the compiled one has it: it has to be given, and has no default."""
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
    return parameter.replace(default=inspect.Parameter.empty)


def _choose(backend: str, where: Device) -> tuple[AbstractBackend, str]:
    if backend != "auto" and backend not in BACKENDS:
        raise TripyException(
            "compile: there is no such backend.",
            got=f"backend={backend!r}",
            expected="one of " + ", ".join(map(repr, ["auto", *BACKENDS])),
            hint='"torch"; this version has no TensorRT backend yet'
            if backend == "tensorrt"
            else None,
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
        return dims.symbol(name, *bounds)

    def _add_tensor(self, info: InputInfo, path: str) -> None:
        shape = tuple(
            self._named_size(info.dimension_names[i], bounds)
            if i in info.dimension_names
            else dims.symbol(f"{path}.shape[{i}]", *bounds)
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
            return DimensionSize._of(dims.symbol(leaf.symbol, *self.leaves[leaf.path].value_bounds))
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
        if value.data is None and value.node is None and not value.is_input:
            raise TripyException(
                f"compile: {path} is a parameter that has no value yet.",
                got=f"{value.name or 'a parameter'}: {value.type_text}, not assigned",
                expected="a tensor with values",
            )
        outputs.append(value)
        return Leaf(path, len(outputs) - 1)
    if isinstance(result, (list, tuple, dict)) and result:
        return nested(result, path, lambda item, where_: _outputs(item, outputs, where_, where))
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
