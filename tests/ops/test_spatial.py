"""Resizing and pooling: overloads, coordinates, windows over the edge, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.helpers import F, check, compile_for, raises, randn, tensor

X = [1.0, 3.0]


def image(values, dtype=tp.float32):
    """One row of an image."""
    return tensor(np.reshape(values, (1, 1, 1, -1)), dtype)


def row(result):
    return result.flatten().tolist()


def test_the_ways_to_say_it():
    x = image(X)
    wanted = row(tp.resize(x, (1, 1, 1, 4)))
    assert wanted == [1.0, 1.5, 2.5, 3.0]
    assert row(tp.resize(x, output_shape=[1, 1, 1, 4], mode="linear")) == wanted
    assert row(tp.resize(x, scales=(1, 1, 1, 2))) == wanted
    assert row(tp.resize(x, scales=[1.0, 1.0, 1.0, np.float32(2.0)])) == wanted
    assert row(tp.resize(x, (1.0, 1.0, 1.0, 2.0), "linear")) == wanted
    assert row(tp.resize(x, (1, 1, 1, tp.DimensionSize(4)))) == wanted


def test_corners():
    x = image(X)
    assert row(tp.resize(x, (1, 1, 1, 3), align_corners=True)) == [1.0, 2.0, 3.0]
    assert row(tp.resize(x, (1, 1, 1, 1), align_corners=True)) == [1.0]
    assert row(tp.resize(x, (1, 1, 1, 1))) == [2.0]
    assert row(tp.resize(x, scales=(1, 1, 1, 1.5), align_corners=True)) == [1.0, 2.0, 3.0]


def test_the_nearest_element():
    x = image([0, 1, 2, 3, 4])
    assert row(tp.resize(x, (1, 1, 1, 3), "nearest")) == [0, 1, 3]
    assert row(tp.resize(x, (1, 1, 1, 10), "nearest")) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert row(tp.resize(x, scales=(1, 1, 1, 0.6), mode="nearest")) == [0, 1, 3]


def test_sizes_by_scales_are_what_people_mean():
    """10 * 0.7 is 7 though the nearest float to 0.7 is smaller, and a third of 9 is 3."""
    assert tp.resize(image(range(10)), scales=(1, 1, 1, 0.7)).shape == (1, 1, 1, 7)
    assert tp.resize(image(range(9)), scales=(1, 1, 1, 1 / 3)).shape == (1, 1, 1, 3)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_the_same_size_changes_nothing(rng, mode):
    for dtype in (tp.float32, tp.float16, tp.int8):
        x = randn(rng, (2, 3, 4), dtype)
        check(lambda x: tp.resize(x, x.shape, mode), x, reference=lambda a: a, rtol=0)
        check(lambda x: tp.resize(x, scales=(1, 1, 1), mode=mode), x, reference=lambda a: a, rtol=0)


def test_all_dimensions_can_be_resized(rng):
    x = randn(rng, (2, 3))
    turned = tp.resize(tp.transpose(x, 0, 1), (5, 4))
    np.testing.assert_allclose(tp.resize(x, (4, 5)).numpy(), turned.numpy().T, rtol=1e-5)


def test_cubic_overshoot_of_int8_saturates():
    x = image([127, 127, -128, -128], tp.int8)
    got = row(tp.resize(x, (1, 1, 1, 8), "cubic"))
    assert max(got) == 127
    assert min(got) == -128


def test_resize_to_the_size_of_another_tensor(rng):
    x, y = randn(rng, (1, 1, 3)), randn(rng, (1, 1, 6))

    def function(x, y):
        return tp.resize(x, y.shape) + y

    whole = function(x, y).numpy()
    for dynamic in (False, True):
        compiled = compile_for(function, [x, y], dynamic)
        np.testing.assert_allclose(compiled(x, y).numpy(), whole, rtol=1e-6)
    other = randn(rng, (1, 1, 4))
    np.testing.assert_allclose(
        compiled(x, other).numpy(), function(x, other).numpy(), rtol=1e-6
    )  # The same program for another size.


def test_scales_of_a_dynamic_size(rng):
    compiled = compile_for(
        lambda x: tp.resize(x, scales=(1, 1, 1.5)), [tp.ones((1, 1, 4))], dynamic=True
    )
    for size in (2, 3, 7):
        x = randn(rng, (1, 1, size))
        got = compiled(x)
        assert got.shape == (1, 1, size * 3 // 2)
        np.testing.assert_allclose(got.numpy(), tp.resize(x, scales=(1, 1, 1.5)).numpy())


def test_resize_refuses():
    x = image(X)
    with raises("resize: mode is not one of its values"):
        tp.resize(x, (1, 1, 1, 4), "bilinear")
    with raises("the nearest element has no corners to align"):
        tp.resize(x, (1, 1, 1, 4), "nearest", align_corners=True)
    with raises("it takes either output_shape or scales"):
        tp.resize(x)
    with raises("it takes either output_shape or scales"):
        tp.resize(x, (1, 1, 1, 4), scales=(1, 1, 1, 2))
    with raises("there is not one size or scale for each dimension"):
        tp.resize(x, (4,))
    with raises("cannot be resized from nothing or to nothing"):
        tp.resize(x, (1, 1, 1, 0))
    with raises("cannot be resized from nothing or to nothing"):
        tp.resize(tp.ones((1, 0)), (1, 2))
    with raises("cannot be resized from nothing or to nothing"):
        tp.resize(x, scales=(1, 1, 1, 0.4))
    with raises("output_shape is not a sequence"):
        tp.resize(x, 4)
    with raises("a size is negative"):
        tp.resize(x, (1, 1, 1, -4))
    with raises("a scale is not a number"):
        tp.resize(x, (1, 1, 1, "a"))
    with raises("scales is not a sequence"):
        tp.resize(x, scales=2.0)
    for wrong in [(1, 1, 2.0), (1, 1, 1, 0.0), (1, 1, 1, -2.0), (1, 1, 1, float("inf"))]:
        with raises("resize: the scales do not fit"):
            tp.resize(x, scales=wrong)


@pytest.mark.parametrize("dtype", [*F, tp.int8], ids=str)
def test_windows_over_the_edge(dtype):
    """Nothing beyond the edge is the largest, and zeros there count only where asked to."""
    x = tensor(np.full((1, 1, 2, 2), -4), dtype)
    pads = [(1, 1), (1, 1)]
    check(lambda x: tp.maxpool(x, (2, 2), padding=pads), x, reference=[np.full((1, 1, 3, 3), -4.0)])
    check(
        lambda x: tp.avgpool(x, (2, 2), padding=pads), x,
        reference=[np.array([[[[-1, -2, -1], [-2, -4, -2], [-1, -2, -1]]]])],
    )  # fmt: skip
    check(
        lambda x: tp.avgpool(x, (2, 2), padding=pads, count_include_pad=False), x,
        reference=[np.full((1, 1, 3, 3), -4.0)],
    )  # fmt: skip


def test_means_of_int8_are_cut_off():
    x = tensor(np.array([[[[1, 2], [2, 2]], [[-1, -2], [-2, -2]]]]), tp.int8)
    check(lambda x: tp.avgpool(x, (2, 2)), x, reference=[np.array([[[[1]], [[-1]]]])])


def test_the_largest_with_nan():
    x = image([1.0, float("nan"), 3.0])
    check(lambda x: tp.maxpool(x, (1, 2)), x, reference=[np.full((1, 1, 1, 2), np.nan)])


def test_pools_refuse():
    x = tp.ones((1, 2, 4, 4))
    for pool, name in ((tp.maxpool, "maxpool"), (tp.avgpool, "avgpool")):
        for kernel, stride, padding in [
            ((2,), None, None), ((2, 2, 2, 2), None, None), ((2, 0), None, None),
            ((2, 2), (1,), None), ((2, 2), (1, 0), None), ((2, 2), None, [(0, 0)]),
            ((2, 2), None, [(0, 0), (0, 0, 0)]),
        ]:  # fmt: skip
            with raises(f"{name}: the window does not fit together"):
                pool(x, kernel, stride, padding)
        for padding in ([(2, 0), (0, 0)], [(0, 0), (-1, 0)]):
            with raises(f"{name}: a padding does not fit the window"):
                pool(x, (2, 2), None, padding)
        with raises(f"{name}: the kernel's rank does not fit"):
            pool(x, (2, 2, 2))
        with raises(f"{name}: the kernel's rank does not fit"):
            pool(x[0], (2, 2))
        with raises(f"{name}: the kernel is larger than the padded input"):
            pool(x, (5, 1))
        with raises(f"{name}: there is nothing to pool"):
            pool(tp.ones((1, 1, 0, 3)), (1, 1))
        with raises(f"{name}: kernel_dims is not a sequence"):
            pool(x, 2)
        with raises(f"{name}: stride is not an integer"):
            pool(x, (2, 2), (1.0, 1))
        with raises(f"{name}: padding is not a sequence"):
            pool(x, (2, 2), None, 1)
        with raises(f"{name}: a pair of padding is not a sequence"):
            pool(x, (2, 2), None, (1, 1))
    with raises("count_include_pad is not one of its values"):
        tp.avgpool(x, (2, 2), count_include_pad=None)
