"""tp.Parameter."""

import copy

import numpy as np

import tripy as tp
from tests.nn.support import refused


def test_is_a_tensor():
    parameter = tp.Parameter([[1.0, 2.0]], name="p")
    assert isinstance(parameter, tp.Tensor)
    assert parameter.shape == (1, 2) and parameter.dtype is tp.float32 and parameter.name == "p"
    assert (parameter + 1).tolist() == [[2.0, 3.0]]
    assert type(parameter + 1) is tp.Tensor


def test_takes_what_a_tensor_takes():
    assert tp.Parameter(3).dtype is tp.int32
    assert tp.Parameter([1, 2], dtype=tp.float16).dtype is tp.float16
    array = np.arange(4, dtype=np.float32)
    parameter = tp.Parameter(array)
    array[0] = 9.0
    assert parameter.tolist()[0] == 9.0  # Memory is shared, as for a Tensor.


def test_of_a_tensor_has_its_values():
    tensor = tp.ones((2,)) * 3
    parameter = tp.Parameter(tensor)
    assert parameter.tolist() == [3.0, 3.0]
    assert tensor.tolist() == [3.0, 3.0]
    assert tp.Parameter(parameter).tolist() == [3.0, 3.0]
    assert tp.Parameter(tensor, dtype=tp.float16).dtype is tp.float16


def test_of_nothing_is_refused():
    with refused("data is not an array"):
        tp.Parameter(None)
    weight = tp.Linear(2, 3).weight
    with refused("has no value yet", "float32[3, 2]"):
        tp.Parameter(weight)


def test_unset_has_type_and_shape_but_no_values():
    weight = tp.Linear(2, 3, dtype=tp.float16).weight
    assert weight.shape == (3, 2) and weight.dtype is tp.float16 and weight.rank == 2
    assert "float16[3, 2]" in str(weight) and "not set" in repr(weight)
    with refused("has no value yet", "initialize_dummy_parameters"):
        weight.tolist()
    with refused("has no value yet"):
        weight + 1


def test_of_an_input_of_a_compiled_function_is_refused():
    def function(x):
        return tp.Parameter(x * 2)

    info = tp.InputInfo((2,), tp.float32)
    with refused("cannot depend on an input"):
        tp.compile(function, args=[info])


def test_deepcopy_is_another_parameter_with_the_same_values():
    linear = tp.Linear(2, 2)
    unset = copy.deepcopy(linear)
    linear.initialize_dummy_parameters()
    other = copy.deepcopy(linear)
    assert other.weight is not linear.weight and other.weight.tolist() == linear.weight.tolist()
    other.weight = tp.zeros((2, 2))
    assert linear.weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert "not set" in str(unset)
