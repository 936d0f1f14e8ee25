"""Rows of tables, and sums of two: the kernel, and programs with it."""

import numpy as np
import pytest
import torch

import tripy as tp
from tests.passes.support import info, operations

pytest.importorskip("triton")


@pytest.fixture
def kernel():
    from tripy.backends.torch.kernels.cuda import rows  # noqa: PLC0415

    return rows.gather_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("size", "columns", "shape"), [
    (1, 1, (1,)), (7, 33, (3, 2)), (50, 1600, (5,)), (9, 16, ()), (4, 5, (0,)), (3, 0, (2,)),
])  # fmt: skip
def test_rows(kernel, device, dtype, index_dtype, size, columns, shape):
    torch.manual_seed(0)
    table, other = (torch.randn(n, columns, device=device).to(dtype) for n in (size, 2 * size))
    index = torch.randint(-size, size, shape, device=device).to(index_dtype)
    second = torch.randint(-2 * size, 2 * size, shape, device=device).to(torch.int32)
    assert torch.equal(kernel(table, index), table[index])
    both = table[index].float() + other[second].float()
    # The interpreter cuts bfloat16 off instead of rounding.
    rounding = 2**-7 if dtype is torch.bfloat16 and device.type == "cpu" else 0
    found = kernel(table, index, other, second)
    torch.testing.assert_close(found, both.to(dtype), rtol=rounding, atol=0)
    # Not one row after the other in memory.
    wide = torch.cat([table, table], 1)[:, :columns]
    assert torch.equal(kernel(wide, index), table[index])


def test_an_index_out_of_range_is_nan(kernel, device):
    table = torch.ones(4, 3, device=device)
    found = kernel(table, torch.tensor([3, 4, -4, -5, 2**31 - 1], device=device))
    assert found.isnan().any(1).tolist() == [False, True, False, True, True]
    assert torch.equal(found[0], table[0]) and found[1].isnan().all()


@pytest.mark.parametrize("both", [False, True])
def test_program(emulated, rng, both):
    tables = [tp.Embedding(n, 24, dtype=tp.float16) for n in (11, 7)]
    for table in tables:
        shape = tuple(int(n) for n in table.weight.shape)
        values = tp.Tensor(rng.normal(size=shape).astype(np.float32), device=emulated)
        table.weight = tp.cast(values, tp.float16).eval()

    def embed(token, position):
        x = tables[0](token)
        return x + tables[1](position) if both else x

    where = info(3, dtype=tp.int32)
    fast = tp.compile(embed, args=[where, where], backend="torch")
    assert operations(fast) == ["gather_rows"]
    assert any("Triton" in row.kernel for row in fast.report().rows)
    given = [
        tp.Tensor(np.array(values, np.int32), device=emulated)
        for values in ([0, 10, -1], [6, -7, 3])
    ]
    assert fast(*given).tolist() == embed(*given).tolist()
