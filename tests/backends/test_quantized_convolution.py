"""The CPU kernels of quantized convolutions, through modules and the compiler.

Integer sums are exact. With scales that are powers of two, and sums below 2**24, nothing at all is
rounded: such results have to equal the reference in float64, bit for bit.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import tripy as tp
from tests.backends.convolutions import (
    ONE_DNN,
    TRANSPOSED,
    compiled,
    exact,
    kernels,
    layer,
    needs_onednn,
    random_layer,
    rows,
)
from tripy.backends.torch.kernels import cpu_int8_convolution

CPU = tp.device("cpu")
EPSILON = float(np.finfo(np.float32).eps)


@needs_onednn
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("transposed", [False, True])
def test_any_shape_is_exact(transposed, seed):
    rng = np.random.default_rng(seed)
    module, x = random_layer(rng, transposed)
    ranges = ((1, 2, 4), *x.shape[1:]) if seed % 2 else x.shape
    fast = tp.compile(module, args=[tp.InputInfo(ranges, tp.float32)])
    (row,) = rows(fast)
    # Some releases of oneDNN get some shapes wrong: they are found out, and not used.
    assert row.kernel == (TRANSPOSED if transposed else ONE_DNN) or "as tried" in row.reason
    wanted, _ = exact(module, x)
    result = fast(tp.Tensor(x)).numpy()
    assert result.shape == wanted.shape
    assert (result == wanted).all()


@needs_onednn
def test_few_shapes_are_given_up():
    used = 0
    for seed in range(25):
        module, x = random_layer(np.random.default_rng(seed), seed % 2 == 0)
        used += kernels(compiled(module, x))[0] in (ONE_DNN, TRANSPOSED)
    assert used >= 20


@needs_onednn
@pytest.mark.parametrize("transposed", [False, True])
def test_a_kernel_that_is_wrong_is_found_out(monkeypatch, transposed):
    right = cpu_int8_convolution.StaticInt8Convolution.__call__

    def wrong(self, x, sizes):
        result = right(self, x, sizes).clone()
        result.view(-1)[0] += 1
        return result

    monkeypatch.setattr(cpu_int8_convolution.StaticInt8Convolution, "__call__", wrong)
    module, x = random_layer(np.random.default_rng(0), transposed)
    fast = compiled(module, x)
    (row,) = rows(fast)
    assert "oneDNN" not in row.kernel and "as tried" in row.reason
    assert (fast(tp.Tensor(x)).numpy() == exact(module, x)[0]).all()


@needs_onednn
@pytest.mark.parametrize("groups, inputs, outputs", [
    (1, 1, 1), (1, 1, 8), (1, 3, 5), (7, 1, 1), (7, 1, 3), (64, 1, 1), (2, 15, 30), (1, 33, 31),
])  # fmt: skip
@pytest.mark.parametrize("count", [1, 2, 3])
def test_groups_and_odd_channels(groups, inputs, outputs, count):
    rng = np.random.default_rng(groups)
    module = layer(
        rng, groups * inputs, groups * outputs, (3,) * count, padding=[(1, 1)] * count,
        groups=groups, powers=True,
    )  # fmt: skip
    x = (rng.integers(-128, 128, (2, groups * inputs, *[7] * count)) * 0.5).astype(np.float32)
    assert (compiled(module, x)(tp.Tensor(x)).numpy() == exact(module, x)[0]).all()


@needs_onednn
@pytest.mark.parametrize("value", [127.0, -128.0, 1e9])
@pytest.mark.parametrize("channels", [2, 64, 512])
def test_sums_of_extreme_values_do_not_saturate_and_padding_is_zero(channels, value):
    module = tp.Conv(channels, 4, (3, 3), padding=((2, 1), (0, 3)), bias=False, quant_dtype=tp.int8)
    signs = np.array([1, -1, 1, -1], np.float32).reshape(4, 1, 1, 1)
    weight = signs * 127 * np.ones((4, channels, 3, 3), np.float32)
    module.weight, module.weight_scale, module.input_scale = tp.Tensor(weight), 1.0, 1.0
    x = np.full((1, channels, 6, 6), value, np.float32)
    wanted, _ = exact(module, x)
    assert (compiled(module, x)(tp.Tensor(x)).numpy() == wanted).all()


@needs_onednn
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dim", ["tensor", "channel"])
def test_random_scales_within_float32s_rounding(transposed, dim):
    rng = np.random.default_rng(3)
    channel = 1 if transposed else 0
    module = layer(
        rng, 24, 12, (3, 3), (2, 2), groups=2, transposed=transposed,
        weight_quant_dim=channel if dim == "channel" else None,
    )  # fmt: skip
    x = rng.standard_normal((2, 24, 9, 9)).astype(np.float32)
    wanted, size = exact(module, x)
    # The product of scales, the scaled sum, the bias: four roundings of numbers no larger.
    result = compiled(module, x)(tp.Tensor(x)).numpy()
    assert (np.abs(result - wanted) <= 4 * EPSILON * size).all()


ACTIVATIONS = {
    "relu": tp.relu, "silu": tp.silu, "gelu": tp.gelu,
    "gelu_tanh": lambda x: tp.gelu(x, approximate="tanh"),
}  # fmt: skip


@needs_onednn
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_chain_stays_int8(name, count):
    rng = np.random.default_rng(count)
    options = {"padding": [(1, 1)] * count}
    first = layer(rng, 6, 10, (3,) * count, **options)
    second = layer(rng, 10, 5, (3,) * count, (2,) * count, transposed=True, **options)

    def chain(x):
        return second(ACTIVATIONS[name](first(x)))

    x = rng.standard_normal((2, 6, *[6] * count)).astype(np.float32)
    fast = compiled(chain, x)
    nodes = fast.graph.nodes()
    assert [node.op for node in nodes] == ["quantize", *["quantized_convolution"] * 2]
    assert nodes[1].output.dtype is tp.int8
    assert kernels(fast) == [f"{ONE_DNN} {name} → int8", TRANSPOSED]
    # A tie may fall the other way: at most one step of each value between, times its weights.
    step, weight = float(second.input_scale.numpy()), np.abs(second.weight.numpy())
    bound = step * weight.sum((0, *range(2, count + 2))).max()
    difference = np.abs(fast(tp.Tensor(x)).numpy() - chain(tp.Tensor(x)).numpy())
    assert difference.max() <= bound
    assert np.median(difference) < 1e-4


@needs_onednn
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("transposed", [False, True])
def test_a_scale_of_the_input_beforehand_leaves_the_int8_kernel(transposed, seed):
    rng = np.random.default_rng(100 + seed)
    module, x = random_layer(rng, transposed)
    scale = 2.0 ** rng.integers(-2, 3, module.in_channels)
    module.pre_quant_scale = tp.Tensor(scale.astype(np.float32))
    fast = compiled(module, x)
    assert [n.op for n in fast.graph.nodes()] == ["mul", "quantize", "quantized_convolution"]
    (row,) = rows(fast)
    assert row.kernel == (TRANSPOSED if transposed else ONE_DNN) or "as tried" in row.reason
    # Powers of two: nothing is rounded but by quantize itself.
    wanted, _ = exact(module, x * scale.reshape(-1, *[1] * (x.ndim - 2)))
    assert (fast(tp.Tensor(x)).numpy() == wanted).all()
    assert (module(tp.Tensor(x)).numpy() == wanted).all()


@needs_onednn
@pytest.mark.parametrize("shape", [(10, 1, 1), (1, 10, 1, 1)])
def test_an_addend_for_each_channel_becomes_the_bias(shape):
    rng = np.random.default_rng(0)
    module = layer(rng, 4, 10, (3, 3), bias=False, powers=True)
    addend = rng.integers(-9, 9, shape).astype(np.float32)
    x = (rng.integers(-128, 128, (1, 4, 6, 6)) * 0.5).astype(np.float32)
    fast = compiled(lambda x: tp.relu(module(x) + tp.Tensor(addend)), x)
    assert kernels(fast) == [f"{ONE_DNN} relu"]
    assert [node.op for node in fast.graph.nodes()] == ["quantize", "quantized_convolution"]
    wanted = np.maximum(exact(module, x)[0] + addend, 0)
    assert (fast(tp.Tensor(x)).numpy() == wanted).all()


@needs_onednn
@pytest.mark.parametrize("seed", range(40))
def test_packed_weights_give_back_what_went_in(seed):
    rng = np.random.default_rng(1000 + seed)
    module, x = random_layer(rng, transposed=seed % 2 == 0)
    fast = compiled(module, x)
    node = next(n for n in fast.graph.nodes() if n.op == "quantized_convolution")
    packed = node.inputs[1].data
    if "as tried" not in rows(fast)[0].reason:
        assert isinstance(packed, cpu_int8_convolution.Int8Kernel)
    assert np.array_equal(packed.unpack().numpy(), module.weight.numpy())


@needs_onednn
def test_inputs_of_any_layout_and_an_empty_batch():
    rng = np.random.default_rng(7)
    for transposed in (False, True):
        module = layer(rng, 6, 4, (3, 3), (2, 2), powers=True, transposed=transposed)
        x = torch.from_numpy((rng.integers(-128, 128, (2, 6, 7, 9)) * 0.5).astype(np.float32))
        info = tp.InputInfo(((0, 2, 8), 6, (5, 7, 20), (5, 7, 20)), tp.float32)
        fast = tp.compile(module, args=[info])
        wanted, _ = exact(module, x.numpy())
        last = x.contiguous(memory_format=torch.channels_last)
        turned = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        for given in (x, last, turned):
            assert (fast(tp.Tensor(given)).numpy() == wanted).all()
        same = x[:1].expand(3, -1, -1, -1)
        assert (fast(tp.Tensor(same)).numpy() == wanted[:1]).all()
        assert fast(tp.Tensor(x[:0])).shape == (0, *wanted.shape[1:])


@needs_onednn
def test_programs_share_packed_weights():
    module = layer(np.random.default_rng(8), 8, 8, (3, 3))
    info = [tp.InputInfo((1, 8, 9, 9), tp.float32)]

    def packed(executable):
        node = next(n for n in executable.graph.nodes() if n.op == "quantized_convolution")
        return node.inputs[1].data

    one, two = tp.compile(module, args=info), tp.compile(module, args=info)
    assert packed(one) is packed(two)
    other = layer(np.random.default_rng(8), 8, 8, (3, 3), (2, 2))
    assert packed(tp.compile(other, args=info)) is not packed(one)


@needs_onednn
def test_threads_share_a_program():
    rng = np.random.default_rng(9)
    module = layer(rng, 4, 8, (3, 3), padding=((1, 1), (1, 1)))
    fast = tp.compile(module, args=[tp.InputInfo(((1, 2, 5), 4, 9, 9), tp.float32)])
    inputs = [tp.Tensor(torch.randn(1 + i % 5, 4, 9, 9)) for i in range(20)]
    wanted = [fast(x).numpy() for x in inputs]
    wrong = []

    def work(offset):
        for i in range(offset, 20, 2):
            for _ in range(5):
                if not np.array_equal(fast(inputs[i]).numpy(), wanted[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_onednn
def test_the_report_says_how_a_transposed_one_runs():
    rng = np.random.default_rng(10)
    x = np.zeros((1, 2, 5, 5), np.float32)
    for stride, dilation, text in (
        ((1, 1), (2, 2), "kernel turned around"),
        ((2, 3), (1, 1), "6 results a position"),
        ((2, 2), (2, 1), "zeros are put between the inputs"),
    ):
        module = layer(rng, 2, 2, (3, 3), stride, dilation=dilation, transposed=True)
        (row,) = rows(compiled(module, x))
        assert text in row.reason and row.weight_bytes > 0


@needs_onednn
@pytest.mark.parametrize("sizes", [((0, 0, 4), (1, 1, 9)), ((1, 2, 4), (1, 1, 9)), (2, (3, 5, 9))])
def test_sizes_to_be_fast_for_that_nothing_fits_into(sizes):
    rng = np.random.default_rng(11)
    module = layer(rng, 4, 3, (3, 3), powers=True)
    batch, side = sizes
    fast = tp.compile(module, args=[tp.InputInfo((batch, 4, side, side), tp.float32)])
    x = (rng.integers(-128, 128, (2, 4, 6, 6)) * 0.5).astype(np.float32)
    assert (fast(tp.Tensor(x)).numpy() == exact(module, x)[0]).all()
