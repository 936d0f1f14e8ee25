"""A decode step in one kernel: planned for any sizes; on a GPU equal to the layers one by one."""

import itertools
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tripy as tp

pytest.importorskip("triton")

from tripy.backends.torch import program
from tripy.backends.torch.kernels.cuda import (
    available,
    decode_limits,
    decode_step,
    native_decode,
)

HEADS, WIDTH, CAPACITY, LAYERS = 3, 64, 200, 3
SIZE = HEADS * WIDTH


@given(each=st.integers(1, 500), size=st.integers(1, 1200))
def test_stages_fit_the_ring(each, size):
    row_bytes = 16 * size
    stride = decode_limits.stride(row_bytes)
    assert stride >= row_bytes and stride % 16 == 0 and stride % 128 == 64
    rows = decode_limits.stage_rows(each, row_bytes)
    assert rows >= 1 and rows * stride <= native_decode.RING_BYTES
    assert rows <= native_decode.TILE_ROWS * native_decode.MOST_TILES


@given(size=st.integers(1, 20000), norm=st.booleans())
def test_rows_in_registers(size, norm):
    quads = decode_limits.quads(1, size, norm)
    assert quads == 0 or size % 4 == 0
    assert not norm or quads == 0 or size <= 4 * quads * native_decode.WORKERS


class Block(tp.Module):
    """Attention over a cache and an MLP, as in the nanoGPT example."""

    def __init__(self):
        options = {"quant_dtype": tp.int8, "weight_quant_dim": 0}
        self.norm_1, self.norm_2 = (tp.LayerNorm(SIZE, tp.float16) for _ in range(2))
        self.qkv = tp.Linear(SIZE, 3 * SIZE, dtype=tp.float16, **options)
        self.out = tp.Linear(SIZE, SIZE, dtype=tp.float16, **options)
        self.up = tp.Linear(SIZE, 4 * SIZE, dtype=tp.float16, **options)
        self.down = tp.Linear(4 * SIZE, SIZE, dtype=tp.float16, **options)

    def forward(self, x, cache, position):
        heads = tp.reshape(self.qkv(self.norm_1(x)), (x.shape[0], 3 * HEADS, 1, WIDTH))
        query, pair = tp.split(heads, [HEADS, 2 * HEADS], dim=1)
        cache = tp.kv_cache_update(cache, pair, position)
        key, value = tp.split(cache, 2, dim=1)
        y = tp.scaled_dot_product_attention(query, key, value, key_value_lengths=position + 1)
        x = x + self.out(tp.reshape(y, x.shape))
        return x + self.down(tp.gelu(self.up(self.norm_2(x)), approximate="tanh")), cache


class Model(tp.Module):
    """Blocks with random int8 weights and static scales."""

    def __init__(self, static=True):
        self.blocks = [Block() for _ in range(LAYERS)]
        random = np.random.default_rng(0)
        state = {}
        for name, parameter in self.state_dict().items():
            shape = tuple(int(n) for n in parameter.shape)
            if name.endswith("weight_scale"):
                values = random.uniform(0.002, 0.006, shape)
            elif "norm" in name:
                values = random.uniform(0.5, 1.5, shape)
            else:
                values = random.normal(0, 0.1, shape)
            state[name] = tp.cast(tp.Tensor(values.astype(np.float32).tolist()), tp.float16)
        self.load_state_dict(state)
        for block in self.blocks:
            for layer in (block.qkv, block.out, block.up, block.down) if static else ():
                layer.input_scale = 0.04

    def forward(self, x, position, caches):
        written = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block(x, cache, position)
            written.append(cache)
        return x, written


def compiled(model, rows, native):
    cache = tp.InputInfo((rows, 2 * HEADS, CAPACITY, WIDTH), tp.float16)
    args = [tp.InputInfo((rows, SIZE), tp.float16), tp.InputInfo((rows,), tp.int32)]
    hidden = mock.patch.object(program, "native_decode_missing", lambda where: "hidden")
    with mock.patch.object(decode_step, "_ROWS", native_decode.ROWS):
        if native:
            return tp.compile(model, args=[*args, [cache] * LAYERS])
        with hidden:
            return tp.compile(model, args=[*args, [cache] * LAYERS])


@pytest.fixture
def kernel(gpu):
    reason = native_decode.available(tp.device("gpu"))
    if reason:
        pytest.skip(reason)
    torch.manual_seed(0)


@pytest.fixture
def planning(monkeypatch, device):
    """Programs are planned as for a GPU with the native library; on a CPU they cannot run."""
    if device.type == "cpu":
        monkeypatch.setattr(available, "EMULATED", True)
        monkeypatch.setattr(program, "native_decode_missing", lambda where: None)
        monkeypatch.setattr(native_decode, "blocks", lambda where: 132)


def runs(executable):
    functions = [step.function for step in executable._program._steps]
    return [function for function in functions if isinstance(function, decode_step.Run)]


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_all_layers_are_one_run(planning, rows):
    (run,) = runs(compiled(Model(), rows, True))
    kinds = [step["kind"] for step in run.steps]
    layer = [native_decode.LINEAR, native_decode.ATTENTION, *[native_decode.LINEAR] * 3]
    assert kinds == layer * LAYERS and run.rows == rows
    # The input, the position, a cache and lengths for each layer; the result is a tensor too.
    assert len(run.reads) == 2 + 2 * LAYERS and len(run.writes) == 1 + LAYERS
    places = []
    for step in run.steps:
        if step["kind"] == native_decode.LINEAR:
            assert step["rows_each"] * run.blocks >= step["n"]
            places.append((step["out"], rows * step["n"]))
        elif step["chunks"] == 1:
            places.append((step["out"], rows * SIZE))
        else:
            size = step["chunks"] * (WIDTH + 2)
            places.append((step["partial"], rows * HEADS * size))
            assert step["chunk"] * step["chunks"] >= CAPACITY
    # No two steps write to the same values of the exchange, and pairs begin at even ones.
    places.sort()
    assert all(at % 2 == 0 for at, _ in places)
    assert all(at + size <= other for (at, size), (other, _) in itertools.pairwise(places))
    last = run.steps[-1]
    assert last["out_tensor"] == len(run.reads) and last["residual"] >= 0


def test_what_has_not_won_is_no_run(planning):
    cache = tp.InputInfo((2, 2 * HEADS, CAPACITY, WIDTH), tp.float16)
    args = [tp.InputInfo((2, SIZE), tp.float16), tp.InputInfo((2,), tp.int32), [cache] * LAYERS]
    assert not runs(tp.compile(Model(), args=args))  # Two rows.
    assert not runs(compiled(Model(), 3, True))
    assert not runs(compiled(Model(static=False), 1, True))  # Only the weights are int8.


def inputs(rows, positions):
    caches = [torch.randn(rows, 2 * HEADS, CAPACITY, WIDTH, device="cuda").half() / 2
              for _ in range(LAYERS)]  # fmt: skip
    x = torch.randn(rows, SIZE, device="cuda").half()
    return tp.Tensor(x), tp.Tensor(torch.tensor(positions, dtype=torch.int32).cuda()), caches


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_equals_the_layers_one_by_one(kernel, rows):
    model = Model()
    fast, plain = compiled(model, rows, True), compiled(model, rows, False)
    assert [row.operation for row in fast.report().rows].count("decode_step") == 1
    assert "decode_step" not in [row.operation for row in plain.report().rows]
    for start in (0, 5, 63, 64, 127, CAPACITY - rows):
        x, position, caches = inputs(rows, [start + i for i in range(rows)])
        results = []
        for executable in (fast, plain):
            for _ in range(3):  # The third one is a replay.
                own = [tp.Tensor(cache.clone()) for cache in caches]
                y, written = executable(x, position, own)
            results.append((y.torch().float(), [cache.torch().float() for cache in written]))
        (got, got_caches), (expected, caches) = results
        # A value at a rounding's edge may fall the other way, by one step of an int8 input.
        assert (got - expected).abs().mean() < 0.01 * expected.abs().mean()
        for mine, other in zip(got_caches, caches, strict=True):
            assert (mine - other).abs().max() < 0.05 * other.abs().max()


@pytest.mark.gpu
def test_a_row_does_not_depend_on_the_others(kernel):
    model = Model()
    one, many = compiled(model, 1, True), compiled(model, 4, True)
    x, position, caches = inputs(4, [0, 70, 130, 199])
    y, _ = many(x, position, [tp.Tensor(cache.clone()) for cache in caches])
    for i in range(4):
        own = [tp.Tensor(cache[i : i + 1].clone()) for cache in caches]
        alone, _ = one(x[i : i + 1].eval(), position[i : i + 1].eval(), own)
        assert torch.equal(alone.torch()[0], y.torch()[i])
