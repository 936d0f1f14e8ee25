"""Graphs: order, uses, replacing values, copies."""

from __future__ import annotations

import tripy as tp
from tripy.device import CPU
from tripy.graph import Graph, Value, make_node, topological_order


def value(name, data=None):
    return Value(tp.float32, (2,), CPU, data=data, name=name)


def add(left, right):
    return make_node("add", [left, right], {}).output


def diamond():
    """x → a = x + x → b = a + x, c = a + a → d = b + c"""
    x = value("x")
    a = add(x, x)
    b, c = add(a, x), add(a, a)
    return x, a, b, c, add(b, c)


def test_nodes_come_after_what_they_need():
    x, a, b, c, d = diamond()
    graph = Graph([x], [d])
    order = graph.nodes()
    assert len(order) == 4
    place = {node.output: i for i, node in enumerate(order)}
    for node in order:
        for each in node.inputs:
            assert each is x or place[each] < place[node.output]
    assert set(place) == {a, b, c, d}


def test_the_order_of_a_long_chain_needs_no_stack():
    first = current = value("x")
    for _ in range(20_000):
        current = add(current, first)
    assert len(topological_order([current])) == 20_000


def test_computed_values_need_no_nodes():
    x, a, b, _, d = diamond()
    a.data = b.data = object()
    assert [node.output for node in Graph([x], [d]).nodes()] == [d.node.inputs[1], d]


def test_uses_and_constants():
    x, a, b, c, d = diamond()
    uses = Graph([x], [d]).uses()
    assert uses[x] == [a.node, a.node, b.node]
    assert sorted(n.output.serial for n in uses[a]) == [b.serial, c.serial, c.serial]
    constant = value("k", data=object())
    graph = Graph([x], [add(x, constant), constant])
    assert graph.constants() == [constant]


def test_a_copy_has_nodes_of_its_own():
    x, _, b, c, d = diamond()
    graph = Graph([x], [d])
    twin = graph.copy()
    assert twin.inputs == [x]
    assert not set(twin.nodes()) & set(graph.nodes())
    assert [n.op for n in twin.nodes()] == [n.op for n in graph.nodes()]
    twin.outputs[0].node.inputs[0] = x
    assert graph.outputs == [d]
    assert d.node.inputs == [b, c]
