"""What compiling and calling refuse: before anything runs, with names and the user's own line."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import raises

INFO = tp.InputInfo((2, 3), tp.float32)
ONES = tp.ones((2, 3)).eval()


def compiled():
    return tp.compile(lambda left, right: left + right, args=[INFO, INFO])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ([ONES], {}, r"missing a required argument: 'right'[\s\S]*\(left, right\)"),
        ([ONES] * 3, {}, "too many positional arguments"),
        ([ONES], {"wrong": ONES}, "'(right|wrong)'"),
        ([ONES, ONES], {"right": ONES}, "multiple values for argument 'right'"),
        ([ONES, 3.0], {}, r"right: the argument is not a tensor[\s\S]*3.0 of type float"),
        ([ONES, None], {}, r"right: the argument is not a tensor[\s\S]*NoneType"),
        ([np.ones((2, 3)), ONES], {}, r"left: the argument is not a tensor[\s\S]*tp\.Tensor\(left"),
        ([[ONES], ONES], {}, r"left: the argument is not a tensor[\s\S]*of type list"),
        ([ONES, tp.cast(ONES, tp.int32)], {}, r"right: .* wrong data type[\s\S]*int32\[2, 3\]"),
        (
            [ONES, tp.cast(ONES, tp.float16)],
            {},
            r"wrong data type[\s\S]*tp\.cast\(x, tp\.float32\)",
        ),
        ([tp.ones((3,)), ONES], {}, r"left: the argument has the wrong rank[\s\S]*float32\[3\]"),
        ([ONES, tp.ones((2, 4))], {}, r"right\.shape\[1\] is out of bounds[\s\S]*4 \(\(2, 4\)\)"),
        ([ONES, tp.ones((1, 3))], {}, r"right\.shape\[0\] is out of bounds"),
        ([tp.Linear(2, 3).weight, ONES], {}, "not assigned|has no value"),
    ],
)
def test_a_call_that_does_not_fit(args, kwargs, message):
    fast = compiled()
    with raises(message, "fast(*args, **kwargs)"):
        fast(*args, **kwargs)


def test_a_wrong_tensor_shows_where_it_was_made():
    fast = compiled()
    wrong = tp.ones((2, 3), dtype=tp.int8)
    with raises("right: the argument has the wrong data type", "wrong = tp.ones((2, 3), dtype"):
        fast(ONES, wrong)


def test_another_device():
    fast = compiled()
    elsewhere = tp.ones((2, 3)).eval()
    elsewhere._value.device = tp.device("gpu:0")  # No machine of ours has one.
    with raises(r"left: the argument has the wrong device[\s\S]*gpu:0[\s\S]*tp\.copy"):
        fast(elsewhere, ONES)


def test_nothing_is_computed_before_all_arguments_are_checked():
    fast = compiled()
    lazy = tp.ones((2, 3)) * 2
    with raises("right"):
        fast(lazy, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"func": 3}, r"func cannot be called[\s\S]*3"),
        ({"args": [INFO, INFO]}, r"do not fit the function: too many[\s\S]*<lambda>\(x\)"),
        ({"args": []}, "missing a required argument: 'x'"),
        ({"kwargs": {"y": INFO}}, "unexpected keyword argument 'y'|too many|multiple"),
        ({"args": INFO}, r"args is not a list[\s\S]*InputInfo\(\[2, 3\], float32\)"),
        ({"kwargs": [INFO]}, "kwargs is not a dict"),
        ({"kwargs": {1: INFO}}, "kwargs is not a dict"),
        ({"kwargs": {"a b": INFO}}, "kwargs is not a dict"),
        ({"kwargs": {"": INFO}}, "kwargs is not a dict"),
        ({"kwargs": {"class": INFO}}, "kwargs is not a dict"),
        ({"optimization_level": 6}, r"optimization level is out of range[\s\S]*0 to 5"),
        ({"optimization_level": -1}, "optimization level is out of range"),
        ({"optimization_level": True}, "optimization level is out of range"),
        ({"optimization_level": 2.0}, "optimization level is out of range"),
        ({"backend": "cuda"}, r"no such backend[\s\S]*'auto', 'torch'"),
        ({"backend": "tensorrt"}, r"the backend tensorrt cannot run on cpu"),
        ({"device": "tpu"}, "not a device"),
        ({"device": 3}, "not a device"),
        ({"device": tp.device("gpu:99")}, r"cannot run on gpu:99|not there"),
    ],
)
def test_arguments_of_compile(arguments, message):
    given = {"func": lambda x: x, "args": [INFO], **arguments}
    with raises(message, "tp.compile(**given)"):
        tp.compile(**given)


def test_a_function_that_python_knows_nothing_of():
    with raises("Python does not know the function's arguments"):
        tp.compile(max, args=[INFO, INFO])


def test_device_by_name():
    assert tp.compile(lambda x: x, args=[INFO], device="cpu").device == tp.device("cpu")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tp.InputInfo(3, tp.float32), "the shape is not a sequence"),
        (lambda: tp.InputInfo((2.0,), tp.float32), "this is not a size"),
        (lambda: tp.InputInfo((True,), tp.float32), "this is not a size"),
        (lambda: tp.InputInfo((-1,), tp.float32), "out of order"),
        (lambda: tp.InputInfo(((1, 2),), tp.float32), "not three integers"),
        (lambda: tp.InputInfo(((3, 2, 1),), tp.float32), r"out of order[\s\S]*min=3"),
        (lambda: tp.InputInfo(((1, 5, 4),), tp.float32), "out of order"),
        (lambda: tp.InputInfo((2,), "float32"), "not a data type"),
        (lambda: tp.InputInfo((2,), tp.floating), "not a data type"),
        (lambda: tp.NamedDimension("", 1, 2, 3), "name is not usable"),
        (lambda: tp.NamedDimension(3, 1, 2, 3), "name is not usable"),
        (lambda: tp.NamedDimension("n", 1, 2, 2.5), "not three integers"),
        (lambda: tp.DimensionInputInfo(3), "not three integers"),
        (lambda: tp.DimensionInputInfo((1, 2)), "not three integers"),
        (lambda: tp.DimensionInputInfo((2, 1, 3)), "out of order"),
    ],
)
def test_descriptions_of_inputs(make, message):
    with raises(message):
        make()


def compute_by_print(x):
    print(x + 1)
    return x


def compute_by_bool(x):
    return x if tp.all(x > 0.0) else -x


def compute_by_tolist(x):
    return x * x.tolist()[0]


def compute_by_eval(x):
    return (x * 2).eval()


def compute_by_numpy(x):
    return tp.Tensor(np.asarray(x))


def compute_by_dlpack(x):
    return tp.Tensor(np.from_dlpack(x))


def compute_by_torch(x):
    return tp.Tensor(x.torch())


def compute_by_equal(x):
    return x if tp.equal(x, x) else -x


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (compute_by_print, "print(x + 1)"),
        (compute_by_bool, "if tp.all(x > 0.0)"),
        (compute_by_tolist, "x.tolist()[0]"),
        (compute_by_eval, "(x * 2).eval()"),
        (compute_by_numpy, "np.asarray(x)"),
        (compute_by_dlpack, "np.from_dlpack(x)"),
        (compute_by_torch, "x.torch()"),
        (compute_by_equal, "tp.equal(x, x)"),
    ],
)
def test_computing_an_input_while_compiling(function, line):
    with raises("A tensor was computed that depends on an input", line):
        tp.compile(function, args=[INFO])


def test_repr_of_a_traced_tensor_is_safe():
    seen = []

    def look(x):
        seen.append(repr(x * 2))
        return x

    tp.compile(look, args=[INFO])
    assert seen == ["<tensor float32[2, 3] of a function that is being compiled>"]


def test_a_parameter_that_depends_on_an_input():
    module = tp.Linear(3, 2)
    module.initialize_dummy_parameters()

    def learn(x):
        module.bias = tp.sum(x, 0)[:2]
        return module(x)

    with raises("A parameter cannot depend on an input", "module.bias = tp.sum"):
        tp.compile(learn, args=[INFO])
    assert module.bias.tolist() == [1.0, 1.0]


def test_a_stand_in_kept_from_another_function():
    kept = []

    def keep(x):
        kept.append(x * 2)
        return x

    def use(y):
        return y + kept[0]

    tp.compile(keep, args=[INFO])
    with raises("input of another function that was compiled before", "kept.append(x * 2)"):
        tp.compile(use, args=[INFO])
    with raises("A tensor was computed that depends on an input"):
        kept[0].eval()


def test_a_size_kept_from_another_function():
    kept = []

    def keep(x):
        kept.append(x.shape[0])
        return x

    def use(y):
        return tp.ones((kept[0],))

    tp.compile(keep, args=[tp.InputInfo(((1, 2, 3),), tp.float32)])
    with raises("input of another function that was compiled before", "tp.ones((kept[0],))"):
        tp.compile(use, args=[INFO])


def test_a_compiled_function_inside_another():
    fast = compiled()
    with raises("was computed that depends on an input", "fast(x, x)"):
        tp.compile(lambda x: fast(x, x), args=[INFO])


def test_an_exception_of_the_function_itself():
    def fail(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tp.compile(fail, args=[INFO])
    # Compiling is over: shapes are plain ints again.
    assert ONES.shape == (2, 3)
    assert type(ONES.shape[0]) is int


def test_unset_parameters_are_all_named():
    with raises(r"2 parameters have no value[\s\S]*weight[\s\S]*bias", "tp.compile(tp.Linear"):
        tp.compile(tp.Linear(3, 2), args=[INFO])


def test_what_an_operation_refuses_shows_its_line():
    def wrong(x):
        y = x * 2
        return y @ y

    with raises("matmul: the summed dimensions differ", "return y @ y"):
        tp.compile(wrong, args=[INFO])


def test_a_failure_at_run_time_shows_the_operation_and_the_call():
    def pick(table, index):
        return tp.gather(table, 0, index)

    fast = tp.compile(pick, args=[INFO, tp.InputInfo((1,), tp.int32)])
    with raises(r"gather: an index is out of range[\s\S]*fast\(ONES", "tp.gather(table, 0, index)"):
        fast(ONES, tp.Tensor([7]))
    assert fast(ONES, tp.Tensor([1])).shape == (1, 3)


def test_stream_has_to_be_a_stream():
    fast = compiled()
    fast.stream = tp.Stream()
    with raises("this is not a stream"):
        fast.stream = 0


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("level", [0, 3])
def test_scales_that_are_known_only_after_folding(scale, level):
    def use(x):
        bad = tp.full((2,), scale) * 1.0
        q = tp.quantize(x, bad, tp.int8, dim=0)
        return tp.dequantize(q, tp.ones((2,)), tp.float32, dim=0)

    with raises("quantize: a scale is not usable", "tp.quantize(x, bad"):
        tp.compile(use, level, args=[INFO])


def test_one_bad_scale_among_many():
    scales = tp.Tensor([1.0, 2.0, 0.0]) * tp.Tensor([1.0, 1.0, 1.0])

    def use(x):
        return tp.dequantize(tp.cast(x, tp.int8), scales, tp.float32, dim=1)

    with raises("dequantize: a scale is not usable", "tp.dequantize(tp.cast"):
        tp.compile(use, args=[INFO])
