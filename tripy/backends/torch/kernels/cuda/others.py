"""Normalization with rounding, rows of tables, and one token's attention, on NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Optional

import torch
import torch.nn.functional as F

from tripy.backends.base import ReportRow
from tripy.backends.torch.kernels.base import Kernel, node_name
from tripy.backends.torch.kernels.cuda.available import launches_early, missing
from tripy.backends.torch.lowering.linear_algebra import write_cache
from tripy.backends.torch.lowering.quantization import rounded
from tripy.backends.torch.lowering.table import LOWERINGS
from tripy.backends.torch.storage import TORCH_TYPES
from tripy.dtypes import int4
from tripy.graph import Node, Value

T = torch.Tensor


def prepare_norm(node: Node) -> Kernel:
    """One kernel that normalizes and rounds, or the operations one by one."""
    attrs = node.attrs
    reason = missing(node.output.device)

    def one_by_one(x: T, weight: T, bias: Optional[T], scale: T) -> T:
        if attrs["kind"] == "rms":
            result = F.rms_norm(x, weight.shape, weight, attrs["eps"])
        else:
            result = F.layer_norm(x, weight.shape, weight, bias, attrs["eps"])
        return rounded(result.float() / scale.float(), attrs["dtype"])

    if reason is not None:
        row = ReportRow(node_name(node), node.op, "torch, operation by operation", reason, 0)
        return Kernel(one_by_one, node.inputs, row)
    from tripy.backends.torch.kernels.cuda import normalization  # noqa: PLC0415

    dtype, pdl = TORCH_TYPES[attrs["dtype"]], launches_early(node.output.device)

    def run(x: T, weight: T, bias: Optional[T], scale: T) -> T:
        return normalization.normalize(
            x.contiguous(), weight, bias, attrs["eps"], kind=attrs["kind"],
            scale=scale.float().reshape(1), dtype=dtype, pdl=pdl,
        )[1]  # fmt: skip

    row = ReportRow(node_name(node), node.op, f"Triton, norm → {attrs['dtype']}", "", 0)
    return Kernel(run, node.inputs, row)


def prepare_quantize(node: Node) -> Optional[Kernel]:
    """One kernel that divides by one scale and rounds; None where the operations run one by one."""
    x, scale = node.inputs
    if x is None or scale is None or missing(node.output.device) is not None:
        return None
    if node.attrs["dim"] is not None or scale.rank or not x.rank or node.attrs["dtype"] is int4:
        return None
    from tripy.backends.torch.kernels.cuda import normalization  # noqa: PLC0415

    dtype, pdl = TORCH_TYPES[node.attrs["dtype"]], launches_early(node.output.device)
    known = None if scale.data is None else float(scale.data)

    def run(x: T, *computed: T) -> T:
        if not x.numel():
            return x.to(dtype)
        divisor = computed[0].float().reshape(1) if computed else known
        return normalization.quantize_rows(x.contiguous(), scale=divisor, dtype=dtype, pdl=pdl)[0]

    name = f"Triton, → {node.attrs['dtype']}"
    row = ReportRow(node_name(node), node.op, name, "", 0)
    return Kernel(run, [x] if known is not None else [x, scale], row)


def cache_writer(node: Node) -> Callable[[T, T, T], T]:
    """What writes new positions into a cache in place: cache, update, write indices → cache."""

    def write(cache: T, update: T, write_indices: T) -> T:
        if cache.stride(3) != 1:  # Given by a caller, with strides of its own.
            return write_cache(cache, update, write_indices)
        return rows_of_cache.write_rows(cache, update, write_indices.contiguous())

    if missing(node.output.device) is not None:
        return write_cache
    from tripy.backends.torch.kernels.cuda import cache as rows_of_cache  # noqa: PLC0415

    return write


def prepare_rows(node: Node) -> Kernel:
    """Rows of one table, or the sum of those of two."""

    def one_by_one(table: T, index: T, *others: T) -> T:
        rows = [LOWERINGS["gather"]({"dim": 0}, *pair) for pair in ((table, index), others) if pair]
        return rows[0] if len(rows) == 1 else rows[0] + rows[1]

    inputs = [value for value in node.inputs if value is not None]
    reason = missing(node.output.device)
    if reason is not None:
        row = ReportRow(node_name(node), node.op, "torch, operation by operation", reason, 0)
        return Kernel(one_by_one, inputs, row)
    from tripy.backends.torch.kernels.cuda import rows  # noqa: PLC0415

    name = "Triton, a row for each index" if len(inputs) == 2 else "Triton, a sum of two rows"
    return Kernel(rows.gather_rows, inputs, ReportRow(node_name(node), node.op, name, "", 0))


class _Workspaces:
    """Where the programs of a launch meet: one for each stream, since these run side by side.

    What is made while a CUDA graph is recorded is that graph's: it is cleared by its replays alone.
    """

    def __init__(self) -> None:
        self._spaces: dict[tuple[int, ...], Any] = {}

    def get(self, heads: int, cache: T, groups: int) -> Any:
        from tripy.backends.torch.kernels.cuda import decode_attention  # noqa: PLC0415

        stream = torch.cuda.current_stream(cache.device).cuda_stream if cache.is_cuda else 0
        batch, _, capacity, width = cache.shape
        shape = (batch, heads, groups, width, capacity)
        key = (stream, *decode_attention.workspace_sizes(*shape))
        space = self._spaces.get(key)
        if space is None:
            space = decode_attention.workspace(*shape, cache.device)
            if not (cache.is_cuda and torch.cuda.is_current_stream_capturing()):
                self._spaces[key] = space
        return space


def prepare_one_token(node: Node) -> Kernel:
    """One token's attention to the first keys of each row."""
    from tripy.backends.torch.kernels.cuda import decode_attention  # noqa: PLC0415

    spaces, scale = _Workspaces(), node.attrs["scale"]

    def run(query: T, key: T, value: T, mask: Optional[T], lengths: T) -> T:
        if not query.numel():
            return torch.empty_like(query)
        key, value = (t if t.stride(3) == 1 else t.contiguous() for t in (key, value))
        # Not launched early: the keys are mostly those of a cache that was written just now.
        return decode_attention.decode_attention(
            query.contiguous(), key, value, lengths,
            scale=query.shape[3] ** -0.5 if scale is None else scale,
            space=spaces.get(query.shape[1], key, key.shape[1]),
        )  # fmt: skip

    row = ReportRow(node_name(node), node.op, "Triton, one token: attention", "", 0)
    return Kernel(run, node.inputs, row)


def may_start_early(nodes: Sequence[Node], in_place: AbstractSet[Node]) -> set[Node]:
    """Attention that may read cache, position and lengths before the launch in front has ended.

    A kernel that is launched early waits for those before it only once it has read these, and
    those before it may have been launched early themselves, one after the other. But what there was
    when an attention began that was *not* launched early is there for all that follow.
    """
    early: set[Node] = set()
    there: set[Optional[Value]] = set()
    for node in nodes:
        if node.op != "append_and_attend":
            continue
        cache, _, *read = node.inputs
        given = cache is not None and cache.node is None and node in in_place
        if there and given and all(v in there or v.node is None for v in read if v is not None):
            early.add(node)
        else:
            there |= set(read)
    return early


def prepare_attention(node: Node, in_place: bool, early: bool = False) -> Kernel:
    """Writes a token's key and value into the cache and attends, in one kernel.

    Args:
        node: An ``append_and_attend``.
        in_place: Whether the cache may be written, not a copy.
        early: From ``may_start_early``.
    """
    where = node.output.device
    reason = missing(where)
    scale = node.attrs["scale"]

    def one_by_one(cache: T, heads: T, position: T, lengths: T) -> tuple[T, T]:
        groups = cache.shape[1] // 2
        count = heads.shape[1] - 2 * groups
        query, pair = heads.split([count, 2 * groups], 1)
        cache = write_cache(cache, pair, position)
        key, value = cache.chunk(2, 1)
        mask = torch.arange(cache.shape[2], device=cache.device) < lengths[:, None, None, None]
        result = F.scaled_dot_product_attention(
            query, key, value, mask, scale=scale, enable_gqa=count != groups
        )
        return cache, result.masked_fill(lengths[:, None, None, None] <= 0, 0)

    if reason is not None:
        function: Any = one_by_one
        name = "torch, operation by operation"
    else:
        from tripy.backends.torch.kernels.cuda import decode_attention  # noqa: PLC0415

        pdl, spaces = early and launches_early(where), _Workspaces()
        name = "Triton, one token: cache and attention"

        def function(cache: T, heads: T, position: T, lengths: T) -> tuple[T, T]:
            batch, groups, width = cache.shape[0], cache.shape[1] // 2, cache.shape[3]
            count = heads.shape[1] - 2 * groups
            if not heads.numel():
                return cache, heads[:, :count]
            result = decode_attention.append_and_attend(
                heads.reshape(batch, -1).contiguous(), cache, position, lengths, heads=count,
                groups=groups, scale=scale, space=spaces.get(count, cache, groups), pdl=pdl,
            )  # fmt: skip
            return cache, result.view(batch, count, 1, width)

    def copied(cache: T, *rest: T) -> tuple[T, T]:
        return function(cache.clone(memory_format=torch.contiguous_format), *rest)

    if not in_place:
        reason = reason or "the cache is copied: it is no argument, or is read afterwards"
    row = ReportRow(node_name(node), node.op, name, reason or "", 0)
    return Kernel(function if in_place else copied, node.inputs, row)
