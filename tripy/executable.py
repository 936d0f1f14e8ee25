"""Compiled functions: checking arguments, running, reporting."""

from __future__ import annotations

import inspect
from os import PathLike
from typing import Any, Optional, Union

from tripy import saving
from tripy.backends.base import LayerInfo, Program
from tripy.device import device as Device
from tripy.errors import TripyException
from tripy.graph import Constraint, Graph, Value, dims
from tripy.input_info import Bounds, DimensionInputInfo, InputInfo
from tripy.report import Report
from tripy.stream import Stream, default_stream
from tripy.structure import Leaf, SizeLeaf, Structure, leaves, map_structure
from tripy.tensor import Tensor, size_of

# Sets of shapes that need not be checked again.
_CHECKED_SHAPES = 4096


class Executable:
    """A compiled function. Made by :func:`tripy.compile`, or read by :meth:`load`.

    It takes the runtime inputs under the names that the function has for them, and returns what the
    function returns. Several threads may call it at once.

    Attributes:
        input_infos: InputInfo or DimensionInputInfo of each runtime input, by name
            (``data.b.list[1]`` for nested ones).
        compile_seconds: How long compiling, or loading, took.

    Example:
        >>> import tripy as tp
        >>> def add(a, b):
        ...     return a + b
        >>> info = tp.InputInfo((2,), tp.float32)
        >>> fast = tp.compile(add, args=[info, info])
        >>> fast(tp.ones((2,)), b=tp.ones((2,))).tolist()
        [2.0, 2.0]
    """

    def __init__(
        self,
        program: Program,
        where: Device,
        signature: inspect.Signature,
        structures: dict[str, Structure],
        input_infos: dict[str, Union[InputInfo, DimensionInputInfo]],
        result: Structure,
        backend_name: str,
        backend: str,
        compile_seconds: float,
    ) -> None:
        self._program, self._device, self._backend = program, where, backend
        self._backend_name = backend_name
        self.__signature__ = signature
        self._structures, self._result = structures, result
        self.input_infos = input_infos
        self.compile_seconds = compile_seconds
        self._stream: Optional[Stream] = None
        graph = program.portable_graph()
        self._inputs: list[Value] = graph.inputs
        self._constraints = graph.constraints
        self._sizes: dict[tuple, dict[str, int]] = {}

    @property
    def device(self) -> Device:
        """Where it runs, and where its inputs have to live."""
        return self._device

    @property
    def graph(self) -> Graph:
        """The graph as it runs, after all rewrites; ``print(executable.graph)`` shows it."""
        return self._program.portable_graph()

    @property
    def stream(self) -> Stream:
        """The stream it runs in; may be set."""
        if self._stream is None:  # Only now: where it was compiled there may be no such device.
            self._program.require_usable()
            self._stream = default_stream(self._device)
        return self._stream

    @stream.setter
    def stream(self, stream: Stream) -> None:
        if not isinstance(stream, Stream):
            raise TripyException(
                "Executable.stream: this is not a stream.", got=repr(stream), expected="tp.Stream()"
            )
        self._stream = stream

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function.

        Raises:
            TripyException: Before anything runs, for a wrong count, name, nesting, device, data
                type or shape, naming the argument.
        """
        self._program.require_usable()
        tensors, shapes, key = self._bind(args, kwargs)
        sizes = self._sizes.get(key)
        if sizes is None:
            sizes = self._check_sizes(shapes)
            if len(self._sizes) >= _CHECKED_SHAPES:
                self._sizes.clear()
            self._sizes[key] = sizes
        with self.stream._current():
            results = self._program.run(tensors, sizes)
        values = [
            Value(v.dtype, tuple(data.shape), self._device, data=data, location=v.location)
            for v, data in zip(self.graph.outputs, results)
        ]
        return map_structure(
            self._result,
            lambda leaf: Tensor._from_value(values[leaf.index]),  # type: ignore[attr-defined]
        )

    def _bind(self, args: tuple, kwargs: dict) -> tuple[list, list, tuple]:
        try:
            arguments = self.__signature__.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TripyException(
                f"The arguments do not fit the compiled function: {error}.",
                got=f"{len(args)} positional arguments and the names {sorted(kwargs)}",
                expected=f"{self.__signature__}",
                hint="arguments that were no InputInfo are baked in and not given again",
            ) from None
        found: list[tuple[Structure, Any]] = []
        for name, structure in self._structures.items():
            leaves(structure, arguments.get(name, ()), found)  # Only *name may be left out.
        tensors: list[Any] = []
        shapes: list[tuple[str, Any]] = []
        key: list[Any] = []
        for leaf, argument in found:
            if isinstance(leaf, Leaf):
                data = self._check_tensor(leaf, argument)
                tensors.append(data)
                shapes.append((leaf.path, data.shape))
                key.append(data.shape)
            else:
                size = size_of(argument)
                if not isinstance(size, int):
                    raise TripyException(
                        f"{leaf.path}: the argument is not a size.",
                        got=_describe(argument),
                        expected="an int or a tp.DimensionSize",
                    )
                shapes.append((leaf.path, size))
                key.append(size)
        return tensors, shapes, tuple(key)

    def _check_tensor(self, leaf: Leaf, argument: Any) -> Any:
        value = self._inputs[leaf.index]
        if not isinstance(argument, Tensor):
            raise TripyException(
                f"{leaf.path}: the argument is not a tensor.",
                got=_describe(argument),
                expected=str(self.input_infos[leaf.path]),
                hint=f"tp.Tensor({leaf.path})",
            )
        given = argument._value
        if given.dtype is not value.dtype or given.device != self._device:
            wrong = "data type" if given.dtype is not value.dtype else "device"
            raise TripyException(
                f"{leaf.path}: the argument has the wrong {wrong}.",
                got=f"{given.type_text} on {given.device}",
                expected=f"{self.input_infos[leaf.path]} on {self._device}",
                hint=f"tp.cast(x, tp.{value.dtype})"
                if wrong == "data type"
                else f'tp.copy(x, tp.device("{self._device}"))',
                tensors=[(leaf.path, argument)],
            )
        if len(given.shape) != len(value.shape):
            raise TripyException(
                f"{leaf.path}: the argument has the wrong rank.",
                got=given.type_text,
                expected=str(self.input_infos[leaf.path]),
                tensors=[(leaf.path, argument)],
            )
        return argument.torch()

    def _check_sizes(self, shapes: list[tuple[str, Any]]) -> dict[str, int]:
        """The dynamic sizes, after checking bounds, equal names and what operations need."""
        sizes: dict[str, int] = {}
        origin: dict[str, str] = {}
        tensors = iter(self._inputs)
        for path, shape in shapes:
            info = self.input_infos[path]
            if isinstance(info, DimensionInputInfo):
                _check_bounds(path, shape, info.value_bounds, f"{path}={shape}", info)
                sizes[SizeLeaf(path).symbol] = shape
                continue
            value = next(tensors)
            for axis, (size, bounds) in enumerate(zip(shape, info.shape_bounds)):
                _check_bounds(f"{path}.shape[{axis}]", size, bounds, f"{tuple(shape)}", info)
                symbol = value.shape[axis]
                for each in dims.symbols(symbol):
                    if sizes.setdefault(each.name, size) != size:
                        raise TripyException(
                            f"{path}: the dimension {each.name!r} has two different sizes.",
                            got=f"{sizes[each.name]} in {origin[each.name]}, {size} in {path}",
                            expected="one size for each name",
                        )
                    origin.setdefault(each.name, path)
        for constraint in self._constraints:
            left = dims.evaluate(constraint.left, sizes)
            right = dims.evaluate(constraint.right, sizes)
            if not constraint.holds(left, right):
                raise _violation(constraint, left, right)
        return sizes

    def report(self) -> Report:
        """How each fused or quantized layer runs: the kernel, or why there is none.

        Returns:
            A report; printing it gives a table, ``rows`` the data.

        Example:
            >>> import tripy as tp
            >>> def rounded(x):
            ...     return tp.quantize(x, 0.1, tp.int8)
            >>> fast = tp.compile(rounded, args=[tp.InputInfo((2,), tp.float32)])
            >>> fast.report().rows[0].operation
            'quantize'
        """
        return Report(self._backend, self._program.report(), self._program.engine_bytes())

    def layers(self) -> list[LayerInfo]:
        """What runs, in order: name, kind, and what is known of it.

        Returns:
            Of an engine that can run here, TensorRT's own account of its layers; of one that
            cannot, the layers of the network that it was built from, with the user's lines. Of
            the torch backend, each operation and its kernel.

        Example:
            >>> import tripy as tp
            >>> fast = tp.compile(lambda x: x + 1, args=[tp.InputInfo((2,), tp.float32)])
            >>> [layer.kind for layer in fast.layers()]
            ['add']
        """
        return self._program.layers()

    @property
    def serialized_tensorrt_engine(self) -> bytes:
        """The engine, as TensorRT's own tools read it; an error for the torch backend."""
        engine = self._program.serialized_engine()
        if engine is None:
            raise TripyException(
                "Executable.serialized_tensorrt_engine: there is no engine.",
                got=f"a function compiled for the backend {self._backend_name}",
                expected="one compiled for TensorRT",
                hint='tp.compile(..., backend="tensorrt")',
            )
        return engine

    def save(self, path: Union[str, PathLike]) -> None:
        """Write the compiled function to a file, at once or not at all.

        Args:
            path: The file. It is a safetensors file whose metadata holds the program as JSON.

        Example:
            >>> import tripy as tp, tempfile, os
            >>> fast = tp.compile(lambda x: x + 1, args=[tp.InputInfo((2,), tp.float32)])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     fast.save(os.path.join(folder, "add.tripy"))
            ...     again = tp.Executable.load(os.path.join(folder, "add.tripy"))
            >>> again(tp.ones((2,))).tolist()
            [2.0, 2.0]
        """
        saving.save(self, _checked_path("save", path))

    @classmethod
    def load(cls, path: Union[str, PathLike], device: Optional[Device] = None) -> Executable:
        """Read a compiled function. Nothing in the file is run as code.

        Args:
            path: A file that :meth:`save` has written.
            device: Which device of the kind that it was compiled for; by default the first.

        Raises:
            TripyException: For a file that is missing, damaged, altered, from another version, or
                not tripy's.
        """
        return saving.load(cls, _checked_path("load", path), device)


def _checked_path(method: str, path: Any) -> Union[str, PathLike]:
    if isinstance(path, (str, PathLike)):
        return path
    raise TripyException(
        f"Executable.{method}: this is not a path.",
        got=f"{path!r:.80} of type {type(path).__name__}",
        expected="a str or pathlib.Path",
    )


def _violation(constraint: Constraint, left: int, right: int) -> TripyException:
    sides = [(constraint.left, left), (constraint.right, right)]
    if constraint.relation == "broadcast":
        wanted = f"{constraint.left} and {constraint.right} equal, or one of them 1"
    else:
        wanted = f"{constraint.left} {constraint.relation} {constraint.right}"
    return TripyException(
        constraint.message,
        got=", ".join(f"{dim} = {size}" for dim, size in sides if not isinstance(dim, int)),
        expected=wanted,
        tensors=[("the operation", constraint)],
    )


def _check_bounds(path: str, size: int, bounds: Bounds, got: str, info: Any) -> None:
    if not bounds.min <= size <= bounds.max:
        raise TripyException(
            f"{path} is out of bounds.", got=f"{size} ({got})", expected=f"{bounds}; {info}"
        )


def _describe(argument: Any) -> str:
    text = repr(argument)
    return f"{text if len(text) <= 60 else text[:57] + '...'} of type {type(argument).__name__}"
