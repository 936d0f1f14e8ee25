"""tp.Sequential."""

import pytest

import tripy as tp
from tests.nn.support import refused


@pytest.fixture
def model():
    model = tp.Sequential({"up": tp.Linear(2, 3), "act": tp.relu, "down": tp.Linear(3, 1)})
    model.initialize_dummy_parameters()
    return model


def test_runs_in_order(model):
    x = tp.Tensor([[1.0, 2.0]])
    assert model(x).tolist() == [[13.0]]
    assert tp.Sequential()(x) is x
    assert tp.Sequential(lambda x: x + 1, tp.relu)(tp.Tensor([-3.0, 1.0])).tolist() == [0.0, 2.0]


def test_access(model):
    assert len(model) == 3 and len(tp.Sequential()) == 0
    assert model[0] is model["up"] is model.up is next(iter(model))
    assert model[-1] is model.down and model[1] is tp.relu
    listed = tp.Sequential(tp.Linear(2, 3), tp.relu)
    assert listed["0"] is listed[0]


def test_names(model):
    assert list(model.state_dict()) == ["up.weight", "up.bias", "down.weight", "down.bias"]
    assert [name for name, _ in model.named_children()] == ["up", "down"]
    nested = tp.Sequential(tp.relu, tp.Sequential(tp.Linear(1, 1, bias=False)))
    assert list(nested.state_dict()) == ["1.0.weight"]


def test_replacing_by_attribute(model):
    model.act = tp.Linear(3, 3, bias=False)
    model.initialize_dummy_parameters()
    assert model[1] is model.act and model(tp.ones((1, 2))).tolist() == [[28.0]]


@pytest.mark.parametrize("key", [3, -4, "sideways", 1.0, None])
def test_missing_items_are_refused(model, key):
    with refused("no such item", repr(key), "'up', 'act', 'down'"):
        model[key]


def test_what_cannot_be_called_is_refused():
    with refused("'1' cannot be called", "int: 3"):
        tp.Sequential(tp.relu, 3)


@pytest.mark.parametrize("name", ["", "a.b", "forward", "state_dict", 3])
def test_names_that_are_refused(name):
    with refused("name is not usable", repr(name)):
        tp.Sequential({name: tp.relu})


def test_compiled_equals_eager(model):
    rows = tp.NamedDimension("rows", 1, 2, 4)
    compiled = tp.compile(model, args=[tp.InputInfo((rows, 2), tp.float32)])
    for count in (1, 3):
        x = tp.iota((count, 2)).eval()
        assert compiled(x).tolist() == model(x).tolist()
