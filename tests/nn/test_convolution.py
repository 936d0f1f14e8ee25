"""tp.Conv and tp.ConvTranspose against PyTorch in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import tripy as tp
from tests.helpers import ROUNDING, F, plain, tensor
from tests.nn.support import refused
from tripy.dtypes import QUANTIZED_RANGE

FORWARD = (functional.conv1d, functional.conv2d, functional.conv3d)
BACKWARD = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def reference(layer, x, weight):
    """The result without bias, from zeros put around the input or cut off the result."""
    x, weight = torch.from_numpy(x), torch.from_numpy(weight)
    count = x.dim() - 3
    widths = [width for pair in reversed(layer.padding) for width in pair]
    options = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
    if isinstance(layer, tp.Conv):
        return FORWARD[count](functional.pad(x, widths), weight, **options).numpy()
    cut = [-width for width in widths]
    return functional.pad(BACKWARD[count](x, weight, **options), cut).numpy()


def check(layer, x, weight=None, used=None):
    """Within the error that a sum of so many products may have, eager and compiled."""
    weight = plain(layer.weight) if weight is None else weight
    used = plain(x) if used is None else used
    terms = weight[0].size * 8 + 8  # An upper bound, for both directions and up to 4 groups.
    expected = reference(layer, used, weight)
    bound = terms * ROUNDING[layer.dtype] * reference(layer, abs(used), abs(weight))
    if layer.bias is not None:
        expected = expected + plain(layer.bias).reshape(-1, *[1] * (x.rank - 2))
        bound = bound + 2 * ROUNDING[layer.dtype] * np.abs(expected)
    rows = tp.InputInfo([(1, size, size + 2) for size in x.shape[:1]] + list(x.shape[1:]), x.dtype)
    for result in (layer(x), tp.compile(layer, args=[rows])(x)):
        assert result.dtype is layer.dtype and result.shape == expected.shape
        assert np.all(np.abs(plain(result) - expected) <= bound + 1e-30)


@st.composite
def layers(draw, kind):
    count, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    each = st.integers(1, 2)

    def one_a_dimension(values):
        return tuple(draw(values) for _ in range(count))

    pair = st.tuples(st.integers(0, 1), st.integers(0, 1))
    return kind(
        groups * draw(each), groups * draw(each), one_a_dimension(st.integers(2, 3)),
        one_a_dimension(each), one_a_dimension(pair), one_a_dimension(each), groups,
        draw(st.booleans()), draw(st.sampled_from(F)),
    )  # fmt: skip


@pytest.mark.parametrize("kind", [tp.Conv, tp.ConvTranspose])
@given(data=st.data(), seed=st.integers(0, 99))
def test_against_torch(kind, data, seed):
    layer, random = data.draw(layers(kind)), np.random.default_rng(seed)
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, tensor(random.standard_normal(parameter.shape), layer.dtype))
    sizes = random.integers(5, 8, len(layer.kernel_dims))
    check(layer, tensor(random.standard_normal((2, layer.in_channels, *sizes)), layer.dtype))


@pytest.mark.parametrize("with_input", [True, False])
@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("kind", [tp.Conv, tp.ConvTranspose])
@given(seed=st.integers(0, 99), stored=st.booleans())
def test_int8(kind, dim, with_input, seed, stored):
    random = np.random.default_rng(seed)
    summed = 1 if kind is tp.Conv else 0
    if dim == summed and with_input:
        return  # Refused: see below.
    layer = kind(3, 4, (3, 2), bias=True, quant_dtype=tp.int8, weight_quant_dim=dim)
    weight = random.standard_normal(layer.weight.shape).astype(np.float32)
    scale = random.uniform(0.01, 0.04, layer.weight_scale.shape).astype(np.float32)
    x = random.standard_normal((2, 3, 5, 6)).astype(np.float32)
    wide = scale if dim is None else scale.reshape([-1 if d == dim else 1 for d in range(4)])
    q = np.clip(np.rint(weight / wide), -128, 127)
    layer.weight = tensor(q, tp.int8) if stored else tensor(weight, tp.float32)
    layer.weight_scale = tensor(scale, tp.float32)
    layer.bias = tensor(random.standard_normal(4), tp.float32)
    used = x.astype(np.float64)
    if with_input:
        layer.input_scale = 1 / 64
        used = np.clip(np.rint(used * 64), -128, 127) / 64
    check(layer, tensor(x, tp.float32), q * wide.astype(np.float64), used)


def rounded(x, scale, kind):
    """``quantize``, as float64 holds the small numbers."""
    quotient = np.float32(x) / np.float32(scale)
    if kind is tp.float8:
        return plain(tensor(np.clip(quotient, -448, 448), kind))
    return np.clip(np.rint(quotient.astype(np.float64)), *QUANTIZED_RANGE[kind])


@pytest.mark.parametrize("with_input", [True, False])
@pytest.mark.parametrize("quant_dtype", [tp.int8, tp.int4, tp.float8])
@pytest.mark.parametrize("kind", [tp.Conv, tp.ConvTranspose])
@given(data=st.data(), seed=st.integers(0, 99))
def test_pre_quant_scale(kind, quant_dtype, with_input, data, seed):
    plan, random = data.draw(layers(kind)), np.random.default_rng(seed)
    dtype = plan.dtype
    layer = kind(
        plan.in_channels, plan.out_channels, plan.kernel_dims, plan.stride, plan.padding,
        plan.dilation, plan.groups, plan.bias is not None, dtype, quant_dtype,
    )  # fmt: skip
    input_kind = tp.int8 if quant_dtype is tp.int4 else quant_dtype
    high, input_high = QUANTIZED_RANGE[quant_dtype][1], QUANTIZED_RANGE[input_kind][1]
    scale = plain(tensor(2 / high, dtype))
    layer.weight = tensor(random.standard_normal(layer.weight.shape), dtype)
    layer.weight_scale = tensor(scale, dtype)
    if layer.bias is not None:
        layer.bias = tensor(random.standard_normal(layer.out_channels), dtype)
    sizes = random.integers(5, 8, len(layer.kernel_dims))
    x = tensor(random.standard_normal((2, layer.in_channels, *sizes)), dtype)
    layer.pre_quant_scale = tensor(random.uniform(0.5, 2, layer.in_channels), dtype)
    along = plain(layer.pre_quant_scale).reshape(-1, *[1] * len(sizes))
    used = plain(tensor(plain(x) * along, dtype))
    if with_input:
        step = plain(tensor(2 / input_high, dtype))
        layer.input_scale = tensor(step, dtype)
        used = rounded(used, step, input_kind) * step
    check(layer, x, rounded(plain(layer.weight), scale, quant_dtype) * scale, used)


@pytest.mark.parametrize("kind", [tp.Conv, tp.ConvTranspose])
def test_pre_quant_scale_as_a_parameter(kind):
    layer = kind(6, 4, (3, 3), groups=2, bias=False, quant_dtype=tp.int8)
    assert layer.pre_quant_scale is None
    assert list(layer.state_dict()) == ["weight", "weight_scale"]
    layer.initialize_dummy_parameters()
    layer.pre_quant_scale = [2.0] * 6
    assert "    pre_quant_scale: float32[6]" in str(layer).splitlines()
    other = kind(6, 4, (3, 3), groups=2, bias=False, quant_dtype=tp.int8)
    other.load_state_dict(layer.state_dict())
    assert other.pre_quant_scale.tolist() == [2.0] * 6
    x = tp.ones((1, 6, 5, 5))
    assert other(x).tolist() == layer(x).tolist()
    layer.pre_quant_scale = None
    assert other(x).tolist() == (layer(x) * 2).tolist()
    for shape in ((), (4,), (3,), (6, 1, 1)):
        scale = tp.ones(shape)
        with refused(f"{kind.__name__}.pre_quant_scale: the shape does not fit", "(6,)"):
            layer.pre_quant_scale = scale
    with refused("pre_quant_scale: the data type"):
        layer.pre_quant_scale = tp.ones((6,), dtype=tp.float16)
    with refused("pre_quant_scale: a scale is not usable"):
        layer.pre_quant_scale = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    unquantized = kind(6, 4, (3, 3), groups=2)
    unquantized.initialize_dummy_parameters()
    state = {**unquantized.state_dict(), "pre_quant_scale": tp.ones((6,))}
    with refused("pre_quant_scale: unexpected"):
        unquantized.load_state_dict(state)


def test_scales_along_the_summed_dimension():
    conv = tp.Conv(3, 4, (3,), quant_dtype=tp.int8, weight_quant_dim=1)
    transposed = tp.ConvTranspose(3, 4, (3,), quant_dtype=tp.int8, weight_quant_dim=0)
    with refused("Conv.input_scale", "weight_quant_dim=1", "summed dimension"):
        conv.input_scale = 1.0
    with refused("ConvTranspose.input_scale", "weight_quant_dim=0", "summed dimension"):
        transposed.input_scale = 1.0
    conv.weight_scale, transposed.weight_scale = [1.0] * 3, [1.0] * 3
    per_tensor = tp.Conv(3, 4, (3,), quant_dtype=tp.int8)
    with refused("Conv.weight_scale", "float32[4, 3]", "()"):
        per_tensor.weight_scale = tp.ones((4, 3))


def test_parameters():
    conv = tp.Conv(4, 6, (3, 5), groups=2)
    assert conv.weight.shape == (6, 2, 3, 5) and conv.bias.shape == (6,)
    transposed = tp.ConvTranspose(4, 6, (3,), groups=2, bias=False)
    assert transposed.weight.shape == (4, 3, 3) and transposed.bias is None
    assert conv.stride == (1, 1) and conv.padding == ((0, 0), (0, 0)) and conv.groups == 2


def test_sizes_known_only_at_run_time():
    conv = tp.Conv(1, 1, (3,), stride=(2,), padding=((0, 1),), bias=False)
    conv.weight = tp.Tensor([[[1.0, 2.0, 3.0]]])
    size = tp.NamedDimension("size", 2, 5, 9)
    compiled = tp.compile(conv, args=[tp.InputInfo((1, 1, size), tp.float32)])
    for count in (2, 5, 8):
        x = tp.iota((1, 1, count), dim=2).eval()
        assert compiled(x).tolist() == conv(x).tolist()


def test_inputs_that_do_not_fit():
    conv, transposed = tp.Conv(3, 4, (3, 3)), tp.ConvTranspose(3, 4, (1, 1), padding=((2, 2),) * 2)
    conv.initialize_dummy_parameters()
    transposed.initialize_dummy_parameters()
    for shape in ((1, 2, 5, 5), (1, 3, 5), (3, 5, 5, 5, 5), (3,)):
        x = tp.ones(shape)
        with refused("Conv: the input's shape", str(shape), "3 channels, rank 4"):
            conv(x)
    small, half = tp.ones((1, 3, 2, 5)), tp.ones((1, 3, 5, 5), dtype=tp.float16)
    with refused("convolution: the kernel is larger than the padded input", "3 <= 2"):
        conv(small)
    with refused("conv_transpose: the padding cuts off all"):
        transposed(small)
    with refused("conv_transpose: the padding cuts off all"):
        transposed(tp.ones((1, 3, 4, 5)))  # As much as there is.
    assert transposed(tp.ones((1, 3, 5, 5))).shape == (1, 4, 1, 1)
    with refused("Conv: the input's data type", "float16"):
        conv(half)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"in_channels": 0}, "in_channels=0"),
        ({"kernel_dims": 3}, "kernel_dims=3"),
        ({"kernel_dims": ()}, "kernel_dims=()"),
        ({"kernel_dims": (1, 1, 1, 1)}, "1, 2 or 3 sizes"),
        ({"kernel_dims": (0,)}, "kernel_dims=(0,)"),
        ({"stride": (1, 1)}, "stride=(1, 1)"),
        ({"stride": (0,)}, "stride=(0,)"),
        ({"dilation": (0,)}, "dilation=(0,)"),
        ({"padding": (1, 1)}, "padding=(1, 1)"),
        ({"padding": ((1, -1),)}, "padding=((1, -1),)"),
        ({"padding": ((1, 1), (1, 1))}, "1 pairs"),
        ({"groups": 2}, "groups=2"),
        ({"dtype": tp.int8}, "dtype=int8"),
    ],
)
@pytest.mark.parametrize("kind", [tp.Conv, tp.ConvTranspose])
def test_arguments_that_are_refused(kind, arguments, text):
    usual = {"in_channels": 3, "out_channels": 4, "kernel_dims": (3,)}
    with refused(kind.__name__, text):
        kind(**{**usual, **arguments})
