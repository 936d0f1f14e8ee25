"""Normalization and quantization of rows, against float64."""

import pytest
import torch

from tripy import dtypes
from tripy.backends.torch.lowering.quantization import rounded

normalization = pytest.importorskip("tripy.backends.torch.kernels.cuda.normalization")
normalize, quantize_rows = normalization.normalize, normalization.quantize_rows

TOLERANCE = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
TYPES = {torch.int8: dtypes.int8, torch.float8_e4m3fn: dtypes.float8}
FLOATS = list(TOLERANCE)


def random(*shape, dtype=torch.float32, device):
    return torch.randn(shape).to(device, dtype)


def reference(x, weight, bias, eps, kind):
    x = x.double()
    if kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    return x if bias is None else x + bias.double()


def is_exact(device, dtype, quantized=torch.int8):
    """Triton's interpreter cuts bfloat16 and float8 off instead of rounding them."""
    return device.type == "cuda" or (dtype is not torch.bfloat16 and quantized is torch.int8)


def assert_quantized(got, y, scale):
    """Equal to tripy's definition, bit for bit."""
    expected = rounded(y.float() / scale, TYPES[got.dtype])
    assert torch.equal(got.view(torch.int8), expected.view(torch.int8))


@pytest.fixture(params=[False, True], ids=["short", "long"])
def long_rows(request, monkeypatch):
    """Rows in one pass, and small rows as those that are too long for it."""
    if request.param:
        monkeypatch.setattr(normalization, "_ONE_PASS", 0)
        monkeypatch.setattr(normalization, "_LONG_BLOCK", 64)
    return request.param


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("width", [1, 7, 64, 100])
def test_result_is_that_of_float64(device, long_rows, dtype, kind, width):
    torch.manual_seed(width)
    x, residual = (random(2, 3, width, dtype=dtype, device=device) * 3 + 1 for _ in range(2))
    weight, bias = (random(width, dtype=dtype, device=device) for _ in range(2))
    bias = bias if kind == "layer" else None
    bound = TOLERANCE[dtype] * (1 if is_exact(device, dtype) else 2)
    total, y, scales = normalize(x, weight, bias, 1e-5, kind=kind)
    assert total is None and scales is None and y.dtype is dtype
    torch.testing.assert_close(
        y.double(), reference(x, weight, bias, 1e-5, kind), rtol=bound, atol=bound
    )
    total, y, _ = normalize(x, weight, bias, 1e-5, kind=kind, residual=residual)
    assert torch.equal(total, x + residual) or not is_exact(device, dtype)
    torch.testing.assert_close(
        y.double(), reference(total, weight, bias, 1e-5, kind), rtol=bound, atol=bound
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("quantized", list(TYPES))
def test_quantized_result_is_that_of_two_steps(device, long_rows, dtype, quantized):
    if not is_exact(device, dtype, quantized):
        pytest.skip("Triton's interpreter does not round to float8")
    torch.manual_seed(0)
    x, residual = (random(5, 100, dtype=dtype, device=device) for _ in range(2))
    weight, bias = (random(100, dtype=dtype, device=device) for _ in range(2))
    scale = torch.tensor(0.0172, device=device)
    _, y, _ = normalize(x, weight, bias, 1e-5, residual=residual)
    for value in (scale, scale.item()):
        _, got, _ = normalize(
            x, weight, bias, 1e-5, residual=residual, scale=value, dtype=quantized
        )
        assert_quantized(got, y, scale)
    _, got, scales = normalize(x, weight, bias, 1e-5, residual=residual, dynamic=quantized)
    amax = y.abs().amax(-1).float()
    high = torch.tensor(normalization.HIGH[quantized], device=device)
    assert torch.equal(scales, (amax / high).to(dtype).float())
    assert_quantized(got, y, scales[:, None])


def test_rounding_is_to_even_and_saturates(device):
    x = torch.tensor([[0.5, 1.5, -0.5, -1.5, 126.5, 127.5, 400.0, -400.0, 0.0]], device=device)
    got, _ = quantize_rows(x, scale=1.0, dtype=torch.int8)
    assert got.tolist() == [[0, 2, 0, -2, 126, 127, 127, -128, 0]]


def test_rows_of_zeros_have_a_usable_scale(device, long_rows):
    x = torch.zeros(2, 9, device=device, dtype=torch.float16)
    got, scales = quantize_rows(x, dynamic=torch.int8)
    assert not got.any() and scales.tolist() == [torch.finfo(torch.float16).tiny] * 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # The interpreter's numpy.
def test_nan_stays_in_its_row(device, long_rows):
    x = torch.ones(3, 70, device=device)
    x[1, 69] = float("nan")
    _, y, _ = normalize(x, None, None, 1e-5)
    assert y[1].isnan().all() and not y[[0, 2]].isnan().any()
    _, scales = quantize_rows(x, dynamic=torch.int8)
    assert scales.isnan().tolist() == [False, True, False]


def test_other_rows_change_nothing(device, long_rows):
    x = random(7, 100, device=device)
    weight = random(100, device=device)
    _, all_rows, scales = normalize(x, weight, None, 1e-5, kind="rms", dynamic=torch.int8)
    _, one, scale = normalize(x[3:4], weight, None, 1e-5, kind="rms", dynamic=torch.int8)
    assert torch.equal(all_rows[3:4], one) and torch.equal(scales[3:4], scale)


def test_no_rows(device):
    _, y, scales = normalize(torch.ones(0, 8, device=device), None, None, 0.0, dynamic=torch.int8)
    assert y.shape == (0, 8) and scales.shape == (0,)


@pytest.mark.gpu
@pytest.mark.parametrize("width", [768, 1600, 4096, 16384, 20001])
def test_large_rows(gpu, width):
    x, residual = (random(300, width, dtype=torch.float16, device=gpu) for _ in range(2))
    weight, bias = (random(width, dtype=torch.float16, device=gpu) for _ in range(2))
    total, y, _ = normalize(x, weight, bias, 1e-5, residual=residual)
    expected = reference(total, weight, bias, 1e-5, "layer")
    torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)
    _, early, _ = normalize(x, weight, bias, 1e-5, residual=residual, pdl=True)
    assert torch.equal(early, y)
