"""tp.Embedding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tripy as tp
from tests.helpers import F, I, tensor
from tests.nn.support import refused


@given(st.integers(0, 99), st.sampled_from(I), st.sampled_from([(), (3,), (2, 5)]))
def test_rows_of_the_table(seed, ids_dtype, shape):
    random = np.random.default_rng(seed)
    rows, size = random.integers(1, 9, 2)
    table = random.standard_normal((rows, size), np.float32)
    ids = random.integers(0, rows, shape)
    embedding = tp.Embedding(int(rows), int(size))
    embedding.weight = tensor(table, tp.float32)
    result = embedding(tensor(ids, ids_dtype))
    assert result.shape == (*shape, size)
    assert np.array_equal(result.numpy(), table[ids])
    info = tp.InputInfo(shape, ids_dtype)
    compiled = tp.compile(embedding, args=[info])
    assert np.array_equal(compiled(tensor(ids, ids_dtype)).numpy(), table[ids])


@pytest.mark.parametrize("dtype", F)
def test_result_has_the_type(dtype):
    embedding = tp.Embedding(3, 2, dtype=dtype)
    embedding.initialize_dummy_parameters()
    assert embedding(tp.Tensor([1])).dtype is dtype


def test_what_is_refused():
    embedding = tp.Embedding(3, 2)
    embedding.initialize_dummy_parameters()
    with refused("Embedding: the ids are not integers", "float32[2]", "from 0 to 2"):
        embedding(tp.ones((2,)))
    with refused("Embedding", "not a tensor"):
        embedding([1, 2])
    with refused("Embedding", "num_embeddings=0"):
        tp.Embedding(0, 2)
    with refused("Embedding", "dtype=int8"):
        tp.Embedding(3, 2, dtype=tp.int8)
    ids = tp.Tensor([3])
    with refused("gather"):
        embedding(ids).eval()
