"""The library built from csrc: it builds without a GPU, and on one its products are right."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import tripy as tp
from tripy.backends.torch.kernels.cuda import native

ROOT = Path(__file__).parents[3]
F8 = torch.float8_e4m3fn
ACTIVATIONS = {
    None: lambda x: x, "relu": F.relu, "silu": F.silu, "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}  # fmt: skip
# Each first size with tails in every dimension; the last with several tiles a multiprocessor.
SHAPES = [(1, 16, 16), (7, 48, 400), (129, 272, 144), (300, 1040, 2064), (3000, 2064, 1040)]


def test_reasons():
    """Sizes that the copy engine does not take, by name."""
    assert native.reason((5, 64), (16, 64), torch.int8) is None
    assert native.reason((5, 64), (8, 64), torch.float16) is None
    assert "rows of 72 one-byte" in native.reason((5, 72), (16, 72), torch.int8)
    assert "rows of 8 torch.int8" in native.reason((5, 64), (8, 64), torch.int8)
    assert "rows of 2 torch.float32" in native.reason((5, 64), (2, 64), torch.float32)
    assert "expected less than" in native.reason((2**31, 64), (16, 64), torch.int8)


def test_says_why_it_is_not_available():
    assert native.available(tp.device("cpu")) == "the device is no GPU"
    if not torch.cuda.is_available():
        assert native.available(tp.device("gpu")) == "torch sees no CUDA device"


@pytest.mark.skipif(
    not (shutil.which("nvcc") and shutil.which("cmake")), reason="needs nvcc and cmake"
)
def test_builds(tmp_path):
    """The whole library, minutes on two cores; then loaded, where a mistaken structure shows."""
    subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path, "-DTRIPY_NATIVE=ON"], check=True)
    subprocess.run(["cmake", "--build", tmp_path, "--parallel", str(os.cpu_count())], check=True)
    code = (
        "from tripy.backends.torch.kernels.cuda import native, native_decode, native_weight_only\n"
        "from tripy.backends.torch.kernels.cuda import native_mixed_gemm\n"
        "import ctypes\n"
        "many = native_mixed_gemm._library().tripy_mixed_gemm_size()\n"
        "small = native_weight_only._library().tripy_weight_only_size()\n"
        "print(native.broken(), native_decode.agrees(native.library()),\n"
        "      small == ctypes.sizeof(native_weight_only._WeightOnly),\n"
        "      many == ctypes.sizeof(native_mixed_gemm._MixedGemm))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "TRIPY_NATIVE_LIBRARY": str(tmp_path / "libtripy_cuda.so")},
    )  # fmt: skip
    assert ran.stdout.strip() == "None True True True"


@pytest.fixture
def library(gpu):
    """The library on a GPU that it is for; seeds the GPU's random numbers."""
    if native.available(tp.device("gpu")):
        pytest.skip(native.available(tp.device("gpu")))
    torch.manual_seed(0)


def values(shape, dtype):
    if dtype == torch.int8:
        return torch.randint(-128, 128, shape, device="cuda", dtype=dtype)
    return torch.randn(shape, device="cuda").to(dtype)


def layer(m, n, k, dtype):
    """x, weight, and scales that bring results near 1."""
    size = k**0.5 * (5461 if dtype == torch.int8 else 1)
    scale = (torch.rand(n, device="cuda") + 0.5) / size
    return values((m, k), dtype), values((n, k), dtype), scale


def reference(x, weight, scale, row_scale=None, bias=None, activation=None, residual=None):
    """In float64: exact for int8 up to the scale."""
    y = x.double() @ weight.double().T
    y = y * (1 if row_scale is None else row_scale.double()[:, None]) * scale.double()
    y = ACTIVATIONS[activation](y if bias is None else y + bias.double())
    return y if residual is None else y + residual.double()


def close(got, expected, relative, absolute):
    return bool(((got.double() - expected).abs() <= relative * expected.abs() + absolute).all())


def sum_error(kind):
    """Of results near 1: float32's rounding, or the 14 bits of the tensor core's float8 sums."""
    return 1e-5 if kind == torch.int8 else 2e-2


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [torch.int8, F8])
@pytest.mark.parametrize("tile", range(-1, native.TILES))
def test_floating_point_results(library, tile, kind, dtype):
    """Every tile, size and activation, with and without every optional input."""
    relative = max(torch.finfo(dtype).eps, 1e-5)
    for number, (m, n, k) in enumerate(SHAPES):
        for i, activation in enumerate(ACTIVATIONS):
            x, weight, scale = layer(m, n, k, kind)
            kwargs = {"activation": activation}
            if i != 0:
                kwargs["bias"] = torch.randn(n, device="cuda")
            if (i + number) % 2:
                kwargs["row_scale"] = torch.rand(m, device="cuda") + 0.5
            if (i + number) % 3 == 1:
                kwargs["residual"] = torch.randn(m, n, device="cuda").to(dtype)
            got = native.scaled_gemm(x, weight, scale, dtype=dtype, tile=tile, **kwargs)
            assert got.dtype == dtype
            expected = reference(x, weight, scale, **kwargs)
            assert close(got, expected, relative, sum_error(kind)), (m, n, k, activation)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [torch.int8, F8])
@pytest.mark.parametrize("tile", range(-1, native.TILES))
def test_quantized_results(library, tile, kind):
    """Rounded to nearest even and saturated: within a step where the sum is beside a boundary."""
    for m, n, k in SHAPES:
        x, weight, scale = layer(m, n, k, kind)
        bias, out_scale = torch.randn(n, device="cuda"), 1 / 40 if kind == torch.int8 else 1 / 200
        got = native.scaled_gemm(
            x, weight, scale, bias=bias, activation="gelu_tanh", out_scale=out_scale, dtype=kind,
            tile=tile,
        )  # fmt: skip
        exact = reference(x, weight, scale, bias=bias, activation="gelu_tanh") / out_scale
        if kind == torch.int8:
            assert close(got, exact.clamp(-128, 127), 0, 0.5 + 1e-3)
            assert got.max() == 127 or m < 100
        else:
            assert close(got, exact.clamp(-448, 448), 2**-4, sum_error(kind) / out_scale)
            assert got.double().max() == 448 or m < 100


@pytest.mark.gpu
def test_int8_sums_are_exact(library):
    """Sums beyond the 24 bits that a float32 sum would keep, to the last bit."""
    x = torch.full((5, 4096), 127, dtype=torch.int8, device="cuda")
    weight = torch.full((16, 4096), 127, dtype=torch.int8, device="cuda")
    weight[:, 0] = 1 + torch.arange(16)
    exact = x[:1].long().cpu() @ weight.long().cpu().T
    got = native.scaled_gemm(x, weight, torch.ones(16, device="cuda"), dtype=torch.float32)
    assert torch.equal(got.cpu(), exact.float().expand(5, 16))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [torch.int8, F8])
def test_rows_do_not_depend_on_others(library, kind):
    """Nor on the tile: all add in one order."""
    x, weight, scale = layer(300, 272, 1040, kind)
    first = native.scaled_gemm(x, weight, scale, dtype=torch.float32, tile=0)
    for tile in range(native.TILES):
        together = native.scaled_gemm(x, weight, scale, dtype=torch.float32, tile=tile)
        assert torch.equal(together, first)
        for rows in (1, 7, 130):
            alone = native.scaled_gemm(x[:rows], weight, scale, dtype=torch.float32, tile=tile)
            assert torch.equal(alone, together[:rows])


@pytest.mark.gpu
def test_nan_stays(library):
    """Of a scale, of a float8 input; rows without it are untouched."""
    for activation in ACTIVATIONS:
        x, weight, scale = layer(70, 32, 64, F8)
        x.view(torch.uint8)[3, 5] = 0x7F
        scale[8] = float("nan")
        for dtype in (torch.float32, torch.float16, torch.bfloat16, F8):
            kwargs = {"out_scale": 0.01} if dtype == F8 else {}
            got = native.scaled_gemm(x, weight, scale, activation=activation, dtype=dtype, **kwargs)
            nan = got.float().isnan()
            assert nan[3].all() and nan[:, 8].all()
            assert int(nan.sum()) == 70 + 32 - 1


@pytest.mark.gpu
def test_in_cuda_graphs(library):
    """Captured once, replayed on other values, one product after another."""
    x, weight, scale = layer(64, 512, 512, torch.int8)
    kwargs = {"activation": "relu", "out_scale": 0.02, "dtype": torch.int8}
    native.scaled_gemm(x, weight, scale, **kwargs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        hidden = x
        for _ in range(5):
            hidden = native.scaled_gemm(hidden, weight, scale, **kwargs)
    for _ in range(3):
        x.copy_(values(x.shape, torch.int8))
        graph.replay()
        expected = x
        for _ in range(5):
            y = reference(expected, weight, scale, activation="relu") / kwargs["out_scale"]
            expected = y.round().clamp(-128, 127).to(torch.int8)
        assert (hidden.int() - expected.int()).abs().max() <= 1


@pytest.mark.gpu
def test_unaligned_views(library):
    """A bias that begins between multiples of 16 bytes."""
    x, weight, scale = layer(5, 32, 64, torch.int8)
    bias = torch.randn(33, device="cuda")[1:]
    got = native.scaled_gemm(x, weight, scale, bias=bias, dtype=torch.float32)
    assert close(got, reference(x, weight, scale, bias=bias), 1e-5, 1e-5)
