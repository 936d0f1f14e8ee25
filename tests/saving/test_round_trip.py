"""Files of compiled functions: everything comes back."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors
import torch

import tripy as tp
from tests.compiler.support import numbers, same
from tests.helpers import raises
from tests.saving.support import again, info, model


@pytest.mark.parametrize("kind", [tp.int8, tp.int4, tp.float8])
@pytest.mark.parametrize("dynamic", [True, False])
def test_quantized_models(tmp_path, kind, dynamic):
    rows = tp.NamedDimension("rows", 1, 3, 8) if dynamic else 3
    fast = tp.compile(model(kind), args=[info(rows, 6)])
    loaded = again(fast, tmp_path, numbers(3, 6) / 7.0)
    got, expected = loaded.report(), fast.report()
    assert [row._replace(name="") for row in got.rows] == [
        row._replace(name="") for row in expected.rows
    ]
    assert [row.name for row in got.rows[1:]] == [row.name for row in expected.rows[1:]]
    assert "as saved in function.tripy" in got.backend
    if dynamic:
        for count in (1, 8):
            same(loaded(numbers(count, 6)), fast(numbers(count, 6)))
        with raises(r"\.shape\[0\] is out of bounds"):
            loaded(numbers(9, 6))


def test_a_file_is_small(tmp_path):
    layer = tp.Linear(256, 256, quant_dtype=tp.int4, bias=False)
    layer.weight, layer.weight_scale = tp.ones((256, 256)), 0.5
    tp.compile(layer, args=[info(1, 256)]).save(tmp_path / "f")
    assert 256 * 128 < (tmp_path / "f").stat().st_size < 256 * 128 + 8000


def test_dynamic_sizes_and_their_arithmetic(tmp_path):
    def use(x, y, n):
        both = tp.concatenate([x, y], 0)
        return {
            "flat": tp.reshape(both, [both.shape[0] * 2]),
            "parts": [both[: n // 2 + 1], tp.arange(x.shape[0] * n, dtype=tp.int32)],
            "least": x[: y.shape[0]],
            "steps": both[both.shape[0] - 1 :: -2],
            "sum": tp.sum(x, 0) / x.shape[0] + n % 3,
        }

    n = tp.DimensionInputInfo((1, 4, 9))
    fast = tp.compile(use, args=[info((1, 2, 6), 2), info(tp.NamedDimension("m", 0, 3, 9), 2), n])
    loaded = again(fast, tmp_path, numbers(3, 2), numbers(4, 2), 5)
    same(loaded(numbers(1, 2), numbers(0, 2), 1), fast(numbers(1, 2), numbers(0, 2), 1))
    with raises("n is out of bounds"):
        loaded(numbers(1, 2), numbers(0, 2), 10)


def test_what_sizes_have_to_obey(tmp_path):
    def add_all(first, second):
        return first @ second

    fast = tp.compile(add_all, args=[info(2, (1, 2, 5)), info((1, 2, 5), 2)])
    loaded = again(fast, tmp_path, numbers(2, 3), numbers(3, 2))
    # The source line is in the file.
    with raises("summed dimensions differ", "return first @ second"):
        loaded(numbers(2, 3), numbers(4, 2))


def test_which_size_has_to_be_the_larger_one(tmp_path):
    fast = tp.compile(lambda x: tp.topk(x, 3, 0)[0], args=[info((1, 4, 5))])
    loaded = again(fast, tmp_path, numbers(5))
    assert len(loaded(numbers(3)).tolist()) == 3
    with raises("k is larger than the dimension", "tp.topk(x, 3, 0)"):
        loaded(numbers(2))


def test_nested_arguments_and_results(tmp_path):
    def use(data, *rest, scale, **more):
        return (data["a"][0] * scale, {"b": [rest[0] + rest[1], more["z"]], 3: data["n"][2]})

    x = info(2)
    fast = tp.compile(
        use,
        args=[{"a": (x, 7, "text", None, 1.5, float("inf"), True), "n": {2: x}}, x, x],
        kwargs={"scale": x, "z": x},
    )
    path = tmp_path / "f"
    fast.save(path)
    loaded = tp.Executable.load(path)
    a = tp.ones((2,))
    data = {"a": (a, 7, "text", None, 1.5, float("inf"), True), "n": {2: a * 3}}
    got = loaded(data, a, a, scale=a * 5, z=a)
    same(got, fast(data, a, a, scale=a * 5, z=a))
    assert type(got) is tuple
    assert list(got[1]) == ["b", 3]
    assert str(loaded.__signature__) == str(fast.__signature__) == "(data, *rest, scale, z)"
    with raises(r"data\.a\[5\]: the value was fixed[\s\S]*got: +1.0[\s\S]*expected: +inf"):
        loaded({**data, "a": (a, 7, "text", None, 1.5, 1.0, True)}, a, a, scale=a, z=a)
    with raises(r"data\.n\[2\]: the argument is not a tensor"):
        loaded({**data, "n": {2: 1.0}}, a, a, scale=a, z=a)


@pytest.mark.parametrize(
    "dtype", [tp.float32, tp.float16, tp.bfloat16, tp.int8, tp.int32, tp.int64, tp.bool], ids=str
)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (3, 0, 2)])
def test_constants_of_every_type_and_shape(tmp_path, dtype, shape):
    constant = tp.cast(numbers(*shape) - 1.0, dtype).eval()
    again(tp.compile(lambda: (constant, constant), args=[]), tmp_path)


@pytest.mark.parametrize("kind", [tp.int4, tp.float8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8])
def test_small_types_of_odd_lengths(tmp_path, kind, count):
    constant = tp.quantize(numbers(count) - 3.0, 1.0, kind).eval()
    again(tp.compile(lambda: tp.dequantize(constant, 1.0, tp.float32)), tmp_path)
    again(tp.compile(lambda: constant), tmp_path)


def test_extreme_numbers_in_constants_and_attributes(tmp_path):
    extreme = tp.Tensor([float("inf"), float("-inf"), float("nan"), -0.0, 1e-45, 3.4e38])

    def use(x):
        return (
            extreme,
            tp.full((x.shape[0],), float("inf")),
            tp.full((x.shape[0],), float("-inf")),
            tp.full((x.shape[0],), 0.1),
            tp.full((x.shape[0],), float("nan")),
            tp.where(x > 0.0, x, float("-inf")),
        )

    again(tp.compile(use, args=[info((1, 2, 3))]), tmp_path, numbers(3))


def test_views_and_tied_constants(tmp_path):
    memory = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    parts = [memory, memory[1:3], memory[:, ::2], memory.t(), memory[0].expand(5, 6)]
    tensors = [tp.Tensor(part) for part in parts]
    fast = tp.compile(lambda: tensors)
    again(fast, tmp_path)
    with safetensors.safe_open(tmp_path / "function.tripy", "pt") as file:
        count = len(file.keys())
    tensors.append(tp.Tensor(memory.clone()))
    again(tp.compile(lambda: [*tensors, tensors[0]]), tmp_path)
    with safetensors.safe_open(tmp_path / "function.tripy", "pt") as file:
        assert len(file.keys()) == count  # Equal data is in the file once.


def test_a_tied_weight_is_one(tmp_path):
    table = tp.Tensor(np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32))

    def use(ids):
        return tp.gather(table, 0, ids) @ tp.transpose(table, 0, 1)

    again(tp.compile(use, args=[info(3, dtype=tp.int32)]), tmp_path, tp.Tensor([0, 399, 7]))
    assert (tmp_path / "function.tripy").stat().st_size < 1.5 * 400 * 16 * 4


def test_caches_are_written_in_place_after_loading(tmp_path):
    cache = info(1, 1, 4, 2)
    fast = tp.compile(tp.kv_cache_update, args=[cache, info(1, 1, 1, 2), info(1, dtype=tp.int32)])
    fast.save(tmp_path / "f")
    loaded = tp.Executable.load(tmp_path / "f")
    mine = tp.Tensor(np.zeros((1, 1, 4, 2), np.float32))
    got = loaded(mine, tp.ones((1, 1, 1, 2)), tp.Tensor([2]))
    assert got.torch().data_ptr() == mine.torch().data_ptr()


def test_saved_twice_and_saved_again_after_loading(tmp_path):
    fast = tp.compile(model(tp.int4), args=[info(2, 6)])
    fast.save(tmp_path / "a")
    tp.Executable.load(tmp_path / "a").save(tmp_path / "b")
    tp.Executable.load(tmp_path / "b").save(tmp_path / "b")
    x = numbers(2, 6)
    same(tp.Executable.load(tmp_path / "b")(x), fast(x))


def test_level_0_and_no_inputs(tmp_path):
    again(tp.compile(model(), 0, args=[info(2, 6)]), tmp_path, numbers(2, 6))
    again(tp.compile(lambda: tp.arange(3)), tmp_path)


def test_a_constant_of_one_element_with_a_stride(tmp_path):
    one = tp.Tensor(torch.arange(6, dtype=torch.float32).reshape(3, 2)[1:2, ::2].t())
    again(tp.compile(lambda: (one, tp.Tensor(torch.ones(1).expand(1, 1)))), tmp_path)
    again(tp.compile(lambda x: tp.split(tp.iota((1, 2), dtype=tp.int32), 2, 1), args=[info(1)]),
          tmp_path, numbers(1))  # fmt: skip


@pytest.mark.parametrize("dtype", [tp.float32, tp.float16, tp.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [tp.int8, tp.int4, tp.float8], ids=str)
@pytest.mark.parametrize("grain", [None, 0, 1, "blocks"])
def test_layers_of_every_layout(tmp_path, dtype, kind, grain):
    rng = np.random.default_rng(2)
    dim = None if grain == "blocks" else grain
    layer = tp.Linear(64, 64, dtype=dtype, quant_dtype=kind, weight_quant_dim=dim)
    layer.weight = tp.cast(tp.Tensor(rng.normal(size=(64, 64)).astype(np.float32)), dtype)
    layer.bias = tp.cast(tp.Tensor(rng.normal(size=64).astype(np.float32)), dtype)
    shape = {None: (), "blocks": (64, 2)}.get(grain, (64,))
    scale = tp.Tensor(np.asarray(rng.uniform(0.01, 0.1, shape), np.float32))
    layer.weight_scale = tp.cast(scale, dtype)
    x = tp.cast(tp.Tensor(rng.normal(size=(3, 64)).astype(np.float32)), dtype).eval()
    infos = [tp.InputInfo(((1, 3, 9), 64), dtype)]
    again(tp.compile(layer, args=infos), tmp_path, x)
    if grain in (None, 0):
        layer.input_scale = 0.03
        again(tp.compile(lambda x: tp.relu(layer(x)), args=infos), tmp_path, x)


def test_convolutions_norms_and_attention(tmp_path):
    conv = tp.Conv(4, 8, (3, 3), padding=((1, 1), (1, 1)), quant_dtype=tp.int8)
    conv.initialize_dummy_parameters()
    conv.weight_scale, conv.input_scale = 0.02, 0.1
    norms = tp.Sequential(tp.LayerNorm(6), tp.RMSNorm(6))
    norms.initialize_dummy_parameters()

    def use(x, cache, index):
        y = norms(conv(x))
        cache = tp.kv_cache_update(cache, y, index)
        angle = tp.iota((6, 3))
        turned = tp.rotary_embedding(y, tp.cos(angle), tp.sin(angle))
        return tp.scaled_dot_product_attention(turned, cache, cache, is_causal=True), cache

    infos = [info((1, 2, 4), 4, 6, 6), info(2, 8, 12, 6), info(2, dtype=tp.int32)]
    fast = tp.compile(use, args=infos)
    fast.save(tmp_path / "f")
    x, index = numbers(2, 4, 6, 6) / 100.0, tp.Tensor([0, 3])
    caches = [tp.Tensor(np.zeros((2, 8, 12, 6), np.float32)) for _ in range(2)]
    got = tp.Executable.load(tmp_path / "f")(x, caches[0], index)
    same(got, fast(x, caches[1], index))
