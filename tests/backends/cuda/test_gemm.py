"""int8 and float8 matrix products with their epilogue, against float64."""

from typing import Optional

import pytest
import torch
import torch.nn.functional as F

triton = pytest.importorskip("triton")

from tripy import dtypes  # noqa: E402
from tripy.backends.torch.kernels.cuda.gemm import ACTIVATIONS, scaled_gemm  # noqa: E402
from tripy.backends.torch.kernels.cuda.gemm_table import Tile  # noqa: E402
from tripy.backends.torch.lowering.quantization import rounded  # noqa: E402

T = torch.Tensor
F8 = torch.float8_e4m3fn
KINDS = [torch.int8, F8]
TRIPY = {torch.int8: dtypes.int8, F8: dtypes.float8}
# Odd sizes, one of each, and multiples of everything.
SHAPES = [(1, 1, 1), (3, 17, 70), (33, 48, 80), (16, 32, 256), (70, 64, 64)]
SMALL = Tile(16, 16, 32)


def random(kind: torch.dtype, *shape: int, seed: int = 0) -> T:
    generator = torch.Generator().manual_seed(seed)
    if kind is torch.int8:
        return torch.randint(-128, 128, shape, generator=generator, dtype=kind)
    return torch.randn(shape, generator=generator).to(kind)


def activate(x: T, name: Optional[str]) -> T:
    if name is None:
        return x
    if name.startswith("gelu"):
        return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")
    return {"relu": F.relu, "silu": F.silu}[name](x)


def product(x: T, weight: T) -> T:
    return x.double() @ weight.double().t()


def supported(kind: torch.dtype, device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9) and kind is F8:
        pytest.skip("float8 needs compute capability 8.9")


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_parts_at_all_shapes(shape: tuple, kind: torch.dtype, device: torch.device) -> None:
    supported(kind, device)
    m, n, k = shape
    x, weight = random(kind, m, k), random(kind, n, k, seed=1)
    scale, row_scale = torch.rand(n) / (100 * k**0.5), torch.rand(m) + 0.5
    bias, residual = torch.randn(n), torch.randn(m, n)
    expected = product(x, weight) * row_scale[:, None].double() * scale.double() + bias.double()
    expected = F.gelu(expected) + residual.double()
    got = scaled_gemm(
        x.to(device), weight.to(device), scale.to(device), row_scale=row_scale.to(device),
        bias=bias.to(device), activation="gelu", residual=residual.to(device), dtype=torch.float32,
        exact=True,
    )  # fmt: skip
    assert got.shape == (m, n) and got.dtype == torch.float32
    torch.testing.assert_close(got.double().cpu(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_activations_and_rounding(
    kind: torch.dtype, activation: Optional[str], device: torch.device
) -> None:
    """Quantized to the same number as its definition, except beside a tie."""
    supported(kind, device)
    x, weight = random(kind, 20, 64), random(kind, 24, 64, seed=1)
    scale = torch.tensor([4e-5 if kind is torch.int8 else 0.1])
    real = activate(product(x, weight) * scale.double(), activation)
    parts = {"activation": activation, "tile": SMALL}
    arrays = [t.to(device) for t in (x, weight, scale)]
    got = scaled_gemm(*arrays, dtype=torch.float16, **parts).cpu()
    torch.testing.assert_close(got.double(), real, rtol=1e-3, atol=1e-3)
    if kind is F8 and device.type == "cpu":
        return  # Triton's interpreter does not round to float8 as GPUs do.
    # Small enough that some values saturate.
    step = float(real.abs().max()) / (100 if kind is torch.int8 else 300)
    for out_scale in (step, torch.tensor([step], device=device)):
        got = scaled_gemm(*arrays, dtype=kind, out_scale=out_scale, **parts).cpu()
        quotient = (real / step).float()
        near = [rounded(quotient * (1 + e) + e, TRIPY[kind]).float() for e in (-2e-5, 2e-5)]
        assert got.dtype == kind
        assert (got.float() >= near[0].minimum(near[1])).all()
        assert (got.float() <= near[0].maximum(near[1])).all()


def test_halves_are_rounded_to_even_and_large_values_saturate(device: torch.device) -> None:
    x = torch.arange(-20, 20, dtype=torch.int8)[:, None].to(device)
    weight, scale = torch.ones(1, 1, dtype=torch.int8, device=device), torch.tensor([1.0])
    for step in (2.0, 0.125):
        got = scaled_gemm(x, weight, scale.to(device), dtype=torch.int8, out_scale=step, tile=SMALL)
        expected = rounded(x.float() / step, dtypes.int8)
        assert got.equal(expected)


@pytest.mark.gpu
def test_float8_conversion_is_exact(gpu: torch.device) -> None:
    """Every number of float8, halfway between neighbours, and beyond the largest."""
    device = gpu
    supported(F8, device)
    numbers = torch.arange(256, dtype=torch.uint8).view(F8).float()
    numbers = numbers[~numbers.isnan()].sort().values
    bias = torch.cat([numbers, (numbers[1:] + numbers[:-1]) / 2, torch.tensor([1e4, -1e9])])
    x, weight = random(F8, 1, 16).to(device), torch.zeros(len(bias), 16).to(F8).to(device)
    got = scaled_gemm(
        x, weight, torch.ones(1, device=device), bias=bias.to(device), dtype=F8, out_scale=1.0
    )
    assert got[0].cpu().float().equal(rounded(bias, dtypes.float8).float())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_stays_nan(activation: Optional[str], device: torch.device) -> None:
    x, weight = random(torch.int8, 4, 32).to(device), random(torch.int8, 16, 32).to(device)
    scale = torch.full((16,), 1e-5, device=device)
    scale[5] = float("nan")
    got = scaled_gemm(x, weight, scale, activation=activation, dtype=torch.float16)
    nan = got.isnan().cpu()
    assert nan[:, 5].all() and int(nan.sum()) == 4


@pytest.mark.gpu
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_in_float8_stays_nan(activation: Optional[str], gpu: torch.device) -> None:
    supported(F8, gpu)
    x, weight = random(F8, 100, 32).to(gpu), random(F8, 64, 32).to(gpu)
    x.view(torch.uint8)[1, 3] = 0x7F
    scale = torch.ones(1, device=gpu)
    for kind, out_scale in ((torch.float16, None), (F8, 2.0)):
        for rows in (4, 100):
            got = scaled_gemm(
                x[:rows], weight, scale, activation=activation, dtype=kind, out_scale=out_scale
            )
            nan = got.float().isnan().cpu()
            assert nan[1].all() and int(nan.sum()) == 64


def test_integer_sums_are_exact_and_rows_do_not_depend_on_each_other(device: torch.device) -> None:
    x, weight = random(torch.int8, 40, 300).to(device), random(torch.int8, 20, 300, seed=1)
    x[0], weight[0] = -128, -128
    scale = torch.ones(1, device=device)
    whole = scaled_gemm(x, weight.to(device), scale, dtype=torch.float32)
    assert whole.cpu().double().equal(product(x.cpu(), weight))
    for rows in (1, 7):
        part = scaled_gemm(x[:rows], weight.to(device), scale, dtype=torch.float32)
        assert part.equal(whole[:rows])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, "same"], ids=str)
@pytest.mark.parametrize("shape", [(130, 264, 144), (1000, 800, 768), (4096, 1024, 512)], ids=str)
def test_large_shapes(shape: tuple, dtype: object, kind: torch.dtype, gpu: torch.device) -> None:
    """Through tensor descriptors, with edges that are no multiple of a tile, in all layouts."""
    supported(kind, gpu)
    m, n, k = shape
    out = kind if dtype == "same" else dtype
    x, weight = random(kind, m, k).to(gpu), random(kind, n, k, seed=1).to(gpu)
    scale, bias = torch.rand(n, device=gpu) / (50 * k**0.5), torch.randn(n, device=gpu)
    residual = torch.randn(m, n, device=gpu).to(out)
    expected = F.silu(product(x, weight) * scale.double() + bias.double()) + residual.double()
    step = 0.05 if out is kind else None
    for tile in (None, Tile(64, 64, 128), Tile(128, 128, 64, warps=8, stages=3, group=2)):
        got = scaled_gemm(
            x, weight, scale, bias=bias, activation="silu", residual=residual, dtype=out,
            out_scale=step, tile=tile,
        )  # fmt: skip
        want = expected if step is None else rounded((expected / step).float(), TRIPY[kind])
        error = (got.double() - want.double()).norm() / want.double().norm()
        assert error < {torch.float16: 5e-4, torch.float32: 1e-4}.get(out, 4e-3)
