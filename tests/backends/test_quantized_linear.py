"""The CPU kernels of quantized linear layers, through modules and the compiler.

Bounds follow from the arithmetic: integer sums are exact, so a static layer differs from the exact
result by float32 roundings only, and a requantized one by at most one step, where a tie falls.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import tripy as tp
from tripy.backends.torch.kernels import cpu_bfloat16, cpu_int8, expanded, quantized_linear

CPU = tp.device("cpu")
EPSILON = float(np.finfo(np.float32).eps)
# Of this processor's int8 products; where they are not, other kernels run.
EXACT = cpu_int8.int8_products_are_exact()


def layer(rng, columns, rows, kind=tp.int8, dim=0, static=True, block=None, dtype=tp.float32):
    """A quantized Linear with random weights, and scales that differ from row to row."""
    module = tp.Linear(columns, rows, dtype=dtype, quant_dtype=kind, weight_quant_dim=dim)
    weight = rng.standard_normal((rows, columns)) * rng.uniform(0.1, 3.0, (rows, 1))
    high = {tp.int8: 127, tp.int4: 7, tp.float8: 448}[kind]
    if block:
        scale = np.abs(weight).reshape(rows, columns // block, block).max(-1) / high
    else:
        axis = {0: 1, 1: 0, None: None}[dim]
        scale = np.abs(weight).max(axis) / high
    for name, value in (
        ("weight", weight),
        ("bias", rng.standard_normal(rows)),
        ("weight_scale", np.maximum(scale, 1e-6)),
    ):
        setattr(module, name, tp.Tensor(np.asarray(value, np.float32), dtype=dtype))
    if static:
        module.input_scale = tp.Tensor(np.float32(4 / (448 if kind is tp.float8 else 127)), dtype)
    return module


def compiled(module, columns, dtype=tp.float32, rows=(0, 4, 64)):
    return tp.compile(module, args=[tp.InputInfo((rows, columns), dtype)])


def kernels(executable):
    rows = executable.report().rows
    return [row.kernel for row in rows if row.operation == "quantized_linear"]


def values(module):
    """The weight that a module means, in float64: integers times scales, not rounded."""
    dim, scale = module.weight_quant_dim, module.weight_scale
    quantized = tp.quantize(module.weight, scale, module.quant_dtype, dim).numpy()
    scale = scale.numpy().astype(np.float64)
    if scale.ndim == 2:
        scale = np.repeat(scale, quantized.shape[1] // scale.shape[1], 1)
    return quantized.astype(np.float64) * (scale[:, None] if dim == 0 else scale)


def exact(module, x):
    """The layer in float64 from its integers."""
    if module.input_scale is not None:
        scale = module.input_scale.numpy()
        x = np.clip(np.rint(x / scale), -128, 127).astype(np.float64) * np.float64(scale)
    return x.astype(np.float64) @ values(module).T + module.bias.numpy()


@pytest.mark.parametrize("columns, rows", [(1, 1), (5, 3), (64, 64), (767, 33), (768, 96)])
@pytest.mark.parametrize("dim", [None, 0])
def test_static_int8_is_exact_up_to_the_last_scaling(columns, rows, dim):
    rng = np.random.default_rng(columns)
    module = layer(rng, columns, rows, dim=dim)
    fast = compiled(module, columns)
    assert kernels(fast) == [
        "oneDNN int8 GEMM (int8 x int8, int32 sums)" if EXACT else "float32 GEMM of the integers"
    ]
    for count in (0, 1, 3, 64):
        x = (rng.standard_normal((count, columns)) * 3).astype(np.float32)
        result, wanted = fast(tp.Tensor(x)).numpy(), exact(module, x)
        assert result.shape == (count, rows)
        # Two scalings and the bias: four roundings of numbers no larger than these.
        size = np.abs(wanted) + np.abs(module.bias.numpy())
        assert (np.abs(result - wanted) <= 4 * EPSILON * size + 1e-6 * np.abs(wanted)).all()


def test_int8_sums_of_extreme_values_do_not_saturate():
    columns = 3072
    module = tp.Linear(columns, 4, quant_dtype=tp.int8, weight_quant_dim=None)
    signs = np.array([[1], [-1], [1], [-1]], np.float32)
    module.weight = tp.Tensor(np.broadcast_to(signs * 127, (4, columns)).copy())
    module.bias, module.weight_scale, module.input_scale = tp.zeros((4,)), 1.0, 1.0
    fast = compiled(module, columns)
    for value in (127.0, -128.0, 1e9):
        x = tp.full((2, columns), value)
        wanted = min(value, 127.0) * 127.0 * columns * signs[:, 0]
        assert (fast(x).numpy() == wanted).all()


@pytest.mark.parametrize("activation", ["none", "tanh", "relu", "silu"])
def test_a_chain_stays_int8(activation):
    rng = np.random.default_rng(1)
    first, second = layer(rng, 48, 96), layer(rng, 96, 24)

    def act(x):
        if activation in ("none", "tanh"):
            return tp.gelu(x, approximate=activation)
        return tp.relu(x) if activation == "relu" else tp.silu(x)

    def chain(x):
        return second(act(first(x)))

    fast = tp.compile(chain, args=[tp.InputInfo(((1, 4, 64), 48), tp.float32)])
    operations = [node.op for node in fast.graph.nodes()]
    assert operations == ["quantize", "quantized_linear", "quantized_linear"]
    between = fast.graph.nodes()[1].output
    assert between.dtype is tp.int8
    x = tp.Tensor(rng.standard_normal((40, 48)).astype(np.float32))
    # A tie may fall the other way in each of 96 values: one step of scale, times a weight.
    weight = np.abs(second.weight.numpy()).sum(1)
    step = float(second.input_scale.numpy())
    difference = np.abs(fast(x).numpy() - chain(x).numpy())
    assert (difference <= step * weight * 0.05 + 1e-3).all()
    assert np.median(difference) < 1e-4


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("count", [1, 3, 17])
def test_digits_have_the_precision_of_float32(dim, count):
    rng = np.random.default_rng(count)
    module = layer(rng, 256, 40, dim=dim, static=False)
    fast = compiled(module, 256)
    assert ("three int8 digits" if EXACT else "int8 weight expanded") in kernels(fast)[0]
    x = rng.standard_normal((count, 256)).astype(np.float32)
    x[0, 3] = 50.0  # An outlier costs the rest of its row bits, but no more than this:
    quantized = values(module)
    # Each input is off by half a unit of its row's fixed-point grid, each sum by float32.
    spread = quantized / module.weight_scale.numpy() if dim == 1 else quantized
    inputs = x * module.weight_scale.numpy() if dim == 1 else x
    unit = np.abs(inputs).max(1, keepdims=True) / 8.3e6
    bound = unit * np.abs(spread).sum(1) + 16 * EPSILON * (np.abs(inputs) @ np.abs(spread).T)
    bound += 2 * EPSILON * np.abs(module.bias.numpy())
    assert (np.abs(fast(tp.Tensor(x)).numpy() - exact(module, x)) <= bound).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_with_nan_or_infinity_is_never_a_wrong_number(value):
    rng = np.random.default_rng(2)
    module = layer(rng, 32, 8, static=False)
    x = rng.standard_normal((3, 32)).astype(np.float32)
    clean = compiled(module, 32)(tp.Tensor(x)).numpy()
    x[1, 5] = value
    result = compiled(module, 32)(tp.Tensor(x)).numpy()
    # Digits make all of it NaN; floating-point products have infinities, too.
    assert np.isnan(result[1]).all() if EXACT else not np.isfinite(result[1]).any()
    assert np.array_equal(result[[0, 2]], clean[[0, 2]])


def test_digits_of_zeros_and_of_tiny_numbers():
    module = layer(np.random.default_rng(3), 32, 8, static=False)
    module.bias = tp.zeros((8,))
    fast = compiled(module, 32)
    assert (fast(tp.zeros((2, 32))).numpy() == 0).all()
    x = np.full((1, 32), 1e-20, np.float32)
    assert np.allclose(fast(tp.Tensor(x)).numpy(), exact(module, x), rtol=1e-5)


@pytest.mark.parametrize("columns", [32, 33, 96])
@pytest.mark.parametrize("dim, block", [(None, None), (0, None), (1, None), (None, "row")])
@pytest.mark.parametrize("kind", [tp.int4, tp.float8])
def test_expanded_weights(columns, dim, block, kind):
    rng = np.random.default_rng(columns)
    block = columns // 3 if block and columns % 3 == 0 else (columns if block else None)
    module = layer(rng, columns, 10, kind=kind, dim=dim, static=False, block=block)
    fast = compiled(module, columns)
    x = tp.Tensor(rng.standard_normal((7, columns)).astype(np.float32))
    wanted = module(x).numpy()
    assert np.abs(fast(x).numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()
    if kind is tp.int4:
        assert fast.report().weight_bytes == 10 * ((columns + 1) // 2)


def test_blocks_of_rows():
    rng = np.random.default_rng(4)
    module = tp.Linear(12, 8, quant_dtype=tp.int4, weight_quant_dim=None)
    module.weight = tp.Tensor(rng.standard_normal((8, 12)).astype(np.float32))
    module.bias = tp.zeros((8,))
    module.weight_scale = tp.Tensor(rng.uniform(0.1, 1.0, (2, 12)).astype(np.float32))
    x = tp.Tensor(rng.standard_normal((3, 12)).astype(np.float32))
    assert np.allclose(compiled(module, 12)(x).numpy(), module(x).numpy(), atol=1e-5)


@pytest.mark.parametrize("kind, dim, static", [
    (tp.int8, 0, True), (tp.int8, 0, False), (tp.int4, 0, True), (tp.int4, 0, False),
    (tp.float8, None, True), (tp.float8, None, False),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [tp.float32, tp.float16, tp.bfloat16])
def test_every_type_agrees_with_eager(kind, dim, static, dtype):
    rng = np.random.default_rng(5)
    module = layer(rng, 128, 64, kind=kind, dim=dim, static=static, dtype=dtype)
    fast = compiled(module, 128, dtype)
    tolerance = {tp.float32: 2e-6, tp.float16: 3e-3, tp.bfloat16: 2e-2}[dtype]
    for count in (1, 5, 40):
        x = tp.Tensor(rng.standard_normal((count, 128)).astype(np.float32), dtype=dtype)
        result, wanted = fast(x), module(x)
        assert result.dtype is dtype
        wanted = wanted.numpy().astype(np.float64)
        difference = np.abs(result.numpy().astype(np.float64) - wanted).max()
        assert difference <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("kind", [tp.int4, tp.float8])
@pytest.mark.parametrize("dim", [None, 0])
def test_float16_sums_stay_in_range(kind, dim):
    module = tp.Linear(1024, 2, False, tp.float16, kind, dim)
    module.weight = tp.ones((2, 1024), dtype=tp.float16)
    high = 7.0 if kind is tp.int4 else 448.0
    module.weight_scale = 1 / high if dim is None else [1 / high] * 2
    x = tp.full((1, 1024), 20.0, dtype=tp.float16)
    result, wanted = compiled(module, 1024, tp.float16)(x).numpy(), module(x).numpy()
    assert np.isfinite(wanted).all()
    assert np.allclose(result, wanted, rtol=2e-3)


def test_the_int4_kernel_of_torch_is_used_for_bfloat16_blocks():
    module = layer(np.random.default_rng(6), 128, 64, tp.int4, None, False, 32, tp.bfloat16)
    plain = module.weight
    names = kernels(compiled(module, 128, tp.bfloat16))
    q = tp.quantize(plain, module.weight_scale, tp.int4).torch()
    if cpu_bfloat16.tiles_fit(q):
        assert names == ["int4 weight, bfloat16 GEMM (torch's int4 kernel for few rows)"]
    else:
        assert names == ["int4 weight expanded, float GEMM"]


@pytest.mark.parametrize("layout", [
    cpu_int8.Int8Weight, expanded.PlainWeight, expanded.Int4Weight, cpu_bfloat16.Int4Tiles,
])  # fmt: skip
def test_packed_weights_give_back_what_went_in(layout):
    low, high = (-8, 8) if "Int4" in layout.__name__ else (-128, 128)
    for rows, columns in ((64, 96), (128, 32)) + (
        () if layout is cpu_bfloat16.Int4Tiles else ((3, 5), (1, 1))
    ):
        weight = torch.randint(low, high, (rows, columns), dtype=torch.int8)
        if layout is cpu_bfloat16.Int4Tiles and not cpu_bfloat16.tiles_fit(weight):
            pytest.skip("this processor's int4 layout is another one: never used then")
        assert torch.equal(layout(weight).unpack(), weight)
        assert torch.equal(layout(weight.t().contiguous().t()).unpack(), weight)


@pytest.mark.parametrize("static", [True, False])
def test_processors_without_exact_int8_products(monkeypatch, static):
    monkeypatch.setattr(quantized_linear, "int8_products_are_exact", lambda: False)
    rng = np.random.default_rng(7)
    module = layer(rng, 2500, 6, static=static)
    fast = compiled(module, 2500)
    (row,) = [r for r in fast.report().rows if r.operation == "quantized_linear"]
    assert "VNNI" in row.reason and "oneDNN" not in row.kernel
    x = (rng.standard_normal((5, 2500)) * 3).astype(np.float32)
    wanted = exact(module, x)
    assert np.abs(fast(tp.Tensor(x)).numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_programs_share_packed_weights():
    module = layer(np.random.default_rng(8), 64, 32)
    one, two = compiled(module, 64), compiled(module, 64, rows=(1, 1, 1))

    def packed(executable):
        node = next(n for n in executable.graph.nodes() if n.op == "quantized_linear")
        return node.inputs[1].data

    assert packed(one) is packed(two)
    module.weight.torch()[0, 0] += 5.0  # Memory changed in place: packed anew.
    assert packed(compiled(module, 64)) is not packed(one)


@pytest.mark.parametrize("kind, dim, block, dtype", [
    (tp.int8, 0, None, tp.float32), (tp.int4, None, 32, tp.float32),
    (tp.int4, None, 32, tp.bfloat16), (tp.float8, None, None, tp.float32),
])  # fmt: skip
def test_saved_programs_hold_the_small_weights(tmp_path, kind, dim, block, dtype):
    module = layer(np.random.default_rng(9), 128, 64, kind, dim, False, block, dtype)
    fast = compiled(module, 128, dtype)
    fast.save(tmp_path / "layer.tripy")
    again = tp.Executable.load(tmp_path / "layer.tripy", CPU)
    x = tp.Tensor(np.random.default_rng(0).standard_normal((3, 128)).astype("f4"), dtype=dtype)
    assert tp.equal(fast(x), again(x))
    assert kernels(again) == kernels(fast)
    weights = 128 * 64 * kind.itemsize
    assert (tmp_path / "layer.tripy").stat().st_size < weights + 16_000


def test_inputs_of_any_rank_and_layout():
    rng = np.random.default_rng(10)
    for static in (True, False):
        module = layer(rng, 16, 8, static=static)
        x = torch.from_numpy(rng.standard_normal((4, 16, 6)).astype(np.float32)).permute(0, 2, 1)
        fast = tp.compile(module, args=[tp.InputInfo((4, 6, 16), tp.float32)])
        wanted = module(tp.Tensor(x)).numpy()
        assert np.allclose(fast(tp.Tensor(x)).numpy(), wanted, atol=1e-4)
        row = tp.compile(module, args=[tp.InputInfo((16,), tp.float32)])
        assert np.allclose(row(tp.Tensor(x[0, 0])).numpy(), wanted[0, 0], atol=1e-4)


def test_threads_share_a_program():
    module = layer(np.random.default_rng(11), 64, 32, static=False)
    fast = compiled(module, 64)
    inputs = [tp.Tensor(torch.randn(1 + i % 5, 64)) for i in range(40)]
    wanted = [fast(x).numpy() for x in inputs]
    wrong = []

    def work(offset):
        for i in range(offset, 40, 2):
            for _ in range(5):
                if not np.array_equal(fast(inputs[i]).numpy(), wanted[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_weight_computed_at_run_time_in_a_layer_that_rounds_its_result():
    def run(x, w):
        x, w = (tp.dequantize(tp.quantize(t, 0.5, tp.int8), 0.5, tp.float32) for t in (x, w))
        return tp.quantize(tp.relu(x @ tp.transpose(w, 0, 1)), 0.25, tp.int8)

    info = tp.InputInfo((4, 4), tp.float32)
    fast = tp.compile(run, args=[info, info])
    (row,) = [r for r in fast.report().rows if r.operation == "quantized_linear"]
    assert "run time" in row.reason
    assert row.kernel.endswith("relu → int8")
    x, w = tp.Tensor(torch.randn(4, 4)), tp.Tensor(torch.randn(4, 4))
    assert fast(x, w).tolist() == run(x, w).tolist()


def test_a_weight_computed_at_run_time_is_reported():
    def run(x, w):
        q = tp.quantize(w, 0.5, tp.int8)
        return x @ tp.transpose(tp.dequantize(q, 0.5, tp.float32), 0, 1)

    info = tp.InputInfo((4, 4), tp.float32)
    fast = tp.compile(run, args=[info, info])
    (row,) = [r for r in fast.report().rows if r.operation == "quantized_linear"]
    assert "run time" in row.reason
    x = tp.Tensor(torch.randn(4, 4))
    assert np.allclose(fast(x, x).numpy(), run(x, x).numpy(), atol=1e-5)
