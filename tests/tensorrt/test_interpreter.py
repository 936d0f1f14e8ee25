"""The interpreter of TensorRT networks, compared with torch and with numbers worked out by hand.

Every network is built too, so what's interpreted is one that TensorRT accepts.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.tensorrt import network_interpreter
from tests.tensorrt.interpreter.values import Refused, Undocumented, Violated

trt = pytest.importorskip("tensorrt_rtx")


class Silent(trt.ILogger):
    """Keeps what the builder says, for the message of a failure."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity, message) -> None:
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


LOGGER = Silent()
BUILDER = trt.Builder(LOGGER)
TYPES = {
    torch.float32: trt.float32,
    torch.float16: trt.float16,
    torch.bfloat16: trt.bfloat16,
    torch.float8_e4m3fn: trt.fp8,
    torch.int8: trt.int8,
    torch.uint8: trt.uint8,
    torch.int32: trt.int32,
    torch.int64: trt.int64,
    torch.bool: trt.bool,
}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
NONE, TRANSPOSE, VECTOR = (getattr(trt.MatrixOperation, n) for n in ("NONE", "TRANSPOSE", "VECTOR"))


class Net:
    """A network under construction, and the values of its inputs."""

    def __init__(self) -> None:
        self.raw = BUILDER.create_network(
            1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        self.inputs: dict[str, torch.Tensor] = {}
        self.kept: list = []
        self.dynamic: dict[str, tuple[int, ...]] = {}

    def input(self, value, dtype=None, dynamic=False):
        value = torch.as_tensor(value)
        name = f"input{len(self.inputs)}"
        self.inputs[name] = value
        shape = tuple(value.shape)
        if dynamic:
            self.dynamic[name] = shape
            shape = (-1,) * len(shape)
        return self.raw.add_input(name, dtype or TYPES[value.dtype], shape)

    def weights(self, value, dtype=None, count=None):
        value = torch.as_tensor(value).contiguous()
        self.kept.append(value)
        return trt.Weights(dtype or TYPES[value.dtype], value.data_ptr(), count or value.numel())

    def constant(self, value, dtype=None, shape=None):
        value = torch.as_tensor(value)
        shape = tuple(value.shape) if shape is None else shape
        weights = self.weights(value, dtype, math.prod(shape))
        return self.raw.add_constant(shape, weights).get_output(0)

    def run(self, *outputs):
        for output in outputs:
            self.raw.mark_output(output)
        results = network_interpreter.run(trt, self.raw, self.inputs)
        return [results[output.name] for output in outputs]

    def build(self) -> bool:
        config = BUILDER.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        if self.dynamic:
            profile = BUILDER.create_optimization_profile()
            for name, shape in self.dynamic.items():
                profile.set_shape(name, (1,) * len(shape), shape, tuple(2 * n for n in shape))
            config.add_optimization_profile(profile)
        LOGGER.errors.clear()
        return BUILDER.build_serialized_network(self.raw, config) is not None

    def check(self, layer, expected, tolerance=None, builds=True) -> None:
        """A layer's first output; `tolerance` is relative, None for equality bit by bit."""
        output = layer.get_output(0) if hasattr(layer, "get_output") else layer
        (result,) = self.run(output)
        assert self.build() == builds, LOGGER.errors
        same(result, expected, tolerance)


def same(result, expected, tolerance=None) -> None:
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    if result.dtype == torch.float8_e4m3fn:
        result, expected = result.float(), expected.float()
    if tolerance is None:
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
    else:
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def elementwise(net, a, b, op):
    operation = getattr(trt.ElementWiseOperation, op)
    return net.raw.add_elementwise(net.input(a), net.input(b), operation)


# Constants, casts and single elements.


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int32, torch.int64, torch.bool])
def test_constant(net, dtype):
    value = torch.randint(0, 2, (2, 3)).to(dtype)
    net.check(net.constant(value), value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantized_constant(net, dtype):
    value = torch.tensor([[-3, 0, 7], [1, -128, 100]]).float().to(dtype)
    layer = net.raw.add_dequantize(
        net.constant(value), net.constant(torch.tensor(0.5)), trt.float32
    )
    net.check(layer, value.float() * 0.5)


@pytest.mark.parametrize("count", [4, 6])
def test_int4_constant(net, count):
    packed = torch.tensor([0x21, 0xF8, 0x7C], dtype=torch.uint8)[: count // 2]
    weight = net.constant(packed, trt.int4, (2, count // 2))
    expected = torch.tensor([1, 2, -8, -1, -4, 7])[:count].float().reshape(2, -1) * 2
    layer = net.raw.add_dequantize(weight, net.constant(torch.tensor(2.0)), trt.float32)
    net.check(layer, expected)


def test_scalar_constant_and_identity(net):
    net.check(net.raw.add_identity(net.constant(torch.tensor(3.5))), torch.tensor(3.5))


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (torch.tensor([1.9, -1.9, 0.0]), torch.int32, torch.tensor([1, -1, 0], dtype=torch.int32)),
        (torch.tensor([1.9, -127.9]), torch.int8, torch.tensor([1, -127], dtype=torch.int8)),
        (torch.tensor([0.4, 0.0, -2.0]), torch.bool, torch.tensor([True, False, True])),
        (torch.tensor([255.9]), torch.uint8, torch.tensor([255], dtype=torch.uint8)),
        (torch.tensor([True, False]), torch.float16, torch.tensor([1.0, 0.0]).half()),
        (torch.tensor([1.00390625]), torch.bfloat16, torch.tensor([1.0]).bfloat16()),
        (torch.tensor([-5, 2**31 - 1]), torch.int32, torch.tensor([-5, 2**31 - 1]).int()),
    ],
)
def test_cast(net, value, dtype, expected):
    net.check(net.raw.add_cast(net.input(value), TYPES[dtype]), expected)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (torch.tensor([2.0**31]), torch.int32),
        (torch.tensor([-1.0]), torch.uint8),
        (torch.tensor([torch.nan]), torch.int64),
        (torch.tensor([2.0**63]), torch.int64),
        (torch.tensor([2**31]), torch.int32),
        (torch.tensor([70000]), torch.float16),
    ],
)
def test_cast_out_of_range(net, value, dtype):
    with pytest.raises(OverflowError, match=r"undefined|undocumented|too large"):
        net.run(net.raw.add_cast(net.input(value), TYPES[dtype]).get_output(0))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["SUM", "PROD", "SUB", "DIV", "MAX", "MIN", "POW", "FLOOR_DIV"])
def test_elementwise_floats(net, op, dtype):
    a, b = torch.rand(2, 1, 3).to(dtype) + 0.5, torch.rand(1, 4, 3).to(dtype) + 0.5
    # Torch computes these in the type itself, which for one operation rounds once too.
    expected = {
        "SUM": a + b,
        "PROD": a * b,
        "SUB": a - b,
        "DIV": a / b,
        "MAX": torch.maximum(a, b),
        "MIN": torch.minimum(a, b),
        "POW": a**b,
        "FLOOR_DIV": torch.floor(a.double() / b.double()).to(dtype),
    }[op]
    net.check(elementwise(net, a, b, op), expected, 1e-6 if op == "POW" else None)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_elementwise_integers(net, dtype):
    a, b = torch.tensor([[7, 8, 2]]).to(dtype), torch.tensor([[2, 4, 5]]).to(dtype)
    expected = {
        "SUM": [9, 12, 7],
        "PROD": [14, 32, 10],
        "SUB": [5, 4, -3],
        "DIV": [3, 2, 0],
        "FLOOR_DIV": [3, 2, 0],
        "MAX": [7, 8, 5],
        "MIN": [2, 4, 2],
        "POW": [49, 4096, 32],
    }
    for op, numbers in expected.items():
        case = Net()
        case.check(elementwise(case, a, b, op), torch.tensor([numbers]).to(dtype))


def test_elementwise_comparisons(net):
    a, b = torch.tensor([1.0, 2.0, torch.nan]), torch.tensor([1.0, 1.0, 0.0])
    for op, expected in (("EQUAL", [1, 0, 0]), ("GREATER", [0, 1, 0]), ("LESS", [0, 0, 0])):
        case = Net()
        case.check(elementwise(case, a, b, op), torch.tensor(expected).bool())
    c, d = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    for op, expected in (("AND", [1, 0, 0]), ("OR", [1, 1, 0]), ("XOR", [0, 1, 0])):
        case = Net()
        case.check(elementwise(case, c, d, op), torch.tensor(expected).bool())


@pytest.mark.parametrize(
    ("a", "b", "op"),
    [
        ([2**31 - 1], [1], "SUM"),
        ([-(2**31)], [1], "SUB"),
        ([2**20], [2**12], "PROD"),
        ([-(2**31)], [-1], "DIV"),
        ([10], [10], "POW"),
    ],
)
def test_integer_overflow(net, a, b, op):
    a, b = torch.tensor(a).int(), torch.tensor(b).int()
    with pytest.raises(OverflowError, match="undocumented overflow"):
        net.run(elementwise(net, a, b, op).get_output(0))


@pytest.mark.parametrize(
    ("a", "b", "op"), [(2**62, 2**62, "SUM"), (2**33, 2**33, "PROD"), (-(2**63), 1, "SUB")]
)
def test_int64_overflow(net, a, b, op):
    with pytest.raises(OverflowError, match="undocumented overflow"):
        net.run(elementwise(net, torch.tensor([a]), torch.tensor([b]), op).get_output(0))


def test_int64_extremes(net):
    a, b = torch.tensor([2**63 - 2, -(2**63)]), torch.tensor([1, 0])
    net.check(elementwise(net, a, b, "SUM"), torch.tensor([2**63 - 1, -(2**63)]))


@pytest.mark.parametrize("op", ["SUM", "MAX", "POW", "DIV"])
def test_integer_scalars(net, op):
    large = 1 if op == "POW" else 2**62
    a, b = torch.tensor(large), torch.tensor(1)
    expected = {"SUM": large + 1, "MAX": large, "POW": 1, "DIV": large}[op]
    net.check(elementwise(net, a, b, op), torch.tensor(expected))


@pytest.mark.parametrize(("a", "b"), [([-7], [2]), ([7], [-2]), ([1], [0])])
def test_division_of_integers_undocumented(net, a, b):
    a, b = torch.tensor(a).int(), torch.tensor(b).int()
    with pytest.raises(NotImplementedError, match="doesn't document"):
        net.run(elementwise(net, a, b, "DIV").get_output(0))


def test_floor_division_of_integers(net):
    a, b = torch.tensor([-7, 7, -8]), torch.tensor([2, -2, 2])
    net.check(elementwise(net, a, b, "FLOOR_DIV"), torch.tensor([-4, -4, -4]))


def test_nan_in_a_maximum_is_undocumented(net):
    with pytest.raises(Undocumented, match="NaN"):
        layer = elementwise(net, torch.tensor([torch.nan]), torch.tensor([1.0]), "MAX")
        net.run(layer.get_output(0))


UNARY = {
    **{n: getattr(torch, n.lower()) for n in ("EXP", "SQRT", "ABS", "NEG", "SIN", "COS", "TAN")},
    **{n: getattr(torch, n.lower()) for n in ("SINH", "COSH", "ASIN", "ATAN", "ASINH", "ATANH")},
    **{n: getattr(torch, n.lower()) for n in ("ACOS", "CEIL", "FLOOR", "SIGN", "ERF", "LOG")},
    "RECIP": torch.reciprocal,
    "ROUND": torch.round,
}


@pytest.mark.parametrize("op", UNARY)
def test_unary(net, op):
    x = torch.rand(3, 4) * 0.9 + 0.05
    layer = net.raw.add_unary(net.input(x), getattr(trt.UnaryOperation, op))
    net.check(layer, UNARY[op](x.double()).float(), 1e-6)


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        ("ROUND", [0.5, 1.5, -2.5, 2.4], [0.0, 2.0, -2.0, 2.0]),
        ("ACOSH", [1.0, 2.0], [0.0, math.log(2 + math.sqrt(3))]),
        ("ISNAN", [math.nan, 1.0], [True, False]),
        ("ISINF", [-math.inf, math.nan], [True, False]),
        ("NOT", [True, False], [False, True]),
        ("NEG", [3, -4], [-3, 4]),
        ("ABS", [3, -4], [3, 4]),
        ("SIGN", [3, -4, 0], [1, -1, 0]),
    ],
)
def test_unary_by_hand(net, op, x, expected):
    layer = net.raw.add_unary(net.input(x), getattr(trt.UnaryOperation, op))
    net.check(layer, torch.tensor(expected), 1e-6)


ACTIVATIONS = {
    "RELU": lambda x, a, b: functional.relu(x),
    "SIGMOID": lambda x, a, b: 1 / (1 + torch.exp(-x)),
    "TANH": lambda x, a, b: torch.tanh(x),
    "LEAKY_RELU": lambda x, a, b: functional.leaky_relu(x, a),
    "ELU": lambda x, a, b: functional.elu(x, a),
    "SELU": lambda x, a, b: b * torch.where(x > 0, x, a * torch.exp(x) - a),
    "SOFTSIGN": lambda x, a, b: functional.softsign(x),
    "SOFTPLUS": lambda x, a, b: a * torch.log(torch.exp(b * x) + 1),
    "CLIP": lambda x, a, b: x.clamp(a, b),
    "HARD_SIGMOID": lambda x, a, b: (a * x + b).clamp(0, 1),
    "SCALED_TANH": lambda x, a, b: a * torch.tanh(b * x),
    "THRESHOLDED_RELU": lambda x, a, b: functional.threshold(x, a, 0.0),
    "GELU_ERF": lambda x, a, b: functional.gelu(x),
    "GELU_TANH": lambda x, a, b: functional.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", ACTIVATIONS)
def test_activation(net, op, dtype):
    x = (torch.randn(3, 8) * 2).to(dtype)
    layer = net.raw.add_activation(net.input(x), getattr(trt.ActivationType, op))
    layer.alpha, layer.beta = 0.25, 0.75
    expected = ACTIVATIONS[op](x.float(), 0.25, 0.75).to(dtype)
    net.check(layer, expected, 1e-6 if dtype == torch.float32 else 1e-2)


def test_parametric_relu_and_select(net):
    x, slopes = torch.randn(3, 4), torch.rand(1, 4)
    net.check(
        net.raw.add_parametric_relu(net.input(x), net.input(slopes)),
        torch.where(x < 0, x * slopes, x),
    )
    case, condition = Net(), torch.tensor([[True], [False]])
    a, b = torch.arange(3)[None], torch.arange(6).reshape(2, 3) * 10
    layer = case.raw.add_select(case.input(condition), case.input(a), case.input(b))
    case.check(layer, torch.tensor([[0, 1, 2], [30, 40, 50]]))


# Reductions.


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("op", ["SUM", "PROD", "MAX", "MIN", "AVG"])
def test_reduce(net, op, axes, keep):
    x = torch.rand(2, 3, 4) + 0.5
    mask = sum(1 << axis for axis in axes)
    layer = net.raw.add_reduce(net.input(x), getattr(trt.ReduceOperation, op), mask, keep)
    numpy = {"SUM": np.sum, "PROD": np.prod, "MAX": np.max, "MIN": np.min, "AVG": np.mean}[op]
    expected = np.asarray(numpy(x.double().numpy(), axis=axes, keepdims=keep))
    net.check(layer, torch.from_numpy(expected).float(), 1e-6)


def test_reduce_integers(net):
    x = torch.tensor([[1, 2, 3], [4, 5, 6]]).int()
    for op, expected in {"SUM": [6, 15], "PROD": [6, 120], "MAX": [3, 6], "AVG": [2, 5]}.items():
        case = Net()
        layer = case.raw.add_reduce(case.input(x), getattr(trt.ReduceOperation, op), 2, False)
        case.check(layer, torch.tensor(expected).int())
    with pytest.raises(Undocumented, match="AVG"):
        layer = net.raw.add_reduce(net.input(x), trt.ReduceOperation.AVG, 1, False)
        net.run(layer.get_output(0))
    case = Net()
    large = torch.tensor([[2**30, 2**30]]).int()
    with pytest.raises(OverflowError):
        layer = case.raw.add_reduce(case.input(large), trt.ReduceOperation.SUM, 2, False)
        case.run(layer.get_output(0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax(net, axis):
    x = torch.randn(2, 3, 4)
    layer = net.raw.add_softmax(net.input(x))
    layer.axes = 1 << axis
    exp = torch.exp(x.double())
    net.check(layer, (exp / exp.sum(axis, keepdim=True)).float(), 1e-6)


@pytest.mark.parametrize("op", ["MAX", "MIN"])
@pytest.mark.parametrize("indices", [torch.int32, torch.int64])
def test_top_k(net, op, indices):
    x = torch.randperm(24).reshape(2, 3, 4).float()
    operation = getattr(trt.TopKOperation, op)
    layer = net.raw.add_topk(net.input(x), operation, 2, 1 << 2, TYPES[indices])
    values, where = net.run(layer.get_output(0), layer.get_output(1))
    assert net.build()
    expected = torch.topk(x, 2, 2, largest=op == "MAX")
    same(values, expected.values)
    same(where, expected.indices.to(indices))
    assert not network_interpreter.run.ties


def test_top_k_of_equal_values(net):
    x = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    layer = net.raw.add_topk(net.input(x), trt.TopKOperation.MAX, 1, 2)
    layer.name = "first"
    _, where = net.run(layer.get_output(0), layer.get_output(1))
    same(where, torch.tensor([[1]]).int())
    assert network_interpreter.run.ties == ["first"]


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumulative(net, exclusive, reverse):
    x = torch.tensor([[1, 2, 3], [4, 5, 6]])
    expected = {
        (False, False): [[1, 3, 6], [4, 9, 15]],
        (True, False): [[0, 1, 3], [0, 4, 9]],
        (False, True): [[6, 5, 3], [15, 11, 6]],
        (True, True): [[5, 3, 0], [11, 6, 0]],
    }[exclusive, reverse]
    axis = net.constant(torch.tensor(1).int())
    op = trt.CumulativeOperation.SUM
    layer = net.raw.add_cumulative(net.input(x), axis, op, exclusive, reverse)
    net.check(layer, torch.tensor(expected))


@pytest.mark.parametrize("dtype", FLOATS)
def test_normalization(net, dtype):
    x, scale, bias = torch.randn(2, 3, 8), torch.randn(1, 1, 8), torch.randn(1, 1, 8)
    x, scale, bias = (t.to(dtype) for t in (x, scale, bias))
    layer = net.raw.add_normalization_v2(net.input(x), net.input(scale), net.input(bias), 1 << 2)
    layer.epsilon = 1e-3
    expected = functional.layer_norm(
        x.float(), (8,), scale.float().reshape(8), bias.float().reshape(8), 1e-3
    )
    net.check(layer, expected.to(dtype), 1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_normalization(net, groups):
    x, scale, bias = torch.randn(2, 4, 3, 3), torch.randn(1, 4, 1, 1), torch.randn(1, 4, 1, 1)
    layer = net.raw.add_normalization_v2(net.input(x), net.input(scale), net.input(bias), 12)
    layer.num_groups = groups
    # One group means none: the mean is over the axes alone.
    expected = functional.group_norm(
        x, 4 if groups == 1 else groups, scale.reshape(4), bias.reshape(4), layer.epsilon
    )
    net.check(layer, expected, 1e-5)


def test_first_version_of_group_normalization(net):
    x, scale, bias = torch.randn(2, 4, 3, 3), torch.randn(1, 2, 1, 1), torch.randn(1, 2, 1, 1)
    layer = net.raw.add_normalization(net.input(x), net.input(scale), net.input(bias), 12)
    layer.num_groups = 2
    wide = [t.repeat_interleave(2, 1).reshape(4) for t in (scale, bias)]
    net.check(layer, functional.group_norm(x, 2, *wide, layer.epsilon), 1e-5)


# Movement.


def test_concatenation(net):
    parts = [torch.randn(2, n, 3).half() for n in (1, 4, 2)]
    layer = net.raw.add_concatenation([net.input(p) for p in parts])
    layer.axis = 1
    net.check(layer, torch.cat(parts, 1))


def test_shuffle(net):
    x = torch.arange(24).reshape(2, 3, 4)
    layer = net.raw.add_shuffle(net.input(x))
    layer.first_transpose = (2, 0, 1)
    layer.reshape_dims = (0, -1)
    layer.second_transpose = (1, 0)
    net.check(layer, x.permute(2, 0, 1).reshape(4, 6).T)


def test_shuffle_to_and_from_a_scalar(net):
    layer = net.raw.add_shuffle(net.input(torch.tensor([[5.0]])))
    layer.reshape_dims = ()
    net.check(layer, torch.tensor(5.0))


def test_dynamic_shuffle(net):
    x = torch.arange(12).reshape(3, 4).float()
    data = net.input(x, dynamic=True)
    lengths = net.raw.add_shape(data).get_output(0)
    swapped = net.raw.add_gather(lengths, net.constant(torch.tensor([1, 0])), 0).get_output(0)
    layer = net.raw.add_shuffle(data)
    layer.set_input(1, swapped)
    net.check(layer, x.reshape(4, 3))


def test_shape(net):
    net.check(net.raw.add_shape(net.input(torch.zeros(2, 5).half())), torch.tensor([2, 5]))


@pytest.mark.parametrize("stride", [(1, 2), (-1, -1), (0, 3)])
def test_slice(net, stride):
    x = torch.arange(20).reshape(4, 5)
    start, size = (3, 4) if stride[0] < 0 else (1, 0), (2, 2)
    layer = net.raw.add_slice(net.input(x), start, size, stride)
    rows = [start[0] + i * stride[0] for i in range(2)]
    columns = [start[1] + i * stride[1] for i in range(2)]
    net.check(layer, x[rows][:, columns])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("WRAP", [2, 3, 0, 1, 2, 3, 0, 1, 2]),
        ("CLAMP", [0, 0, 0, 1, 2, 3, 3, 3, 3]),
        ("REFLECT", [2, 1, 0, 1, 2, 3, 2, 1, 0]),
        ("FILL", [9, 9, 0, 1, 2, 3, 9, 9, 9]),
    ],
)
def test_slice_outside(net, mode, expected):
    layer = net.raw.add_slice(net.input(torch.arange(4).float()), (-2,), (9,), (1,))
    layer.mode = getattr(trt.SampleMode, mode)
    if mode == "FILL":
        layer.set_input(4, net.constant(torch.tensor(9.0)))
    net.check(layer, torch.tensor(expected).float())


def test_slice_by_inputs(net):
    x = torch.arange(20).reshape(4, 5).float()
    layer = net.raw.add_slice(net.input(x), (0, 0), (0, 0), (1, 1))
    for index, value in enumerate(([1, 0], [2, 3], [1, 2]), start=1):
        layer.set_input(index, net.constant(torch.tensor(value)))
    net.check(layer, x[1:3, 0:5:2])


def test_slice_of_axes(net):
    layer = net.raw.add_slice(net.input(torch.arange(6).reshape(2, 3)), (1,), (2,), (1,))
    layer.axes = (1,)
    net.check(layer, torch.tensor([[1, 2], [4, 5]]))


def test_slice_out_of_bounds(net):
    data = net.input(torch.arange(4).float(), dynamic=True)
    layer = net.raw.add_slice(data, (2,), (3,), (1,))
    with pytest.raises(Refused, match="reads"):
        net.run(layer.get_output(0))


def test_squeeze_and_unsqueeze(net):
    x = torch.randn(2, 1, 3)
    squeezed = net.raw.add_squeeze(net.input(x), net.constant(torch.tensor([1]).int()))
    axes = net.constant(torch.tensor([0, 3]).int())
    net.check(net.raw.add_unsqueeze(squeezed.get_output(0), axes), x.reshape(1, 2, 3, 1))


def test_padding(net):
    x = torch.randn(1, 1, 3, 4)
    layer = net.raw.add_padding_nd(net.input(x), (1, -1), (0, 2))
    net.check(layer, functional.pad(x, (-1, 2, 1, 0)))


def test_fill(net):
    layer = net.raw.add_fill((4,), trt.FillOperation.LINSPACE, trt.int64)
    layer.alpha, layer.beta = 3, 2
    net.check(layer, torch.tensor([3, 5, 7, 9]))
    case = Net()
    layer = case.raw.add_fill((4,), trt.FillOperation.LINSPACE, trt.float32)
    layer.alpha, layer.beta = 0.5, -0.25
    case.check(layer, torch.tensor([0.5, 0.25, 0.0, -0.25]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64])
def test_fill_by_inputs(net, dtype):
    data = net.input(torch.zeros(2, 3), dynamic=True)
    layer = net.raw.add_fill((0, 0), trt.FillOperation.LINSPACE, TYPES[dtype])
    layer.set_input(0, net.raw.add_shape(data).get_output(0))
    layer.set_input(1, net.constant(torch.tensor(5).to(dtype)))
    layer.set_input(2, net.constant(torch.tensor([10, 1]).to(dtype)))
    net.check(layer, torch.tensor([[5, 6, 7], [15, 16, 17]]).to(dtype))


@pytest.mark.parametrize("holds", [True, False])
def test_assertion(net, holds):
    x = net.input(torch.zeros(3 if holds else 4), dynamic=True)
    three = net.constant(torch.tensor([3]))
    equal = net.raw.add_elementwise(
        net.raw.add_shape(x).get_output(0), three, trt.ElementWiseOperation.EQUAL
    )
    net.raw.add_assertion(equal.get_output(0), "three rows")
    output = net.raw.add_identity(x).get_output(0)
    if holds:
        net.run(output)
        assert net.build(), LOGGER.errors
        return
    with pytest.raises(Violated, match="three rows"):
        net.run(output)


# Indexing.


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("axis", [0, 1])
def test_gather(net, axis, dtype):
    x, indices = torch.randn(3, 4), torch.tensor([[2, 0], [1, 1]])
    layer = net.raw.add_gather(net.input(x), net.input(indices.to(dtype)), axis)
    net.check(layer, x[indices] if axis == 0 else x[:, indices])


def test_gather_by_rows(net):
    x, indices = torch.randn(2, 4, 3), torch.tensor([[3, 0], [1, 1]])
    layer = net.raw.add_gather(net.input(x), net.input(indices.int()), 1)
    layer.num_elementwise_dims = 1
    net.check(layer, torch.stack([x[0][indices[0]], x[1][indices[1]]]))


def test_gather_elements(net):
    x, indices = torch.randn(3, 4), torch.randint(0, 4, (3, 2))
    layer = net.raw.add_gather_v2(net.input(x), net.input(indices), trt.GatherMode.ELEMENT)
    layer.axis = 1
    net.check(layer, torch.gather(x, 1, indices))


@pytest.mark.parametrize("shared", [0, 1])
def test_gather_nd(net, shared):
    x = torch.arange(24).reshape(2, 3, 4)
    indices = torch.tensor([[1, 2], [0, 1]]) if shared == 0 else torch.tensor([[[2]], [[0]]])
    layer = net.raw.add_gather_v2(net.input(x), net.input(indices), trt.GatherMode.ND)
    layer.num_elementwise_dims = shared
    expected = torch.stack([x[1, 2], x[0, 1]])
    if shared:
        expected = torch.stack([x[0, 2], x[1, 0]])[:, None]
    net.check(layer, expected)


@pytest.mark.parametrize("index", [-1, 3])
def test_gather_out_of_range(net, index):
    layer = net.raw.add_gather(net.input(torch.zeros(3)), net.input(torch.tensor([index])), 0)
    with pytest.raises(IndexError, match="outside"):
        net.run(layer.get_output(0))


def test_scatter_elements(net):
    x, updates = torch.zeros(3, 3), torch.tensor([[1.0, 1.1, 1.2], [2.0, 2.1, 2.2]])
    indices = torch.tensor([[1, 0, 2], [0, 2, 1]])
    inputs = [net.input(t) for t in (x, indices, updates)]
    layer = net.raw.add_scatter(*inputs, trt.ScatterMode.ELEMENT)
    layer.axis = 0
    net.check(layer, torch.tensor([[2.0, 1.1, 0.0], [1.0, 0.0, 2.2], [0.0, 2.1, 1.2]]))


def test_scatter_nd(net):
    x, indices, updates = torch.zeros(4, 2), torch.tensor([[3], [1]]), torch.ones(2, 2)
    inputs = [net.input(t) for t in (x, indices, updates)]
    layer = net.raw.add_scatter(*inputs, trt.ScatterMode.ND)
    net.check(layer, torch.tensor([[0.0, 0], [1, 1], [0, 0], [1, 1]]))


def test_scatter_twice(net):
    inputs = [net.input(t) for t in (torch.zeros(4), torch.tensor([[1], [1]]), torch.ones(2))]
    with pytest.raises(Undocumented, match="two updates"):
        net.run(net.raw.add_scatter(*inputs, trt.ScatterMode.ND).get_output(0))


@pytest.mark.parametrize("axis", [-1, 0])
def test_one_hot(net, axis):
    values = net.input(torch.tensor([0.0, 1.0]))
    depth = net.constant(torch.tensor(3).int())
    layer = net.raw.add_one_hot(net.input(torch.tensor([2, 0]).int()), values, depth, axis)
    expected = torch.tensor([[0.0, 0, 1], [1, 0, 0]])
    net.check(layer, expected if axis == -1 else expected.T)


def test_non_zero(net):
    layer = net.raw.add_non_zero(net.input(torch.tensor([[True, False], [True, True]])))
    # TensorRT for RTX has no kernel for this layer.
    net.check(layer, torch.tensor([[0, 1, 1], [0, 0, 1]]).int(), builds=False)


# Linear and spatial layers.


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("op0", "op1"), [(NONE, NONE), (TRANSPOSE, TRANSPOSE), (NONE, TRANSPOSE)])
def test_matrix_multiply(net, op0, op1, dtype):
    a, b = torch.randn(5, 2, 3).to(dtype), torch.randn(1, 3, 4).to(dtype)
    given = [x.mT.contiguous() if op == TRANSPOSE else x for x, op in ((a, op0), (b, op1))]
    layer = net.raw.add_matrix_multiply(net.input(given[0]), op0, net.input(given[1]), op1)
    expected = (a.double() @ b.double()).to(dtype)
    net.check(layer, expected, 1e-6 if dtype == torch.float32 else 1e-2)


def test_matrix_multiply_vectors(net):
    a, b = torch.randn(5, 2, 3), torch.randn(5, 3)
    layer = net.raw.add_matrix_multiply(net.input(a), NONE, net.input(b), VECTOR)
    net.check(layer, torch.einsum("bij,bj->bi", a, b), 1e-6)
    case = Net()
    layer = case.raw.add_matrix_multiply(case.input(b), VECTOR, case.input(b), VECTOR)
    case.check(layer, (b * b).sum(1), 1e-6)
    case = Net()
    layer = case.raw.add_matrix_multiply(case.input(b), VECTOR, case.input(a.mT), NONE)
    case.check(layer, torch.einsum("bj,bij->bi", b, a), 1e-6)


def test_einsum(net):
    a, b = torch.randn(2, 3, 4), torch.randn(4, 5)
    layer = net.raw.add_einsum([net.input(a), net.input(b)], "ijk,kl->jil")
    net.check(layer, torch.einsum("ijk,kl->jil", a, b), 1e-6)


@pytest.mark.parametrize("by_input", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_convolution(net, dtype, by_input):
    x, kernel, bias = torch.randn(2, 4, 7, 6), torch.randn(6, 2, 3, 2), torch.randn(6)
    x, kernel, bias = (t.to(dtype) for t in (x, kernel, bias))
    none = trt.Weights(TYPES[dtype])
    weights = [none, none] if by_input else [net.weights(kernel), net.weights(bias)]
    layer = net.raw.add_convolution_nd(net.input(x), 6, (3, 2), *weights)
    if by_input:
        layer.set_input(1, net.constant(kernel))
        layer.set_input(2, net.constant(bias))
    layer.num_groups, layer.stride_nd, layer.dilation_nd = 2, (2, 1), (1, 2)
    layer.pre_padding, layer.post_padding = (1, 0), (2, 1)
    padded = functional.pad(x.float(), (0, 1, 1, 2))
    expected = functional.conv2d(
        padded, kernel.float(), bias.float(), stride=(2, 1), dilation=(1, 2), groups=2
    )
    net.check(layer, expected.to(dtype), 1e-5 if dtype == torch.float32 else 1e-2)


def test_convolution_in_three_dimensions(net):
    x, kernel = torch.randn(1, 2, 4, 5, 6), torch.randn(3, 2, 2, 3, 2)
    layer = net.raw.add_convolution_nd(net.input(x), 3, (2, 3, 2), net.weights(kernel))
    layer.padding_nd = (1, 0, 1)
    net.check(layer, functional.conv3d(x, kernel, padding=(1, 0, 1)), 1e-5)


@pytest.mark.parametrize("space", [2, 3])
def test_deconvolution(net, space):
    size = [3] * space
    x, kernel, bias = torch.randn(2, 4, *[5] * space), torch.randn(4, 3, *size), torch.randn(6)
    layer = net.raw.add_deconvolution_nd(
        net.input(x), 6, size, net.weights(kernel), net.weights(bias)
    )
    layer.num_groups, layer.stride_nd = 2, [2] * space
    layer.pre_padding, layer.post_padding = [1] * space, [0] * space
    function = functional.conv_transpose2d if space == 2 else functional.conv_transpose3d
    expected = function(x, kernel, bias, stride=2, padding=1, output_padding=1, groups=2)
    net.check(layer, expected, 1e-5)


@pytest.mark.parametrize("excludes", [True, False])
@pytest.mark.parametrize("kind", ["MAX", "AVERAGE"])
def test_pooling(net, kind, excludes):
    x = torch.randn(2, 3, 7, 8) - 3
    layer = net.raw.add_pooling_nd(net.input(x), getattr(trt.PoolingType, kind), (3, 2))
    layer.stride_nd, layer.padding_nd = (2, 2), (1, 1)
    layer.average_count_excludes_padding = excludes
    if kind == "MAX":
        expected = functional.max_pool2d(x, (3, 2), 2, (1, 1))
    else:
        expected = functional.avg_pool2d(x, (3, 2), 2, (1, 1), count_include_pad=not excludes)
    net.check(layer, expected, 1e-6)


def test_pooling_in_three_dimensions(net):
    x = torch.randn(1, 2, 4, 5, 6)
    layer = net.raw.add_pooling_nd(net.input(x), trt.PoolingType.MAX, (2, 3, 2))
    layer.stride_nd = (1, 2, 2)
    net.check(layer, functional.max_pool3d(x, (2, 3, 2), (1, 2, 2)))


@pytest.mark.parametrize("mode", ["LINEAR", "CUBIC"])
@pytest.mark.parametrize("corners", [True, False])
def test_resize(net, mode, corners):
    x = torch.randn(1, 2, 5, 4)
    layer = net.raw.add_resize(net.input(x))
    layer.shape = (1, 2, 8, 9)
    layer.resize_mode = getattr(trt.InterpolationMode, mode)
    names = trt.ResizeCoordinateTransformation
    layer.coordinate_transformation = names.ALIGN_CORNERS if corners else names.HALF_PIXEL
    torch_mode = {"LINEAR": "bilinear", "CUBIC": "bicubic"}[mode]
    expected = functional.interpolate(x, size=(8, 9), mode=torch_mode, align_corners=corners)
    net.check(layer, expected, 1e-5)


@pytest.mark.parametrize(
    ("rounding", "transformation", "expected"),
    [
        # Coordinates 0 0.5 1 1.5 2 2.5, and -0.25 0.25 0.75 1.25 1.75 2.25.
        ("FLOOR", "ASYMMETRIC", [0, 0, 1, 1, 2, 2]),
        ("CEIL", "ASYMMETRIC", [0, 1, 1, 2, 2, 2]),
        ("HALF_UP", "ASYMMETRIC", [0, 1, 1, 2, 2, 2]),
        ("HALF_DOWN", "ASYMMETRIC", [0, 0, 1, 1, 2, 2]),
        ("HALF_DOWN", "HALF_PIXEL", [0, 0, 1, 1, 2, 2]),
        ("CEIL", "HALF_PIXEL", [0, 1, 1, 2, 2, 2]),
    ],
)
def test_resize_to_the_nearest(net, rounding, transformation, expected):
    layer = net.raw.add_resize(net.input(torch.arange(3).float().reshape(1, 1, 1, 3)))
    layer.scales = (1, 1, 1, 2)
    layer.resize_mode = trt.InterpolationMode.NEAREST
    layer.nearest_rounding = getattr(trt.ResizeRoundMode, rounding)
    layer.coordinate_transformation = getattr(trt.ResizeCoordinateTransformation, transformation)
    net.check(layer, torch.tensor(expected).float().reshape(1, 1, 1, 6))


@pytest.mark.parametrize("mode", ["NEAREST", "LINEAR"])
def test_resize_beside_nan(net, mode):
    """The nearest is one element, whatever is beside it; of a weighted sum nothing is said."""
    x = torch.tensor([math.nan, 1.0, math.inf]).reshape(1, 1, 1, 3)
    layer = net.raw.add_resize(net.input(x))
    layer.shape, layer.resize_mode = (1, 1, 1, 6), getattr(trt.InterpolationMode, mode)
    layer.coordinate_transformation = trt.ResizeCoordinateTransformation.ASYMMETRIC
    layer.nearest_rounding = trt.ResizeRoundMode.FLOOR
    if mode == "NEAREST":
        net.check(layer, x.repeat_interleave(2, 3))
    else:
        with pytest.raises(Undocumented, match="NaN or infinite"):
            net.run(layer.get_output(0))


def test_resize_excluding_the_outside(net):
    layer = net.raw.add_resize(net.input(torch.tensor([2.0, 6.0]).reshape(1, 1, 1, 2)))
    layer.set_input(1, net.constant(torch.tensor([1, 1, 1, 4]).int()))
    layer.resize_mode, layer.exclude_outside = trt.InterpolationMode.LINEAR, True
    layer.coordinate_transformation = trt.ResizeCoordinateTransformation.HALF_PIXEL
    net.check(layer, torch.tensor([2.0, 3.0, 5.0, 6.0]).reshape(1, 1, 1, 4), 1e-6)


# Quantization.


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["scalar", "axis", "block"])
@pytest.mark.parametrize("small", ["INT8", "INT4", "FP8"])
def test_quantization(net, small, kind, dtype):
    x = (torch.randn(4, 6) * 40).to(dtype)
    shape = {"scalar": (), "axis": (6,), "block": (2, 6)}[kind]
    scale = (torch.rand(shape) + 0.5).to(dtype)
    factor, to = net.constant(scale), getattr(trt, small.lower())
    quantized = net.raw.add_quantize(net.input(x), factor, to)
    back = net.raw.add_dequantize(quantized.get_output(0), factor, TYPES[dtype])
    if kind == "axis":
        quantized.axis = back.axis = 1
    spread = scale.float()
    if kind == "block":
        spread = spread.repeat_interleave(2, 0)
        # Builders take no block shape for int4, though the page does: the blocks are implied then.
        if small != "INT4":
            quantized.block_shape = back.block_shape = (2, 1)
    low, high = {"INT8": (-128, 127), "INT4": (-8, 7), "FP8": (-448, 448)}[small]
    ratio = (x.float() / spread).clamp(low, high)
    whole = ratio.to(torch.float8_e4m3fn).float() if small == "FP8" else ratio.round()
    net.check(back, (whole * spread).to(dtype))


def test_blocks_of_int4_weights(net):
    packed = torch.tensor([0x21, 0xF8, 0x7C, 0x35], dtype=torch.uint8)
    scale = torch.tensor([[0.5, 2.0], [1.0, 4.0]])
    layer = net.raw.add_dequantize(
        net.constant(packed, trt.int4, (4, 2)), net.constant(scale), trt.float32
    )
    whole = torch.tensor([[1, 2], [-8, -1], [-4, 7], [5, 3]]).float()
    net.check(layer, whole * scale.repeat_interleave(2, 0))


def test_quantize_rounds_to_even(net):
    scale, x = net.constant(torch.tensor(2.0)), torch.tensor([1.0, 3.0, 5.0, -1.0, 300.0, -300.0])
    layer = net.raw.add_quantize(net.input(x), scale, trt.int8)
    net.check(layer, torch.tensor([0, 2, 2, 0, 127, -128]).to(torch.int8))


def test_int4_input(net):
    x = net.input(torch.tensor([[-8, 7]]).to(torch.int8), trt.int4)
    layer = net.raw.add_dequantize(x, net.constant(torch.tensor(0.5)), trt.float32)
    (result,) = net.run(layer.get_output(0))
    same(result, torch.tensor([[-4.0, 3.5]]))


@pytest.mark.parametrize("wrong", ["scale", "type", "axis", "blocks"])
def test_refused_quantization(net, wrong):
    x, scale = torch.zeros(4, 4, 4), torch.tensor(1.0)
    if wrong == "scale":
        factor = net.input(scale)
    elif wrong == "blocks":
        factor = net.constant(torch.ones(4, 2, 2))
    else:
        factor = net.constant(scale.half() if wrong == "type" else torch.ones(4))
    layer = net.raw.add_quantize(net.input(x), factor, trt.int8)
    with pytest.raises(Refused, match=r"constant|the scale is|axis"):
        net.run(layer.get_output(0))


# Attention.


def attend(net, q, k, v, causal="NONE"):
    softmax, kind = trt.AttentionNormalizationOp.SOFTMAX, getattr(trt.CausalMaskKind, causal)
    tensors = [net.input(t) for t in (q, k, v)]
    attention = net.raw.add_attention_v2(*tensors, softmax, kind)
    attention.decomposable = True
    return attention


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mask", ["none", "bool", "float", "causal"])
def test_attention(net, mask, dtype):
    q, k, v = (torch.randn(2, 4, 5, 8).to(dtype) * 0.5 for _ in range(3))
    attention = attend(net, q, k, v, "UPPER_LEFT" if mask == "causal" else "NONE")
    value = None
    if mask == "bool":
        value = torch.rand(2, 1, 5, 5) > 0.3
        value[..., 0] = True
    elif mask == "float":
        value = torch.randn(1, 4, 5, 5).to(dtype)
    if value is not None:
        attention.mask = net.input(value)
    expected = functional.scaled_dot_product_attention(
        *(t.float() for t in (q, k, v)),
        attn_mask=value.float() if mask == "float" else value,
        is_causal=mask == "causal",
        scale=1.0,
    )
    net.check(attention, expected.to(dtype), 1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("causal", ["NONE", "UPPER_LEFT", "LOWER_RIGHT"])
def test_grouped_attention(net, causal):
    q, k, v = torch.randn(1, 4, 2, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    attention = attend(net, q, k, v, causal)
    mask = torch.ones(2, 5).bool().tril({"UPPER_LEFT": 0, "LOWER_RIGHT": 3, "NONE": 9}[causal])
    expected = functional.scaled_dot_product_attention(q, k, v, mask, scale=1.0, enable_gqa=True)
    net.check(attention, expected, 1e-5)


def test_attention_with_lengths(net):
    q, k, v = torch.randn(2, 2, 3, 8), torch.randn(2, 2, 4, 8), torch.randn(2, 2, 4, 8)
    attention = attend(net, q, k, v)
    attention.key_value_lengths = net.input(torch.tensor([2, 4]).int())
    (result,) = net.run(attention.get_output(0))
    for batch, length in enumerate((2, 4)):
        parts = [t[batch] for t in (q, k[:, :, :length], v[:, :, :length])]
        same(result[batch], functional.scaled_dot_product_attention(*parts, scale=1.0), 1e-5)


def test_kv_cache_update(net):
    cache, update = torch.randn(2, 2, 8, 4), torch.randn(2, 2, 3, 4)
    mode, indices = trt.KVCacheMode.LINEAR, torch.tensor([0, 5]).int()
    inputs = [net.input(t) for t in (cache, update, indices)]
    layer = net.raw.add_kv_cache_update(*inputs, mode)
    expected = cache.clone()
    expected[0, :, 0:3], expected[1, :, 5:8] = update[0], update[1]
    net.check(layer, expected)


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dim", [0, 4])
def test_rotary_embedding(net, dim, interleaved, ids):
    x, half = torch.randn(2, 3, 5, 8), (dim or 8) // 2
    angles = torch.randn(9, half)
    positions = torch.randint(0, 9, (2, 5))
    cache = angles if ids else angles[positions]
    inputs = [net.input(t) for t in (x, cache.cos(), cache.sin())]
    layer = net.raw.add_rotary_embedding(*inputs, interleaved, dim)
    if ids:
        layer.set_input(3, net.input(positions.int()))
    part = x[..., : 2 * half]
    pairs = part.unflatten(-1, (half, 2)) if interleaved else part.unflatten(-1, (2, half)).mT
    numbers = torch.view_as_complex(pairs.contiguous())
    turned = numbers * torch.polar(torch.ones(()), angles[positions][:, None])
    pairs = torch.view_as_real(turned)
    part = pairs.flatten(-2) if interleaved else pairs.mT.flatten(-2)
    net.check(layer, torch.cat([part, x[..., 2 * half :]], -1), 1e-5)


# What TensorRT refuses.


def test_unequal_types_are_refused(net):
    a, b = net.input(torch.zeros(2)), net.input(torch.zeros(2).half())
    layer = net.raw.add_elementwise(a, b, trt.ElementWiseOperation.SUM)
    with pytest.raises(Refused, match="nothing casts them"):
        net.run(layer.get_output(0))
    assert not net.build()


@pytest.mark.parametrize("wrong", ["missing", "type", "shape"])
def test_wrong_inputs(net, wrong):
    net.raw.mark_output(net.raw.add_identity(net.input(torch.zeros(2, 3))).get_output(0))
    value = {"missing": None, "type": torch.zeros(2, 3).half(), "shape": torch.zeros(3, 2)}[wrong]
    with pytest.raises(Refused, match="input"):
        network_interpreter.run(trt, net.raw, {} if value is None else {"input0": value})


def test_unknown_layer_is_named(net):
    layer = net.raw.add_lrn(net.input(torch.zeros(1, 2, 3, 3)), 3, 1.0, 0.5, 1.0)
    layer.name = "normal"
    with pytest.raises(NotImplementedError, match=r"normal.*LRN"):
        net.run(layer.get_output(0))


def test_numpy_inputs(net):
    output = net.raw.add_identity(net.input(torch.ones(2).bfloat16())).get_output(0)
    net.raw.mark_output(output)
    bits = torch.ones(2).bfloat16().view(torch.int16).numpy()
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    results = network_interpreter.run(trt, net.raw, {"input0": bits.view(bfloat16)})
    same(results[output.name], torch.ones(2).bfloat16())
