"""flip, repeat, pad and outer: edges, dynamic sizes, refusals."""

from __future__ import annotations

import numpy as np

import tripy as tp
from tests.helpers import check, raises, randn, tensor


def test_flip():
    x = tensor(np.arange(6).reshape(2, 3), tp.int32)
    for dim in (None, 0, -1, (0, 1), [0], ()):
        check(lambda x, d=dim: tp.flip(x, d), x, reference=lambda a, d=dim: np.flip(a, d).copy())
    check(tp.flip, tensor(1.0, tp.float32), reference=[np.array(1.0)])
    check(tp.flip, tensor(np.zeros((0, 2)), tp.float32), reference=[np.zeros((0, 2))])
    with raises("flip: dim is out of range"):
        tp.flip(x, 2)
    with raises("flip: a dimension is named twice"):
        tp.flip(x, (0, -2))
    with raises("flip: dim is not an integer"):
        tp.flip(x, 1.0)
    with raises("flip: dim is out of range"):
        tp.flip(tp.Tensor(1.0), 0)


def test_repeat_by_a_size_of_another_tensor(rng):
    x, y = randn(rng, (2, 3)), randn(rng, (4,))
    check(
        lambda x, y: tp.repeat(x, y.shape[0], 0), x, y,
        reference=lambda a, b: np.repeat(a, 4, 0),
    )  # fmt: skip


def test_repeat_refuses():
    x = tp.ones((2, 3))
    with raises("repeat: a size is negative"):
        tp.repeat(x, -1, 0)
    with raises("repeat: repeats holds something that is not a size"):
        tp.repeat(x, 1.5, 0)
    with raises("repeat: dim is out of range"):
        tp.repeat(x, 2, 2)
    with raises("repeat: dim is out of range"):
        tp.repeat(tp.Tensor(1), 2, 0)


def test_pad_with_numbers():
    x = tensor([2**40 + 1], tp.int64)
    check(lambda x: tp.pad(x, [(1, 1)], value=2**60 + 1), x,
          reference=[np.array([2**60 + 1, 2**40 + 1, 2**60 + 1])])  # fmt: skip
    y = tensor([1.0], tp.float16)
    check(lambda y: tp.pad(y, [(0, 1)], value=float("-inf")), y,
          reference=[np.array([1.0, -np.inf])])  # fmt: skip
    z = tensor([False], tp.bool)
    check(lambda z: tp.pad(z, ((1, 0),), value=True), z, reference=[np.array([True, False])])
    check(lambda z: tp.pad(z, ((1, 0),)), z, reference=[np.array([False, False])])


def test_pad_of_scalars_and_of_nothing():
    check(lambda x: tp.pad(x, ()), tensor(3.0, tp.float32), reference=[np.array(3.0)])
    nothing = tensor(np.zeros((0, 2)), tp.float32)
    check(lambda x: tp.pad(x, [(1, 1), (0, 0)]), nothing, reference=[np.zeros((2, 2))])


def test_pad_to_a_size_of_another_tensor(rng):
    x, y = randn(rng, (3,)), randn(rng, (5,))
    check(
        lambda x, y: tp.pad(x, [(0, y.shape[0] - x.shape[0])]) + y, x, y,
        reference=lambda a, b: np.pad(a, (0, 2)) + b, dynamic=False,
    )  # fmt: skip
    compiled = tp.compile(
        lambda x: tp.pad(x, [(0, 5 - x.shape[0])]),
        args=[tp.InputInfo([(1, 3, 8)], tp.float32)],
        device=x.device,
    )
    np.testing.assert_array_equal(compiled(x).numpy(), np.pad(x.numpy(), (0, 2)))
    with raises("pad: a padding is negative", line="tp.pad(x, [(0, 5 - x.shape[0])])"):
        compiled(tp.ones((6,)))


def test_pad_refuses():
    x = tp.ones((2, 3))
    for wrong in (1, [1, 2], [(1, 2, 3), (0, 0)], [(1.0, 2), (0, 0)], None, [(1,), (2,)]):
        with raises("pad: pad is not a sequence of pairs"):
            tp.pad(x, wrong)
    with raises("pad: there is not one pair of sizes for each dimension"):
        tp.pad(x, [(1, 1)])
    with raises("pad: a padding is negative"):
        tp.pad(x, [(0, 0), (-1, 0)])
    with raises("pad: mode is not one of its values"):
        tp.pad(x, [(0, 0), (1, 0)], "edge")
    with raises("pad: the value does not fit the data type"):
        tp.pad(tp.ones((2,), dtype=tp.int32), [(1, 1)], value=0.5)
    with raises("pad: the value does not fit the data type"):
        tp.pad(tp.ones((2,), dtype=tp.float16), [(1, 1)], value=1e6)
    with raises("pad: value is not a number"):
        tp.pad(x, [(0, 0), (1, 0)], value="a")
    for width in (3, 4):
        with raises("pad: there is too little to reflect"):
            tp.pad(x, [(0, 0), (width, 0)], "reflect")


def test_outer_refuses():
    x = tp.ones((2,))
    with raises("outer: vec2 is not a vector"):
        tp.outer(x, tp.ones((2, 2)))
    with raises("outer: vec1 is not a vector"):
        tp.outer(tp.Tensor(1.0), x)
    with raises("have different data types"):
        tp.outer(x, tp.ones((2,), dtype=tp.float16))
    with raises("outer: vec2 is not a tensor"):
        tp.outer(x, [1.0])
