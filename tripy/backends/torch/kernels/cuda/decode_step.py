"""Runs of a decode step's layers as one kernel, where the native library has it.

A run is a sequence of quantized linear layers and one-token attentions, with the reshapes and the
roundings between them, on one row in float16 or bfloat16. Weights are int8, or int8 and one other
type. What lies between its first and its last layer never becomes a tensor. See
``csrc/decode_step.cuh`` for why, and for the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, cast

import numpy as np
import torch

from tripy.backends.base import ReportRow
from tripy.backends.torch.kernels.cuda import decode_limits as limits
from tripy.backends.torch.kernels.cuda import decode_weights
from tripy.backends.torch.kernels.cuda import native_decode as native
from tripy.backends.torch.kernels.cuda.linear import GpuLinear
from tripy.backends.torch.kernels.cuda.native import ACTIVATIONS
from tripy.backends.torch.storage import TORCH_TYPES
from tripy.graph import Node, Value

T = torch.Tensor
_FEWEST = 4  # Steps that are worth a run.
_LOG2_E = 1.4426950408889634


class Place(NamedTuple):
    """Where a value of a run is: in the exchange, in a tensor, or in the parts of an attention."""

    source: int
    at: int
    step: Optional[dict[str, Any]] = None  # that makes it
    type: Optional[str] = None  # "int8" or "float8", where its readers get that.
    scale: float = 0.0  # Divided by this and rounded on the way, unless it is 0.


class Run:
    """Steps that run as one kernel.

    Attributes:
        reads, writes: What it takes and gives, in order.
    """

    def __init__(self, where: torch.device) -> None:
        self.where, self.blocks = where, native.blocks(where)
        self.steps: list[dict[str, Any]] = []
        self.nodes: list[Node] = []
        self.reads: list[Value] = []
        self.writes: list[Value] = []
        self._places: dict[Value, Place] = {}
        self._tensors: dict[Value, int] = {}  # Of inputs, then of results.
        self._caches: dict[Value, Value] = {}  # A written cache, and the input that it lies in.
        self._results: list[tuple[Value, torch.dtype]] = []
        self._exchanged = 0
        self._weights = native.WEIGHTS["int8"]  # Of steps whose weights are not int8.
        self._width, self._quads = 0, 1
        self._settings: Optional[native.Settings] = None
        self._held: list[T] = []
        self._spaces: dict[int, native.Exchange] = {}
        self._spare: list[native.Exchange] = []
        self._table: Optional[T] = None

    # ---- Planning.

    def makes(self, value: Optional[Value]) -> bool:
        """Whether a value exists only once the run has begun."""
        return value in self._places or value in self._caches

    def _tensor(self, value: Value) -> int:
        value = self._caches.get(value, value)
        if value not in self._tensors:
            self._tensors[value] = len(self._tensors)
            self.reads.append(value)
        return self._tensors[value]

    def _place(self, value: Value) -> Place:
        return self._places.get(value) or Place(native.FROM_TENSOR, self._tensor(value))

    def _reserve(self, units: int) -> int:
        at = self._exchanged
        self._exchanged += units + units % 2  # Two are read at once.
        return at

    def add_view(self, node: Node) -> bool:
        """A reshape of a value of the run."""
        place = self._places.get(node.inputs[0])  # type: ignore[arg-type]
        if place is None:
            return False
        self._places[node.output] = place
        self.nodes.append(node)
        return True

    def add_rounding(self, node: Node) -> bool:
        """A quantize with one scale, of a value of the run."""
        place, scale = self._places.get(node.inputs[0]), node.inputs[1]  # type: ignore[arg-type]
        if place is None or place.type or scale is None or scale.data is None or scale.rank:
            return False
        kind = node.attrs["dtype"].name
        if kind not in ("int8", "float8") or node.attrs["dim"] is not None:
            return False
        if place.source == native.FROM_TENSOR:
            return False
        self._places[node.output] = place._replace(type=kind, scale=float(scale.data))
        self.nodes.append(node)
        return True

    def add_linear(
        self, kernel: GpuLinear, node: Node, x: Value, residual: Optional[Value]
    ) -> bool:
        """A linear layer."""
        if limits.why_not_linear(kernel, node) is not None or not self._fits(kernel, x, residual):
            return False
        weights = native.WEIGHTS[kernel.weight.kind]
        if weights and self._weights not in (0, weights):
            return False
        self._weights = weights or self._weights
        self.nodes.append(node)
        place = self._place(x)
        (outputs, size), row_bytes = kernel.weight.shape, kernel.weight.data.shape[1]
        rounded = kernel.out_scale is not None
        step: dict[str, Any] = {
            "kind": native.LINEAR, "source": place.source, "in_": place.at,
            "k": size, "n": outputs, "row_bytes": row_bytes,
            **decode_weights.fields(kernel),
            "weight": self._hold(kernel.weight.data),
            "parameters": self._hold(decode_weights.records(kernel, self.where)),
            "activation": ACTIVATIONS[node.attrs["activation"]], "inverse_k": 1 / size,
            "out": self._reserve(-(-outputs // limits.unit_rows(rounded))),
        }  # fmt: skip
        in_scale = kernel.x_scale if kernel.norm is not None else place.scale
        if in_scale:  # The correctly rounded reciprocal of the float32.
            near = np.float32(in_scale)
            step |= {"in_scale": near, "inverse_in_scale": np.float32(1) / near}
        if place.source == native.FROM_PARTS and place.step is not None:
            for name in (
                "heads", "width", "chunk", "chunks", "inverse_chunk", "position", "lengths",
            ):  # fmt: skip
                step[name] = place.step[name]
        if kernel.norm is not None:
            step |= {"norm": native.NORMS[kernel.norm.kind], "eps": kernel.norm.eps}
            step["norm_weight"] = self._hold(kernel.norm.weight)
            step["norm_bias"] = self._hold(kernel.norm.bias)
            self._quads = max(self._quads, limits.quads(size))
        if residual is not None:
            added = self._place(residual)
            name = "residual_tensor" if added.source == native.FROM_TENSOR else "residual"
            step[name] = added.at
        made = Place(native.FROM_PAIRS, step["out"], step)
        if rounded:
            made = made._replace(source=native.FROM_BYTES, type=kernel.weight.kind)
        if kernel.out_scale is not None:
            step["inverse_out_scale"] = 1 / kernel.out_scale
        self.steps.append(step)
        self._places[node.output] = made
        return True

    def _fits(self, kernel: GpuLinear, x: Value, residual: Optional[Value]) -> bool:
        """Whether input and residual have the types that a step reads."""
        place, normalized = self._places.get(x), kernel.norm is not None
        if place is None:
            if not normalized or TORCH_TYPES[x.dtype] is not kernel.dtype:
                return False
        else:
            in_parts = place.source == native.FROM_PARTS
            wanted = kernel.weight.kind if kernel.static and not normalized else None
            if place.type != wanted or (normalized and in_parts):
                return False
        added = None if residual is None else self._places.get(residual)
        if added is not None:
            return added.source == native.FROM_PAIRS and not added.scale
        return residual is None or TORCH_TYPES[residual.dtype] is kernel.dtype

    def add_attention(self, node: Node) -> bool:
        """One token's attention, which writes its cache."""
        cache, heads, position, lengths = (v for v in node.inputs if v is not None)
        place = self._places.get(heads)
        if limits.why_not_attention(node) is not None or place is None or place.scale:
            return False
        if place.source != native.FROM_PAIRS or self.makes(position) or self.makes(lengths):
            return False
        _, pairs, capacity, width = cast(tuple[int, ...], cache.shape)
        if self._width not in (0, width):
            return False
        self._width = width
        self.nodes.append(node)
        count = cast(int, heads.shape[1]) - pairs
        chunk = limits.keys_of_chunk(width)
        chunks = -(-capacity // chunk)
        step: dict[str, Any] = {
            "kind": native.ATTENTION, "source": place.source, "in_": place.at,
            "cache": self._tensor(cache), "position": self._tensor(position),
            "lengths": self._tensor(lengths), "heads": count, "groups": pairs // 2,
            "width": width, "capacity": capacity, "chunk": chunk, "chunks": chunks,
            "inverse_heads": 1 / count, "inverse_group": pairs // 2 / count,
            "inverse_chunk": 1 / chunk,
            "score_scale": node.attrs["scale"] * _LOG2_E,
            "out": self._reserve(count * chunks * (width // 2 + 2)),
        }  # fmt: skip
        self.steps.append(step)
        written, attended = node.outputs
        self._caches[written] = self._caches.get(cache, cache)
        self._places[attended] = Place(native.FROM_PARTS, step["out"], step)
        return True

    def _hold(self, tensor: Optional[T]) -> Optional[int]:
        if tensor is None:
            return None
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        self._held.append(tensor.contiguous())
        return self._held[-1].data_ptr()

    def finish(self, wanted: Sequence[Value]) -> bool:
        """Ends planning; ``wanted`` are values that others read. Whether it is worth running."""
        if len(self.steps) < _FEWEST:
            return False
        for value in wanted:
            place = self._places.get(value)
            if value in self._caches:
                self.writes.append(value)
            elif place is not None:
                step = place.step
                if place.source != native.FROM_PAIRS or place.scale or step is None:
                    return False
                if "out_tensor" in step:
                    return False
                step["out_tensor"] = len(self._tensors) + len(self._results)
                self._results.append((value, TORCH_TYPES[value.dtype]))
                self.writes.append(value)
        if len(self._tensors) + len(self._results) > native.MOST_TENSORS:
            return False
        read = {step["in_"] for step in self.steps if step["source"] != native.FROM_TENSOR}
        read |= {step.get("residual") for step in self.steps}
        for step in self.steps:
            if step["out"] not in read:
                step["out"] = -1  # It is a tensor only.
        self._settings = self._cut_ring()
        self._table = native.table([native.DecodeStep(**s) for s in self.steps], self.where)
        self._spare.append(native.Exchange(self._exchanged, self.where))
        return True

    def _cut_ring(self) -> native.Settings:
        """Says of each layer how its rows are shared out, and how many a stage of the ring has."""
        layers = [step for step in self.steps if step["kind"] == native.LINEAR]
        most = 8 if self._quads > 1 and not self._weights else 4  # Rows of int8 in the kernel.
        for step in layers:
            step |= limits.split_of(
                step["n"], step["row_bytes"], step["record_bytes"], bool(step["integers"]),
                "inverse_out_scale" in step, self.blocks, most,
            )._asdict()  # fmt: skip
        each = [step["row_bytes"] + step["record_bytes"] for step in layers]
        moved = sum(step["groups_each"] * step["rows"] * n for step, n in zip(layers, each))
        groups = [step["rows"] * n for step, n in zip(layers, each)]
        stages = limits.stages(max(groups), moved / len(layers))
        for step, group in zip(layers, groups):
            step["stage_groups"] = limits.stage_groups(
                step["groups_each"], group, stages.stage_bytes
            )
        return native.Settings(self._weights, self._width or 64, self._quads, *stages)

    def row(self) -> ReportRow:
        """For the report."""
        kinds = [step["kind"] for step in self.steps]
        weights = [step.get("weights") for step in self.steps]
        counts = {name: weights.count(code) for name, code in native.WEIGHTS.items()}
        name = (
            f"one native kernel: {kinds.count(native.LINEAR)} linear layers "
            f"({', '.join(f'{count} {kind}' for kind, count in counts.items() if count)} weights), "
            f"{kinds.count(native.ATTENTION)} attentions"
        )
        return ReportRow(f"run of {len(self.steps)} steps", "decode_step", name, "", 0)

    # ---- Running.

    def _space(self) -> native.Exchange:
        """For a recording its own, since it may run beside all others; else the stream's."""
        if torch.cuda.is_current_stream_capturing():
            if self._spare:
                return self._spare.pop()
            return native.Exchange(self._exchanged, self.where)  # Its zeros are recorded too.
        stream = torch.cuda.current_stream(self.where).cuda_stream
        if stream not in self._spaces:
            self._spaces[stream] = native.Exchange(self._exchanged, self.where)
        while len(self._spare) < 2:
            self._spare.append(native.Exchange(self._exchanged, self.where))
        return self._spaces[stream]

    def _launch(self, space: native.Exchange, tensors: Sequence[T]) -> native.DecodeLaunch:
        assert self._table is not None and self._settings is not None
        return native.launch_of(self._table, len(self.steps), self._settings, space, tensors)

    def __call__(self, *inputs: T) -> tuple[T, ...]:
        data = dict(zip(self.reads, map(_usable, inputs)))
        for value, dtype in self._results:
            data[value] = torch.empty(tuple(value.shape), dtype=dtype, device=self.where)  # type: ignore[arg-type]
        tensors = [data[value] for value in self._tensors]
        tensors += [data[value] for value, _ in self._results]
        space = self._space()
        if torch.cuda.is_current_stream_capturing():
            self._held += [space.units, space.launches]
        native.run(self._launch(space, tensors), self.where)
        for value, given in zip(self.reads, inputs):
            if value in self._caches.values() and data[value] is not given:
                data[value] = given.copy_(data[value])  # The copy was written.
        return tuple(data[self._caches.get(value, value)] for value in self.writes)


def _usable(tensor: T) -> T:
    """Itself, or a copy that is contiguous and begins at a multiple of 16 bytes."""
    if tensor.is_contiguous() and tensor.data_ptr() % 16 == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
