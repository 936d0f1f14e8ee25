"""tp.Module: the tree, assignment, and state."""

from collections import namedtuple

import numpy as np
import pytest
import torch

import tripy as tp
from tests.nn.support import refused


class Inner(tp.Module):
    def __init__(self, value=0.0):
        self.param = tp.Parameter([value, value])

    def forward(self, x):
        return x + self.param


class Outer(tp.Module):
    def __init__(self):
        super().__init__()  # Neither needed nor harmful.
        self.first = Inner(1.0)
        self.scale = tp.Parameter([2.0, 2.0])
        self.listed = [Inner(2.0), tp.relu, tp.Parameter([5.0])]
        self.named = {"a": Inner(3.0), "b": {"c": tp.Parameter([6.0])}, 7: Inner(4.0)}
        self.tupled = (Inner(5.0), (tp.Parameter([7.0]), tp.Parameter([8.0])))
        self.depth = 3

    def forward(self, x):
        return self.first(x) * self.scale


NAMES = [
    "scale", "listed.2", "named.b.c", "tupled.1.0", "tupled.1.1", "first.param", "listed.0.param",
    "named.a.param", "named.7.param", "tupled.0.param",
]  # fmt: skip


class TestTree:
    def test_call_runs_forward(self):
        assert Outer()(tp.zeros((2,))).tolist() == [2.0, 2.0]

    def test_keywords_reach_forward(self):
        class Keyword(tp.Module):
            def forward(self, x, *, factor):
                return x * factor

        assert Keyword()(tp.ones((1,)), factor=4).tolist() == [4.0]

    def test_without_forward_is_refused(self):
        with refused("Module has no forward"):
            tp.Module()(1)

    def test_own_parameters_and_children(self):
        module = Outer()
        assert [name for name, _ in module.named_parameters()] == NAMES[:5]
        children = dict(module.named_children())
        assert list(children) == ["first", "listed.0", "named.a", "named.7", "tupled.0"]
        assert children["named.7"] is module.named[7]

    def test_state_dict_has_the_whole_tree(self):
        module = Outer()
        state = module.state_dict()
        assert list(state) == NAMES
        assert state["tupled.0.param"] is module.tupled[0].param
        assert all(isinstance(value, tp.Parameter) for value in state.values())

    def test_tensors_are_parameters_and_sizes_are_not(self):
        module = tp.Module()
        module.plain, module.size = tp.ones((2,)), tp.DimensionSize(3)
        module.many = [tp.zeros((1,))]
        assert isinstance(module.plain, tp.Parameter)
        assert not isinstance(module.size, tp.Parameter)
        assert list(module.state_dict()) == ["plain", "many.0"]

    def test_later_changes_count(self):
        module = Outer()
        module.listed.append(Inner())
        module.first = None
        del module.scale
        assert "listed.3.param" in module.state_dict()
        assert not {"first.param", "scale"} & set(module.state_dict())

    def test_a_tree_that_contains_itself_is_refused(self):
        module = Outer()
        module.first.parent = module
        with refused("contains itself", "Inner.parent is a Outer"):
            module.state_dict()
        with refused("contains itself"):
            module(tp.zeros((2,)))
        with refused("contains itself"):
            str(module)

    def test_two_parameters_of_one_name_are_refused(self):
        module = tp.Module()
        module.named = {0: tp.ones((1,)), "0": tp.zeros((1,))}
        with refused("two parameters have one name", "named.0"):
            module.state_dict()

    def test_print(self):
        module = tp.Sequential({"body": Outer(), "head": tp.Linear(2, 3, dtype=tp.float16)})
        module.head.bias = None
        assert (
            str(module)
            == """\
Sequential(
    body: Outer(
        first: Inner(
            param: float32[2]
        )
        scale: float32[2]
        listed.0: Inner(
            param: float32[2]
        )
        listed.1: relu()
        listed.2: float32[1]
        named.a: Inner(
            param: float32[2]
        )
        named.b.c: float32[1]
        named.7: Inner(
            param: float32[2]
        )
        tupled.0: Inner(
            param: float32[2]
        )
        tupled.1.0: float32[1]
        tupled.1.1: float32[1]
    )
    head: Linear(
        weight: float16[3, 2], not set
    )
)"""
        )
        assert repr(module) == str(module)
        assert str(tp.Module()) == "Module()"


class TestUnset:
    def test_one_error_lists_all(self):
        module = tp.Sequential(tp.Linear(2, 3, bias=False), Outer(), tp.Embedding(5, 2))
        x = tp.ones((2, 2))
        with refused(
            "2 parameters have no value", "0.weight: float32[3, 2]", "2.weight: float32[5, 2]"
        ):
            module(x)

    def test_every_call_says_so_until_they_are_set(self):
        linear = tp.Linear(2, 1, bias=False)
        x = tp.ones((1, 2))
        for _ in range(2):
            with refused("1 parameter has no value", "weight: float32[1, 2]"):
                linear(x)
        linear.weight = tp.ones((1, 2))
        assert linear(x).tolist() == [[2.0]]

    def test_a_module_added_later_is_checked(self):
        module = tp.Sequential(tp.Linear(2, 2))
        module.initialize_dummy_parameters()
        x = tp.ones((1, 2))
        module(x)
        setattr(module, "0", tp.Linear(2, 2))
        with refused("0.weight"):
            module(x)

    def test_compiling_lists_them_too(self):
        linear = tp.Linear(2, 1)
        info = tp.InputInfo((1, 2), tp.float32)
        with refused("2 parameters have no value"):
            tp.compile(linear, args=[info])

    def test_dummies_are_ones_and_leave_the_rest(self):
        module = tp.Sequential(tp.Linear(2, 1), tp.Linear(1, 1, dtype=tp.bfloat16))
        module[0].bias = tp.Tensor([5.0])
        module.initialize_dummy_parameters()
        assert module[0].weight.tolist() == [[1.0, 1.0]]
        assert module[0].bias.tolist() == [5.0]
        assert module[1].weight.dtype is tp.bfloat16 and module[1].weight.tolist() == [[1.0]]


class TestAssignment:
    def test_a_parameter_is_kept_and_a_tensor_becomes_one(self):
        module, new = Inner(), tp.Parameter([3.0, 4.0])
        module.param = new
        assert module.param is new
        module.param = tp.Tensor([5.0, 6.0])
        assert isinstance(module.param, tp.Parameter) and module.param.tolist() == [5.0, 6.0]

    def test_shape_and_type_have_to_fit(self):
        module, linear = Inner(), tp.Linear(2, 3)
        with refused("Inner.param", "shape", "float32[3]", "(2,)"):
            module.param = tp.ones((3,))
        with refused("Inner.param", "data type", "float16[2]", "float32", "tp.cast"):
            module.param = tp.ones((2,), dtype=tp.float16)
        with refused("Linear.weight", "float32[2, 3]", "(3, 2)"):
            linear.weight = tp.ones((2, 3))
        assert module.param.tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("value", [3, "text", np.ones(2), [1.0, 2.0], tp.Module(), None])
    def test_something_else_is_refused(self, value):
        module = Inner()
        with refused("Inner.param", "not a tensor", type(value).__name__, "(2,)"):
            module.param = value

    def test_none_only_where_optional(self):
        linear = tp.Linear(2, 1)
        linear.weight = tp.ones((1, 2))
        linear.bias = None
        assert linear(tp.ones((1, 2))).tolist() == [[2.0]]
        assert list(linear.state_dict()) == ["weight"]
        with refused("Linear.weight", "NoneType"):
            linear.weight = None

    def test_other_attributes_hold_anything(self):
        module = Inner()
        module.flag = True
        module.flag = "text"
        module.child = Inner()
        module.child = tp.relu
        assert module.flag == "text" and list(module.state_dict()) == ["param"]

    def test_a_value_of_the_run_is_refused_while_compiling(self):
        class Stateful(tp.Module):
            def forward(self, x):
                self.last = x * 2
                return x

        info = tp.InputInfo((2,), tp.float32)
        with refused("cannot depend on an input", "state is in the arguments"):
            tp.compile(Stateful(), args=[info])


class TestLoad:
    def test_round_trip(self):
        source, target = Outer(), Outer()
        for index, (name, value) in enumerate(source.state_dict().items()):
            source.load_state_dict({name: value * 0 + index}, strict=False)
        assert target.load_state_dict(source.state_dict()) == (set(), set())
        expected = {name: value.tolist() for name, value in source.state_dict().items()}
        assert {n: v.tolist() for n, v in target.state_dict().items()} == expected
        assert expected["tupled.1.1"] == [4.0]

    def test_takes_arrays_of_other_libraries(self):
        linear = tp.Linear(2, 1)
        linear.load_state_dict({"weight": torch.ones(1, 2), "bias": np.float32([3.0])})
        assert linear(tp.ones((1, 2))).tolist() == [[5.0]]
        half = tp.Linear(2, 1, dtype=tp.float16)
        half.load_state_dict({"weight": [[1, 2]], "bias": [0.5]})  # Numbers take its type.
        assert half.weight.dtype is tp.float16 and half.bias.tolist() == [0.5]

    def test_named_tuples_stay_what_they_are(self):
        pair = namedtuple("Pair", "left right")
        module = tp.Module()
        module.pair = pair(tp.ones((1,)), tp.ones((1,)))
        module.load_state_dict({"pair.0": [2.0], "pair.1": [3.0]})
        assert type(module.pair) is pair and module.pair.right.tolist() == [3.0]

    def test_names_that_do_not_match(self):
        module = Outer()
        state = {"scale": tp.zeros((2,)), "scales": tp.zeros((2,))}
        missing, unexpected = module.load_state_dict(state, strict=False)
        assert missing == set(NAMES) - {"scale"} and unexpected == {"scales"}
        assert module.scale.tolist() == [0.0, 0.0]
        with refused("first.param: missing", "tupled.1.0: missing", "scales: unexpected"):
            module.load_state_dict(state)

    def test_all_problems_in_one_error_and_nothing_loaded(self):
        module = tp.Sequential(tp.Linear(2, 3), tp.Linear(3, 1))
        module.initialize_dummy_parameters()
        state = {
            "0.weight": tp.zeros((3, 2)),
            "0.bias": tp.zeros((4,)),
            "1.weight": tp.zeros((1, 3), dtype=tp.float16),
            "2.weight": tp.zeros((1,)),
        }
        told = (
            "0.bias", "float32[4]", "(3,)", "1.weight", "float16[1, 3]", "1.bias: missing",
            "2.weight: unexpected", "nothing was loaded",
        )  # fmt: skip
        with refused(*told):
            module.load_state_dict(state)
        assert module[0].weight.tolist() == [[1.0, 1.0]] * 3
        with refused("0.bias", "1.weight"):
            module.load_state_dict(state, strict=False)
        assert module[0].weight.tolist() == [[1.0, 1.0]] * 3

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (np.ones((3, 2)), "float64"),
            ([[1.0], [2.0, 3.0]], "list"),
            ("text", "str"),
            (None, "NoneType"),
            (tp.Linear(2, 3).weight, "not set"),
        ],
    )
    def test_values_that_are_no_tensors(self, value, text):
        module = tp.Linear(2, 3, bias=False)
        module.weight = tp.ones((3, 2))
        with refused("weight", text):
            module.load_state_dict({"weight": value})

    def test_optional_parameters(self):
        linear = tp.Linear(2, 1, quant_dtype=tp.int8)
        linear.initialize_dummy_parameters()
        assert "input_scale" not in linear.state_dict()
        state = {**linear.state_dict(), "input_scale": tp.Tensor(0.5)}
        assert linear.load_state_dict(state) == (set(), set())
        assert linear.input_scale.tolist() == 0.5
        del state["input_scale"]  # Now that there is one, keeping it silently would be wrong.
        with refused("input_scale: missing"):
            linear.load_state_dict(state)

    def test_no_bias_means_no_bias(self):
        linear = tp.Linear(2, 1, bias=False)
        state = {"weight": tp.ones((1, 2)), "bias": tp.ones((1,))}
        with refused("bias: unexpected"):
            linear.load_state_dict(state)

    def test_a_state_with_unset_parameters_leaves_them_unset(self):
        module = tp.Sequential(tp.Linear(2, 3), Inner())
        state = module.state_dict()
        state["1.param"] = tp.Tensor([1.0, 2.0])
        assert module.load_state_dict(state) == (set(), set())
        assert module[1].param.tolist() == [1.0, 2.0] and "not set" in str(module[0].weight)


class Tied(tp.Module):
    def __init__(self):
        self.embedding = tp.Embedding(3, 2)
        self.head = tp.Linear(2, 3, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.embedding(ids))


class TestTied:
    def test_both_names_are_there(self):
        state = Tied().state_dict()
        assert list(state) == ["embedding.weight", "head.weight"]
        assert state["embedding.weight"] is state["head.weight"]

    def test_dummies_stay_tied(self):
        module = Tied()
        module.initialize_dummy_parameters()
        assert module.head.weight is module.embedding.weight
        assert module(tp.Tensor([0])).tolist() == [[2.0, 2.0, 2.0]]

    @pytest.mark.parametrize("name", ["embedding.weight", "head.weight"])
    def test_one_name_is_enough(self, name):
        module = Tied()
        assert module.load_state_dict({name: tp.ones((3, 2))}) == (set(), set())
        assert module.head.weight is module.embedding.weight

    def test_equal_values_stay_tied_and_others_do_not(self):
        module = Tied()
        array = np.ones((3, 2), np.float32)
        module.load_state_dict({"embedding.weight": array, "head.weight": array.copy()})
        assert module.head.weight is module.embedding.weight
        module.load_state_dict({"embedding.weight": array, "head.weight": array * 2})
        assert module.head.weight.tolist() == [[2.0, 2.0]] * 3
        assert module.embedding.weight.tolist() == [[1.0, 1.0]] * 3

    def test_compiled_equals_eager(self):
        module = Tied()
        module.embedding.weight = tp.arange(6).reshape((3, 2))
        module.head.weight = module.embedding.weight
        ids = tp.Tensor([2, 0]).eval()
        compiled = tp.compile(module, args=[tp.InputInfo((2,), tp.int32)])
        assert compiled(ids).tolist() == module(ids).tolist()
