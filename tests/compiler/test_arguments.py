"""What a compiled function takes: nests, names, defaults, baked values, its signature."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from typing import NamedTuple

import pytest

import tripy as tp
from tests.compiler.support import numbers, same
from tests.helpers import raises

INFO = tp.InputInfo((2,), tp.float32)
ONES = tp.ones((2,)).eval()


class Pair(NamedTuple):
    left: object
    right: object


def test_positional_and_keyword_arguments():
    def combine(a, b, c=3.0):
        return a * 2 + b * c

    fast = tp.compile(combine, args=[INFO], kwargs={"b": INFO})
    expected = combine(ONES, ONES * 5)
    same(fast(ONES, ONES * 5), expected)
    same(fast(ONES, b=ONES * 5), expected)
    same(fast(b=ONES * 5, a=ONES), expected)


def test_keyword_arguments_keep_the_order_of_the_function():
    fast = tp.compile(lambda a, b: a - b, kwargs={"b": INFO, "a": INFO})
    assert list(fast.input_infos) == ["a", "b"]
    same(fast(ONES * 3, ONES), ONES * 2)


def test_arguments_that_are_no_inputs_are_baked():
    def scale(x, factor, negate=False, extra=None):
        assert extra is None
        return -x * factor if negate else x * factor

    fast = tp.compile(scale, args=[INFO, 3], kwargs={"negate": True})
    same(fast(ONES), ONES * -3)
    with raises(r"do not fit the compiled function[\s\S]*\(x\)[\s\S]*baked in"):
        fast(ONES, 4)
    with raises(r"unexpected keyword argument 'negate'"):
        fast(ONES, negate=False)


def test_tensors_are_baked_with_the_values_they_have():
    table = tp.Tensor([1.0, 2.0])
    fast = tp.compile(lambda x, t: x + t, args=[INFO, table])
    same(fast(ONES), table + 1)


def test_an_input_in_place_of_a_default():
    fast = tp.compile(lambda x, bias=None: x if bias is None else x + bias, args=[INFO, INFO])
    assert str(fast.__signature__) == "(x, bias)"
    same(fast(ONES, ONES), ONES * 2)
    with raises("missing a required argument: 'bias'"):
        fast(ONES)


def test_any_number_of_arguments():
    def total(*parts, **more):
        result = parts[0]
        for part in [*parts[1:], *more.values()]:
            result = result + part
        return result

    fast = tp.compile(total, args=[INFO, INFO, 2.0], kwargs={"z": INFO, "y": INFO, "w": 1.0})
    same(fast(ONES, ONES, 2.0, y=ONES, z=ONES), ONES * 7)
    assert str(fast.__signature__) == "(*parts, z, y)"
    assert list(fast.input_infos) == ["parts[0]", "parts[1]", "z", "y"]
    with raises(r"parts: the argument is nested in another way[\s\S]*of 1[\s\S]*of 3"):
        fast(ONES, y=ONES, z=ONES)
    with raises(r"parts: the argument is nested in another way[\s\S]*of 0[\s\S]*of 3"):
        fast(y=ONES, z=ONES)
    with raises("missing a required .*argument: 'y'"):
        fast(ONES, ONES, 2.0, z=ONES)
    with raises("unexpected keyword argument 'w'"):
        fast(ONES, ONES, 2.0, y=ONES, z=ONES, w=1.0)
    with raises(r"parts\[2\]: the value was fixed[\s\S]*got: +3.0[\s\S]*expected: +2.0"):
        fast(ONES, ONES, 3.0, y=ONES, z=ONES)


def test_nested_arguments():
    def use(data, scale):
        a, b = data["a"], data["b"]
        return a[0] * a[1] + b["list"][1] - scale[0]

    shape = {"a": (INFO, INFO), "b": {"list": [7, INFO]}}
    fast = tp.compile(use, args=[shape, [INFO]])
    assert list(fast.input_infos) == ["data.a[0]", "data.a[1]", "data.b.list[1]", "scale[0]"]
    data = {"a": (ONES, ONES * 2), "b": {"list": [7, ONES * 3]}}
    same(fast(data, [ONES]), use(data, [ONES]))
    # A tuple may stand for a list, and a dict have another order.
    same(fast({"b": data["b"], "a": list(data["a"])}, (ONES,)), use(data, [ONES]))


def nested():
    fast = tp.compile(
        lambda data: data["b"]["list"][1] + data["a"],
        args=[{"a": INFO, "b": {"list": [7, INFO], "text": "x"}}],
    )

    def call(a=ONES, list_=None, text="x", **more):
        return fast({"a": a, "b": {"list": list_ or [7, ONES], "text": text}, **more})

    return call


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"list_": [7, tp.ones((3,))]}, r"data\.b\.list\[1\]\.shape\[0\] is out of bounds"),
        ({"list_": [7, 1.0]}, r"data\.b\.list\[1\]: the argument is not a tensor"),
        ({"list_": [7]}, r"data\.b\.list: .* nested in another way[\s\S]*list of 1"),
        ({"list_": [7, ONES, ONES]}, r"data\.b\.list: .*nested in another way"),
        ({"list_": {0: 7, 1: ONES}}, r"data\.b\.list: .*nested[\s\S]*got: +dict"),
        ({"list_": [8, ONES]}, r"data\.b\.list\[0\]: the value was fixed[\s\S]*8[\s\S]*7"),
        ({"list_": [7.0, ONES]}, r"data\.b\.list\[0\]: the value was fixed"),
        ({"text": "y"}, r"data\.b\.text: the value was fixed[\s\S]*'y'[\s\S]*'x'"),
        ({"a": tp.ones((2,), dtype=tp.int32)}, r"data\.a: .*wrong data type[\s\S]*tp\.cast"),
        ({"a": tp.ones((2, 1))}, r"data\.a: the argument has the wrong rank"),
        ({"c": ONES}, r"data: .*nested in another way[\s\S]*\['a', 'b', 'c'\]"),
    ],
)
def test_a_wrong_part_of_a_nest_is_named(changed, message):
    call = nested()
    same(call(), ONES * 2)
    with raises(message, "return fast("):
        call(**changed)


def test_named_tuples_and_other_dicts_arrive_as_they_are():
    def use(pair, table):
        assert type(pair) is Pair
        assert list(table) == ["u", "v"]
        return pair.left + table["v"], Pair(pair.right, [table["u"]])

    fast = tp.compile(use, args=[Pair(INFO, INFO), OrderedDict(u=INFO, v=INFO)])
    total, result = fast(Pair(ONES, ONES * 2), {"u": ONES * 3, "v": ONES * 4})
    same(total, ONES * 5)
    assert type(result) is Pair
    same(result, [ONES * 2, ONES * 3])


def test_keys_that_are_ints_and_keys_that_are_refused():
    fast = tp.compile(lambda d: d[3], args=[{3: INFO}])
    assert list(fast.input_infos) == ["d[3]"]
    same(fast({3: ONES}), ONES)
    with raises(r"d: a dict has a key that is neither text nor an int[\s\S]*\(1, 2\)"):
        tp.compile(lambda d: d[(1, 2)], args=[{(1, 2): INFO}])


def test_one_tensor_given_twice():
    fast = tp.compile(lambda a, b: (a + b, a - b), args=[INFO, INFO])
    same(fast(ONES, ONES), (ONES * 2, ONES * 0))


def test_modules_methods_and_other_callables():
    class Scale(tp.Module):
        def __init__(self):
            self.factor = tp.Parameter([2.0, 3.0])

        def forward(self, x, power: int = 1):
            return x * self.factor**power

        def twice(self, x):
            return self.forward(self.forward(x))

    module = Scale()
    same(tp.compile(module, args=[INFO])(ONES), module(ONES))
    same(tp.compile(module, args=[INFO, 2])(ONES), module(ONES, 2))
    same(tp.compile(module.twice, args=[INFO])(ONES), module.twice(ONES))
    partial = functools.partial(module.forward, power=2)
    same(tp.compile(partial, args=[INFO])(ONES), module(ONES, 2))

    class Adder:
        def __call__(self, x):
            return x + 1

    same(tp.compile(Adder(), args=[INFO])(ONES), ONES * 2)
    same(tp.compile(tp.relu, args=[INFO])(ONES), ONES)


def test_closures_may_hold_tensors_that_are_not_computed_yet():
    lazy = tp.exp(tp.ones((2,)) * 2) + 1
    fast = tp.compile(lambda x: x * lazy, args=[INFO])
    same(fast(ONES), lazy)
    # The graph keeps a copy: the lazy tensor is still whole.
    assert lazy.tolist() == pytest.approx([8.389056] * 2)


def test_tensors_made_inside_are_computed_inside_without_harm():
    def use(x):
        table = tp.Tensor([1.0, 2.0])
        assert table.tolist() == [1.0, 2.0]
        assert bool(tp.all(table > 0.0))
        return x * table

    same(tp.compile(use, args=[INFO])(ONES), tp.Tensor([1.0, 2.0]))


SIGNATURES = {
    "(a, b)": (lambda a, b: a + b, [INFO, INFO], {}),
    "(a)": (lambda a, b: a, [INFO, 1], {}),
    "(*, b)": (lambda a, *, b: b, [1], {"b": INFO}),
    "(a, *, b)": (lambda a, *, b: a + b, [INFO], {"b": INFO}),
    "(*rest)": (lambda a, *rest: rest[0], [1, INFO], {}),
    "(b)": (lambda a, b=2: b, [1, INFO], {}),
    "()": (lambda a: tp.ones((2,)), [1], {}),
}


@pytest.mark.parametrize("text", SIGNATURES)
def test_signature(text):
    function, args, kwargs = SIGNATURES[text]
    fast = tp.compile(function, args=args, kwargs=kwargs)
    assert str(fast.__signature__) == text
    assert str(inspect.signature(fast)) == text


def test_signature_keeps_kinds_and_annotations_and_drops_defaults():
    def function(a: tp.Tensor, /, b: tp.Tensor, *, c: int = 3, d: tp.Tensor = None) -> tp.Tensor:
        return a + b * c + d

    fast = tp.compile(function, args=[INFO, INFO], kwargs={"d": INFO})
    assert str(fast.__signature__) == "(a: 'tp.Tensor', /, b: 'tp.Tensor', *, d: 'tp.Tensor')"
    with raises("positional"):
        fast(a=ONES, b=ONES, d=ONES)


def test_input_infos_say_what_is_accepted():
    rows = tp.NamedDimension("rows", 1, 2, 3)
    infos = [tp.InputInfo((rows, (1, 5, 9), 4), tp.int8), tp.DimensionInputInfo((1, 2, 3))]
    fast = tp.compile(lambda x, n: x[:n], args=infos)
    info = fast.input_infos["x"]
    assert info.dtype is tp.int8
    assert info.shape_bounds == (tp.Bounds(1, 2, 3), tp.Bounds(1, 5, 9), tp.Bounds(4, 4, 4))
    assert [bounds.is_static() for bounds in info.shape_bounds] == [False, False, True]
    assert info.dimension_names == {0: "rows"}
    assert fast.input_infos["n"].value_bounds == (1, 2, 3)


def test_sizes_in_an_input_info_may_be_dimension_sizes():
    info = tp.InputInfo((tp.DimensionSize(2), [1, 2, 3]), tp.float32)
    assert info.shape_bounds == (tp.Bounds(2, 2, 2), tp.Bounds(1, 2, 3))


def test_no_inputs_at_all():
    fast = tp.compile(lambda: tp.arange(3))
    assert fast.input_infos == {}
    same(fast(), numbers(3))
    with raises("too many positional arguments"):
        fast(ONES)


def test_a_scalar_input():
    fast = tp.compile(lambda x: x * 2, args=[tp.InputInfo((), tp.float32)])
    assert fast(tp.Tensor(3.0)).tolist() == 6.0


@pytest.mark.parametrize("dtype", [tp.float16, tp.bfloat16, tp.int32, tp.int64, tp.bool, tp.int8])
def test_inputs_of_every_type(dtype):
    x = tp.cast(tp.Tensor([0.0, 1.0]), dtype).eval()
    same(tp.compile(lambda x: x, args=[tp.InputInfo((2,), dtype)])(x), x)


@pytest.mark.parametrize("dtype", [tp.int4, tp.float8])
def test_inputs_of_small_types(dtype):
    q = tp.quantize(tp.Tensor([0.0, 1.5, -3.0]), 0.5, dtype).eval()
    fast = tp.compile(lambda q: tp.dequantize(q, 0.5, tp.float32), args=[tp.InputInfo((3,), dtype)])
    assert fast(q).tolist() == [0.0, 1.5, -3.0]


def test_a_strided_input():
    x = tp.Tensor(numbers(3, 4).torch().t()[1:, ::2])
    fast = tp.compile(
        lambda x: (x + 1, tp.reshape(x, (6,))), args=[tp.InputInfo((3, 2), tp.float32)]
    )
    same(fast(x), (x + 1, tp.reshape(x, (6,))))
