"""Programs with the GPU's passes and kernels: they mean what the operations one by one mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tests.demo  # noqa: F401  (makes the example's files known)
import tripy as tp
from tests.passes.support import info, operations

from model import GPT, QUANT_MODES, GPTConfig, compile_steps  # isort: skip

pytest.importorskip("triton")
# The interpreter's numpy warns where a GPU gives infinity or NaN.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
HALF = tp.float16


def float8_rounds(device):
    """Skips a test where float8 is not rounded."""
    if device.type == "cpu":
        pytest.skip("Triton's interpreter does not round to float8")


def tensor(values, dtype):
    """Where new tensors live; numpy's arrays would stay on the CPU."""
    values = tp.Tensor(np.asarray(values, np.float32), device=tp.config.default_device)
    return tp.cast(values, dtype).eval()


def random(rng, *shape, dtype=tp.float32):
    return tensor(rng.normal(size=shape), dtype)


def near(found, expected, tolerance):
    """Within a tolerance of the largest magnitude, and on average ten times nearer."""
    assert found.dtype is expected.dtype and found.shape == expected.shape
    got, wanted = (tp.cast(t, tp.float32).numpy().astype(np.float64) for t in (found, expected))
    assert np.isfinite(wanted).all()
    error, most = np.abs(got - wanted), np.abs(wanted).max()
    assert error.max() <= tolerance * most and error.mean() <= tolerance * most / 10


def compiled(function, *infos):
    return tp.compile(function, args=list(infos), backend="torch")


def kernels(fast):
    return [row.kernel for row in fast.report().rows]


def new_linear(rng, inputs, outputs, kind=tp.int8, static=True, dtype=HALF):
    """A quantized layer with random values."""
    dim = None if kind is tp.int4 else 0
    layer = tp.Linear(inputs, outputs, dtype=dtype, quant_dtype=kind, weight_quant_dim=dim)
    layer.weight = random(rng, outputs, inputs, dtype=dtype)
    layer.bias = random(rng, outputs, dtype=dtype)
    shape = (outputs, inputs // 32) if kind is tp.int4 else (outputs,)
    high = {tp.int8: 127, tp.int4: 7, tp.float8: 448}[kind]
    scale = np.full(shape, 3.0 / high, np.float32) * rng.uniform(0.8, 1.2, shape)
    layer.weight_scale = tensor(scale, dtype)
    if static:
        layer.input_scale = tensor(4.0 / high, dtype)
    return layer


def new_norm(rng, kind, width, dtype=HALF):
    norm = {"layer": tp.LayerNorm, "rms": tp.RMSNorm}[kind](width, dtype=dtype)
    norm.weight = random(rng, width, dtype=dtype)
    if kind == "layer":
        norm.bias = random(rng, width, dtype=dtype)
    return norm


KINDS = {
    "int8": (tp.int8, True), "int8 weight": (tp.int8, False), "int4 weight": (tp.int4, False),
    "float8": (tp.float8, True),
}  # fmt: skip
# A rounding of the input on the other side of a half is a step of its type.
TOLERANCE = {"int8": 0.02, "int8 weight": 0.01, "int4 weight": 0.01, "float8": 0.1}


@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_between_norm_and_residual(emulated, device, rng, kind, rows):
    """One node, with few rows and with many, which other kernels run."""
    if kind == "float8":
        float8_rounds(device)
    layer, norm = new_linear(rng, 64, 32, *KINDS[kind]), new_norm(rng, "layer", 64)

    def block(x, y):
        return y + layer(norm(x))

    fast = compiled(block, info(rows, 64, dtype=HALF), info(rows, 32, dtype=HALF))
    assert operations(fast) == ["normalized_linear"]
    assert kernels(fast)[0].startswith(("norm + Triton", "norm + native"))
    x, y = random(rng, rows, 64, dtype=HALF), random(rng, rows, 32, dtype=HALF)
    near(fast(x, y), block(x, y), TOLERANCE[kind])


@pytest.mark.parametrize("dtype", [tp.float32, tp.bfloat16])
@pytest.mark.parametrize("kind", ["int8", "int8 weight"])
def test_other_types_and_the_other_norm(emulated, rng, kind, dtype):
    layer = new_linear(rng, 64, 32, *KINDS[kind], dtype=dtype)
    norm = new_norm(rng, "rms", 64, dtype)
    fast = compiled(lambda x: layer(norm(x)), info(2, 3, 64, dtype=dtype))
    assert operations(fast) == ["normalized_linear"]
    x = random(rng, 2, 3, 64, dtype=dtype)
    near(fast(x), layer(norm(x)), TOLERANCE[kind] * (4 if dtype is tp.bfloat16 else 1))


def test_two_layers_with_an_activation_stay_in_int8(emulated, rng):
    up, down = new_linear(rng, 64, 96), new_linear(rng, 96, 64)
    norm = new_norm(rng, "layer", 64)

    def mlp(x):
        return x + down(tp.gelu(up(norm(x)), approximate="tanh"))

    fast = compiled(mlp, info(2, 64, dtype=HALF))
    assert operations(fast) == ["normalized_linear", "quantized_linear"]
    assert "gelu_tanh → int8" in kernels(fast)[0]
    x = random(rng, 2, 64, dtype=HALF)
    near(fast(x), mlp(x), 0.03)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("dtype", [tp.int8, tp.float8])
def test_a_rounded_norm(emulated, device, rng, kind, dtype):
    if dtype is tp.float8:
        float8_rounds(device)
    norm = new_norm(rng, kind, 48)
    fast = compiled(lambda x: tp.quantize(norm(x), 0.05, dtype), info(5, 48, dtype=HALF))
    assert operations(fast) == ["normalize_quantize"]
    assert kernels(fast)[0] == f"Triton, norm → {dtype}"
    x = random(rng, 5, 48, dtype=HALF)
    got, expected = (tp.cast(tp.dequantize(t, 1.0, tp.float32), tp.float32).numpy()
                     for t in (fast(x), tp.quantize(norm(x), 0.05, dtype)))  # fmt: skip
    step = 1.0 if dtype is tp.int8 else 0.13 * np.abs(expected).max()
    assert np.abs(got - expected).max() <= step and (got != expected).mean() < 0.02


@pytest.mark.parametrize("dtype", [tp.int8, tp.float8])
@pytest.mark.parametrize("computed", [False, True], ids=["a constant", "computed"])
@pytest.mark.parametrize("shape", [(5,), (3, 40), (2, 3, 0), (2, 2, 130)])
def test_quantize_by_itself(emulated, device, rng, dtype, computed, shape):
    """Bit for bit, for constant scales and such as are known at run time only."""
    if dtype is tp.float8:
        float8_rounds(device)

    def function(x, scale):
        return tp.quantize(x, scale if computed else 0.05, dtype)

    fast = compiled(function, info(*shape, dtype=HALF), info(dtype=HALF))
    (row,) = [row for row in fast.report().rows if row.operation == "quantize"]
    assert (row.kernel, row.reason) == (f"Triton, → {dtype}", "")
    x = tp.cast(random(rng, *shape) * 3.0, HALF).eval()
    scale = tensor(0.03, HALF)
    got, expected = fast(x, scale).torch(), function(x, scale).torch()
    assert got.dtype is expected.dtype and got.shape == expected.shape
    assert torch.equal(got.view(torch.uint8), expected.view(torch.uint8))


def test_quantize_for_each_channel_is_not_one_kernel(emulated, rng):
    scales = [0.1, 0.2, 0.3]
    fast = compiled(lambda x: tp.quantize(x, scales, tp.int8, dim=1), info(4, 3))
    assert "torch, by itself" in kernels(fast)
    x = random(rng, 4, 3)
    assert fast(x).tolist() == tp.quantize(x, scales, tp.int8, dim=1).tolist()


# ------------------------------------------------------------------------------------------------
# One token's attention.


def attend(heads, groups):
    def step(cache, qkv, position, lengths):
        query, pair = tp.split(qkv, [heads, 2 * groups], dim=1)
        cache = tp.kv_cache_update(cache, pair, position)
        key, value = tp.split(cache, 2, dim=1)
        y = tp.scaled_dot_product_attention(query, key, value, key_value_lengths=lengths)
        return y, cache

    return step


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 1), (6, 2)])
@pytest.mark.parametrize("dtype", [HALF, tp.float32])
def test_append_and_attend(emulated, rng, heads, groups, dtype):
    batch, capacity, width = 3, 40, 16
    step = attend(heads, groups)
    row = info(batch, dtype=tp.int32)
    cache = random(rng, batch, 2 * groups, capacity, width, dtype=dtype)
    fast = compiled(
        step, info(*cache.shape, dtype=dtype),
        info(batch, heads + 2 * groups, 1, width, dtype=dtype), row, row,
    )  # fmt: skip
    assert operations(fast).count("append_and_attend") == 1
    (kernel,) = [r for r in fast.report().rows if r.operation == "append_and_attend"]
    assert kernel.kernel.startswith("Triton") and not kernel.reason
    for position in ([0, 5, 39], [1, 17, 38]):
        qkv = random(rng, batch, heads + 2 * groups, 1, width, dtype=dtype)
        where = tp.Tensor(position, dtype=tp.int32)
        lengths = tp.Tensor([p + 1 for p in position], dtype=tp.int32)
        expected, old = step(cache, qkv, where, lengths)
        expected.eval(), old.eval()
        address = cache.torch().data_ptr()
        y, cache = fast(cache, qkv, where, lengths)
        near(y, expected, 2e-3)
        assert cache.torch().data_ptr() == address
        assert tp.equal(cache, old)


def test_rows_that_look_at_nothing(emulated, rng):
    """Their result is zero, by definition; and it does not spoil the others."""
    step, row = attend(2, 2), info(2, dtype=tp.int32)
    fast = compiled(step, info(2, 4, 20, 16, dtype=HALF), info(2, 6, 1, 16, dtype=HALF), row, row)
    cache, qkv = random(rng, 2, 4, 20, 16, dtype=HALF), random(rng, 2, 6, 1, 16, dtype=HALF)
    where, lengths = tp.Tensor([0, 3], dtype=tp.int32), tp.Tensor([0, 4], dtype=tp.int32)
    expected = step(cache, qkv, where, lengths)[0].eval()
    near(fast(cache, qkv, where, lengths)[0], expected, 2e-3)


def test_attention_that_is_read_but_not_written(emulated, rng):
    """Queries of one token over keys that are just arguments: a kernel of its own."""

    def function(query, key, value, lengths):
        return tp.scaled_dot_product_attention(query, key, value, key_value_lengths=lengths)

    infos = [info(2, 4, 1, 16, dtype=HALF), *[info(2, 2, 20, 16, dtype=HALF)] * 2]
    fast = compiled(function, *infos, info(2, dtype=tp.int32))
    assert "Triton, one token: attention" in kernels(fast)
    given = [random(rng, 2, n, t, 16, dtype=HALF) for n, t in ((4, 1), (2, 20), (2, 20))]
    lengths = tp.Tensor([20, 3], dtype=tp.int32)
    near(fast(*given, lengths), function(*given, lengths), 2e-3)


def test_a_cache_that_is_no_argument_is_copied(emulated, rng):
    step, row = attend(2, 2), info(1, dtype=tp.int32)

    def fresh(cache, qkv, position, lengths):
        return step(cache * 1.0, qkv, position, lengths)

    fast = compiled(fresh, info(1, 4, 20, 16, dtype=HALF), info(1, 6, 1, 16, dtype=HALF), row, row)
    cache, qkv = random(rng, 1, 4, 20, 16, dtype=HALF), random(rng, 1, 6, 1, 16, dtype=HALF)
    where, lengths = tp.Tensor([2], dtype=tp.int32), tp.Tensor([3], dtype=tp.int32)
    before = cache.tolist()
    expected, written = fresh(cache, qkv, where, lengths)
    y, updated = fast(cache, qkv, where, lengths)
    near(y, expected, 2e-3)
    assert tp.equal(updated, written) and cache.tolist() == before


# ------------------------------------------------------------------------------------------------
# The example's model, whole.


@pytest.mark.parametrize("mode", ["none", "int8", "int8-weight-only", "float8"])
def test_a_small_gpt(emulated, device, rng, mode):
    """A prompt and two steps, beside the same model one operation at a time."""
    if mode == "float8":
        float8_rounds(device)
    config = GPTConfig(
        vocab_size=48, block_size=16, n_layer=2, n_head=2, n_embd=32, quant_mode=mode, dtype=HALF
    )
    model = GPT(config)
    state = {}
    for name, value in model.state_dict().items():
        shape = tuple(value.shape)
        number = rng.normal(size=shape) / 4
        if name.endswith("_scale"):
            high = 448 if QUANT_MODES[mode][0] is tp.float8 and "lm_head" not in name else 127
            number = np.full(shape, (1.0 if "weight" in name else 4.0) / high)
        state[name] = tensor(number, HALF)
    model.load_state_dict(state, strict=False)
    prefill, decode = compile_steps(model, batch=2)
    if mode != "none":
        assert "normalized_linear" in operations(decode)
    assert operations(decode).count("append_and_attend") == 2
    tokens = tp.Tensor([[1, 2, 3, 4], [5, 6, 0, 0]], dtype=tp.int32)
    lengths = tp.Tensor([4, 2], dtype=tp.int32)
    expected, old = model.prefill(tokens, lengths, model.new_caches(2))
    logits, caches = prefill(tokens, lengths, model.new_caches(2))
    tolerance = {"none": 0.01, "int8-weight-only": 0.02, "int8": 0.1, "float8": 0.15}[mode]
    near(logits, expected, tolerance)
    for step in range(2):
        following = tp.Tensor([7 + step, 9], dtype=tp.int32)
        position = tp.Tensor([4 + step, 2 + step], dtype=tp.int32)
        expected, old = model.decode(following, position, old)
        logits, caches = decode(following, position, caches)
        near(logits, expected, tolerance)
