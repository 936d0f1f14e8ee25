"""Keys and values written into a cache: the kernel, and programs with it."""

import numpy as np
import pytest
import torch

import tripy as tp
from tests.passes.support import info

pytest.importorskip("triton")


@pytest.fixture
def write():
    from tripy.backends.torch.kernels.cuda import cache  # noqa: PLC0415

    return cache.write_rows


def expected(cache, update, positions):
    result = cache.clone()
    for batch, position in enumerate(positions):
        for step in range(update.shape[2]):
            if 0 <= position + step < cache.shape[2]:
                result[batch, :, position + step] = update[batch, :, step]
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
@pytest.mark.parametrize(("heads", "capacity", "length", "width"), [
    (1, 1, 1, 1), (3, 40, 5, 33), (2, 300, 200, 64), (2, 9, 9, 128), (1, 8, 0, 4),
])  # fmt: skip
def test_write(write, device, dtype, heads, capacity, length, width):
    torch.manual_seed(0)
    last = capacity - length
    # In range, at the end, and partly or wholly out of range.
    positions = [0, last, last + 1, -1, capacity, -length, 2**30]
    cache = torch.randn(len(positions), heads, capacity, width, device=device).to(dtype)
    update = torch.randn(len(positions), length, heads, width, device=device).to(dtype)
    update = update.transpose(1, 2)  # As a layer's output comes.
    where = torch.tensor(positions, dtype=torch.int32, device=device)
    wanted = expected(cache, update, positions)
    assert write(cache, update, where) is cache
    assert torch.equal(cache, wanted)
    # A part of a larger cache, and elements that are not next to each other.
    wide = torch.zeros(len(positions), heads + 1, capacity, width, device=device).to(dtype)
    other = torch.stack([update, update], -1)[..., 0]
    write(wide[:, 1:], other, where)
    assert torch.equal(wide[:, 1:], expected(torch.zeros_like(cache), update, positions))
    assert not wide[:, 0].any()


def test_program(emulated, rng):
    def step(cache, update, position):
        return tp.kv_cache_update(cache, update, position)

    shapes = (2, 2, 12, 8), (2, 2, 5, 8)
    infos = [info(*shape, dtype=tp.float16) for shape in shapes]
    fast = tp.compile(step, args=[*infos, info(2, dtype=tp.int32)], backend="torch")
    assert [row.kernel for row in fast.report().rows if row.operation == "kv_cache_update"] == [
        "written in place"
    ]
    cache, update = (
        tp.cast(tp.Tensor(rng.normal(size=s).astype(np.float32), device=emulated), tp.float16)
        for s in shapes
    )
    where = tp.Tensor(np.array([0, 7], np.int32), device=emulated)
    wanted = step(cache, update, where).tolist()
    for _ in range(3):
        assert fast(cache.eval(), update.eval(), where).tolist() == wanted


def test_a_cache_with_strides_of_its_own(emulated, device):
    """Elements of a position that are not next to each other are written in place too."""

    def step(cache, update, position):
        return tp.kv_cache_update(cache, update, position)

    infos = [info(*shape) for shape in ((1, 2, 6, 4), (1, 2, 3, 4))]
    fast = tp.compile(step, args=[*infos, info(1, dtype=tp.int32)], backend="torch")
    cache = torch.zeros(1, 2, 4, 6, device=device).transpose(2, 3)
    update = torch.arange(24.0, device=device).reshape(1, 2, 3, 4)
    where = torch.tensor([2], dtype=torch.int32, device=device)
    result = fast(tp.Tensor(cache), tp.Tensor(update), tp.Tensor(where))
    assert torch.equal(result.torch(), expected(torch.zeros_like(cache), update, [2]))
    assert torch.equal(cache, result.torch())
