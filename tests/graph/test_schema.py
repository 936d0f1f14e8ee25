"""Schemas: what they say of types, what inference refuses, and what it leaves for run time."""

from __future__ import annotations

import pytest

import tripy as tp
from tests.helpers import ALL, raises
from tripy import dtypes
from tripy.device import CPU
from tripy.graph import SCHEMAS, Graph, Value, dims, infer_node, make_node
from tripy.graph.schema import Inference

N = dims.symbol("N", 1, 4, 9)
M = dims.symbol("M", 1, 2, 5)


def value(shape, dtype=tp.float32):
    return Value(dtype, tuple(shape), CPU)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=lambda s: s.name)
def test_schemas_name_types_that_exist(schema):
    for each in schema.inputs:
        assert set(schema.input_types(each.name)) <= set(ALL)
    for kind in schema.outputs:
        assert kind in schema.types or kind in dtypes.BY_NAME or kind.startswith("@")
    assert all(not each.variadic for each in schema.inputs[:-1])


def test_input_types():
    assert SCHEMAS["matmul"].input_types("rhs") == dtypes.FLOATS
    assert SCHEMAS["gather"].input_types("index") == dtypes.INTS
    assert SCHEMAS["where"].input_types("condition") == (tp.bool,)


def test_equal_sizes_leave_no_constraint():
    _, shapes, constraints = infer_node("add", [value((N, 3)), value((N, 1))], {}, None)
    assert shapes == [(N, 3)]
    assert constraints == []


def test_sizes_that_may_be_equal_leave_one():
    _, shapes, constraints = infer_node("add", [value((N,)), value((M,))], {}, None)
    (constraint,) = constraints
    assert constraint.relation == "broadcast"
    assert constraint.holds(4, 4) and constraint.holds(1, 4) and not constraint.holds(2, 4)
    assert dims.evaluate(shapes[0][0], {"N": 1, "M": 4}) == 4
    _, _, constraints = infer_node("matmul", [value((2, N)), value((M, 3))], {}, None)
    assert [c.relation for c in constraints] == ["=="]
    assert constraints[0].holds(3, 3) and not constraints[0].holds(1, 3)


def test_sizes_that_can_never_be_equal_are_refused_at_once():
    with pytest.raises(tp.TripyException, match="the summed dimensions differ"):
        infer_node("matmul", [value((2, N)), value((20, 3))], {}, None)
    with pytest.raises(tp.TripyException, match="cannot be broadcast"):
        infer_node("add", [value((dims.symbol("K", 2, 3, 4),)), value((7,))], {}, None)


def _context(*shapes):
    return Inference("test", [value(s) for s in shapes], ["a", "b"], {}, None)


def test_broadcast_to():
    ctx = _context()
    ctx.broadcast_to((1, 3), (2, 3), "no")
    ctx.broadcast_to((3,), (N, 3), "no")
    ctx.broadcast_to((), (N, 3), "no")
    assert ctx.constraints == []
    ctx.broadcast_to((N,), (4,), "no")
    (constraint,) = ctx.constraints
    for n, holds in [(1, True), (4, True), (2, False)]:
        left = dims.evaluate(constraint.left, {"N": n})
        assert constraint.holds(left, constraint.right) is holds
    for wrong in [((2,), (3,)), ((1, 1), (2,)), ((dims.symbol("K", 2, 3, 4),), (9,))]:
        with pytest.raises(tp.TripyException, match="no"):
            ctx.broadcast_to(*wrong, "no")


def test_at_most():
    ctx = _context()
    ctx.at_most(3, 4, "no")
    ctx.at_most(N, N + M, "no")
    assert ctx.constraints == []
    ctx.at_most(N, 4, "no")
    assert [c.relation for c in ctx.constraints] == ["<="]
    with pytest.raises(tp.TripyException, match="no"):
        ctx.at_most(N, 0, "no")


def test_variadic_inputs_are_named_in_messages():
    x, y = tp.ones((2,)), tp.ones((2,), dtype=tp.int32)
    with raises(r"tensors\[0\] and tensors\[2\] have different data types"):
        tp.concatenate([x, x, y], 0)


def test_nodes_know_their_outputs():
    node = make_node("topk", [value((3, 4))], {"k": 2, "dim": 1})
    assert [v.type_text for v in node.outputs] == ["float32[3, 2]", "int32[3, 2]"]
    assert all(v.node is node and v.index == i for i, v in enumerate(node.outputs))
    graph = Graph([node.inputs[0]], node.outputs)
    assert graph.nodes() == [node]
    assert graph.uses() == {node.inputs[0]: [node]}
