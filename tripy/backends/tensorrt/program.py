"""Running an engine: tensors of torch are its inputs and outputs, nothing is copied."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Optional, final

import torch

from tripy import dtypes
from tripy.backends.base import LayerInfo, Program, ReportRow
from tripy.backends.tensorrt.build import Engine
from tripy.backends.tensorrt.distribution import installed, present_capability
from tripy.backends.tensorrt.lowering.linear_algebra import small_types
from tripy.backends.tensorrt.messages import library
from tripy.backends.torch import storage
from tripy.device import device
from tripy.errors import TripyException
from tripy.graph import Graph, Value, dims


@final
class TensorRTProgram(Program):
    """An engine with what is needed to call it.

    Args:
        graph: The graph that the engine computes. Its constants are in the engine.
        engine: The engine.
        built_by: Name and version of the TensorRT that built it.
        targets: The compute capabilities it was built for; none for the GPU at ``where``.
        where: Where it runs.
    """

    def __init__(
        self,
        graph: Graph,
        engine: Engine,
        built_by: tuple[str, str],
        targets: Sequence[str],
        where: device,
    ) -> None:
        self._graph, self._engine, self._where = graph, engine, where
        self._built_by, self._targets = built_by, tuple(targets)
        self._running: Optional[_Running] = None
        self._lock = threading.Lock()
        self._rows = _rows(graph)

    def made_by(self) -> str:
        return " ".join(self._built_by)

    def misfit(self) -> Optional[str]:
        """Why the engine cannot run on this machine's GPU; None if it can."""
        return misfit(self._built_by, self._targets, self._where)

    def require_usable(self) -> None:
        reason = self.misfit() if self._running is None else None
        if reason is not None:
            raise TripyException(
                "The engine cannot run on this machine.",
                got=reason,
                expected="a GPU with the compute capability, and the TensorRT, it was built with",
                hint="tp.compile there, or save the executable and load it on such a machine",
            )

    def run(self, arguments: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
        with self._lock:  # A context runs one call at a time.
            return self._started()(arguments, sizes)

    def _started(self) -> _Running:
        if self._running is None:
            # A build would take what TensorRT says meanwhile for its own.
            with library(self._built_by[0]).lock, torch.cuda.device(self._where.index):
                self._running = _Running(self._engine, self._built_by[0], self._graph)
        return self._running

    def report(self) -> list[ReportRow]:
        return self._rows

    def portable_graph(self) -> Graph:
        return self._graph

    def constant(self, value: Value) -> None:
        """None: the engine holds them."""

    def layers(self) -> list[LayerInfo]:
        """The engine's own layers where it can run, else those of the network it was made from."""
        if self.misfit() is None:
            with self._lock:
                return self._started().layers()
        return [LayerInfo(*layer) for layer in self._engine.layers]

    def engine_bytes(self) -> int:
        return self._engine.weight_bytes

    def serialized_engine(self) -> bytes:
        return self._engine.plan.numpy().tobytes()

    def saved_parts(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        names = self._engine.names
        described = {
            "built_by": list(self._built_by),
            "targets": list(self._targets),
            "names": [names.inputs, names.sizes, names.outputs],
            "layers": [list(layer) for layer in self._engine.layers],
            "weight_bytes": self._engine.weight_bytes,
        }
        return described, {"engine": self._engine.plan}


def misfit(built_by: tuple[str, str], targets: Sequence[str], where: device) -> Optional[str]:
    """Why an engine cannot run on a device; None if it can.

    Args:
        built_by: Name and version of the TensorRT that built it.
        targets: The compute capabilities it was built for.
        where: The device.
    """
    name, version = built_by
    made = f"the engine was built by {name} {version} for {' and '.join(targets)}"
    found, capability = installed(name), present_capability(where)
    if capability is None:
        return f"{made}; this machine has no {where}"
    if isinstance(found, str):
        return f"{made}; here {name} is {found}"
    if found.version != version:
        return f"{made}; here {name} is {found.version}"
    if capability not in targets:
        return f"{made}; this GPU has {capability}"
    return None


def _rows(graph: Graph) -> list[ReportRow]:
    """One row for each quantized weight, and for each tensor that is quantized at run time."""
    rows = []
    mixed = {
        other.node
        for node in graph.nodes()
        if node.op == "matmul" and small_types(node) == {dtypes.int4, dtypes.int8}
        for other in node.inputs
        if other is not None
    }
    for node in graph.nodes():
        source = node.inputs[0] if node.inputs else None
        if node.op == "dequantize" and source is not None and source.data is not None:
            small = int(dims.product(source.shape) * source.dtype.itemsize)  # type: ignore[operator]
            name = (source.name or "weight").removesuffix(".weight")
            kernel, reason = f"TensorRT DQ, {source.dtype} weight", ""
            if node in mixed:
                reason = (
                    "TensorRT has no layer that multiplies int8 by int4: the product is written in "
                    "floating point, of dequantized values"
                )
            rows.append(ReportRow(name, node.op, kernel, reason, small))
        elif node.op in ("quantize", "dynamic_quantize", "kv_cache_update"):
            scale = node.inputs[1] if node.op == "quantize" else None
            given = node.output.name or (scale.name if scale is not None else None)
            place = node.location.place() if node.location is not None else node.op
            kind = "Q" if node.op != "kv_cache_update" else "KV-cache update"
            name = (given or place).removesuffix("_scale")
            rows.append(ReportRow(name, node.op, f"TensorRT {kind}", "", 0))
    return rows


class _Running:
    """An engine on the GPU, with the context that it runs in."""

    def __init__(self, engine: Engine, name: str, graph: Graph) -> None:
        shared = library(name)
        trt = shared.trt
        self._trt, self._names, self._graph = trt, engine.names, graph
        self._messages = shared.listen()
        self._runtime = trt.Runtime(shared.receiver)
        self._engine = self._runtime.deserialize_cuda_engine(engine.plan.numpy())
        if self._engine is None:
            raise self._failed("TensorRT cannot load the engine")
        self._context = self._make_context()
        if self._context is None:
            raise self._failed("there is not enough memory to run the engine")
        aliased = getattr(self._engine, "get_aliased_input_tensor", lambda name: None)
        # Outputs that are an input, written in place.
        self._aliases = {name: aliased(name) for name in engine.names.outputs if aliased(name)}
        self._on_host = {
            tensor: self._engine.get_tensor_location(tensor) == trt.TensorLocation.HOST
            for tensor in engine.names.sizes.values()
        }

    def _make_context(self) -> Any:
        settings = getattr(self._engine, "create_runtime_config", lambda: None)()
        if settings is None or not hasattr(settings, "cuda_graph_strategy"):
            return self._engine.create_execution_context()
        # Launches of a call are captured as a CUDA graph, once for each set of shapes.
        settings.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(settings)

    def _failed(self, what: str) -> TripyException:
        said = " ".join(" ".join(self._messages.errors).split())
        self._messages.errors.clear()
        return TripyException(f"{what}.", got=f"what TensorRT says: {said[:500] or 'nothing'}")

    def __call__(self, arguments: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> list[Any]:
        where = arguments[0].device if arguments else torch.device("cuda")
        stream = torch.cuda.current_stream(where)
        kept: list[torch.Tensor] = []
        by_name: dict[str, torch.Tensor] = {}
        for name, value, argument in zip(self._names.inputs, self._graph.inputs, arguments):
            tensor = argument.contiguous()
            if value.dtype is dtypes.int4:
                tensor = storage.pack_int4(tensor)
            by_name[name] = tensor
            self._context.set_input_shape(name, tuple(argument.shape))
            self._bind(name, tensor, kept)
        for symbol, name in self._names.sizes.items():
            place = torch.device("cpu") if self._on_host[name] else where
            number = torch.tensor([sizes[symbol]], dtype=torch.int64, device=place)
            self._context.set_input_shape(name, (1,))
            self._bind(name, number, kept)
        results = [
            self._output(name, value, by_name, where, sizes, kept)
            for name, value in zip(self._names.outputs, self._graph.outputs)
        ]
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise self._failed("TensorRT cannot run the engine")
        for tensor in kept:  # The allocator must not give them away while the stream reads them.
            if tensor.is_cuda:
                tensor.record_stream(stream)
        return [
            storage.unpack_int4(r, [dims.evaluate(s, sizes) for s in v.shape])
            if v.dtype is dtypes.int4
            else r
            for r, v in zip(results, self._graph.outputs)
        ]

    def _output(
        self, name: str, value: Value, by_name: dict, where: Any, sizes: Any, kept: list
    ) -> torch.Tensor:
        if name in self._aliases:
            tensor = by_name[self._aliases[name]]
        else:
            shape = tuple(dims.evaluate(size, sizes) for size in value.shape)
            kind = storage.TORCH_TYPES[value.dtype]
            if value.dtype is dtypes.int4:
                count = int(dims.product(shape))  # type: ignore[arg-type]
                shape, kind = ((count + 1) // 2,), torch.uint8
            tensor = torch.empty(shape, dtype=kind, device=where)
        self._bind(name, tensor, kept)
        return tensor

    def _bind(self, name: str, tensor: torch.Tensor, kept: list[torch.Tensor]) -> None:
        # An empty tensor has no address, but TensorRT wants one.
        held = (
            tensor if tensor.numel() else torch.empty(256, dtype=torch.uint8, device=tensor.device)
        )
        kept.append(held)
        self._context.set_tensor_address(name, held.data_ptr())

    def layers(self) -> list[LayerInfo]:
        inspector = self._engine.create_engine_inspector()
        line = self._trt.LayerInformationFormat.ONELINE
        return [
            LayerInfo(f"layer {i}", "engine", inspector.get_layer_information(i, line).strip())
            for i in range(self._engine.num_layers)
        ]
