"""Key/value caches: written in place where nobody can tell, copied where somebody could."""

from __future__ import annotations

import pytest
import torch

import tripy as tp
from tests.compiler.support import numbers, same
from tests.helpers import raises

SHAPE = (2, 1, 4, 3)
CACHE = tp.InputInfo(SHAPE, tp.float32)
UPDATE = tp.InputInfo((2, 1, (1, 1, 4), 3), tp.float32)
INDEX = tp.InputInfo((2,), tp.int32)


def index(*positions):
    return tp.Tensor(list(positions), dtype=tp.int32)


def cache():
    return tp.Tensor(numbers(*SHAPE).torch().clone())


def update(length=1, value=100.0):
    return tp.full((2, 1, length, 3), value).eval()


def updates(fast):
    return [row.kernel for row in fast.report().rows if row.operation == "kv_cache_update"]


def pointer(tensor):
    return tensor.torch().data_ptr()


def run(function, infos, *arguments, expected_kernels=None):
    """The compiled results beside the eager ones; the eager call must not change its inputs."""
    before = [argument.tolist() for argument in arguments]
    expected = function(*arguments)
    for tensor in [expected] if isinstance(expected, tp.Tensor) else expected:
        tensor.eval()
    assert [argument.tolist() for argument in arguments] == before
    fast = tp.compile(function, args=infos)
    if expected_kernels is not None:
        assert updates(fast) == expected_kernels
    got = fast(*arguments)
    same(got, expected)
    return got


def test_the_result_is_the_cache():
    mine = cache()
    got = run(tp.kv_cache_update, [CACHE, UPDATE, INDEX], mine, update(2), index(0, 2),
              expected_kernels=["written in place"])  # fmt: skip
    assert pointer(got) == pointer(mine)
    assert mine.tolist() == got.tolist()


def test_a_chain_of_updates_is_written_in_place():
    def twice(c, u, i):
        return tp.kv_cache_update(tp.kv_cache_update(c, u, i), u * 2, i + 1)

    mine = cache()
    got = run(twice, [CACHE, UPDATE, INDEX], mine, update(), index(0, 2),
              expected_kernels=["written in place"] * 2)  # fmt: skip
    assert pointer(got) == pointer(mine)


def test_two_caches():
    def both(k, v, u, i):
        return tp.kv_cache_update(k, u, i), tp.kv_cache_update(v, u + 1, i)

    keys, values = cache(), cache()
    got = run(both, [CACHE, CACHE, UPDATE, INDEX], keys, values, update(), index(1, 3),
              expected_kernels=["written in place"] * 2)  # fmt: skip
    assert [pointer(t) for t in got] == [pointer(keys), pointer(values)]


COPIED = {
    "read later": lambda c, u, i: (tp.kv_cache_update(c, u, i), c + 1),
    "returned too": lambda c, u, i: (tp.kv_cache_update(c, u, i), c),
    "a view is returned": lambda c, u, i: (tp.kv_cache_update(c, u, i), c[:, :, 1:]),
    "a reshape is returned": lambda c, u, i: (tp.kv_cache_update(c, u, i), tp.reshape(c, (8, 3))),
    "a view of a view is read": lambda c, u, i: (
        tp.kv_cache_update(c, u, i), tp.permute(c, (2, 3, 0, 1))[1:] * 2,
    ),
    "two updates of one cache": lambda c, u, i: (
        tp.kv_cache_update(c, u, i), tp.kv_cache_update(c, u * 2, i),
    ),
    "a middle result is returned": lambda c, u, i: (
        tp.kv_cache_update(tp.kv_cache_update(c, u, i), u * 2, i + 1),
        tp.kv_cache_update(c, u * 3, i),
    ),
    "it writes what it holds": lambda c, u, i: tp.kv_cache_update(c, c[:, :, :3], i),
    "it writes itself": lambda c, u, i: tp.kv_cache_update(c, c, i * 0),
    "it writes a part that overlaps": lambda c, u, i: tp.kv_cache_update(
        c, tp.permute(tp.permute(c, (0, 1, 3, 2))[:, :, :, 1:3], (0, 1, 3, 2)), i * 0 + 2
    ),
    "a sum of it": lambda c, u, i: tp.kv_cache_update(c + 1, u, i),
    "a view of it": lambda c, u, i: tp.kv_cache_update(c[:, :, :3], u, i * 0),
    "a constant": lambda c, u, i: tp.kv_cache_update(tp.ones(SHAPE), u, i) + c,
}  # fmt: skip


@pytest.mark.parametrize("name", COPIED)
def test_copied_where_it_would_be_seen(name):
    for positions in ((0, 1), (1, 0)):
        mine = cache()
        run(COPIED[name], [CACHE, UPDATE, INDEX], mine, update(), index(*positions))
        if name not in ("two updates of one cache", "a middle result is returned"):
            assert mine.tolist() == numbers(*SHAPE).tolist()


def test_a_cache_read_before_it_is_written_is_still_written_in_place():
    def use(c, u, i):
        old = tp.sum(c, 2)
        return tp.kv_cache_update(c, u + tp.unsqueeze(old, 2), i)

    mine = cache()
    got = run(use, [CACHE, UPDATE, INDEX], mine, update(), index(0, 0),
              expected_kernels=["written in place"])  # fmt: skip
    assert pointer(got) == pointer(mine)


def test_attention_reads_the_new_cache():
    def attend(k, q, u, i):
        k = tp.kv_cache_update(k, u, i)
        return tp.scaled_dot_product_attention(q, k, k), k

    mine = cache()
    got = run(attend, [CACHE, UPDATE, UPDATE, INDEX], mine, update(value=0.1), update(),
              index(2, 0), expected_kernels=["written in place"])  # fmt: skip
    assert pointer(got[1]) == pointer(mine)


def test_one_tensor_as_two_arguments():
    def both(a, b, u, i):
        return tp.kv_cache_update(a, u, i), tp.kv_cache_update(b, u + 1, i + 1)

    fast = tp.compile(both, args=[CACHE, CACHE, UPDATE, INDEX])
    mine = cache()
    expected = [t.tolist() for t in both(mine, mine, update(), index(0, 1))]
    assert [t.tolist() for t in fast(mine, mine, update(), index(0, 1))] == expected
    assert mine.tolist() == numbers(*SHAPE).tolist()


def test_a_cache_that_another_argument_is_a_view_of():
    def use(c, u, i):
        c = tp.kv_cache_update(c, u, i)
        return c, u + 0

    fast = tp.compile(use, args=[CACHE, UPDATE, INDEX])
    mine = cache()
    part = tp.Tensor(mine.torch()[:, :, 1:3])
    expected = [t.tolist() for t in use(mine, part, index(0, 0))]
    got = fast(mine, part, index(0, 0))
    assert [t.tolist() for t in got] == expected


def test_caches_in_one_memory_that_do_not_overlap_are_written_in_place():
    fast = tp.compile(
        lambda a, b, u, i: (tp.kv_cache_update(a, u, i), tp.kv_cache_update(b, u, i)),
        args=[CACHE, CACHE, UPDATE, INDEX],
    )
    memory = torch.zeros(2, *SHAPE)
    first, second = tp.Tensor(memory[0]), tp.Tensor(memory[1])
    got = fast(first, second, update(), index(0, 0))
    assert [pointer(t) for t in got] == [pointer(first), pointer(second)]
    assert memory[:, :, :, 0].eq(100).all()
    assert memory[:, :, :, 1:].eq(0).all()


def test_a_cache_whose_rows_share_memory():
    expanded = tp.Tensor(torch.zeros(1, 1, 4, 3).expand(SHAPE))
    got = tp.compile(tp.kv_cache_update, args=[CACHE, UPDATE, INDEX])(
        expanded, update(), index(0, 2)
    )
    same(got, tp.kv_cache_update(expanded, update(), index(0, 2)))
    assert expanded.torch().eq(0).all()


def test_a_strided_cache_is_written_in_place():
    memory = torch.zeros(2, 4, 1, 3)
    mine = tp.Tensor(memory.transpose(1, 2))
    got = tp.compile(tp.kv_cache_update, args=[CACHE, UPDATE, INDEX])(mine, update(), index(0, 2))
    assert pointer(got) == memory.data_ptr()
    assert memory[0, 0].eq(100).all()
    assert memory[1, 2].eq(100).all()
    assert memory.sum() == 600


@pytest.mark.parametrize("positions", [(4, 0), (0, 4), (-1, 0), (3, 3)])
def test_writing_past_the_end_changes_nothing(positions):
    length = 2 if positions == (3, 3) else 1

    def use(c, u, i):
        return tp.kv_cache_update(c, u, i)

    fast = tp.compile(use, args=[CACHE, UPDATE, INDEX])
    mine = cache()
    with raises(r"kv_cache_update: the update does not fit the cache"):
        fast(mine, update(length), index(*positions))
    assert mine.tolist() == numbers(*SHAPE).tolist()
    fast(mine, update(), index(0, 3))
    assert mine.tolist()[0][0][0] == [100.0] * 3


def test_a_result_passed_in_again_and_again():
    fast = tp.compile(tp.kv_cache_update, args=[CACHE, UPDATE, INDEX])
    mine = cache()
    state = mine
    for step in range(4):
        state = fast(state, update(value=float(step)), index(step, step))
    assert pointer(state) == pointer(mine)
    assert state.tolist()[1][0] == [[0.0] * 3, [1.0] * 3, [2.0] * 3, [3.0] * 3]


def test_an_initial_cache_made_by_a_program_is_not_spoiled():
    make = tp.compile(lambda: tp.zeros(SHAPE))
    fast = tp.compile(tp.kv_cache_update, args=[CACHE, UPDATE, INDEX])
    fast(make(), update(), index(0, 0))
    assert make().torch().eq(0).all()


def test_a_cache_that_is_a_constant_of_the_program_too():
    baked = cache()
    other = tp.Tensor(numbers(5).torch())

    def use(c, u, i):
        return tp.kv_cache_update(c, u, i), tp.sum(baked * other[1]), tp.sum(baked[:, :, 1:2], 0)

    fast = tp.compile(use, args=[CACHE, UPDATE, INDEX])
    expected = [t.tolist() for t in use(baked, update(), index(0, 1))]
    for _ in range(2):
        assert [t.tolist() for t in fast(baked, update(), index(0, 1))] == expected
    mine = cache()
    assert pointer(fast(mine, update(), index(0, 1))[0]) == pointer(mine)
