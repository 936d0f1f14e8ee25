"""Fusions that pay on a GPU, where each kernel of a decode step costs more to start than to run.

Around the quantized linear layers: the normalization before one, its rounding included, and the
residual added after it. One token's attention takes the new key and value, writes them into the
cache and attends, in one kernel. Embeddings of tokens and of positions are picked and added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from tripy import dtypes
from tripy.graph import Graph, Node, Value, make_node
from tripy.passes.rewrite import Match, Rule, any_value, op, use_counts

_LINEAR_INPUTS = ("x", "w", "w_scale", "x_scale", "bias", "out_scale", "residual")
_NORMALIZED_INPUTS = (
    "x", "norm_weight", "norm_bias", "x_scale", "w", "w_scale", "bias", "out_scale", "residual",
)  # fmt: skip


def _norm(match: Match) -> dict[str, Any]:
    """The attributes of the normalization that was matched."""
    for kind in ("layer", "rms"):
        node = match.node.get(f"{kind}_norm")
        if node is not None:
            return {"kind": kind, "eps": node.attrs["eps"]}
    node = match.node["normalize_quantize"]
    return {"kind": node.attrs["kind"], "eps": node.attrs["eps"]}


def _rounded_norm(match: Match) -> Optional[Node]:
    dtype, scale = match.root.attrs["dtype"], match.value["scale"]
    if match.value["norm_weight"].rank != 1 or scale.rank or dtype is dtypes.int4:
        return None
    inputs = [match.value[name] for name in ("x", "norm_weight")]
    inputs += [match.value.get("norm_bias"), scale]
    return match.make("normalize_quantize", inputs, dtype=dtype, **_norm(match))


def _same(first: Value, second: Value) -> bool:
    """Whether two scales are one, or are known to have one value."""
    if first is second:
        return True
    known = first.data is not None and second.data is not None
    return known and first.dtype is second.dtype and bool((first.data == second.data).all())


def _norm_before(match: Match) -> Optional[Node]:
    if match.value["norm_weight"].rank != 1 or match.value["residual"] is not None:
        return None
    scale = match.value.get("scale")
    x_scale = match.value["x_scale"]
    if (scale is None) != (x_scale is None) or (scale is not None and not _same(scale, x_scale)):
        return None
    linear = match.node["quantized_linear"]
    inputs = [match.value.get(name) for name in _NORMALIZED_INPUTS]
    attrs = {name: linear.attrs[name] for name in ("activation", "dim", "dtype")}
    node = match.make("normalized_linear", inputs, **attrs, **_norm(match))
    node.output.name = linear.output.name
    return node


def _residual(match: Match) -> Optional[Node]:
    name = "quantized_linear" if "quantized_linear" in match.node else "normalized_linear"
    linear, added = match.node[name], match.value["added"]
    if match.value["out_scale"] is not None or match.value["residual"] is not None:
        return None
    if added.shape != linear.output.shape or added.dtype is not linear.output.dtype:
        return None
    node = match.make(name, [*linear.inputs[:-1], added], **linear.attrs)
    node.output.name = linear.output.name
    return node


def _rows(match: Match) -> Optional[Node]:
    table = match.value["table"]
    if table.rank != 2 or match.root.attrs["dim"] % 2 or table.dtype not in dtypes.FLOATS:
        return None
    return match.make("gather_rows", [table, match.value["index"], None, None])


def _sum_of_rows(match: Match) -> Optional[Node]:
    value = match.value
    if value["more"] is not None or value["other_more"] is not None:
        return None  # A sum already.
    if value["index"].shape != value["other_index"].shape:
        return None
    if value["table"].shape[1] != value["other"].shape[1]:
        return None
    inputs = [value[name] for name in ("table", "index", "other", "other_index")]
    return match.make("gather_rows", inputs)


def _linear(first: Any) -> Any:
    rest = (any_value(name, optional=True) for name in _LINEAR_INPUTS[1:])
    return op("quantized_linear", first, *rest)


def _picked(table: str, prefix: str) -> Any:
    rest = (any_value(f"{prefix}{name}", optional=True) for name in ("more", "more_index"))
    return op("gather_rows", any_value(table), any_value(f"{prefix}index"), *rest)


_NORMS = (
    op("layer_norm", any_value("x"), any_value("norm_weight"), any_value("norm_bias")),
    op("rms_norm", any_value("x"), any_value("norm_weight")),
)
_ROUNDED = op(
    "normalize_quantize", any_value("x"), any_value("norm_weight"),
    any_value("norm_bias", optional=True), any_value("scale"),
)  # fmt: skip
_NORMALIZED = op(
    "normalized_linear", *(any_value(name, optional=True) for name in _NORMALIZED_INPUTS)
)

GPU_RULES: Sequence[Rule] = (
    *(
        Rule("norm, rounded", op("quantize", norm, any_value("scale"), dim=None), _rounded_norm)
        for norm in _NORMS
    ),
    *(Rule("norm before a linear layer", _linear(n), _norm_before) for n in (*_NORMS, _ROUNDED)),
    Rule("residual", op("add", any_value("added"), _linear(any_value("x"))), _residual),
    Rule("residual", op("add", any_value("added"), _NORMALIZED), _residual),
    Rule("rows", op("gather", any_value("table"), any_value("index")), _rows),
    Rule(
        "sum of rows",
        op("add", _picked("table", ""), _picked("other", "other_")),
        _sum_of_rows,
    ),
)


def fuse_decode_attention(graph: Graph) -> int:
    """Make one node of writing a token's key and value into a cache and attending to it.

    The cache holds the keys' heads, then the values'; query, keys and values are the heads of one
    tensor, in this order: as one matrix product makes them.
    """
    uses, count = use_counts(graph), 0
    for attention in graph.nodes():
        fused = _append_and_attend(attention, uses)
        if fused is None:
            continue
        cache, attended = fused.outputs
        key = attention.inputs[1]
        written = key.node.inputs[0]  # type: ignore[union-attr]
        replaced = {written: cache, attention.output: attended}
        _replace(graph, replaced, keep=fused)  # type: ignore[arg-type]
        uses = use_counts(graph)
        count += 1
    return count


def _append_and_attend(attention: Node, uses: dict[Value, int]) -> Optional[Node]:
    if attention.op != "scaled_dot_product_attention" or attention.attrs["is_causal"]:
        return None
    query, key, value, mask, lengths = attention.inputs
    if mask is not None or lengths is None or query is None or key is None or value is None:
        return None
    cut, parts = query.node, key.node
    if cut is None or parts is None or cut.op != "split" or parts.op != "split":
        return None
    if query.shape[2] != 1 or [key, value] != parts.outputs or key.shape != value.shape:
        return None
    update = parts.inputs[0].node  # type: ignore[union-attr]
    if update is None or update.op != "kv_cache_update":
        return None
    cache, pair, position = update.inputs
    if pair is None or cut.outputs != [query, pair]:
        return None
    if cut.attrs["dim"] != 1 or parts.attrs["dim"] != 1:
        return None
    if uses[query] != 1 or uses[pair] != 1 or uses[key] != 1 or uses[value] != 1:
        return None
    sizes = (query.shape[1], query.shape[3], cache.shape[1])  # type: ignore[union-attr]
    if not all(isinstance(n, int) for n in sizes) or query.shape[3] > 256:  # type: ignore
        return None
    scale = attention.attrs["scale"]
    attrs = {"scale": query.shape[3] ** -0.5 if scale is None else scale}  # type: ignore
    inputs = [cache, cut.inputs[0], position, lengths]
    where = attention.output.device
    return make_node("append_and_attend", inputs, attrs, attention.location, where)


def _replace(graph: Graph, values: dict[Value, Value], keep: Node) -> None:
    """Let everything that reads some values read others."""
    for node in graph.nodes():
        if node is not keep:
            node.inputs = [values.get(v, v) if v is not None else None for v in node.inputs]
    graph.outputs = [values.get(v, v) for v in graph.outputs]
