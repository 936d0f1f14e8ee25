"""The library's kernels for packed weights and many rows, against products in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import tripy as tp
from tripy.backends.torch.kernels.cuda import native_mixed_gemm as module
from tripy.backends.torch.kernels.cuda import packing

KINDS = ("int8", "int4", "float8")
F8 = torch.float8_e4m3fn
TYPES = (torch.float16, torch.bfloat16)
# Rows, outputs and columns with tails in every tile, window and stage; odd outputs.
SHAPES = ((1, 19, 8), (64, 136, 104), (300, 200, 64), (257, 128, 1600), (511, 333, 1024))
ACTIVATIONS = {
    None: lambda v: v, "relu": F.relu, "silu": F.silu, "gelu": F.gelu,
    "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
}  # fmt: skip
EPS = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}


def test_reasons():
    """What the library does not take, by name; needs neither it nor a GPU."""

    def reason(columns=1024, group=1, x=torch.float16):
        return module.reason(columns, group, x)

    assert reason() is None and reason(group=0) is None and reason(1032) is None
    assert reason(x=torch.bfloat16) is None and reason(group=96) is None
    assert "float32 input" in reason(x=torch.float32)
    assert "rows of 1028" in reason(1028)
    assert reason(2**18) is None and "expected at most" in reason(2**18 + 64)
    assert "a scale for 48 columns; expected a multiple of 32" in reason(group=48)


def test_layers_that_never_run_here(monkeypatch):
    """By the device, and by the form of their scales."""
    cpu, half = tp.device("cpu"), torch.float16
    assert module.why_not(cpu, 64, torch.ones(1), half) == "the device is no GPU"
    monkeypatch.setattr(module, "available", lambda where: None)
    for scale in (torch.ones(1), torch.ones(3), torch.ones(3, 1), torch.ones(3, 2)):
        assert module.why_not(cpu, 64, scale, half) is None
    assert "a scale for 16 columns" in module.why_not(cpu, 64, torch.ones(3, 4), half)


def test_what_it_refuses():
    """Before the library is asked: no GPU is needed."""
    packed = packing.pack_int8(torch.zeros(4, 12, dtype=torch.int8))
    with pytest.raises(ValueError, match=r"\[mixed_gemm\] got rows of 12 .*try the weight exp"):
        module.mixed_gemm(
            torch.zeros(2, 12).half(), packed, torch.ones(4), dtype=torch.float16,
            tile=module.TILES[0],
        )  # fmt: skip


def test_an_older_library(monkeypatch):
    """One without these kernels, or with another struct, says so."""
    where = tp.device("cpu")
    module.available.cache_clear()
    monkeypatch.setattr(module.native, "available", lambda device: None)
    for library in (object(), type("Library", (), {"tripy_mixed_gemm_size": lambda self: 1})()):
        monkeypatch.setattr(module.native, "library", lambda library=library: library)
        assert "of another version" in module.available(where)
        module.available.cache_clear()


@pytest.fixture
def library(gpu):
    """The library on a GPU that it is for."""
    reason = module.available(tp.device("gpu"))
    if reason is not None:
        pytest.skip(reason)
    torch.manual_seed(0)


def weight_of(kind, n, k):
    """A plain weight in float64, and packed."""
    if kind == "float8":
        plain = torch.randn(n, k, device="cuda").to(F8)
        return plain.double(), packing.pack_fp8(plain)
    high = 8 if kind == "int4" else 128
    plain = torch.randint(-high, high, (n, k), dtype=torch.int8, device="cuda")
    pack = packing.pack_int4 if kind == "int4" else packing.pack_int8
    return plain.double(), pack(plain)


def tiles(k):
    """Those that such columns can be cut into."""
    return [tile for tile in module.TILES if -(-k // 64) >= tile.split]


def run(x, packed, scale, tile, dtype=torch.float32, **options):
    """The result; poisoned before, so that what is not written shows."""
    out = torch.full((x.shape[0], packed.shape[0]), float("nan"), dtype=dtype, device="cuda")
    return module.mixed_gemm(x, packed, scale, tile=tile, dtype=dtype, out=out, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x_type", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_product(library, kind, x_type, shape):
    """Every tile; all that do not split the columns give the same bits."""
    m, n, k = shape
    plain, packed = weight_of(kind, n, k)
    x, scale = torch.randn(m, k, device="cuda").to(x_type), torch.rand(n, device="cuda") + 0.1
    wanted = (x.double() @ plain.T) * scale.double()
    sums = (x.double().abs() @ plain.abs().T) * scale.double()
    first = None
    for tile in tiles(k):
        y = run(x, packed, scale, tile)
        assert ((y.double() - wanted).abs() <= 2e-6 * sums).all(), tile
        if tile.split == 1:
            first = y if first is None else first
            assert torch.equal(y, first), tile
    one = run(x, packed, scale[:1], module.TILES[0])
    assert ((one.double() - x.double() @ plain.T * scale[0]).abs() <= 3e-5 * sums).all()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x_type", TYPES)
@pytest.mark.parametrize("block", [32, 64, 96, 128, 256, 800])
def test_block_scales(library, kind, x_type, block):
    """Weights times scales are rounded to x's type once, as `dequantize` has it."""
    m, n, k = 150, 200, 4 * block
    plain, packed = weight_of(kind, n, k)
    x = torch.randn(m, k, device="cuda").to(x_type)
    scale = (torch.rand(n, 4, device="cuda") + 0.1).to(x_type).float()
    weight = (plain * scale.double().repeat_interleave(block, 1)).to(x_type).double()
    sums = x.double().abs() @ weight.abs().T
    for tile in tiles(k):
        y = run(x, packed, scale, tile)
        assert ((y.double() - x.double() @ weight.T).abs() <= 2e-6 * sums).all(), tile


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [*TYPES, torch.float32])
@pytest.mark.parametrize("outputs", [200, 333])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_epilogue(library, dtype, outputs, activation):
    """Bias, activation and residual in every type of the result, also with odd rows."""
    m, k = 300, 256
    plain, packed = weight_of("int8", outputs, k)
    x, scale = torch.randn(m, k, device="cuda").half(), torch.rand(outputs, device="cuda") / 99
    bias = torch.randn(outputs, device="cuda")
    residual = torch.randn(m, outputs, device="cuda").to(dtype)
    plain_sums = x.double() @ plain.T * scale.double() * 0.5
    sums = x.double().abs() @ plain.abs().T * scale.double() * 0.5
    for tile, added in itertools.product(tiles(k), (None, residual)):
        y = run(
            x, packed, scale, tile, dtype, bias=bias, residual=added, activation=activation,
            factor=0.5,
        )  # fmt: skip
        wanted = ACTIVATIONS[activation](plain_sums + bias.double())
        wanted = wanted if added is None else wanted + added.double()
        # The derivative of an activation is at most 1.13.
        bound = 3e-6 * (sums + bias.abs() + 1) + 1.01 * EPS[dtype] * wanted.abs()
        assert ((y.double() - wanted).abs() <= bound).all(), (tile, added is None)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", module.TILES)
def test_rows_do_not_depend_on_others(library, kind, tile):
    """Nor on their place; what is not finite stays in its row."""
    _, packed = weight_of(kind, 520, 1000)
    whole = torch.full((720, 1000), float("nan"), device="cuda").half()
    whole[:700] = torch.randn(700, 1000, device="cuda")
    x, scale = whole[:700], torch.rand(520, device="cuda")
    y = run(x, packed, scale, tile)
    assert y.isfinite().all()
    for rows in (slice(0, 300), slice(37, 555), slice(600, 700)):
        assert torch.equal(run(x[rows].contiguous(), packed, scale, tile), y[rows])
    poisoned = x.clone()
    poisoned[5, 999], poisoned[300, 7] = float("nan"), float("inf")
    z = run(poisoned, packed, scale, tile)
    others = torch.ones(700, dtype=torch.bool, device="cuda")
    others[5] = others[300] = False
    assert torch.equal(z[others], y[others]) and not z[~others].isfinite().all(1).any()


@pytest.mark.gpu
def test_unaligned_and_early(library):
    """Tensors that begin anywhere; launches one behind the other, which may begin early."""
    _, packed = weight_of("int4", 256, 512)
    scale = torch.rand(256, device="cuda")
    x = torch.randn(300 * 512 + 1, device="cuda").half()[1:].view(300, 512)
    residual = torch.randn(300 * 256 + 1, device="cuda").half()[1:].view(300, 256)
    tile = module.TILES[0]
    y = run(x, packed, scale, tile, torch.float16, residual=residual)
    same = run(x.clone(), packed, scale, tile, torch.float16, residual=residual.clone())
    assert torch.equal(y, same)
    square = packing.pack_int8(
        torch.randint(-128, 128, (512, 512), dtype=torch.int8, device="cuda"))  # fmt: skip
    one = torch.full((1,), 0.001, device="cuda")
    a = b = x
    for _ in range(8):
        a = module.mixed_gemm(a, square, one, dtype=torch.float16, tile=tile)
    for _ in range(8):
        b = module.mixed_gemm(b, square, one, dtype=torch.float16, tile=tile)
        torch.cuda.synchronize()
    assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [tp.float16, tp.bfloat16])
@pytest.mark.parametrize("kind", [tp.int8, tp.int4, tp.float8])
def test_layers(library, emulated, dtype, kind, monkeypatch):
    """A whole layer in a program, beside the same with its weight expanded."""
    fast = program(kind, dtype, 700)
    (row,) = (row for row in fast.report().rows if "read once" in row.kernel)
    assert "converted in registers" in row.kernel
    x = tp.Tensor(torch.randn(700, 256, device="cuda").to(getattr(torch, dtype.name)))
    y = fast(x).torch().double()
    seen = []
    expanding = lambda *a: seen.append(a)  # noqa: E731
    monkeypatch.setattr(module, "choose", expanding)
    wanted = fast(x).torch().double()
    assert seen and (y - wanted).abs().max() <= 16 * EPS[x.torch().dtype] * wanted.abs().max()


def program(kind, dtype, most):
    """A layer of 256 columns and 72 outputs, compiled for up to so many rows."""
    layer = tp.Linear(256, 72, quant_dtype=kind, weight_quant_dim=0, dtype=dtype)
    state = {k: tp.ones(tuple(map(int, v.shape)), v.dtype) for k, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    return tp.compile(layer, args=[tp.InputInfo(((1, 16, most), 256), dtype)], backend="torch")


def test_layers_choose(emulated, monkeypatch):
    """The library's kernel beyond few rows where it is the faster one; the report says so."""
    seen = []

    def mixed_gemm(x, packed, scale, **options):
        seen.append((len(x), options["tile"]))
        return torch.zeros(len(x), packed.shape[0], dtype=options["dtype"], device=x.device)

    monkeypatch.setattr(module, "available", lambda where: None)
    monkeypatch.setattr(module, "mixed_gemm", mixed_gemm)
    tile = module.TILES[2]
    monkeypatch.setattr(module, "choose", lambda rows, shape, blocks: tile if rows > 400 else None)
    fast = program(tp.int8, tp.float16, 600)
    (row,) = (row for row in fast.report().rows if "read once" in row.kernel)
    assert row.kernel.endswith("; weight converted in registers or expanded, float16 GEMM beyond")
    for rows in (16, 400, 401, 600):
        assert fast(tp.ones((rows, 256), tp.float16)).shape == (rows, 72)
    assert seen == [(401, tile), (600, tile)]
    # float32 has no such kernel.
    (row,) = (r for r in program(tp.int8, tp.float32, 600).report().rows if "once" in r.kernel)
    assert "weight expanded, float32 GEMM beyond" in row.kernel


@pytest.mark.parametrize("rows", [1, 100, 257, 1000, 16384])
@pytest.mark.parametrize("outputs", [1, 72, 1600, 8192, 50304])
@pytest.mark.parametrize("columns", [8, 64, 200, 1600, 14336])
def test_tiles_fit(rows, outputs, columns):
    """What is chosen has work for each of its blocks."""
    for blocks in (False, True):
        tile = module.choose(rows, (outputs, columns), blocks)
        assert tile is None or tile.split <= -(-columns // 64)


def test_tiles():
    """Large tiles for many rows, small ones or parts of K for few."""

    def choose(rows, outputs, columns, blocks=False):
        return module.choose(rows, (outputs, columns), blocks)

    for rows in (512, 2048, 16384):
        assert choose(rows, 8192, 8192) == (256, 2, 1)
    assert choose(384, 8192, 8192) == choose(768, 4096, 4096) == (192, 2, 1)
    assert choose(256, 4096, 14336).split == choose(200, 4096, 4096).split == 2
    assert choose(1024, 8192, 8192, blocks=True) == (256, 2, 1)
    assert choose(16384, 14336, 4096, blocks=True) is None
    assert choose(300, 1600, 1600) is choose(8192, 6400, 1600) is None
