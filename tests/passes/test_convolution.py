"""Fusion of quantized convolutions: where it fires, and where it must not."""

from __future__ import annotations

import numpy as np
import pytest

import tripy as tp
from tests.compiler.support import same
from tests.passes.support import info, node, operations, quantized, random
from tripy.tensor import apply

X = info((1, 2, 8), 6, 5, 5)
LAYERS = ["quantize", "quantized_convolution"]
FUSED = "quantized_convolution"
KINDS = pytest.mark.parametrize("kind", [tp.Conv, tp.ConvTranspose])


def conv(rng, kind=tp.Conv, inputs=6, outputs=4, **options):
    """A quantized layer with random values; ``input_scale`` may be among the options."""
    input_scale = options.pop("input_scale", 0.05)
    dim = 1 if kind is tp.ConvTranspose else 0
    options = {"quant_dtype": tp.int8, "weight_quant_dim": dim, **options}
    layer = kind(inputs, outputs, (3, 3), padding=((1, 1), (1, 1)), **options)
    layer.weight = random(rng, *layer.weight.shape)
    if layer.bias is not None:
        layer.bias = random(rng, outputs)
    scale = rng.uniform(0.02, 0.05, layer.weight_scale.shape).astype(np.float32)
    layer.weight_scale, layer.input_scale = tp.Tensor(scale), input_scale
    return layer


def agree(function, x, expected, infos=(X,), atol=1e-4):
    fast = tp.compile(function, args=list(infos))
    assert operations(fast) == expected
    same(fast(x), function(x), atol=atol, rtol=1e-5)
    return fast


@KINDS
def test_a_static_layer_is_one_node(rng, kind):
    fast = agree(conv(rng, kind, stride=(2, 1)), random(rng, 2, 6, 5, 5), LAYERS)
    fused = node(fast, FUSED)
    assert fused.inputs[1].dtype is tp.int8
    assert [v is not None for v in fused.inputs] == [True] * 5 + [False]
    transposed = kind is tp.ConvTranspose
    assert fused.attrs == {
        "stride": (2, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1,
        "transposed": transposed, "activation": None, "dim": int(transposed), "dtype": tp.float32,
    }  # fmt: skip


@KINDS
@pytest.mark.parametrize("small", [tp.int8, tp.int4, tp.float8])
def test_a_weight_only_layer_is_one_node(rng, kind, small):
    layer = conv(rng, kind, quant_dtype=small, input_scale=None, bias=False)
    fused = node(agree(layer, random(rng, 2, 6, 5, 5), LAYERS[1:]), FUSED)
    assert fused.inputs[1].dtype is small
    assert [v is not None for v in fused.inputs] == [True] * 3 + [False] * 3


@KINDS
def test_scales_along_the_summed_dimension_are_weight_only(rng, kind):
    dim = 0 if kind is tp.ConvTranspose else 1
    layer = conv(rng, kind, weight_quant_dim=dim, input_scale=None)
    fast = agree(lambda x: layer(quantized(x, 0.05)), random(rng, 2, 6, 5, 5),
                 ["quantize", "dequantize", FUSED])  # fmt: skip
    assert node(fast, FUSED).inputs[3] is None


def test_an_input_with_a_scale_a_channel_is_not_summed_as_integers(rng):
    layer, scale = conv(rng, input_scale=None), tp.Tensor(np.full(6, 0.05, np.float32))
    fast = agree(lambda x: layer(quantized(x, scale, tp.int8, 1)), random(rng, 2, 6, 5, 5),
                 ["quantize", "dequantize", FUSED])  # fmt: skip
    assert node(fast, FUSED).inputs[3] is None


def test_an_input_of_another_family_is_not_fused(rng):
    layer = conv(rng, input_scale=None)
    for small in (tp.float8, tp.int4):
        fast = agree(lambda x, small=small: layer(quantized(x, 0.5, small)),
                     random(rng, 2, 6, 5, 5), ["quantize", "dequantize", FUSED])  # fmt: skip
        assert node(fast, FUSED).inputs[3] is None


@pytest.mark.parametrize("name", ["relu", "silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("input_scale", [0.05, None])
def test_activations(rng, name, input_scale):
    layer = conv(rng, input_scale=input_scale)

    def run(x):
        x = layer(x)
        return tp.gelu(x, approximate="tanh") if name == "gelu_tanh" else getattr(tp, name)(x)

    fast = agree(run, random(rng, 2, 6, 5, 5), LAYERS if input_scale else LAYERS[1:])
    assert node(fast, FUSED).attrs["activation"] == name


def test_functions_that_no_kernel_has_stay_alone(rng):
    layer = conv(rng)
    agree(lambda x: tp.tanh(layer(x)), random(rng, 2, 6, 5, 5), [*LAYERS, "tanh"])
    agree(lambda x: tp.relu(tp.gelu(layer(x))), random(rng, 2, 6, 5, 5), [*LAYERS, "relu"])


@KINDS
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("left", [False, True])
def test_an_addend_for_each_channel_is_the_bias(rng, kind, shape, left):
    layer, bias = conv(rng, kind, bias=False), random(rng, *shape)

    def run(x):
        return bias + layer(x) if left else layer(x) + bias

    fused = node(agree(run, random(rng, 2, 6, 5, 5), LAYERS), FUSED)
    assert fused.inputs[4].shape == (4,)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 1, 5), (1, 1, 1), (2, 4, 1, 1)])
def test_other_addends_stay_alone(rng, shape):
    layer, added = conv(rng, bias=False), random(rng, *shape)
    agree(lambda x: layer(x) + added, random(rng, 2, 6, 5, 5), [*LAYERS, "add"])


def test_a_second_bias_stays_alone(rng):
    layer, bias = conv(rng), random(rng, 4, 1, 1)
    agree(lambda x: layer(x) + bias, random(rng, 2, 6, 5, 5), [*LAYERS, "add"])
    layer = conv(rng, bias=False)
    agree(lambda x: tp.relu(layer(x)) + bias, random(rng, 2, 6, 5, 5), [*LAYERS, "add"])


def test_the_tensor_between_two_layers_stays_int8(rng):
    first, second = conv(rng), conv(rng, tp.ConvTranspose, 4, 3)
    fast = tp.compile(lambda x: second(tp.relu(first(x))), args=[X])
    assert operations(fast) == [*LAYERS, FUSED]
    one, two = fast.graph.nodes()[1:]
    assert one.output.dtype is tp.int8
    assert one.inputs[5] is two.inputs[3]
    assert one.attrs["activation"] == "relu"


def test_a_result_read_twice_is_computed_once(rng):
    first, second, third = conv(rng), conv(rng, inputs=4), conv(rng, inputs=4)

    def both(x):
        x = tp.relu(first(x))
        return second(x) + third(x)

    # Equal scales are different constants: each reader rounds for itself, from one activation.
    fast = tp.compile(both, args=[X])
    assert operations(fast).count(FUSED) == 3
    assert fast.graph.nodes()[1].output.dtype is tp.float32


def test_a_weight_only_layer_does_not_round_its_result(rng):
    first, second = conv(rng, input_scale=None), conv(rng, inputs=4)
    fast = tp.compile(lambda x: second(first(x)), args=[X])
    assert operations(fast) == [FUSED, "quantize", FUSED]


def test_a_rounding_to_another_type_stays_alone(rng):
    layer = conv(rng)
    fast = tp.compile(lambda x: quantized(layer(x), 0.1, tp.float8), args=[X])
    assert operations(fast) == [*LAYERS, "quantize", "dequantize"]


def test_a_float_convolution_is_left_alone(rng):
    layer = conv(rng, quant_dtype=tp.int8)
    plain = tp.Conv(6, 4, (3, 3))
    plain.weight, plain.bias = layer.weight[:, :, :3, :3], layer.bias
    agree(plain, random(rng, 2, 6, 5, 5), ["convolution"])
    agree(lambda x: plain(quantized(x, 0.05)), random(rng, 2, 6, 5, 5),
          ["quantize", "dequantize", "convolution"])  # fmt: skip


def test_the_name_in_reports_is_the_layers(rng):
    class Net(tp.Module):
        def __init__(self):
            self.stem = conv(rng)

        def forward(self, x):
            return tp.relu(self.stem(x))

    (row,) = [r for r in tp.compile(Net(), args=[X]).report().rows if r.operation == FUSED]
    assert row.name == "stem"


def test_no_fusion_without_optimization(rng):
    fast = tp.compile(conv(rng), optimization_level=0, args=[X])
    assert FUSED not in operations(fast)


def test_a_bias_of_the_wrong_size_is_refused_by_the_schema(rng):
    attrs = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1}
    with pytest.raises(tp.TripyException, match="bias"):
        apply("convolution", [random(rng, 1, 2, 4), random(rng, 3, 2, 3), random(rng, 2)], attrs)
