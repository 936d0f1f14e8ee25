"""A graph as a list of steps over slots, run in order.

Everything that can be decided once is decided here: the kernel of each node, with its weights
packed; the slots that hold values; when a value is last read, so that its memory goes back at once;
and which cache updates may write in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, final

import torch

from tripy import config
from tripy.backends.base import LayerInfo, Program, ReportRow
from tripy.backends.torch.aliasing import (
    in_place_updates,
    merged,
    shows_constant,
    span,
    unshared,
)
from tripy.backends.torch.cuda_graphs import GraphRecorder
from tripy.backends.torch.kernels import KERNELS, Kernel, PackedWeight
from tripy.backends.torch.kernels.cuda import (
    cache_writer,
    decode_plan,
    may_start_early,
    prepare_attention,
    prepare_quantize,
)
from tripy.backends.torch.kernels.cuda.available import missing
from tripy.backends.torch.kernels.cuda.native_decode import available as native_decode_missing
from tripy.backends.torch.lowering import LOWERINGS
from tripy.backends.torch.lowering.table import FAILURES, failure
from tripy.backends.torch.storage import torch_device
from tripy.graph import Graph, Node, Value, dims

# Sets of dynamic sizes whose attributes are kept worked out.
_CACHED_SIZES = 1024


class _Step:
    """One node, ready to run."""

    __slots__ = (
        "attrs", "frees", "function", "inputs", "node", "outputs", "reads", "writes",
    )  # fmt: skip

    def __init__(
        self,
        node: Node,
        function: Callable,
        attrs: Optional[dict[str, Any]],
        reads: Optional[Sequence[Optional[Value]]] = None,
        writes: Optional[Sequence[Value]] = None,
    ) -> None:
        self.node, self.function, self.attrs = node, function, attrs
        self.reads = node.inputs if reads is None else reads
        self.writes = node.outputs if writes is None else writes
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.frees: tuple[int, ...] = ()


@final
class TorchProgram(Program):
    """Runs a rewritten graph on torch tensors."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._rows: list[ReportRow] = []
        self._kernels: dict[Node, Kernel] = {}
        nodes = graph.nodes()
        self._in_place = in_place_updates(graph, nodes)
        self._early = may_start_early(nodes, self._in_place)
        self._steps = self._with_runs([self._step(n, n in self._in_place) for n in nodes])
        self._dynamic = [
            i
            for i, step in enumerate(self._steps)
            if step.attrs is not None and any(map(_is_dynamic, step.attrs.values()))
        ]
        self._resolved: dict[tuple, dict[int, dict[str, Any]]] = {}
        self._plan()
        self._recorder = self._recorder_for_gpus(nodes)

    def _recorder_for_gpus(self, nodes: Sequence[Node]) -> Optional[GraphRecorder]:
        """What records the program where it runs on a GPU; a user's function is not recorded."""
        values = [*self._graph.inputs, *self._graph.outputs]
        gpu = bool(values) and all(value.device.kind == "gpu" for value in values)
        if not gpu or not config.cuda_graphs or any(n.op in ("plugin", "copy") for n in nodes):
            return None
        return GraphRecorder(self._execute, self._written)

    def _with_runs(self, steps: list[_Step]) -> list[_Step]:
        """The steps, with those of a decode step that one kernel can run as one step."""
        where = self._graph.outputs[0].device if self._graph.outputs else None
        if where is None or missing(where) or native_decode_missing(where):
            return steps
        by_node = {step.node: step for step in steps}
        on = torch_device(where)
        planned = decode_plan.plan(
            list(by_node), self._kernels, self._in_place, self._graph.outputs, on
        )
        result = []
        for item in planned:
            if isinstance(item, Node):
                result.append(by_node[item])
                continue
            for node in item.nodes:
                if node in self._kernels:
                    self._kernels[node] = self._says_run(self._kernels[node])
            self._rows.append(item.row())
            result.append(_Step(item.nodes[0], item, None, item.reads, item.writes))
        return result

    def _says_run(self, kernel: Kernel) -> Kernel:
        """A kernel whose row says that a run takes its place."""
        row = kernel.row._replace(kernel="a step of the decode step's kernel", reason="")
        self._rows = [row if other is kernel.row else other for other in self._rows]
        return kernel._replace(row=row)

    def _step(self, node: Node, in_place: bool) -> _Step:
        if node.op in KERNELS or node.op == "append_and_attend":
            prepare = KERNELS.get(node.op)
            early = node in self._early
            kernel = prepare(node) if prepare else prepare_attention(node, in_place, early)
            self._kernels[node] = kernel
            self._rows.append(kernel.row)
            return _Step(node, kernel.function, None, kernel.inputs)
        fused = prepare_quantize(node) if node.op == "quantize" else None
        if fused is not None:
            self._kernels[node] = fused
            self._rows.append(fused.row)
            return _Step(node, fused.function, None, fused.inputs)
        if node.op == "kv_cache_update":
            kind = "written in place" if in_place else "copied"
            reason = "" if in_place else "the cache is no argument, or is read afterwards"
            self._rows.append(ReportRow(_name(node), node.op, kind, reason, 0))
            if in_place:
                write = cache_writer(node)
                return _Step(node, lambda attrs, *inputs: write(*inputs), node.attrs)
        if node.op in ("quantize", "dequantize", "dynamic_quantize"):
            self._rows.append(
                ReportRow(_name(node), node.op, "torch, by itself", _why_alone(node), 0)
            )
        return _Step(node, LOWERINGS[node.op], node.attrs)

    def _plan(self) -> None:
        """Give every value a slot, and find each value's last use."""
        slots: dict[Value, int] = {}

        def slot(value: Optional[Value]) -> int:
            if value is None:
                return 0  # Slot 0 always holds None.
            if value not in slots:
                slots[value] = len(slots) + 1
            return slots[value]

        self._input_slots = [slot(value) for value in self._graph.inputs]
        last: dict[int, _Step] = {}
        for step in self._steps:
            step.inputs = [slot(value) for value in step.reads]
            step.outputs = [slot(value) for value in step.writes]
            for number in step.inputs + step.outputs:
                last[number] = step
        self._output_slots = [slot(value) for value in self._graph.outputs]
        self._copied = {i for i, value in enumerate(self._graph.outputs) if shows_constant(value)}
        written = [n.inputs[0] for n in self._in_place if n.inputs[0] in self._graph.inputs]
        self._written = [self._graph.inputs.index(value) for value in written if value is not None]
        self._template: list[Any] = [None] * (len(slots) + 1)
        kept = {0, *self._output_slots}
        for value, number in slots.items():
            if value.data is not None:
                self._template[number] = value.data
                kept.add(number)
        constants = [c for c in self._template if isinstance(c, torch.Tensor)]
        self._fixed = merged(span(c, 0)[:2] for c in constants) if self._written else []
        frees: dict[int, list[int]] = {}
        for number, step in last.items():
            if number not in kept:
                frees.setdefault(id(step), []).append(number)
        for step in self._steps:
            step.frees = tuple(frees.get(id(step), ()))

    def run(self, arguments: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
        if self._written:
            arguments = unshared(arguments, self._written, self._fixed)
        if self._recorder is not None:
            return self._recorder.run(arguments, sizes)
        return self._execute(arguments, sizes)

    def _execute(self, arguments: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
        attributes = self._attributes(sizes) if self._dynamic else None
        slots = self._template.copy()
        for number, argument in zip(self._input_slots, arguments):
            slots[number] = argument
        for position, step in enumerate(self._steps):
            inputs = [slots[number] for number in step.inputs]
            try:
                if step.attrs is None:
                    result = step.function(*inputs)
                elif attributes is None or position not in attributes:
                    result = step.function(step.attrs, *inputs)
                else:
                    result = step.function(attributes[position], *inputs)
            except FAILURES as error:
                raise failure(step.node, error) from error
            if isinstance(result, tuple):
                for number, item in zip(step.outputs, result):
                    slots[number] = item
            else:
                slots[step.outputs[0]] = result
            for number in step.frees:
                slots[number] = None
        results = [slots[number] for number in self._output_slots]
        for position in self._copied:
            results[position] = results[position].clone()
        return results

    def _attributes(self, sizes: Mapping[str, int]) -> dict[int, dict[str, Any]]:
        """The attributes of nodes that depend on dynamic sizes, worked out for these."""
        key = tuple(sizes.values())
        found = self._resolved.get(key)
        if found is None:
            if len(self._resolved) >= _CACHED_SIZES:
                self._resolved.clear()
            known: dict[dims.Expr, int] = {}

            def resolve(attribute: Any) -> Any:
                if isinstance(attribute, dims.Expr):
                    if attribute not in known:
                        known[attribute] = dims.evaluate(attribute, sizes)
                    return known[attribute]
                if isinstance(attribute, tuple):
                    return tuple(resolve(item) for item in attribute)
                return attribute

            found = {}
            for position in self._dynamic:
                attrs = self._steps[position].attrs or {}
                found[position] = {name: resolve(value) for name, value in attrs.items()}
            self._resolved[key] = found
        return found

    def report(self) -> list[ReportRow]:
        if self._recorder is None:
            return self._rows
        how, reason = self._recorder.describe()
        return [*self._rows, ReportRow("the whole program", "launch", how, reason, 0)]

    def layers(self) -> list[LayerInfo]:
        kernels = {node: kernel.row.kernel for node, kernel in self._kernels.items()}
        return [
            LayerInfo(_name(node), node.op, kernels.get(node, "torch"))
            for node in self._graph.nodes()
        ]

    def portable_graph(self) -> Graph:
        return self._graph

    def constant(self, value: Value) -> torch.Tensor:
        data = value.data
        return data.unpack() if isinstance(data, PackedWeight) else data


def _is_dynamic(attribute: Any) -> bool:
    if isinstance(attribute, tuple):
        return any(map(_is_dynamic, attribute))
    return isinstance(attribute, dims.Expr)


def _name(node: Node) -> str:
    if node.op in ("quantize", "dequantize") and node.inputs[1].name:  # type: ignore[union-attr]
        return node.inputs[1].name.removesuffix("_scale")  # type: ignore[union-attr]
    return node.output.name or (node.location.place() if node.location else node.op)


def _why_alone(node: Node) -> str:
    if node.op == "dequantize":
        return "what reads it has no quantized kernel"
    source = node.inputs[0].node if node.inputs[0] is not None else None
    maker = source.op if source is not None else "an input"
    return f"follows {maker}, not a quantized layer that could round its own result"
