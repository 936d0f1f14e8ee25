"""What is refused: data types, devices, tensors, operators, indices.

Each row is a case that has to be refused: what a user writes, how the message begins, what it says
was got, and what is accepted. Which data types a function refuses is in test_data_types.py.
"""

from __future__ import annotations

import re

import pytest

import tripy as tp
from tests.rejections.support import PACKAGE, check, rows, run
from tripy.ops import foreign

NAMES = "one data type for both"
LISTS = "a number, a list of numbers, or an object with __dlpack__"


@rows([
    # tp.device: unknown kind, negative or missing index rejected
    ('tp.device("cuda")', "device: not a device.", "'cuda'", '"cpu" or "gpu"'),
    ('tp.device("gpu:-1")', "device: not a device.", "'gpu:-1'", "an index of 0 or more"),
    ('tp.device("gpu:")', "device: not a device.", "'gpu:'", "an index of 0 or more"),
    ("tp.device(0)", "device: not a device.", "0", '"cpu" or "gpu"'),
    # ... and a device that is not there, where it is used
    ('tp.Tensor([1.0], device=tp.device("gpu:99"))', "The device is not there.", "gpu:99", "cpu"),
    ('tp.Tensor([1.0], device="cpu")', "Tensor: this is not a device.", "'cpu' of type str",
     "a tp.device"),
    ('tp.default_stream("cpu")', "default_stream: this is not a device.", "'cpu'", "a tp.device"),
    # classes of data types are no functions
    ("tp.float16(1.0)", "float16 is a data type and cannot be called.", "float16(...)",
     "a data type used as an argument"),
    # tp.config
    ("tp.config.defualt_device = None", "tp.config has no setting 'defualt_device'.",
     "tp.config.defualt_device = None", "default_device"),
    ("tp.config.enable_input_validation = 1", "tp.config.enable_input_validation: the value is",
     "1", "True or False"),
    ("tp.config.timing_cache_file_path = 3", "tp.config.timing_cache_file_path: the value is", "3",
     "a path"),
    ('tp.config.extra_error_information = ["all"]', "tp.config.extra_error_information: the value",
     "['all']", '["frames"]'),
    ('tp.config.default_device = "tpu"', "device: not a device.", "'tpu'", '"cpu" or "gpu"'),
    # tp.logger
    ('tp.logger.verbosity = "loud"', "logger: there is no such verbosity.", "'loud'",
     "error, warning, info, verbose, timing, ir, trace"),
    ("tp.logger.verbosity = 3", "logger: there is no such verbosity.", "3", "error, warning"),
    ('with tp.logger.use_verbosity(["ir", "mlir"]): pass', "logger: there is no such verbosity.",
     "'mlir'", "error, warning"),
])  # fmt: skip
def test_types_devices_and_settings(row):
    check(row)


ELSEWHERE = 'y = tp.ones((2, 3)).eval()\ny._value.device = tp.device("gpu:0")  # As if.\n'


@pytest.mark.parametrize(
    "line",
    [
        "x + y", "y - x", "x < y", "x @ y", "tp.where(m, x, y)", "tp.maximum(x, y)",
        "tp.concatenate([x, y], 0)", "tp.equal(x, y)", "tp.allclose(x, y)",
        "tp.quantize(y, tp.Tensor(1.0), tp.int8)", "tp.gather(y, 0, tp.Tensor([0]))",
    ],
)  # fmt: skip
def test_tensors_on_two_devices(line):
    """The error names tp.copy. No machine of ours has a second device, so one is made up."""
    with pytest.raises(tp.TripyException) as caught:
        run(ELSEWHERE + line)
    text = str(caught.value)
    assert "gpu:0" in text.split("expected:")[0]
    assert "cpu:0" in text.split("expected:")[0]
    assert "tp.copy" in re.search(r"try: +(.*)", text)[1]
    assert f"| {line}\n" in text
    assert "| y = tp.ones((2, 3)).eval()\n" in text
    assert PACKAGE not in text


@rows([
    # Tensor(data)
    ("tp.Tensor(None)", "Tensor: data is not an array.", "None", LISTS),
    ("tp.Tensor(x)", "Tensor: data is not an array.", "a tripy Tensor", LISTS),
    ("tp.Tensor([[1, 2], [3]])", "Tensor: data is not an array.", "a ragged list",
     "lists of equal lengths"),
    ("tp.Tensor([[1], 2])", "Tensor: data is not an array.", "a ragged list",
     "lists of equal lengths"),
    ('tp.Tensor("text")', "Tensor: data is not an array.", "str", "numbers or bools"),
    ("tp.Tensor([1j])", "Tensor: data is not an array.", "complex numbers", "real numbers"),
    ("tp.Tensor(2**70)", "Tensor: data is not an array.", "int", "numbers or bools"),
    ("tp.Tensor([1.0, None])", "Tensor: data is not an array.", "list", "numbers or bools"),
    ("tp.Tensor(np.ones(2))", "Tensor: tripy does not have the array's data type.", "float64",
     "one of float32, float16"),
    ("tp.Tensor(np.array(['a']))", "Tensor: data is not an array.", "numpy array of <U1",
     "numbers or bools"),
    ("tp.Tensor(torch.ones(2, 2).to_sparse())", "Tensor: data is not an array.", "sparse", "dense"),
    # dtype
    ('tp.Tensor([1.0], dtype="float32")', "Tensor: this is not a data type.", "dtype='float32'",
     "tp.float32, tp.float16"),
    ("tp.Tensor([1.0], dtype=float)", "Tensor: this is not a data type.", "<class 'float'>",
     "tp.float32"),
    ("tp.Tensor([1.0], dtype=tp.floating)", "Tensor: this is not a data type.", "dtype=floating",
     "tp.float32"),
    ("tp.Tensor([300], dtype=tp.int8)", "Tensor: a value does not fit int8.", "300", "-128 to 127"),
    ('tp.Tensor(float("nan"), dtype=tp.int32)', "Tensor: a value does not fit int32.", "nan",
     "-2147483648 to 2147483647"),
    # __bool__ (one element only)
    ("bool(x)", "The truth of a tensor is defined for one element only.", "float32[2, 3]",
     "one element"),
    ("if x > 0.0: pass", "The truth of a tensor is defined for one element only.", "bool[2, 3]",
     "one element"),
    # DLPack, for which int4 has no word
    ("torch.from_dlpack(tp.cast(x, tp.int4))", "int4 has no DLPack form.", "int4[2, 3]",
     "any other data type"),
    # DimensionSize: int32 held on the host
    ("tp.DimensionSize(1.5)", "DimensionSize: the size is not an integer.", "1.5", "an int"),
    ("tp.DimensionSize(n)", "DimensionSize: the size is not an integer.", "tensor(", "an int"),
    ("tp.DimensionSize(2**31)", "DimensionSize: the size does not fit int32.", "2147483648",
     "an int from -2147483648 to 2147483647"),
    ("tp.DimensionSize(3) // 0", "A size was divided by zero.", "3 // 0", "a divisor other than 0"),
    ("tp.DimensionSize(3) + 1.5", "add: the number does not fit the tensor's data type.",
     "1.5 with a tensor of int32", "an int for integers"),
    # Parameter(x): as for Tensor, or a Tensor
    ("tp.Parameter(None)", "Tensor: data is not an array.", "None", LISTS),
    ("tp.Parameter(tp.Linear(2, 3).weight)", "Parameter: the tensor has no value yet.",
     "not set", "a tensor with values"),
    ("tp.compile(lambda x: tp.Parameter(x), args=[info])",
     "A parameter cannot depend on an input of a function that is being compiled.",
     "float32[2, 3]", "the same for every call"),
    # methods
    ('x.copy("cpu")', "copy: this is not a device.", "'cpu'", "a tp.device"),
    ("x.cast(int)", "cast: the data type is not supported.", "<class 'int'>", "tp.float32"),
    ("x.squeeze(0)", "squeeze: a dimension to remove does not have size 1.", "dims=0 with float32",
     "dimensions of size 1"),
])  # fmt: skip
def test_tensor(row):
    check(row)


def test_iteration_is_a_type_error():
    with pytest.raises(TypeError, match=r"cannot be iterated over[\s\S]*tp\.split.*tolist"):
        run("for row in x: pass")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"no 'flot32'\. Did you mean tp\.float32"):
        run("tp.flot32")


FOREIGN = {
    "tp.cat": "tripy has no 'cat'. Try tp.concatenate(tensors, dim).",
    "x.mean": "A tripy.Tensor has no 'mean'. Try tp.mean(tensor).",
    "x.item": "A tripy.Tensor has no 'item'. Try tensor.tolist().",
    "x.qqq": "A tripy.Tensor has no 'qqq'",
    "x.__foo__": "A tripy.Tensor has no '__foo__'",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_names_of_other_libraries_are_answered_with_what_to_write(name):
    with pytest.raises(AttributeError) as caught:
        run(name)
    assert str(caught.value) == FOREIGN[name]


def test_what_is_written_instead_is_there():
    """None of the names is tripy's own, and what is named instead is."""
    for name, text in foreign._BY_NAME.items():
        assert name not in tp.__all__ and not hasattr(tp.Tensor, name)
        assert all(hasattr(tp, found) for found in re.findall(r"tp\.(\w+)", text)), text


def test_a_misspelled_method_is_answered_by_python():
    with pytest.raises(AttributeError) as caught:
        tp.ones((2,)).tolits  # noqa: B018
    assert (caught.value.name, type(caught.value.obj)) == ("tolits", tp.Tensor)


@rows([
    # a float scalar with an integer tensor, or an int with a bool tensor, is refused
    ("n + 1.5", "add: the number does not fit the tensor's data type.",
     "1.5 with a tensor of int32", "an int for integers"),
    ("2.0 * q", "mul: the number does not fit the tensor's data type.", "2.0 with a tensor of int8",
     "an int for integers"),
    ("n < 0.5", "less: the number does not fit the tensor's data type.", "0.5", "an int for int"),
    ("m & 1", "and: the number does not fit the tensor's data type.", "1 with a tensor of bool",
     "a bool for bool"),
    ("0 == m", "equal: the number does not fit the tensor's data type.", "0 with a tensor of bool",
     "a bool for bool"),
    ("q + 128", "add: the number is out of the tensor's range.", "128 with a tensor of int8",
     "an int from -128 to 127"),
    ("x + 1e39", "add: the number is out of the tensor's range.", "1e+39", "-3.4"),
    ("x + np.ones(3)", "add: an operand is neither a tensor nor a number.", "ndarray",
     "a tripy.Tensor, or a number"),
    ("[1.0] * x", "mul: an operand is neither a tensor nor a number.", "list", "a tripy.Tensor"),
    # both operands of a binary operator have the same dtype otherwise, and shapes that broadcast
    ("x + n", "add: lhs and rhs have different data types.", "lhs: float32[2, 3], rhs: int32[2, 3]",
     NAMES),
    ("x == tp.cast(x, tp.float16)", "equal: lhs and rhs have different data types.",
     "rhs: float16[2, 3]", NAMES),
    ("n ** tp.cast(n, tp.int64)", "pow: lhs has an unsupported data type.", "lhs: int32[2, 3]",
     "float32, float16, bfloat16, int8, int64"),
    ("x @ tp.ones((3, 2), dtype=tp.float16)", "matmul: lhs and rhs have different data types.",
     "rhs: float16[3, 2]", NAMES),
    ("x + tp.ones((4,))", "add: the shapes cannot be broadcast together.", "rhs: float32[4]",
     "sizes that are equal or 1"),
    # @: rank 0 rejected
    ("x @ tp.Tensor(1.0)", "matmul: a scalar has no matrix product.", "rhs: float32[]",
     "tensors of rank 1 or more"),
    ("tp.Tensor(1.0) @ x", "matmul: a scalar has no matrix product.", "lhs: float32[]",
     "tensors of rank 1 or more"),
    ("x @ 2.0", "matmul: an operand is not a tensor.", "float", "a tripy.Tensor"),
    ("x @ x", "matmul: the summed dimensions differ.", "lhs: float32[2, 3], rhs: float32[2, 3]",
     "lhs.shape[-1] == rhs.shape[-2]"),
    ("tp.ones((2, 2, 3)) @ tp.ones((4, 3, 2))", "matmul: the shapes cannot be broadcast together.",
     "lhs: float32[2, 2, 3]", "sizes that are equal or 1"),
])  # fmt: skip
def test_operators(row):
    check(row)


INDEX = "The index does not fit the tensor."


@rows([
    ("f8[0]", "slice: input has an unsupported data type.", "input: float8[2, 3]",
     "one of float32"),
    ("f8[tp.Tensor([0])]", "slice: input has an unsupported data type.", "input: float8[2, 3]",
     "one of float32"),
    ("x[2]", INDEX, "[2] of float32[2, 3]", "an index from -2 to 2 - 1"),
    ("x[0, -4]", INDEX, "[(0, -4)] of float32[2, 3]", "an index from -3 to 3 - 1"),
    ("x[tp.DimensionSize(5)]", INDEX, "of float32[2, 3]", "an index from -2 to 2 - 1"),
    ("x[0, 0, 0]", INDEX, "[(0, 0, 0)]", "at most 2 indices and one ..."),
    ("x[..., ...]", INDEX, "Ellipsis", "at most 2 indices and one ..."),
    ("x[::0]", INDEX, "slice(None, None, 0)", "a step that is an int other than 0"),
    ("x[0.5:]", INDEX, "slice(0.5, None, None)", "slices of ints and DimensionSizes"),
    ("x[1.0]", INDEX, "[1.0]", "ints, slices, ..., None, DimensionSizes, or one Tensor alone"),
    ("x[[0, 1]]", INDEX, "[[0, 1]]", "one Tensor alone"),
    ("x[True]", INDEX, "[True]", "ints, slices"),
    ("x[0, tp.Tensor([0])]", INDEX, "of float32[2, 3]", "one Tensor alone"),
    ("x[m]", "gather: index has an unsupported data type.", "index: bool[2, 3]", "int32, int64"),
    ("y = x[tp.Tensor([2])]  # here\ny.eval()", "gather: an index is out of range", "int32[1]",
     "an index from -2 to 1"),
])  # fmt: skip
def test_indices(row):
    check(row)
