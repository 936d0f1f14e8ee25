"""Operations of a user's own: eager, compiled, with dynamic sizes, saved, and refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tripy as tp
from tests import helpers
from tests.helpers import raises
from tests.saving.support import again, info
from tripy.backends.torch.plugins import PLUGINS

ROOT = Path(__file__).resolve().parents[2]
ROWS = tp.NamedDimension("rows", 1, 3, 9)


@tp.register_plugin("tests::scaled", outputs=lambda x, **attributes: x)
def scaled(x, factor=1.0, signs=(1,), double=False, rounding="none"):
    x = x * factor * signs[0] * (2 if double else 1)
    return x.round() if rounding == "even" else x


@tp.register_plugin(
    "tests::parts",
    outputs=lambda x, index: (
        ((x.shape[0] // 2, 2), x.dtype), x, ([x.shape[0] * 2, index.shape[0]], tp.int32)),
)  # fmt: skip
def parts(x, index):
    half = len(x) // 2
    return x[:half, None].repeat(1, 2), x + 1, index.expand(2 * len(x), -1).int()


def given(function, outputs=lambda x: x):
    """A plugin of a test's own."""
    tp.register_plugin("tests::given", outputs=outputs)(function)
    return lambda x: tp.plugin("tests::given", [x])


@pytest.fixture(autouse=True)
def _forgotten():
    yield
    PLUGINS.pop("tests::given", None)


def test_attributes_of_every_kind(rng):
    def function(x):
        return tp.plugin(
            "tests::scaled", [x], factor=1.5, signs=[-1, 1], double=True, rounding="even"
        )

    x = helpers.randn(rng, (4, 3))
    helpers.check(function, x, reference=lambda x: np.round(np.float32(x) * 1.5 * -1 * 2))
    (node,) = tp.compile(function, args=[info(4, 3)], backend="torch").graph.nodes()
    assert dict(node.attrs["attributes"]) == {
        "factor": 1.5, "signs": (-1, 1), "double": True, "rounding": "even",
    }  # fmt: skip
    numbers = tp.plugin("tests::scaled", [x], factor=np.float32(2.0), signs=(np.int64(1),))
    assert tp.equal(numbers, x * 2.0)


def test_several_results_of_other_types_and_dynamic_sizes(rng):
    x = helpers.randn(rng, (5,))
    index = tp.Tensor([3, 1], dtype=tp.int64, device=helpers.where())
    helpers.check(
        lambda x, index: tp.plugin("tests::parts", [x, index]),
        x, index,
        reference=lambda x, i: (
            np.repeat(x[:2, None], 2, 1), np.float32(x) + 1, np.broadcast_to(i, (10, 2))),
        dtype=[tp.float32, tp.float32, tp.int32],
    )  # fmt: skip


def test_what_follows_knows_the_sizes():
    def function(x):
        part, same, counts = tp.plugin("tests::parts", [x, tp.Tensor([7])])
        return tp.reshape(part, (x.shape[0] // 2 * 2,)), same - x, counts + 1

    fast = tp.compile(function, args=[info(ROWS)], backend="torch")
    for rows in (4, 9):
        flat, one, counts = fast(tp.arange(rows))
        assert flat.shape == (rows // 2 * 2,)
        assert one.tolist() == [1.0] * rows
        assert counts.tolist() == [[8]] * (2 * rows)


def test_one_result_is_a_tensor_also_from_a_rule_with_a_list():
    function = given(lambda x: (x + 1,), lambda x: [(x.shape, x.dtype)])
    assert function(tp.ones((2,))).tolist() == [2.0, 2.0]


def test_a_rule_may_give_the_size_of_a_call():
    tp.register_plugin("tests::given", outputs=lambda x, n: ((n, x.shape[0] + 0 * n), x.dtype))(
        lambda x, n: x.expand(n, -1)
    )
    function = tp.compile(
        lambda x: tp.plugin("tests::given", [x], n=3), args=[info(ROWS)], backend="torch"
    )
    assert function(tp.arange(2)).tolist() == [[0.0, 1.0]] * 3


def test_nothing_is_computed_before_it_is_asked_for_and_nothing_is_folded():
    calls = []

    def counted(x):
        calls.append(tuple(x.shape))
        return x + 1

    function = given(counted)
    result = function(tp.zeros((2,)))
    assert not calls
    result.eval()
    fast = tp.compile(lambda x: x + function(tp.zeros((3,))), args=[info(3)], backend="torch")
    assert calls == [(2,)]
    for _ in range(2):
        assert fast(tp.ones((3,))).tolist() == [2.0] * 3
    assert calls == [(2,), (3,), (3,)]


def test_a_result_that_is_an_input_has_memory_of_its_own():
    function = given(lambda x: x.view(-1))
    fast = tp.compile(function, args=[info(3)], backend="torch")
    for run in (fast, lambda x: function(x).eval()):
        x = tp.ones((3,)).torch()
        run(tp.Tensor(x)).torch().zero_()
        assert x.tolist() == [1.0, 1.0, 1.0]


def test_gradients_are_not_recorded():
    weight = tp.ones((3,)).torch().requires_grad_()
    result = given(lambda x: x * weight)(tp.ones((3,)))
    assert not result.torch().requires_grad


def test_saved_and_loaded(tmp_path):
    def function(x):
        part, same, _ = tp.plugin("tests::parts", [x, tp.Tensor([7])])
        return tp.plugin("tests::scaled", [same], factor=float("inf"), rounding="even"), part

    fast = tp.compile(function, args=[info(ROWS)], backend="torch")
    again(fast, tmp_path, tp.ones((5,)))


def test_a_file_needs_its_plugins(tmp_path):
    path = tmp_path / "function.tripy"
    function = given(lambda x: x + 1)
    tp.compile(function, args=[info(3)], backend="torch").save(path)
    del PLUGINS["tests::given"]
    with raises("load: the program uses plugins that are not registered: tests::given\\."):
        tp.Executable.load(path)
    program = (
        "import sys, tripy as tp\n"
        "try:\n    tp.Executable.load(sys.argv[1])\n"
        "except tp.TripyException as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert "not registered: tests::given" in done.stdout
    assert "registered: none is registered" in done.stdout
    given(lambda x: x + 1)
    assert tp.Executable.load(path)(tp.zeros((3,))).tolist() == [1.0] * 3


def test_names():
    with raises("'tests::scalde' is not registered[\\s\\S]*mean 'tests::scaled'"):
        tp.plugin("tests::scalde", [tp.ones((2,))])
    for name in ("scaled", "a::b::c", "a::", "a b::c", None):
        with raises("register_plugin: the name does not have the form"):
            tp.register_plugin(name, outputs=lambda x: x)
    with raises("register_plugin: the name is taken[\\s\\S]*scaled is registered as tests::scaled"):
        tp.register_plugin("tests::scaled", outputs=lambda x: x)(parts)
    tp.register_plugin("tests::scaled", outputs=PLUGINS["tests::scaled"].outputs)(scaled)
    with raises("register_plugin: the arguments do not fit"):
        tp.register_plugin("tests::given", outputs=(2, 3))
    with raises("register_plugin: the arguments do not fit"):
        tp.register_plugin("tests::given", outputs=lambda x: x, version=1)
    with raises("register_plugin: what is decorated cannot be called"):
        tp.register_plugin("tests::given", outputs=lambda x: x)(3)


@pytest.mark.parametrize("value", [None, {}, [[1]], tp.ones((2,)), b"text", 1j, ["text"]], ids=str)
def test_attributes_that_are_none(value):
    with raises("plugin: the attribute factor is nothing that a plugin can be given"):
        tp.plugin("tests::scaled", [tp.ones((2,))], factor=value)


def test_a_size_that_is_not_known_is_no_attribute():
    def function(x):
        return tp.plugin("tests::scaled", [x], factor=x.shape[0])

    with raises("attribute factor is nothing", "tp.plugin("):
        tp.compile(function, args=[info(ROWS)], backend="torch")


@pytest.mark.parametrize("inputs", [[], None, tp.ones((2,)), [1.0], [None]], ids=str)
def test_inputs_that_are_none(inputs):
    with raises("plugin: inputs"):
        tp.plugin("tests::scaled", inputs)


@pytest.mark.parametrize(
    "said",
    [None, 3, (), (2, 3), [(2,)], ((2,), "float32"), ((2.5,), tp.int8), ((-1,), tp.int8)],
    ids=str,
)
def test_rules_that_give_something_else(said):
    with raises("plugin: (the rule|the shape|a size)", "tp.plugin("):
        function = given(lambda x: x, lambda x: said)
        function(tp.ones((2,)))


def test_a_rule_that_fails():
    with raises("the rule outputs= of tests::scaled has failed: TypeError[\\s\\S]*float32\\[2\\]"):
        tp.plugin("tests::scaled", [tp.ones((2,)), tp.ones((2,))])


WRONG = {
    "shape": (lambda x: x[:1], r"torch.float32\[1\] on [\s\S]*expected: torch.float32\[2\]"),
    "type": (lambda x: x.double(), "got:      torch.float64"),
    "number": (lambda x: (x, x), r"torch.float32\[2\] on \w+:?\d*, torch.float32"),
    "nothing": (lambda x: None, "an object of type NoneType"),
    "empty": (lambda x: (), "got:      nothing"),
    "array": (lambda x: x.cpu().numpy(), "an object of type ndarray"),
    "device": (lambda x: x.to("meta"), "on meta"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("compiled", [False, True])
def test_results_that_are_not_what_was_declared(what, compiled):
    function, got = WRONG[what]
    run = given(function)

    def recorded(x):
        return run(x)

    wanted = f"gives something else than was declared[\\s\\S]*{got}"
    with raises(wanted, 'tp.plugin("tests::given"'):
        if compiled:
            tp.compile(recorded, args=[info(2)], backend="torch")(tp.ones((2,)))
        else:
            recorded(tp.ones((2,))).eval()


def test_a_dynamic_size_that_is_not_what_was_declared():
    function = given(lambda x: x[:2].clone())
    fast = tp.compile(lambda x: function(x), args=[info(ROWS)], backend="torch")
    assert fast(tp.ones((2,))).tolist() == [1.0, 1.0]
    with raises("declared[\\s\\S]*torch.float32\\[2\\][\\s\\S]*float32\\[5\\]", "tp.plugin("):
        fast(tp.ones((5,)))


def test_a_function_that_fails():
    def broken(x):
        raise KeyError("gone")

    with raises("the function of tests::given has failed: KeyError: 'gone'", "tp.plugin(") as error:
        given(broken)(tp.ones((2,))).eval()
    assert isinstance(error.value.__cause__.__cause__, KeyError)


def test_a_function_that_writes_into_its_input():
    with raises("has written into an input[\\s\\S]*clone", "tp.plugin("):
        given(lambda x: x.add_(1))(tp.ones((2,))).eval()
