"""Fusion of quantized linear layers: where it fires, and where it must not."""

from __future__ import annotations

import pytest

import tripy as tp
from tests.compiler.support import same
from tests.passes.support import info, linear, node, operations, quantized, random
from tripy.backends.torch.kernels.cpu_int8 import int8_products_are_exact

X = info((1, 3, 8), 6)
LAYERS = ["quantize", "quantized_linear"]


def agree(function, x, expected, infos=(X,), atol=1e-5):
    fast = tp.compile(function, args=list(infos))
    assert operations(fast) == expected
    same(fast(x), function(x), atol=atol, rtol=1e-5)
    return fast


def test_a_static_layer_is_one_node(rng):
    layer = linear(rng)
    fast = agree(layer, random(rng, 3, 6), LAYERS)
    fused = node(fast, "quantized_linear")
    assert fused.inputs[1].dtype is tp.int8
    assert fused.inputs[3] is not None
    assert fused.inputs[4] is not None
    assert fused.inputs[5] is None
    assert fused.attrs == {"activation": None, "dim": 0, "dtype": tp.float32}


def test_without_bias(rng):
    fast = agree(linear(rng, bias=False), random(rng, 3, 6), LAYERS)
    assert node(fast, "quantized_linear").inputs[4] is None


def test_a_weight_only_layer_is_one_node(rng):
    for kind in (tp.int8, tp.int4, tp.float8):
        layer = linear(rng, quant_dtype=kind, input_scale=None)
        fast = agree(layer, random(rng, 3, 6), ["quantized_linear"])
        fused = node(fast, "quantized_linear")
        assert fused.inputs[1].dtype is kind
        assert fused.inputs[3] is None


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (tp.relu, "relu"),
        (tp.silu, "silu"),
        (tp.gelu, "gelu"),
        (lambda x: tp.gelu(x, approximate="tanh"), "gelu_tanh"),
        (lambda x: tp.gelu(x, approximate="none"), "gelu"),
    ],
)
@pytest.mark.parametrize("input_scale", [0.05, None])
def test_activations(rng, activation, name, input_scale):
    layer = linear(rng, input_scale=input_scale)
    expected = LAYERS if input_scale else LAYERS[1:]
    fast = agree(lambda x: activation(layer(x)), random(rng, 3, 6), expected)
    assert node(fast, "quantized_linear").attrs["activation"] == name


@pytest.mark.parametrize("function", [tp.tanh, tp.sigmoid, tp.exp])
def test_functions_that_no_kernel_has_stay_alone(rng, function):
    layer = linear(rng)
    agree(lambda x: function(layer(x)), random(rng, 3, 6), [*LAYERS, function.__name__], atol=1e-4)


def test_an_activation_twice_is_fused_once(rng):
    layer = linear(rng)
    agree(lambda x: tp.relu(tp.gelu(layer(x))), random(rng, 3, 6), [*LAYERS, "relu"])
    agree(lambda x: tp.gelu(tp.relu(layer(x))), random(rng, 3, 6), [*LAYERS, "gelu"])


def test_a_bias_after_the_activation_stays_alone(rng):
    bias = random(rng, 4)
    for has_bias in (True, False):
        layer = linear(rng, bias=has_bias)
        agree(lambda x, f=layer: tp.relu(f(x)) + bias, random(rng, 3, 6), [*LAYERS, "add"])


def test_a_second_bias_stays_alone(rng):
    layer, bias = linear(rng), random(rng, 4)
    agree(lambda x: layer(x) + bias, random(rng, 3, 6), [*LAYERS, "add"])


@pytest.mark.parametrize("shape", [(), (1,), (1, 4), (3, 4), (3, 1), (2, 3, 4)])
def test_what_is_added_is_a_bias_only_if_it_has_its_shape(rng, shape):
    layer, added = linear(rng, bias=False), random(rng, *shape)
    agree(lambda x: layer(x) + added, random(rng, 3, 6), [*LAYERS, "add"])


def test_a_bias_on_the_left(rng):
    layer, bias = linear(rng, bias=False), random(rng, 4)
    fast = agree(lambda x: bias + layer(x), random(rng, 3, 6), LAYERS)
    assert node(fast, "quantized_linear").inputs[4] is not None


def test_a_bias_that_is_an_input(rng):
    layer = linear(rng, bias=False)
    fast = tp.compile(lambda x, b: tp.relu(layer(x) + b), args=[X, info(4)])
    assert operations(fast) == LAYERS
    x, bias = random(rng, 3, 6), random(rng, 4)
    same(fast(x, bias), tp.relu(layer(x) + bias), atol=1e-5)


def test_a_chain_stays_int8_between_its_layers(rng):
    first, second = linear(rng), tp.Linear(4, 5, quant_dtype=tp.int8)
    second.weight, second.bias = random(rng, 5, 4), random(rng, 5)
    second.weight_scale, second.input_scale = 0.02, 0.04
    model = tp.Sequential(first, tp.gelu, second)
    fast = tp.compile(model, args=[X])
    assert operations(fast) == ["quantize", "quantized_linear", "quantized_linear"]
    middle = fast.graph.nodes()[1]
    assert middle.output.dtype is tp.int8
    assert middle.attrs == {"activation": "gelu", "dim": 0, "dtype": tp.int8}
    x = random(rng, 7, 6)
    # A tie that falls the other way in one of the four middle values moves a result by one step.
    step = 0.04 * 0.02 * 127
    same(fast(x), model(x), atol=step)
    assert "→ int8" in fast.report().rows[1].kernel


@pytest.mark.parametrize(
    ("name", "after", "left"),
    [
        ("another type", lambda y: tp.quantize(y, 0.1, tp.float8), ["quantize"]),
        ("int4", lambda y: tp.quantize(y, 0.1, tp.int4), ["quantize"]),
        ("per channel", lambda y: tp.quantize(y, [0.1, 0.2, 0.3, 0.4], tp.int8, 1), ["quantize"]),
        ("one a row", lambda y: tp.quantize(y, tp.ones((3, 1)), tp.int8), ["quantize"]),
        ("dynamic", lambda y: tp.dynamic_quantize(y, tp.int8), ["dynamic_quantize"]),
        ("per tensor", lambda y: tp.quantize(y, 0.1, tp.int8), []),
        ("negative dim", lambda y: tp.quantize(y, [0.1, 0.2, 0.3, 0.4], tp.int8, -1), ["quantize"]),
    ],
)
def test_requantization(rng, name, after, left):
    layer, x = linear(rng), random(rng, 3, 6)
    fast = tp.compile(lambda x: after(layer(x)), args=[info(3, 6)])
    assert operations(fast) == [*LAYERS, *left]
    same(fast(x), after(layer(x)), atol=1 if name != "dynamic" else 0)


def test_requantization_after_a_weight_only_layer_stays_alone(rng):
    layer = linear(rng, input_scale=None)
    fast = tp.compile(lambda x: tp.quantize(layer(x), 0.1, tp.int8), args=[X])
    assert operations(fast) == ["quantized_linear", "quantize"]


def test_requantization_twice(rng):
    layer = linear(rng)

    def twice(x):
        y = quantized(layer(x), 0.1)
        return tp.quantize(y, 0.2, tp.int8)

    fast = tp.compile(twice, args=[X])
    assert operations(fast) == [*LAYERS, "dequantize", "quantize"]
    x = random(rng, 3, 6)
    same(fast(x), twice(x), atol=1)


@pytest.mark.parametrize(
    ("name", "function", "expected"),
    [
        ("before the bias", lambda y, b: (y + b, y), [*LAYERS, "add"]),
        ("before the activation", lambda y, b: (tp.gelu(y), y * 2.0), [*LAYERS, "gelu", "mul"]),
        ("used by two activations", lambda y, b: (tp.gelu(y), tp.relu(y)), None),
        ("returned and activated", lambda y, b: (tp.gelu(y), y), None),
        ("before rounding", lambda y, b: (tp.quantize(y, 0.1, tp.int8), y - 1.0), None),
        ("added to itself", lambda y, b: y + y, [*LAYERS, "add"]),
        ("rounded twice", lambda y, b: (tp.quantize(y, 0.1, tp.int8),
                                       tp.quantize(y, 0.3, tp.int8)), None),
    ],
)  # fmt: skip
def test_a_result_with_other_readers_is_not_fused_away(rng, name, function, expected):
    layer, bias, x = linear(rng, bias=False), random(rng, 4), random(rng, 3, 6)
    fast = tp.compile(lambda x: function(layer(x), bias), args=[X])
    # The product is computed once.
    assert operations(fast).count("quantized_linear") == 1
    if expected is not None:
        assert operations(fast) == expected
    rounded = "round" in name
    same(fast(x), function(layer(x), bias), atol=1 if rounded else 1e-5)


def test_layers_that_share_their_input_and_weight(rng):
    weight = quantized(random(rng, 4, 6), 0.05)

    def use(x):
        x = quantized(x, 0.1)
        return x @ tp.transpose(weight, 0, 1), tp.relu(x @ tp.transpose(weight, 0, 1)), x + 1.0

    fast = tp.compile(use, args=[X])
    counts = {op: operations(fast).count(op) for op in set(operations(fast))}
    assert counts == {"quantize": 1, "quantized_linear": 2, "dequantize": 1, "add": 1}
    x = random(rng, 3, 6)
    same(fast(x), use(x), atol=1e-5)


def test_a_scale_along_the_sum_keeps_the_input_in_floating_point(rng):
    weight, scale = random(rng, 4, 6), tp.Tensor([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])

    def use(x):
        return quantized(x, 0.1) @ tp.transpose(quantized(weight, scale, dim=1), 0, 1)

    fast = agree(use, random(rng, 3, 6), ["quantize", "dequantize", "quantized_linear"])
    assert node(fast, "quantized_linear").inputs[3] is None
    assert node(fast, "quantized_linear").attrs["dim"] == 1


@pytest.mark.parametrize("shape", [(2, 6), (4, 3), (1, 6), (4, 1), (4, 6)])
def test_block_scales(rng, shape):
    weight, scale = random(rng, 4, 6), abs(random(rng, *shape)) * 0.01 + 0.01
    scale = scale.eval()

    def weight_only(x):
        return x @ tp.transpose(quantized(weight, scale, tp.int4), 0, 1)

    def both(x):
        return quantized(x, 0.1) @ tp.transpose(quantized(weight, scale, tp.int4), 0, 1)

    agree(weight_only, random(rng, 3, 6), ["quantized_linear"])
    agree(both, random(rng, 3, 6), ["quantize", "dequantize", "quantized_linear"])


def test_an_input_quantized_by_channel_or_row(rng):
    weight, x = random(rng, 4, 6), random(rng, 3, 6)
    scales = tp.Tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])

    def by_channel(x):
        return quantized(x, scales, dim=1) @ tp.transpose(quantized(weight, 0.05), 0, 1)

    def by_row(x):
        q, scale = tp.dynamic_quantize(x, tp.int8, dim=-1)
        x = tp.dequantize(q, scale, tp.float32)
        return x @ tp.transpose(quantized(weight, 0.05), 0, 1)

    for function in (by_channel, by_row):
        fast = tp.compile(function, args=[X])
        assert operations(fast)[-2:] == ["dequantize", "quantized_linear"]
        assert node(fast, "quantized_linear").inputs[3] is None
        same(fast(x), function(x), atol=1e-5)


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("static", [True, False])
def test_a_weight_stored_in_out(rng, dim, static):
    weight = random(rng, 6, 4)
    scale = {None: 0.03, 0: [0.01, 0.02, 0.03, 0.04, 0.05, 0.06], 1: [0.01, 0.02, 0.03, 0.04]}[dim]

    def use(x):
        if static:
            x = quantized(x, 0.1)
        return x @ quantized(weight, scale, dim=dim)

    # Here dimension 1 is the output's, so scales along it leave the sum.
    fused = static and dim != 0
    middle = ["quantize"] if static else []
    expected = [*middle, *([] if fused or not static else ["dequantize"]), "quantized_linear"]
    fast = agree(use, random(rng, 3, 6), expected)
    assert (node(fast, "quantized_linear").inputs[3] is not None) == fused
    assert node(fast, "quantized_linear").inputs[1].shape == (4, 6)


@pytest.mark.parametrize("shape", [(3, 4), (6, 2), (1, 4), (6, 1)])
def test_a_weight_stored_in_out_with_block_scales(rng, shape):
    weight, scale = random(rng, 6, 4), (abs(random(rng, *shape)) * 0.01 + 0.01).eval()
    agree(lambda x: x @ quantized(weight, scale, tp.int4), random(rng, 3, 6), ["quantized_linear"])


def test_weights_of_higher_rank_stay_as_they_are(rng):
    weight = random(rng, 3, 6, 4)
    fast = tp.compile(lambda x: x @ quantized(weight, 0.05), args=[info(3, 2, 6)])
    assert "quantized_linear" not in operations(fast)
    x = random(rng, 3, 2, 6)
    same(fast(x), x @ quantized(weight, 0.05), atol=1e-5)


def test_a_vector_and_a_batch(rng):
    layer = linear(rng)
    agree(layer, random(rng, 6), LAYERS, [info(6)])
    agree(layer, random(rng, 2, 3, 6), LAYERS, [info(2, (1, 2, 4), 6)])
    agree(layer, random(rng, 0, 6), LAYERS, [info((0, 1, 2), 6)])


@pytest.mark.parametrize("kinds", [(tp.float8, tp.int8), (tp.int8, tp.float8), (tp.int4, tp.int8)])
def test_pairs_of_types_that_no_product_takes(rng, kinds):
    weight = random(rng, 4, 6)

    def use(x):
        return quantized(x, 0.1, kinds[0]) @ tp.transpose(quantized(weight, 0.05, kinds[1]), 0, 1)

    fast = agree(use, random(rng, 3, 6), ["quantize", "dequantize", "quantized_linear"])
    assert node(fast, "quantized_linear").inputs[3] is None


def test_int4_weights_with_int8_inputs(rng):
    layer = linear(rng, quant_dtype=tp.int4)
    layer.weight_scale = [0.3, 0.2, 0.5, 0.1]
    fast = agree(layer, random(rng, 3, 6), LAYERS)
    fused = node(fast, "quantized_linear")
    assert [fused.inputs[0].dtype, fused.inputs[1].dtype] == [tp.int8, tp.int4]


def test_a_quantized_weight_that_is_an_input(rng):
    def use(x, w, s):
        return quantized(x, 0.1) @ tp.transpose(tp.dequantize(w, s, tp.float32), 0, 1)

    fast = tp.compile(use, args=[X, info(4, 6, dtype=tp.int8), info()])
    assert operations(fast) == LAYERS
    x, w, s = random(rng, 3, 6), tp.quantize(random(rng, 4, 6), 0.02, tp.int8), tp.Tensor(0.02)
    same(fast(x, w, s), use(x, w, s), atol=1e-5)


def test_level_0_rewrites_nothing(rng):
    layer = linear(rng)
    fast = tp.compile(layer, 0, args=[X])
    assert operations(fast) == ["quantize", "dequantize", "dequantize", "permute", "matmul", "add"]
    x = random(rng, 3, 6)
    same(fast(x), layer(x))


def test_the_report_names_layers_and_reasons(rng):
    model = tp.Sequential({"up": linear(rng), "act": tp.relu, "down": tp.Linear(4, 2)})
    model.initialize_dummy_parameters()
    report = tp.compile(model, args=[X]).report()
    assert [(row.name, row.operation) for row in report.rows[1:]] == [
        ("up", "quantized_linear"),
        ("down", "linear"),
    ]
    assert report.rows[1].weight_bytes == 24
    kernel = "oneDNN int8 GEMM" if int8_products_are_exact() else "float32 GEMM of the integers"
    assert kernel in report.rows[1].kernel
    assert "relu" in report.rows[1].kernel
    text = str(report)
    assert text.splitlines()[0].startswith("backend: torch on cpu:0: ")
    assert "up " in text
    assert '"operation": "quantized_linear"' in report.to_json()
