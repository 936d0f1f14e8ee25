"""Weight-only linear kernels against products in float64, or of exact integers."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from tripy.backends.torch.kernels.cuda import weight_only as module
from tripy.backends.torch.kernels.cuda.weight_only_table import Rows, Tiles

# The interpreter computes with NumPy, which warns where infinity and NaN are as wanted.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
KINDS = ("int8", "int4", "float8")
ROWS = Rows(2, 2, 128, 4)
TILES = Tiles(8, 16, 32, 3, 2)
LARGE = Tiles(16, 64, 32, 2, 4)
CONFIGS = (ROWS, TILES, LARGE)


def weight_of(kind, n, k, device, seed=0):
    """A plain weight and its packed form."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "float8":
        plain = torch.randn(n, k, generator=generator).to(torch.float8_e4m3fn)
        return plain.double().to(device), module.pack_fp8(plain.to(device))
    high = 8 if kind == "int4" else 128
    plain = torch.randint(-high, high, (n, k), generator=generator, dtype=torch.int8)
    pack = module.pack_int4 if kind == "int4" else module.pack_int8
    return plain.double().to(device), pack(plain.to(device))


def random(*shape, device, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 17, 100, 256])
def test_unpack_is_exact(kind, k, device):
    plain, packed = weight_of(kind, 5, k, device)
    assert torch.equal(packed.unpack().double(), plain)
    assert packed.shape == (5, k)
    if k == 256:
        assert packed.nbytes == plain.numel() // (2 if kind == "int4" else 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x_type", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("config", CONFIGS)
def test_product(kind, x_type, config, device):
    for m, n, k in ((1, 1, 1), (3, 19, 100), (9, 16, 256)):
        plain, packed = weight_of(kind, n, k, device)
        x = random(m, k, device=device).to(x_type)
        scale = random(n, device=device).abs() + 0.1
        y = module.weight_only_gemm(x, packed, scale, dtype=torch.float32, config=config)
        wanted = (x.double() @ plain.T) * scale.double()
        sums = (x.double().abs() @ plain.abs().T) * scale.double()
        assert ((y.double() - wanted).abs() <= 1e-6 * sums).all()


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("config", CONFIGS)
def test_integer_products_are_exact(kind, config, device):
    plain, packed = weight_of(kind, 18, 200, device)
    x = torch.randint(-128, 128, (3, 200), generator=torch.Generator().manual_seed(2))
    one = torch.ones(1, device=device)
    y = module.weight_only_gemm(
        x.to(device, torch.int8), packed, one, x_scale=0.5, dtype=torch.float32, config=config
    )
    assert torch.equal(y.double(), (x.to(device).double() @ plain.T) * 0.5)


def test_float8_input(device):
    for kind in ("int8", "float8"):
        plain, packed = weight_of(kind, 8, 64, device)
        x = random(2, 64, device=device).to(torch.float8_e4m3fn)
        for config in CONFIGS:
            y = module.weight_only_gemm(
                x, packed, torch.ones(1, device=device), x_scale=2.0, dtype=torch.float32,
                config=config,
            )  # fmt: skip
            torch.testing.assert_close(y.double(), x.double() @ plain.T * 2, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [16, 32, 48, 64, 128])
def test_block_scales(kind, block, device):
    k = 8 * block
    plain, packed = weight_of(kind, 17, k, device)
    x = random(2, k, device=device)
    scale = random(17, k // block, device=device).abs() + 0.1
    expanded = plain * scale.double().repeat_interleave(block, 1)
    sums = x.double().abs() @ expanded.abs().T
    configs = [None, ROWS] + ([TILES, LARGE] if block % 32 == 0 and block != 48 else [])
    for config in configs:
        y = module.weight_only_gemm(x, packed, scale, dtype=torch.float32, config=config)
        assert ((y.double() - x.double() @ expanded.T).abs() <= 1e-6 * sums).all()
    assert torch.equal(module.dequantize(packed, scale, torch.float32).double().float(),
                       expanded.float())  # fmt: skip


@pytest.mark.parametrize("activation", module.ACTIVATIONS)
@pytest.mark.parametrize("config", CONFIGS)
def test_epilogue(activation, config, device):
    plain, packed = weight_of("int8", 20, 64, device)
    x, bias = random(3, 64, device=device), random(20, device=device, seed=3)
    residual = random(3, 20, device=device, seed=4).half()
    scale = torch.full([1], 0.02, device=device)
    y = module.weight_only_gemm(
        x, packed, scale, bias=bias, residual=residual, activation=activation,
        dtype=torch.float16, config=config,
    )  # fmt: skip
    linear = x.double() @ plain.T * 0.02 + bias.double()
    functions = {
        None: lambda v: v, "relu": F.relu, "silu": F.silu, "gelu": F.gelu,
        "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
    }  # fmt: skip
    wanted = functions[activation](linear) + residual.double()
    torch.testing.assert_close(y.double(), wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("config", CONFIGS)
def test_norm_and_rounding(kind, norm, config, device):
    k = 96
    plain, packed = weight_of(kind, 10, k, device)
    x = random(3, k, device=device) * 3 + 1
    weight, bias = random(k, device=device, seed=5), random(k, device=device, seed=6)
    scale = torch.full([10], 0.1, device=device)
    double = x.double()
    if norm == "layer":
        wanted = F.layer_norm(double, (k,), weight.double(), bias.double(), 1e-5)
    else:
        wanted = F.rms_norm(double, (k,), weight.double(), 1e-5) + bias.double()
    arguments = module.Norm(norm, weight, bias, 1e-5)
    y = module.weight_only_gemm(
        x, packed, scale, norm=arguments, dtype=torch.float32, config=config
    )
    torch.testing.assert_close(y.double(), wanted @ plain.T * 0.1, rtol=1e-4, atol=1e-3)
    y = module.weight_only_gemm(
        x, packed, scale, norm=arguments, in_scale=0.02, dtype=torch.float32, config=config
    )
    quotient = wanted / 0.02
    if kind == "float8":  # The interpreter rounds to float8 toward zero: up to one step of 2**-3.
        rounded = quotient.clamp(-448, 448)
        bound = (rounded.abs() @ plain.abs().T) * 0.1 * 0.02 / 8 + 1e-3
    else:  # A quotient at a boundary may fall to either side.
        rounded = quotient.round().clamp(-128, 127)
        bound = 0.02 * 0.1 * 130
    assert ((y.double() - rounded @ plain.T * 0.1 * 0.02).abs() <= bound).all()


def test_rounding_is_half_to_even_and_saturates(device):
    x = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, 400.0, -400.0, 0.0]], device=device)
    packed = module.pack_int8(torch.eye(8, dtype=torch.int8, device=device))
    for config in CONFIGS:
        y = module.weight_only_gemm(
            x, packed, torch.ones(1, device=device), in_scale=1.0, dtype=torch.float32,
            config=config,
        )  # fmt: skip
        assert y.tolist() == [[0, 2, 2, 0, -2, 127, -128, 0]]


@pytest.mark.parametrize("x_type", [torch.float16, torch.float32])
@pytest.mark.parametrize("config", CONFIGS)
def test_nan_and_large_values(x_type, config, device):
    packed = module.pack_int8(torch.full((4, 64), 127, dtype=torch.int8, device=device))
    x = torch.full((2, 64), 60000.0, dtype=x_type, device=device)
    x[1, 3] = float("nan")
    scale = torch.full([1], 1e-6, device=device)
    for activation in module.ACTIVATIONS:
        y = module.weight_only_gemm(
            x, packed, scale, activation=activation, dtype=torch.float16, config=config
        )
        torch.testing.assert_close(y[0], torch.full_like(y[0], 60000.0 * 127 * 64 * 1e-6))
        assert y[1].isnan().all()


@pytest.mark.parametrize("config", CONFIGS)
def test_rows_do_not_depend_on_each_other(config, device):
    _, packed = weight_of("int4", 20, 128, device)
    x, scale = random(11, 128, device=device), random(20, device=device).abs()
    together = module.weight_only_gemm(x, packed, scale, dtype=torch.float32, config=config)
    for row in (0, 5, 10):
        alone = module.weight_only_gemm(
            x[row : row + 1], packed, scale, dtype=torch.float32, config=config
        )
        assert torch.equal(alone[0], together[row])


def test_one_warp_is_refused(device):
    """Triton 3.6 compiles it to wrong results."""
    _, packed = weight_of("int8", 16, 64, device)
    x, scale = random(1, 64, device=device), torch.ones(1, device=device)
    with pytest.raises(ValueError, match="at least 2 warps"):
        module.weight_only_gemm(
            x, packed, scale, dtype=torch.float32, config=Tiles(8, 16, 32, 3, 1)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_dequantize(kind, device):
    plain, packed = weight_of(kind, 11, 100, device)
    for scale in (random(11, device=device), random(1, device=device)):
        got = module.dequantize(packed, scale, torch.float16)
        wanted = (plain.float() * scale.view(-1, 1)).half()
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("m", [1, 2, 7, 16, 33, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_table(m, kind, gpu):
    """The configurations of the table, at the sizes that they are for."""
    for n, k in ((768, 3072), (4800, 1600), (4097, 4100), (50257, 768)):
        plain, packed = weight_of(kind, n, k, gpu)
        x, scale = random(m, k, device=gpu).half(), random(n, device=gpu).abs() / k
        y = module.weight_only_gemm(x, packed, scale, dtype=torch.float16)
        wanted = (x.double() @ plain.T) * scale.double()
        assert (y.double() - wanted).norm() <= 1e-3 * wanted.norm()
