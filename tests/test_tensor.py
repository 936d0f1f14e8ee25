"""The lazy tensor: data in and out, laziness, memory, and the places that errors point at."""

from __future__ import annotations

import gc
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

import tripy as tp
from tests.helpers import ALL, F, check, plain, raises, tensor, where

CPU = tp.device("cpu")
on_cpu = pytest.mark.skipif(where().kind != "cpu", reason="memory is shared on the host")


# Data in


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1, tp.int32, ()), (1.0, tp.float32, ()), (True, tp.bool, ()), ([], tp.float32, (0,)),
        ([[], []], tp.float32, (2, 0)), ([1, 2], tp.int32, (2,)), ([1, 2.5], tp.float32, (2,)),
        ([True, False], tp.bool, (2,)), ([[1], [2]], tp.int32, (2, 1)), ((1, 2), tp.int32, (2,)),
        (2**31, tp.int64, ()), (-(2**31), tp.int32, ()), ([0, 2**40], tp.int64, (2,)),
        (range(3), tp.int32, (3,)), (np.float64(2), tp.float32, ()), (np.True_, tp.bool, ()),
        (np.float16(2), tp.float16, ()), (np.int64(2), tp.int64, ()),
        ([np.float32(1), 2], tp.float32, (2,)),
        ([np.True_, np.False_], tp.bool, (2,)), ([torch.tensor(2.5)], tp.float32, (1,)),
        ([np.array([1, 2]), np.array([3, 4])], tp.int32, (2, 2)),
        ([tp.DimensionSize(2), 3], tp.int32, (2,)),
    ],
    ids=str,
)  # fmt: skip
def test_types_of_python_data(data, dtype, shape):
    x = tp.Tensor(data)
    assert x.dtype is dtype
    assert x.shape == shape
    assert x.device == where()


def test_values_of_python_data():
    assert tp.Tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert tp.Tensor([torch.tensor(2.5), np.float64(0.5)]).tolist() == [2.5, 0.5]
    assert tp.Tensor(2**62 + 1).tolist() == 2**62 + 1
    assert tp.Tensor([1, 0], dtype=tp.bool).tolist() == [True, False]
    assert tp.Tensor([1.9, -1.9], dtype=tp.int32).tolist() == [1, -1]
    assert tp.Tensor(16777217.0, dtype=tp.int32).tolist() == 16777217
    assert tp.Tensor([2.5, 3.5, -0.5], dtype=tp.int4).tolist() == [2, 4, 0]
    assert tp.Tensor([500.0, 17.0], dtype=tp.float8).tolist() == [448.0, 16.0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "got:      None"), (tp.ones((2,)), "got:      a tripy Tensor"),
        ([[1, 2], [3]], "a ragged list"), ([[1], 2], "a ragged list"), ([1, [2]], "not an array"),
        ("abc", "not an array"), ([None], "not an array"), ({}, "not an array"), (1j, "complex"),
        ([1j], "complex"), (2**70, "not an array"), (object(), "not an array"),
        (np.array(["a"]), "not an array"), (np.array([None]), "not an array"),
        (torch.ones(2, 2).to_sparse(), "sparse"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_data_that_is_none(data, message):
    with raises(message):
        tp.Tensor(data)


@pytest.mark.parametrize(
    "array",
    [np.zeros(2), np.zeros(2, np.uint8), np.zeros(2, np.int16), np.zeros(2, np.uint64)],
    ids=lambda a: str(a.dtype),
)
def test_arrays_of_other_types_need_a_dtype(array):
    with raises("tripy does not have the array's data type") as caught:
        tp.Tensor(array)
    assert "Tensor(data, dtype=tp.float32)" in str(caught.value)
    for dtype in (tp.float32, tp.int8, tp.int64, tp.bool, tp.float8, tp.int4):
        assert tp.Tensor(array, dtype=dtype).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([128], tp.int8), ([-129.0], tp.int8), (2**31, tp.int32), (float("nan"), tp.int32),
        (float("inf"), tp.int64), (2.0**63, tp.int64), ([8], tp.int4), ([7.6], tp.int4),
        (np.array([2**63], np.uint64), tp.int64), (np.array([300], np.int16), tp.int8),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(data, dtype):
    with raises(f"Tensor: a value does not fit {dtype}"):
        tp.Tensor(data, dtype=dtype)


@on_cpu
@pytest.mark.parametrize(
    "array",
    [np.arange(6.0, dtype=np.float32), np.ones((2, 3), np.int64), np.zeros((2, 0), np.int8),
     np.arange(8, dtype=np.int32)[::2], np.ones((3, 4), np.float16).T, np.array(3, np.int32)],
    ids=lambda a: f"{a.dtype}{a.shape}",
)  # fmt: skip
def test_numpy_memory_is_shared(array):
    x = tp.Tensor(array)
    np.testing.assert_array_equal(x.numpy(), array)
    if array.size:
        array[...] = 7
        assert (x.numpy() == 7).all()
        assert np.shares_memory(x.numpy(), array)


def test_numpy_memory_that_torch_cannot_hold_is_copied():
    backwards = np.arange(6.0, dtype=np.float32)[::-2]
    assert tp.Tensor(backwards).tolist() == backwards.tolist()
    frozen = np.arange(3, dtype=np.int32)
    frozen.flags.writeable = False
    assert tp.Tensor(frozen).tolist() == [0, 1, 2]
    swapped = np.arange(3, dtype=">f4")
    assert tp.Tensor(swapped).tolist() == [0.0, 1.0, 2.0]


@on_cpu
@pytest.mark.parametrize("dtype", [t for t in ALL if t is not tp.int4], ids=str)
def test_torch_memory_is_shared_both_ways(dtype):
    array = tensor([0, 1, 1], dtype).torch().clone()
    x = tp.Tensor(array)
    assert x.dtype is dtype
    back = torch.from_dlpack(x)
    assert back.data_ptr() == array.data_ptr() == x.torch().data_ptr()
    assert back.dtype == array.dtype
    raw = array.view(torch.uint8)
    raw[0] = 1
    assert plain(x).flat[0] != 0


def test_strided_torch_tensors_and_those_that_need_gradients():
    array = torch.arange(12.0).reshape(3, 4).t()[::2]
    assert tp.Tensor(array).tolist() == array.tolist()
    assert tp.Tensor(torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]


@on_cpu
def test_dlpack_with_numpy():
    x = tp.ones((2, 3))
    array = np.from_dlpack(x)
    assert np.shares_memory(array, x.numpy())
    assert x.__dlpack_device__() == (1, 0)
    np.testing.assert_array_equal(np.asarray(x), array)
    np.testing.assert_allclose(np.asarray(x, dtype=np.float64), 1.0)


@on_cpu
def test_exported_memory_does_not_overlap_itself():
    """An expanded tensor has one element in memory for many, until others may write to it."""
    for x in (tp.iota((2, 3), dim=1), tp.expand(tp.zeros((1,)), (2, 3))):
        array = x.numpy()
        array[0, 0] = 5
        assert array[1, 0] == 0
        assert x.tolist()[0][0] == 5
        assert x.tolist()[1][0] == 0


def test_int4_has_no_dlpack():
    x = tensor([1, -8], tp.int4)
    with raises("int4 has no DLPack form"):
        torch.from_dlpack(x)
    assert x.torch().dtype is torch.int8
    assert x.numpy().tolist() == [1, -8]


class Foreign:
    """An object that can do nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Broken(Foreign):
    def __dlpack__(self, **kwargs):
        raise BufferError("nothing to share")


def test_other_objects_with_dlpack():
    assert tp.Tensor(Foreign(torch.ones(2))).tolist() == [1.0, 1.0]
    assert tp.Tensor(Foreign(torch.ones(2)), dtype=tp.int8).tolist() == [1, 1]
    with raises("nothing to share"):
        tp.Tensor(Broken(torch.ones(2)))


# Data out, and Python's protocols


def test_properties():
    x = tp.Tensor([[1.0, 2.0]], dtype=tp.float16, device=CPU, name="weights")
    assert (x.name, x.dtype, x.rank, x.ndim, x.device, x.shape) == (
        "weights", tp.float16, 2, 2, CPU, (1, 2)
    )  # fmt: skip
    x.name = "other"
    assert x.name == "other"
    assert all(type(size) is int for size in x.shape)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_lists_and_printing(dtype):
    x = tensor([[0, 1], [1, 0]], dtype)
    assert x.tolist() == [[0, 1], [1, 0]]
    text = str(x)
    assert f"dtype={dtype}" in text
    assert "shape=(2, 2)" in text
    assert f"device={where()}" in text
    assert repr(x) == text
    assert type(tensor(1, dtype).tolist()) in (float, int, bool)


def test_truth():
    assert tp.Tensor(True) and tp.Tensor([[1]])
    assert not tp.Tensor([0.0])
    for wrong in (tp.ones((2,)), tp.zeros((0,))):
        with raises("The truth of a tensor is defined for one element only"):
            bool(wrong)


def test_iteration_is_refused_and_length_is_not():
    with pytest.raises(TypeError, match="cannot be iterated over"):
        iter(tp.ones((2,)))
    with pytest.raises(TypeError):
        list(tp.ones((2,)))
    assert len(tp.ones((3, 2))) == 3
    with pytest.raises(TypeError):
        len(tp.Tensor(1.0))
    assert len({tp.ones((2,)), tp.ones((2,))}) == 2  # Hashed by identity.


# Laziness


def test_nothing_is_computed_before_it_is_asked_for():
    x = tp.ones((2,)) / tp.Tensor([0, 1]).cast(tp.float32)
    assert x._value.data is None
    assert x.eval() is x
    assert x._value.data is not None


def test_a_chain_of_thousands_does_not_overflow_the_stack():
    x = tp.zeros((1,))
    for _ in range(5000):
        x = x + 1
    assert x.tolist() == [5000.0]
    y = tp.zeros((1,))
    for _ in range(5000):
        y = y + 1
    del y  # Never computed: freeing it is a chain too.


def test_shared_parts_are_computed_once(monkeypatch):
    from tripy.backends.torch.lowering import LOWERINGS  # noqa: PLC0415  (only this test needs it)

    calls = []
    original = LOWERINGS["exp"]

    def counted(attrs, x):
        calls.append(x)
        return original(attrs, x)

    monkeypatch.setitem(LOWERINGS, "exp", counted)
    x = tp.exp(tp.ones((2,)))
    (x + x * x).eval()
    assert len(calls) == 1
    (x - 1).eval()  # x is still held by this test, so its value was kept.
    assert len(calls) == 1


def test_intermediate_results_are_freed():
    x = tp.ones((4,))
    middle = x * 2
    values = weakref.ref(middle._value)
    result = middle + 1
    del middle
    gc.collect()
    assert values() is not None  # The result needs it.
    result.eval()
    gc.collect()
    assert values() is None
    assert x.tolist() == [1.0] * 4


def test_memory_of_intermediate_results_goes_back_at_once(monkeypatch):
    """The most that is alive at a time in a long chain is a few tensors."""
    from tripy.backends.torch.lowering import LOWERINGS  # noqa: PLC0415

    alive = weakref.WeakSet()
    most = []
    original = LOWERINGS["neg"]

    def watched(attrs, x):
        result = original(attrs, x)
        alive.add(result)
        most.append(len(alive))
        return result

    monkeypatch.setitem(LOWERINGS, "neg", watched)
    x = tp.ones((10,))
    for _ in range(50):
        x = -x
    x.eval()
    assert max(most) <= 3


def test_looking_at_the_middle_changes_nothing():
    def run(look):
        x = tp.Tensor([0.3, -0.7, 2.0])
        y = tp.softmax(x * 3, 0)
        if look:
            str(y), y.tolist(), y.eval()
        q = tp.quantize(y, 0.01, tp.int8)
        if look:
            str(q)
        a, b = tp.split(tp.dequantize(q, 0.01, tp.float32), [1, 2])
        if look:
            b.eval()
        return (a + b).tolist()

    assert run(True) == run(False)


def test_one_output_of_several_may_be_computed_first():
    values, indices = tp.topk(tp.Tensor([1.0, 3.0, 2.0]), 2, 0)
    values.eval()
    storage = values.torch().data_ptr()
    assert indices.tolist() == [1, 2]
    assert values.torch().data_ptr() == storage


def test_threads_share_lazy_tensors():
    x = tp.ones((64, 64))
    for _ in range(30):
        x = x * 1.01
    results = []
    threads = [threading.Thread(target=lambda: results.append((x + 1).tolist())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(r == results[0] for r in results)


# Errors that point at the user's line


columns_known = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python knows lines only, not columns"
)


@columns_known
def test_the_caret_is_under_the_expression():
    x, y = tp.ones((2, 3)), tp.ones((4,))
    with raises("cannot be broadcast") as caught:
        1 + (x * y)
    lines = str(caught.value).splitlines()
    raised = lines.index("The error was raised here:")
    source, caret = lines[raised + 2], lines[raised + 3]
    start, end = source.index("x * y"), source.index("x * y") + len("x * y")
    assert caret[start:end] == "^" * 5
    assert caret.count("^") == 5


@columns_known
def test_carets_count_characters_not_bytes():
    x = tp.ones((2, 3))
    with raises("the summed dimensions differ") as caught:
        ("äöü", x @ x)
    lines = str(caught.value).splitlines()
    source, caret = lines[-2], lines[-1]
    assert caret.index("^") == source.index("x @ x")


def test_an_error_shows_where_each_tensor_was_made():
    left = tp.ones((2, 3))
    right = tp.zeros((4, 5), dtype=tp.float32)
    with raises("the summed dimensions differ") as caught:
        left @ right
    message = str(caught.value)
    assert "lhs was made here" in message
    assert "left = tp.ones((2, 3))" in message
    assert "rhs was made here" in message
    assert "right = tp.zeros((4, 5), dtype=tp.float32)" in message
    assert message.count(__file__) == 3


def test_an_error_while_computing_shows_the_line_that_recorded_it():
    if where().kind == "gpu":
        pytest.skip("a GPU does not tell")
    quotient = tp.Tensor([1]) // tp.Tensor([0])
    later = quotient * 2
    with raises("divided by zero", line="quotient = tp.Tensor([1]) // tp.Tensor([0])"):
        print(later)


def test_a_name_is_known_to_the_error_of_a_compiled_function():
    def look(x):
        print(x)
        return x

    with raises("computed that depends on an input", line="print(x)"):
        tp.compile(look, args=[tp.InputInfo((2,), tp.float32)], device=where())
    with raises("computed that depends on an input"):
        tp.compile(
            lambda x: x if x > 0 else -x, args=[tp.InputInfo((), tp.float32)], device=where()
        )


def test_a_stand_in_that_outlives_its_compilation():
    kept = []

    def function(x):
        kept.append(x)
        return x + 1

    tp.compile(function, args=[tp.InputInfo([(1, 2, 4)], tp.float32)], device=where())
    assert all(type(size) is tp.DimensionSize for size in kept[0].shape)
    assert "of a function that is being compiled" in repr(kept[0])
    result = kept[0] + 1
    with raises("computed that depends on an input"):
        result.eval()


def test_validation_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(tp.config, "enable_input_validation", False)
    assert (tp.ones((2,)) + 1).tolist() == [2.0, 2.0]


# DimensionSize


def test_sizes_compute_with_sizes_and_ints():
    size = tp.DimensionSize(7, name="rows")
    assert size.name == "rows"
    for result, expected in [
        (size + 1, 8), (1 + size, 8), (size - 9, -2), (9 - size, 2), (size * 2, 14),
        (2 * size, 14), (size // 2, 3), (-size // 2, -4), (20 // size, 2), (size % 4, 3),
        (20 % size, 6), (size + size, 14), (size * size, 49), (size - size, 0), (-size, -7),
        (abs(-size), 7), (size // tp.DimensionSize(2), 3), (np.int64(2) * size, 14),
    ]:  # fmt: skip
        assert type(result) is tp.DimensionSize
        assert int(result) == expected
    assert float(size) == 7.0
    assert list(range(10))[size] == 7
    assert repr(size) == "DimensionSize(7)"


def test_sizes_are_tensors():
    size = tp.DimensionSize(7)
    assert isinstance(size, tp.Tensor)
    assert size.dtype is tp.int32
    assert size.shape == ()
    assert size.device == CPU
    assert size.tolist() == 7
    assert bool(size == 7) and not bool(size > 7)
    result = size + tp.Tensor([1, 2])
    assert type(result) is tp.Tensor
    assert result.dtype is tp.int32
    assert result.tolist() == [8, 9]
    assert result.device == where()


@pytest.mark.parametrize("dtype", [*F, tp.int8, tp.int64], ids=str)
def test_sizes_follow_the_tensors_type_as_ints_do(dtype):
    x = tensor([1, 2], dtype)
    assert (x * tp.DimensionSize(3)).tolist() == [3, 6]
    assert (tp.DimensionSize(3) - x).tolist() == [2, 1]
    check(
        lambda x: tp.maximum(x, x.shape[0]), x, reference=lambda a: np.maximum(a, a.dtype.type(2))
    )


def test_sizes_refuse():
    for wrong in (1.5, "a", None, True, tp.Tensor(1)):
        with raises("DimensionSize: the size is not an integer"):
            tp.DimensionSize(wrong)
    size = tp.DimensionSize(3)
    for function in (lambda: size // 0, lambda: size % 0, lambda: 1 // (size - 3)):
        with raises("A size was divided by zero"):
            function()
    with raises("the number does not fit"):
        size + 1.5


def test_sizes_while_compiling():
    seen = []

    def function(x):
        seen.extend(x.shape)
        rows, columns = x.shape
        assert rows + columns - columns is not None
        assert int(columns) == 3
        with raises("not known while a function is compiled", line="int(rows)"):
            int(rows)
        return x + tp.cast(rows * columns, tp.float32)

    compiled = tp.compile(function, args=[tp.InputInfo(((1, 2, 4), 3), tp.float32)], device=where())
    assert all(type(size) is tp.DimensionSize for size in seen)
    assert compiled(tp.zeros((2, 3))).tolist() == [[6.0] * 3] * 2
    assert compiled(tp.zeros((4, 3))).tolist() == [[12.0] * 3] * 4


@pytest.mark.parametrize("number", [2**63, 2**70, -(10**30)])
def test_integers_that_only_floating_point_holds(number):
    x = tp.ones((2,))
    assert (x * number).tolist() == [float(np.float32(number))] * 2
    assert tp.where(x > 0.0, x, number).tolist() == [1.0, 1.0]
    assert tp.full((1,), number).tolist() == [float(np.float32(number))]
