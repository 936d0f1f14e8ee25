"""The rewrite engine on rules of its own, and the verifier on rules that are wrong."""

from __future__ import annotations

import pytest

import tripy as tp
from tests.passes.support import info, operations
from tripy.backends.torch import backend
from tripy.graph import Graph, Value, make_node
from tripy.graph.verifier import InvalidGraph, verify
from tripy.passes import Rule, apply_rules, pipeline
from tripy.passes.rewrite import EndlessRewrite, any_value, constant, op

CPU = tp.device("cpu")


def value(*shape, data=None):
    made = Value(tp.float32, shape, CPU, data=data)
    made.is_input = data is None
    return made


def make(name, *inputs, **attrs):
    return make_node(name, inputs, attrs, None, CPU).output


def names(graph):
    return [node.op for node in graph.nodes()]


def swap(new):
    return lambda match: match.make(new, [match.value["x"]])


def test_a_chain_is_rewritten_to_the_end():
    x = value(2)
    y = x
    for _ in range(6):
        y = make("exp", y)
    graph = Graph([x], [y])
    pair = Rule("pair", op("exp", op("exp", any_value("x"))), swap("log"))
    assert [name for name, _ in apply_rules(graph, [pair])] == ["pair"] * 3
    assert names(graph) == ["log"] * 3
    verify(graph, "the test")


def test_rules_are_tried_in_order():
    x = value(2)
    first = Rule("first", op("exp", any_value("x")), swap("log"))
    second = Rule("second", op("exp", any_value("x")), swap("sin"))
    for rules, expected in (([first, second], "log"), ([second, first], "sin")):
        graph = Graph([x], [make("exp", x)])
        apply_rules(graph, rules)
        assert names(graph) == [expected]


def test_a_rule_that_declines_lets_the_next_one_try():
    x = value(2)
    graph = Graph([x], [make("exp", x)])
    rules = [
        Rule("declines", op("exp", any_value("x")), lambda match: None),
        Rule("accepts", op("exp", any_value("x")), swap("log")),
    ]
    assert [name for name, _ in apply_rules(graph, rules)] == ["accepts"]


def test_an_inner_result_with_another_reader_is_not_matched():
    x = value(2)
    inner = make("exp", x)
    rule = Rule("pair", op("sin", op("exp", any_value("x"))), swap("log"))
    graph = Graph([x], [make("sin", inner), make("cos", inner)])
    assert apply_rules(graph, [rule]) == []
    graph = Graph([x], [make("sin", inner), inner])
    assert apply_rules(graph, [rule]) == []
    shared = Rule("pair", op("sin", op("exp", any_value("x"), shared=True)), swap("log"))
    assert len(apply_rules(graph, [shared])) == 1
    assert sorted(names(graph)) == ["exp", "log"]


def test_operands_of_a_sum_match_in_both_orders():
    x, y = value(2), value(2)
    rule = Rule("sum", op("add", op("exp", any_value("x")), any_value("y")), swap("log"))
    for inputs in ((make("exp", x), y), (y, make("exp", x))):
        graph = Graph([x, y], [make("add", *inputs)])
        assert len(apply_rules(graph, [rule])) == 1
    minus = Rule("minus", op("sub", op("exp", any_value("x")), any_value("y")), swap("log"))
    assert len(apply_rules(Graph([x, y], [make("sub", make("exp", x), y)]), [minus])) == 1
    assert apply_rules(Graph([x, y], [make("sub", y, make("exp", x))]), [minus]) == []


def test_constants_and_attributes():
    x, known = value(2, 3), value(2, 3, data=object())
    rule = Rule("constant", op("add", any_value("x"), constant("c")), swap("log"))
    assert len(apply_rules(Graph([x], [make("add", x, known)]), [rule])) == 1
    assert apply_rules(Graph([x], [make("add", x, x)]), [rule]) == []
    turn = Rule("turn", op("permute", any_value("x"), perm=(1, 0)), swap("exp"))
    assert len(apply_rules(Graph([x], [make("permute", x, perm=(1, 0))]), [turn])) == 1
    assert apply_rules(Graph([x], [make("permute", x, perm=(0, 1))]), [turn]) == []


def test_one_output_twice_and_an_output_inside():
    x = value(2)
    y = make("exp", x)
    graph = Graph([x], [y, y, make("sin", y)])
    apply_rules(graph, [Rule("swap", op("exp", any_value("x")), swap("log"))])
    assert names(graph) == ["log", "sin"]
    assert graph.outputs[0] is graph.outputs[1]
    verify(graph, "the test")


def test_names_and_places_pass_on_to_what_replaces():
    x = value(2)
    y = make("exp", x)
    y.name = "mine"
    graph = Graph([x], [make("sin", y)])
    apply_rules(graph, [Rule("pair", op("sin", op("exp", any_value("x"))), swap("log"))])
    assert graph.outputs[0].name == "mine"


def test_rules_that_make_what_they_match_are_stopped():
    x = value(2)
    again = Rule("again", op("exp", any_value("x")), swap("exp"))
    with pytest.raises(EndlessRewrite, match="again fired again"):
        apply_rules(Graph([x], [make("exp", x)]), [again])
    there = Rule("there", op("exp", any_value("x")), swap("log"))
    back = Rule("back", op("log", any_value("x")), swap("exp"))
    with pytest.raises(EndlessRewrite):
        apply_rules(Graph([x], [make("sin", make("exp", x))]), [there, back])


def test_a_graph_of_many_thousand_nodes():
    x = value(2)
    y = x
    for _ in range(5000):
        y = make("exp", y)
    graph = Graph([x], [y])
    assert len(apply_rules(graph, [Rule("swap", op("exp", any_value("x")), swap("log"))])) == 5000
    assert names(graph) == ["log"] * 5000


def relu_of_a_sum():
    return tp.compile(lambda x: tp.relu(x + 1.0), args=[info(2, 3)])


WRONG = {
    "another shape": lambda match: _declared(match, "relu", (3, 2), tp.float32),
    "another type": lambda match: _declared(match, "relu", (2, 3), tp.float16),
    "an operation that is not there": lambda match: _renamed(match, "no such operation"),
    "an operation that refuses its inputs": lambda match: _renamed(match, "matmul"),
    "too many outputs": lambda match: _renamed(match, "topk", k=1, dim=0),
}


def _declared(match, name, shape, dtype):
    node = match.make(name, [match.value["x"]])
    node.outputs = [Value(dtype, shape, CPU, node)]
    return node


def _renamed(match, name, **attrs):
    node = match.make("relu", [match.value["x"]])
    node.op, node.attrs = name, attrs
    return node


@pytest.mark.parametrize("wrong", WRONG)
def test_the_verifier_catches_a_wrong_rewrite(monkeypatch, wrong):
    rule = Rule("wrong", op("relu", op("add", any_value("x"), any_value("y"))), WRONG[wrong])
    passes = [("a wrong pass", pipeline.rules([rule]))]
    monkeypatch.setattr(backend, "PASSES", (*backend.PASSES[:2], *passes))
    with pytest.raises(InvalidGraph, match="after a wrong pass"):
        relu_of_a_sum()


def test_the_verifier_catches_a_value_that_nothing_makes(monkeypatch):
    def orphan(match):
        return match.make("relu", [Value(tp.float32, (2, 3), CPU)])

    rule = Rule("wrong", op("relu", op("add", any_value("x"), any_value("y"))), orphan)
    monkeypatch.setattr(backend, "PASSES", (("a wrong pass", pipeline.rules([rule])),))
    with pytest.raises(InvalidGraph, match="which nothing makes"):
        relu_of_a_sum()


def test_a_wrong_meaning_is_caught_by_comparison_with_eager_code(monkeypatch):
    """What no verifier sees: types and shapes fit, values do not."""
    rule = Rule("wrong", op("relu", any_value("x")), swap("neg"))
    monkeypatch.setattr(backend, "PASSES", (("a wrong pass", pipeline.rules([rule])),))
    fast = relu_of_a_sum()
    assert operations(fast) == ["add", "neg"]
    assert fast(tp.ones((2, 3))).tolist() != tp.relu(tp.ones((2, 3)) + 1.0).tolist()


def test_verifying_is_on_in_tests():
    assert tp.config.verify is True
