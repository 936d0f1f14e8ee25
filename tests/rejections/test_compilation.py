"""What is refused in compilation: compile, descriptions of inputs, calls.

Rows as in test_tensors.py. Damaged files of every kind are in tests/saving/test_damage.py.
"""

from __future__ import annotations

import pytest

import tripy as tp
from tests.rejections.support import check, check_message, message, rows

BOUNDS = "0 <= min <= opt <= max"
THREE = "(min, opt, max)"


@rows([
    # InputInfo(shape, dtype): each element an int, DimensionSize, (min, opt, max), NamedDimension
    ("tp.InputInfo(3, tp.float32)", "InputInfo: the shape is not a sequence.", "3",
     "a list or tuple of sizes"),
    ("tp.InputInfo((2.0,), tp.float32)", "InputInfo: this is not a size.", "2.0 in dimension 0",
     "an int, a DimensionSize, (min, opt, max) or a NamedDimension"),
    ("tp.InputInfo((2, (1, 4)), tp.float32)", "InputInfo: dimension 1: the bounds are not three",
     "(1, 4)", THREE),
    ("tp.InputInfo(((3, 2, 1),), tp.float32)",
     "InputInfo: dimension 0: the bounds are out of order", "min=3, opt=2, max=1", BOUNDS),
    ("tp.InputInfo((-1,), tp.float32)", "InputInfo: dimension 0: the bounds are out of order",
     "min=-1", BOUNDS),
    ('tp.InputInfo((2,), "float32")', "InputInfo: this is not a data type.", "'float32'",
     "tp.float32"),
    ('tp.NamedDimension("n", 4, 2, 8)', "NamedDimension: the bounds are out of order.",
     "min=4, opt=2, max=8", BOUNDS),
    ("tp.NamedDimension(1, 2, 3, 4)", "NamedDimension: the name is not usable.", "1", "a string"),
    ("tp.DimensionInputInfo(3)", "DimensionInputInfo: the bounds are not three integers.", "3",
     THREE),
    ("tp.DimensionInputInfo((3, 2, 1))", "DimensionInputInfo: the bounds are out of order.",
     "min=3, opt=2, max=1", BOUNDS),
    # compile(func, optimization_level, *, args, kwargs, backend, device)
    ("tp.compile(3, args=[info])", "compile: func cannot be called.", "3",
     "a function or a Module"),
    ("tp.compile(tp.relu, 6, args=[info])", "compile: the optimization level is out of range.", "6",
     "an int from 0 to 5"),
    ("tp.compile(tp.relu, args=info)", "compile: args is not a list.", "InputInfo([2, 3], float32)",
     "a list of the positional arguments"),
    ("tp.compile(tp.relu, kwargs=[info])", "compile: kwargs is not a dict", "[InputInfo(",
     "a dict from names to arguments"),
    ("tp.compile(tp.relu, args=[info, info])",
     "compile: the arguments do not fit the function: too", "2 positional", "relu(input"),
    ('tp.compile(tp.relu, args=[info], backend="onnx")', "compile: there is no such backend.",
     "'onnx'", "'auto', 'torch', 'tensorrt'"),
    ('tp.compile(tp.relu, args=[info], backend=["torch"])', "compile: there is no such backend.",
     "['torch']", "'auto', 'torch', 'tensorrt'"),
    ('tp.compile(tp.relu, args=[info], backend="torch", device="gpu:99")', "compile: the backend",
     "torch sees", "a device that is there"),
    ('tp.compile(tp.relu, args=[info], device="tpu")', "device: not a device.", "'tpu'", '"gpu"'),
    ('a, b = [tp.InputInfo((tp.NamedDimension("n", 1, 2, m),), tp.float32) for m in (2, 3)]\n'
     "tp.compile(tp.maximum, args=[a, b])", "compile: the dimension 'n' has two different bounds.",
     "(1, 2, 2) and (1, 2, 3)", "the same NamedDimension everywhere"),
    ("tp.compile(tp.Linear(3, 2), args=[info])", "Linear: 2 parameters have no value.", "weight",
     "a value for each"),
    # func must return one or more Tensors
    ("tp.compile(lambda x: 3.0, args=[info])", "compile: the function does not return Tensors.",
     "result is 3.0 of type float", "a Tensor, or Tensors in a list, tuple or dict"),
    ("tp.compile(lambda x: None, args=[info])", "compile: the function does not return Tensors.",
     "result is None", "a Tensor"),
    ("tp.compile(lambda x: (), args=[info])", "compile: the function does not return Tensors.",
     "result is an empty tuple", "a Tensor"),
    ("tp.compile(lambda x: {'a': [x, 'b']}, args=[info])", "compile: the function does not return",
     "result.a[1] is 'b' of type str", "a Tensor"),
    # a scale that is known at compile time is in test_functions.py
])  # fmt: skip
def test_compile(row):
    check(row)


COMPUTED = "A tensor was computed that depends on an input of a function being compiled."


def computing(line: str) -> tuple[str, str, str, str]:
    code = f"def f(x):\n    y = x * 2.0\n    {line}\n    return y\ntp.compile(f, args=[info])"
    return code.replace(line, f"{line}  # here"), COMPUTED, "[2, 3]", "no print, tolist, bool, eval"


@rows([
    # computing a tensor that depends on an input while compiling is rejected
    computing("print(y)"), computing("y.eval()"), computing("y.tolist()"), computing("y.numpy()"),
    computing("y.torch()"), computing("np.from_dlpack(y)"), computing("torch.from_dlpack(y)"),
    computing("if y > 0.0: pass"), computing("tp.equal(y, y)"), computing("tp.allclose(y, y)"),
    ("def f(x):\n    return tp.ones((int(x.shape[0]),))  # here\n"
     "tp.compile(f, args=[tp.InputInfo(((1, 2, 4), 3), tp.float32)])",
     "The size of a dynamic dimension is not known while a function is compiled.",
     "int() of the size", "a size that is the same for all inputs"),
])  # fmt: skip
def test_computing_while_compiling(row):
    check(row)


ADD = "fast = tp.compile(lambda left, right: left + right, args=[info, info])\n"
ROWS = """\
wide = tp.InputInfo(((2, 3, 4), 3), tp.float32)
fast = tp.compile(lambda x, n: x[:n], args=[wide, tp.DimensionInputInfo((1, 2, 4))])
"""
NAMED = """\
rows = tp.NamedDimension("rows", 1, 2, 4)
named = tp.InputInfo((rows, 3), tp.float32)
fast = tp.compile(lambda a, b: tp.concatenate([a, b], 1), args=[named, named])
"""
NESTED = """\
def f(data):
    return data["a"] + data["b"]["list"][1]
fast = tp.compile(f, args=[{"a": info, "b": {"list": [7, info]}}])
"""
INFO = "InputInfo([2, 3], float32)"


@rows([
    # wrong count, name
    (ADD + "fast(x)", "The arguments do not fit the compiled function: missing a required argument:"
     " 'right'", "1 positional arguments", "(left, right)"),
    (ADD + "fast(x, x, x)", "The arguments do not fit the compiled function: too many positional",
     "3 positional", "(left, right)"),
    (ADD + "fast(x, wrong=x)", "The arguments do not fit the compiled function", "['wrong']",
     "(left, right)"),
    # device, dtype, rank, shape
    (ADD + 'y = tp.ones((2, 3)).eval()\ny._value.device = tp.device("gpu:0")\nfast(x, y)',
     "right: the argument has the wrong device.", "float32[2, 3] on gpu:0", f"{INFO} on cpu:0"),
    (ADD + "fast(n, x)", "left: the argument has the wrong data type.", "int32[2, 3] on cpu:0",
     INFO),
    (ADD + "fast(x, x[0])", "right: the argument has the wrong rank.", "float32[3]", INFO),
    (ADD + "fast(x, tp.ones((2, 4)))", "right.shape[1] is out of bounds.", "4 ((2, 4))",
     f"3; {INFO}"),
    (ADD + "fast(x, 1.0)", "right: the argument is not a tensor.", "1.0 of type float", INFO),
    (ADD + "fast(x, np.ones((2, 3)))", "right: the argument is not a tensor.", "of type ndarray",
     INFO),
    (ROWS + "fast(tp.ones((5, 3)), 2)", "x.shape[0] is out of bounds.", "5 ((5, 3))", "2 to 4"),
    (ROWS + "fast(tp.ones((1, 3)), 2)", "x.shape[0] is out of bounds.", "1 ((1, 3))", "2 to 4"),
    (ROWS + "fast(x, 5)", "n is out of bounds.", "n=5", "1 to 4"),
    (ROWS + "fast(x, 2.0)", "n: the argument is not a size.", "2.0 of type float",
     "an int or a tp.DimensionSize"),
    # NamedDimension: equal names are equal at run time
    (NAMED + "fast(x, tp.ones((3, 3)))", "b: the dimension 'rows' has two different sizes.",
     "2 in a, 3 in b", "one size for each name"),
    (NAMED + "fast(tp.ones((5, 3)), tp.ones((5, 3)))", "a.shape[0] is out of bounds.", "5",
     "1 to 4"),
    # nested: data.b.list[1]
    (NESTED + 'fast({"a": x, "b": {"list": [7, n]}})',
     "data.b.list[1]: the argument has the wrong data type.", "int32[2, 3]", INFO),
    (NESTED + 'fast({"a": x, "b": {"list": [7, tp.ones((2, 4))]}})',
     "data.b.list[1].shape[1] is out of bounds.", "4", "3"),
    (NESTED + 'fast({"a": x, "b": {"list": [7, 1.0]}})',
     "data.b.list[1]: the argument is not a tensor.", "1.0 of type float", INFO),
    (NESTED + 'fast({"a": x, "b": {"list": [8, x]}})',
     "data.b.list[0]: the value was fixed when the function was compiled.", "8", "7"),
    (NESTED + 'fast({"a": x, "b": {"list": [7]}})',
     "data.b.list: the argument is nested in another way.", "list of 1", "a list of 2"),
    (NESTED + 'fast({"b": {"list": [7, x]}})', "data: the argument is nested in another way.",
     "dict with ['b']", "a dict with ['a', 'b']"),
    # sizes that an operation needs, known only now
    ("a, b = [tp.InputInfo(((1, 2, 4),), tp.float32)] * 2\n"
     "fast = tp.compile(lambda a, b: a @ b, args=[a, b])\nfast(x[:, 0], x[0])",
     "matmul: the summed dimensions differ.", "a.shape[0] = 2, b.shape[0] = 3", "=="),
    ("shapes = [(1, 1, 4, 2), (1, 1, 2, 2)]\n"
     "infos = [*(tp.InputInfo(s, tp.float32) for s in shapes), tp.InputInfo((1,), tp.int32)]\n"
     "fast = tp.compile(lambda *a: tp.kv_cache_update(*a), args=infos)\n"
     "fast(*map(tp.ones, shapes), tp.Tensor([3]))",
     "kv_cache_update: the update does not fit the cache.", "2 positions written from 3 on",
     "write_indices from 0 to 2 for a cache of 4"),
    # stream, serialized_tensorrt_engine
    (ADD + "fast.stream = 0", "Executable.stream: this is not a stream.", "0", "tp.Stream()"),
    (ADD + "fast.serialized_tensorrt_engine", "Executable.serialized_tensorrt_engine: there is no",
     "the backend torch", "one compiled for TensorRT"),
    ("tp.Stream(0.5)", "Stream: the priority is not an integer.", "0.5", "an int"),
    # save, load
    (ADD + "fast.save(3)", "Executable.save: this is not a path.", "3 of type int", "pathlib.Path"),
    ("tp.Executable.load(None)", "Executable.load: this is not a path.", "None", "pathlib.Path"),
    ('tp.Executable.load("/nowhere/f.tripy")', "Executable.load: there is no such file.",
     "/nowhere/f.tripy", "a file written by Executable.save"),
])  # fmt: skip
def test_calls(row):
    check(row)


DAMAGED = "Executable.load: the file is damaged or not tripy's"


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        (lambda data: b"", DAMAGED),
        (lambda data: b"PK\3\4 some archive", DAMAGED),
        (lambda data: data[:-1], DAMAGED),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "Executable.load: "),
        (
            lambda data: data.replace(b'tripy_format":"1"', b'tripy_format":"7"'),
            "Executable.load: ",
        ),
    ],
    ids=["empty", "foreign", "cut", "changed", "newer"],
)
def test_damaged_files(tmp_path, change, summary):
    path = tmp_path / "f.tripy"
    table = tp.Tensor([[1.0, 2.0, 3.0]])
    tp.compile(lambda x: x + table, args=[tp.InputInfo((2, 3), tp.float32)]).save(path)
    path.write_bytes(change(path.read_bytes()))
    code = f'tp.Executable.load("{path}")'
    check_message(message(code), code, summary, str(path), "")
