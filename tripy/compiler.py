"""``compile``: record a function as a graph and hand it to a backend."""

from __future__ import annotations

import inspect
import keyword
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Union

from tripy import config
from tripy.backends.base import AbstractBackend, Program
from tripy.backends.registry import BACKENDS
from tripy.device import CPU
from tripy.device import device as Device
from tripy.errors import TripyException
from tripy.executable import Executable
from tripy.graph import Graph, Value
from tripy.logger import logger
from tripy.recording import Inputs, check_inputs, outputs_of
from tripy.structure import Structure, map_structure
from tripy.tensor import tracing


def compile(
    func: Callable[..., Any],
    optimization_level: int = 3,
    *,
    args: Sequence[Any] = (),
    kwargs: Optional[Mapping[str, Any]] = None,
    backend: str = "auto",
    device: Union[Device, str, None] = None,
    target: Union[str, Sequence[str], None] = None,
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
        backend: ``"torch"``, ``"tensorrt"``, or ``"auto"`` for the best one that is usable:
            TensorRT where it is installed and supports the GPU, else torch.
        device: Where it runs; by default ``tp.config.default_device``.
        target: For TensorRT: a GPU's compute capability such as ``"sm_89"``, or several, to build
            for ahead of time. No GPU is needed for that; the result is saved and loaded where one
            is.

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
    chosen, why = _choose(backend, where, target)
    logger.verbose(f"compile: backend {chosen.name} on {where}, {why}")
    runs_on = where
    if target is not None:
        runs_on = where if where.kind == "gpu" else Device("gpu")
        where = where if BACKENDS["torch"].unusable(where) is None else CPU
    signature = _signature(func)
    try:
        bound = signature.bind(*args, **(kwargs or {}))
    except TypeError as error:
        raise TripyException(
            f"compile: the arguments do not fit the function: {error}.",
            got=f"{len(args)} positional and keyword arguments {sorted(kwargs or {})}",
            expected=f"{_name(func)}{signature}",
        ) from None
    inputs = Inputs(where)
    structures: dict[str, Structure] = {}
    parameters: list[inspect.Parameter] = []
    with tracing(where):
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
        result_structure = outputs_of(result, outputs, "result", where)
    logger.timing(f"recording: {(time.perf_counter() - start) * 1e3:.1f} ms")
    recorded = Graph(inputs.values, outputs)
    names = _parameter_names(func)
    check_inputs(recorded, inputs.sizes)
    try:
        program = chosen.compile(recorded.copy(names), runs_on, optimization_level, target)
    except TripyException as error:
        if backend != "auto" or chosen.name == "torch":
            raise
        why = f"{chosen.name} was tried first: {error.summary}"
        logger.warning(f"compile: {why}")
        chosen = BACKENDS["torch"]
        program = chosen.compile(recorded.copy(names), runs_on, optimization_level)
    return Executable(
        program,
        runs_on,
        inspect.Signature(parameters),
        structures,
        inputs.leaves,
        result_structure,
        backend_name=chosen.name,
        backend=_description(chosen, program, runs_on, why),
        compile_seconds=time.perf_counter() - start,
    )


def _description(chosen: AbstractBackend, program: Program, where: Device, why: str) -> str:
    by = f" ({program.made_by()})" if program.made_by() else ""
    return f"{chosen.name}{by} on {where}: {why}"


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
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(map(_is_name, kwargs))):
        raise TripyException(
            "compile: kwargs is not a dict of arguments by name.",
            got=f"kwargs={kwargs!r}",
            expected="a dict from names to arguments",
        )


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


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
    if module is None or not hasattr(module, "state_dict"):
        return {}
    names: dict[Value, str] = {}
    for name, parameter in module.state_dict().items():
        own = "." not in name  # The module's own: named after its class.
        name = f"{type(module).__name__}.{name}" if own else name
        names.setdefault(parameter._value, name)  # A tied one keeps its first name.
    return names


def _runtime_parameter(parameter: inspect.Parameter, name: str) -> inspect.Parameter:
    """A function's parameter as the compiled one has it: it has to be given, and has no default."""
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
    return parameter.replace(default=inspect.Parameter.empty)


def _choose(backend: str, where: Device, target: Any) -> tuple[AbstractBackend, str]:
    if not isinstance(backend, str) or backend not in ("auto", *BACKENDS):
        raise TripyException(
            "compile: there is no such backend.",
            got=f"backend={backend!r}",
            expected="one of " + ", ".join(map(repr, ["auto", *BACKENDS])),
        )
    if target is not None:
        # Only engines are compiled for hardware that is not there, so "auto" means TensorRT here.
        chosen = BACKENDS["tensorrt" if backend == "auto" else backend]
        chosen.check_target(target)
        names = target if isinstance(target, str) else " and ".join(target)
        return chosen, f"built ahead of time for {names}"
    reasons = {name: found.unusable(where) for name, found in BACKENDS.items()}
    if backend == "auto":
        backend, why = "torch", f"not tensorrt: {reasons['tensorrt']}"
        if where.kind == "cpu":
            why = "TensorRT runs on GPUs only"
        if reasons["tensorrt"] is None:
            backend, why = "tensorrt", "installed, and supports this GPU"
    else:
        why = "asked for"
    if reasons[backend] is not None:
        raise TripyException(
            f"compile: the backend {backend} cannot run on {where}.",
            got=reasons[backend],
            expected="a device that is there"
            if backend == "torch"
            else "an NVIDIA GPU and a TensorRT that supports it",
            hint='device=tp.device("cpu")' if backend == "torch" else 'backend="torch"',
        )
    return BACKENDS[backend], why
