"""Functions that move elements: empty dimensions, sizes that are not known yet, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import check, compile_for, raises, randn, tensor, where


def test_reshape_with_empty_dimensions(rng):
    x = randn(rng, (0, 3))
    for shape in [(3, 0), (0,), (0, 7), (2, 0, 5), (-1, 3), (5, 3, -1)]:
        expected = [0 if size == -1 else size for size in shape]
        check(lambda x, s=shape: tp.reshape(x, s), x, reference=[np.zeros(expected)])
    with raises("reshape: the number of elements changes"):
        tp.reshape(x, (-1, 0))
    with raises("reshape: the number of elements changes"):
        tp.reshape(x, (1, 3))


def test_reshape_of_scalars():
    x = tensor(3.0, tp.float32)
    check(lambda x: tp.reshape(x, (1, 1)), x, reference=[np.array([[3.0]])])
    check(lambda x: tp.reshape(x, (-1,)), x, reference=[np.array([3.0])])
    check(lambda x: tp.reshape(x, ()), x, reference=[np.array(3.0)])


def test_reshape_refuses():
    x = tp.ones((2, 3))
    with raises("reshape: the number of elements changes"):
        tp.reshape(x, (4, -1))
    with raises("reshape: the number of elements changes"):
        tp.reshape(x, (7,))
    with raises("reshape: the shape is not valid"):
        tp.reshape(x, (-1, -1))
    with raises("reshape: the shape is not valid"):
        tp.reshape(x, (-2, 3))
    with raises("reshape: shape is not a sequence"):
        tp.reshape(x, 6)
    with raises("reshape: shape holds something that is not a size"):
        tp.reshape(x, (2, 3.0))
    with raises("reshape: shape holds something that is not a size"):
        tp.reshape(x, (True, 6))


def test_reshape_with_sizes_of_other_tensors(rng):
    x = randn(rng, (2, 6))

    def halves(x):
        return tp.reshape(x, (x.shape[0] * 2, x.shape[1] // 2))

    check(halves, x, reference=lambda a: a.reshape(4, 3), dynamic=False)
    compiled = tp.compile(
        halves, args=[tp.InputInfo(((1, 2, 4), (2, 6, 8)), tp.float32)], device=where()
    )
    np.testing.assert_array_equal(compiled(x).numpy(), x.numpy().reshape(4, 3))
    with raises("reshape: the number of elements changes", line="x.shape[1] // 2"):
        compiled(tp.ones((2, 5)))


def test_methods_are_the_functions(rng):
    x = randn(rng, (2, 1, 3))
    check(lambda x: x.reshape((6,)), x, reference=lambda a: a.reshape(6))
    check(lambda x: x.transpose(0, -1), x, reference=lambda a: a.swapaxes(0, 2))
    check(lambda x: x.flatten(1), x, reference=lambda a: a.reshape(2, 3))
    check(lambda x: x.permute((2, 0, 1)), x, reference=lambda a: a.transpose(2, 0, 1))
    check(lambda x: x.squeeze(1), x, reference=lambda a: a.squeeze(1))
    check(lambda x: x.unsqueeze(-1), x, reference=lambda a: a[..., None])


def test_flatten_of_a_scalar_and_its_refusals():
    check(tp.flatten, tensor(2.0, tp.float32), reference=[np.array([2.0])])
    x = tp.ones((2, 3, 4))
    with raises("flatten: start_dim comes after end_dim"):
        tp.flatten(x, 2, 1)
    with raises("flatten: end_dim is out of range"):
        tp.flatten(x, 0, 3)


def test_dimensions_out_of_range_are_refused():
    x = tp.ones((2, 3))
    with raises("transpose: dim1 is out of range"):
        tp.transpose(x, 0, 2)
    with raises("permute: perm is not a permutation"):
        tp.permute(x, (0, 0))
    with raises("permute: perm is not a permutation"):
        tp.permute(x, (0, 1, 2))
    with raises("unsqueeze: dim is out of range"):
        tp.unsqueeze(x, 3)
    with raises("squeeze: dims is out of range"):
        tp.squeeze(x, 2)
    with raises("stack: dim is out of range"):
        tp.stack([x, x], 4)
    with raises("concatenate: dim is out of range"):
        tp.concatenate([x, x], -3)
    with raises("split: dim is out of range"):
        tp.split(x, 1, 2)
    with raises("gather: dim is out of range"):
        tp.gather(x, 2, tp.Tensor([0]))


def test_squeeze_refuses_other_sizes():
    with raises("squeeze: a dimension to remove does not have size 1"):
        tp.squeeze(tp.ones((2, 1)), 0)


def test_squeeze_checks_dynamic_sizes_when_they_are_known():
    x = tp.ones((1, 3))
    compiled = compile_for(lambda x: tp.squeeze(x, 0), [x], dynamic=True)
    assert compiled(x).shape == (3,)
    with raises("the number of elements changes"):
        compiled(tp.ones((2, 3)))


def test_expand_refuses():
    x = tp.ones((2, 1))
    with raises("expand: a size cannot be broadcast"):
        tp.expand(x, (3, 4))
    with raises("expand: there are fewer sizes than dimensions"):
        tp.expand(x, (2,))
    with raises("expand: a size is not valid"):
        tp.expand(x, (-1, 2, 4))
    with raises("expand: a size is not valid"):
        tp.expand(x, (2, -2))


def test_expand_checks_dynamic_sizes_when_they_are_known():
    compiled = tp.compile(
        lambda x: tp.expand(x, (4,)), args=[tp.InputInfo([(1, 1, 4)], tp.float32)], device=where()
    )
    assert compiled(tp.ones((1,))).tolist() == compiled(tp.ones((4,))).tolist() == [1.0] * 4
    with raises("expand: a size cannot be broadcast"):
        compiled(tp.ones((3,)))


def test_expand_to_the_size_of_another_tensor(rng):
    x, y = randn(rng, (1, 3)), randn(rng, (4, 3))
    check(
        lambda x, y: tp.expand(x, (y.shape[0], -1)), x, y,
        reference=lambda a, b: np.broadcast_to(a, (4, 3)),
    )  # fmt: skip


def test_concatenate_and_stack_refuse():
    x, y = tp.ones((2, 3)), tp.ones((2, 4))
    with raises("concatenate: the shapes differ"):
        tp.concatenate([x, y], 0)
    with raises("concatenate: the tensors have different ranks"):
        tp.concatenate([x, tp.ones((2,))], 0)
    with raises("have different data types"):
        tp.concatenate([x, tp.ones((2, 3), dtype=tp.float16)], 0)
    for empty in ([], (), x, None):
        with raises("concatenate: there is nothing to join"):
            tp.concatenate(empty, 0)
    with raises(r"stack: tensors\[1\] is not a tensor"):
        tp.stack([x, 3])
    with raises("concatenate: the shapes differ"):
        tp.stack([x, y])


@pytest.mark.parametrize(
    ("size", "count", "sizes"),
    [(6, 3, [2, 2, 2]), (5, 2, [3, 2]), (5, 3, [2, 2, 1]), (7, 1, [7]), (0, 2, [0, 0])],
)
def test_split_into_chunks(size, count, sizes):
    x = tp.iota((size, 2)) if size else tp.zeros((0, 2))
    parts = tp.split(x, count)
    assert [part.shape for part in parts] == [(n, 2) for n in sizes]
    assert tp.equal(tp.concatenate(parts, 0), x)


def test_split_into_chunks_of_a_dynamic_size():
    compiled = tp.compile(
        lambda x: tp.split(x, 2), args=[tp.InputInfo([(2, 4, 8)], tp.float32)], device=where()
    )
    for size in (2, 5, 8):
        assert [p.shape[0] for p in compiled(tp.iota((size,)))] == [-(-size // 2), size // 2]


def test_split_refuses():
    x = tp.ones((5,))
    for count in (0, -1, 4, 6):  # Four chunks of 2 would leave the last with -1.
        with raises("split: the dimension cannot be cut into so many chunks"):
            tp.split(x, count)
    with raises("split: the sizes do not add up"):
        tp.split(x, [2, 2])
    with raises("split: a size is negative"):
        tp.split(x, [6, -1])
    with raises("split: num_split_or_sizes is not an integer"):
        tp.split(x, 2.0)


def test_gather_refuses_indices_out_of_range():
    x = tp.ones((3,))
    for wrong in ([3], [-4], [0, 100]):
        index = tp.Tensor(wrong)
        picked = tp.gather(x, 0, index)
        with raises("gather: an index is out of range", line="picked = tp.gather(x, 0, index)"):
            picked.eval()
        if where().kind == "gpu":
            continue  # A compiled program does not wait for the GPU to see what indices are.
        compiled = compile_for(lambda x, i: tp.gather(x, 0, i), [x, index], dynamic=False)
        with raises("gather: an index is out of range", line="tp.gather(x, 0, i)"):
            compiled(x, index)


def test_gather_refuses_other_indices():
    x = tp.ones((3,))
    with raises("gather: index has an unsupported data type"):
        tp.gather(x, 0, tp.Tensor([0.0]))
    with raises("gather: index is not a tensor"):
        tp.gather(x, 0, [0])
    with raises("gather: dim is out of range"):
        tp.gather(tp.Tensor(1.0), 0, tp.Tensor([0]))


def test_gather_with_a_scalar_index_and_with_no_index(rng):
    x = randn(rng, (3, 2))
    check(lambda x, i: tp.gather(x, 0, i), x, tensor(-1, tp.int32), reference=lambda a, i: a[i])
    none = tensor(np.zeros((0,)), tp.int64)
    check(lambda x, i: tp.gather(x, 1, i), x, none, reference=[np.zeros((3, 0))])


def test_copy_has_memory_of_its_own():
    x = tp.ones((2,)).eval()
    y = tp.copy(x, where()).eval()
    y.torch()[0] = 5
    assert x.tolist() == [1.0, 1.0]
    with raises("copy: this is not a device"):
        tp.copy(x, "cpu")
