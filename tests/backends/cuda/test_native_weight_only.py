"""The library's kernels for few rows, against products in float64, or of exact integers."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import tripy as tp
from tripy.backends.torch.kernels.cuda import native_weight_cuts as cuts
from tripy.backends.torch.kernels.cuda import native_weight_only as module
from tripy.backends.torch.kernels.cuda import packing

KINDS = ("int8", "int4", "float8")
F8 = torch.float8_e4m3fn
Config = cuts.Config
# Outputs and columns with tails in every tile, chunk and window, and more chunks than slots.
SHAPES = ((1, 8), (16, 64), (19, 104), (70, 768), (300, 1600), (65, 4864))
# Rows of x at the limits of its tiles.
ROWS = (1, 3, 8, 9, 16, 17, 40, 64, 150)
ACTIVATIONS = {
    None: lambda v: v, "relu": F.relu, "silu": F.silu, "gelu": F.gelu,
    "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
}  # fmt: skip


def test_reasons():
    """What the library does not take, by name; needs neither it nor a GPU."""

    def reason(group=1, x=torch.float16, rounded=False, columns=1024):
        return module.reason("int8", columns, group, x, rounded)

    assert reason() is None and reason(group=64) is None
    assert reason(x=torch.float32, rounded=True) is None
    assert "float32 input" in reason(x=torch.float32)
    assert "a scale for 48 columns" in reason(group=48)
    assert reason(columns=1032) is None and "rows of 1030" in reason(columns=1030)
    assert "rows of 1032" in reason(columns=1032, x=torch.int8)
    assert reason(columns=2**18) is None
    assert "rows of 262400 values; expected at most" in reason(columns=2**18 + 256)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [700, 5000, 8192, 50304])
@pytest.mark.parametrize("columns", [64, 1600, 8192, 14336, 65536, 2**18])
def test_choices_fit(kind, outputs, columns):
    """A block's memory holds what the table chooses, for any number of rows."""
    of = F8 if kind == "float8" else torch.int8
    plain = torch.zeros(outputs, columns, dtype=of, device="meta")
    data = plain[:, : columns // 2] if kind == "int4" else plain
    packed = packing.GpuWeight(kind, data, 128 if kind == "int4" else 0, plain.shape)
    types = [torch.float16, torch.bfloat16] + ([torch.int8] if kind != "float8" else [])
    for compute, streamed in itertools.product(types, (False, True)):
        for rows, group in itertools.product((1, 2, 7, 8, 9, 16, 17, 33, 64, 99), (1, 32, 96, 128)):
            config = cuts.choose(rows, packed, compute, group, streamed)
            assert cuts.shared_bytes(config, packed, compute, group) <= cuts.MEMORY
            assert 1 <= config.rows <= min(rows, 64 if config.streams else 16)
            assert config.passes == 1 or outputs == 50304
            if config.streams:
                assert streamed and rows > 16 and config.slots >= 3
            else:
                assert not streamed or rows <= 16


@pytest.mark.parametrize("rows", [1, 4, 8, 16])
@pytest.mark.parametrize(("outputs", "columns"), [(14336, 4096), (28672, 8192), (128256, 4096)])
def test_all_blocks_are_there_at_once(outputs, columns, rows):
    """Of large layers each block has several passes, so that none waits for another one to end."""
    data = torch.zeros(outputs, columns, dtype=torch.int8, device="meta")
    packed = packing.GpuWeight("int8", data, 0, data.shape)
    config = cuts.choose(rows, packed, torch.float16, 1)
    of_cluster = 16 * config.row_tiles * config.cluster * config.warps // 8
    clusters = -(-outputs // of_cluster)
    blocks = -(-clusters // config.passes) * config.cluster
    of_two = cuts.shared_bytes(config, packed, torch.float16, 1) <= cuts.HALF
    assert config.passes > 1 and blocks <= 132 * (2 if of_two else 1)


def test_what_is_streamed():
    """x that is multiplied as it is in memory, and so up to more rows."""
    half, int8 = torch.float16, torch.int8

    def most(kind, outputs, columns, x=half, *, blocks=False, rounded=False):
        return module.most_rows(kind, (outputs, columns), blocks, x, rounded)

    for kind in KINDS:
        assert module.streams(kind, half, rounded=False)
        assert most(kind, 8192, 8192) == most(kind, 6400, 1600) == 64
        assert most(kind, 4096, 14336) == most(kind, 4096, 4096, blocks=True) == 128
        assert most(kind, 3072, 768) == 128 and most(kind, 3072, 768, blocks=True) == 16
        assert most(kind, 50304, 768) == 16
        assert not module.streams(kind, half, rounded=True)
        assert most(kind, 8192, 8192, rounded=True) == 16
        assert most(kind, 8192, 8192, F8) == 16
        assert module.streams(kind, int8, rounded=False) == (kind != "float8")
        assert not module.streams(kind, torch.float32, rounded=False)


def test_layers_choose_by_rows(emulated, monkeypatch):
    """The library's kernel up to what `most_rows` says, also where that is beyond Triton's."""
    seen = []

    def weight_only(x, packed, scale, **options):
        seen.append(len(x))
        return torch.zeros(len(x), packed.shape[0], dtype=options["dtype"], device=x.device)

    monkeypatch.setattr(module, "available", lambda where: None)
    monkeypatch.setattr(module, "weight_only", weight_only)
    layer = tp.Linear(64, 32, quant_dtype=tp.int8, weight_quant_dim=0, dtype=tp.float16)
    state = {k: tp.ones(tuple(map(int, v.shape)), v.dtype) for k, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    fast = tp.compile(layer, args=[tp.InputInfo(((1, 16, 200), 64), tp.float16)], backend="torch")
    (row,) = (row for row in fast.report().rows if "read once" in row.kernel)
    few, many = row.kernel.split("; ")
    assert few == "native, int8 weight read once, to 128 rows"
    assert many.endswith("expanded, float16 GEMM beyond")  # Or converted in registers, on a GPU.
    for rows in (16, 17, 128, 129):
        assert fast(tp.ones((rows, 64), tp.float16)).shape == (rows, 32)
    assert seen == [16, 17, 128]


@pytest.mark.parametrize(("outputs", "rows", "wanted"), [
    (1600, 17, 17), (1600, 33, 32), (1600, 128, 32), (4096, 64, 32), (4096, 65, 64),
    (8192, 64, 64), (8192, 30, 30),
])  # fmt: skip
def test_rows_at_once(outputs, rows, wanted):
    """Fewer where there are multiprocessors without work otherwise."""
    data = torch.zeros(outputs, 4096, dtype=torch.int8, device="meta")
    packed = packing.GpuWeight("int8", data, 0, data.shape)
    assert cuts.choose(rows, packed, torch.float16, 1, True).rows == wanted


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


def configs(rows, blocks=False):
    """Every configuration for so many rows where x stays in shared memory."""
    at_once = min(rows, 16)
    warps = [(2, 8), (2, 16)] + ([(1, 8)] if at_once <= 8 and not blocks else [])
    return [
        Config(tiles, cluster, slots, at_once, each, passes=passes)
        for tiles, each in warps for cluster in (1, 2, 4, 8)
        for slots, passes in ((1, 1), (3, 1), (2, 3))
    ]  # fmt: skip


def streamed(rows):
    """The same where x comes with the weights."""
    return [Config(2, 1, slots, min(rows, 64), 8, True) for slots in (2, 4)] if rows > 16 else []


def run(x, packed, scale, config=None, dtype=torch.float32, **kwargs):
    """The result; poisoned before, so that what is not written shows."""
    out = torch.full((x.shape[0], packed.shape[0]), float("nan"), dtype=dtype, device="cuda")
    return module.weight_only(x, packed, scale, config=config, dtype=dtype, out=out, **kwargs)


def fits(config, packed, compute=torch.float16, group=1):
    return cuts.shared_bytes(config, packed, compute, group) <= cuts.MEMORY


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x_type", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("m", ROWS)
def test_product(library, kind, x_type, m):
    """Every shape and configuration; all with x in shared memory give the same bits."""
    for n, k in SHAPES:
        plain, packed = weight_of(kind, n, k)
        x, scale = torch.randn(m, k, device="cuda").to(x_type), torch.rand(n, device="cuda") + 0.1
        wanted = (x.double() @ plain.T) * scale.double()
        sums = (x.double().abs() @ plain.abs().T) * scale.double()
        first = None
        for config in (None, *configs(m), *streamed(m)):
            if config is None or fits(config, packed):
                y = run(x, packed, scale, config)
                assert ((y.double() - wanted).abs() <= 2e-6 * sums).all(), (n, k, config)
                if config is not None and not config.streams:
                    first = y if first is None else first
                    assert torch.equal(y, first), (n, k, config)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [300, 8192])
def test_rows_do_not_depend_on_others(library, outputs, kind):
    """Nor on how many there are: up to 16, and from 17 on."""
    _, packed = weight_of(kind, outputs, 1600)
    x, scale = torch.randn(150, 1600, device="cuda").half(), torch.rand(outputs, device="cuda")
    for most, fewer in ((16, (1, 2, 8, 9)), (150, (17, 31, 33, 64, 70))):
        together = run(x[:most], packed, scale)
        for rows in fewer:
            assert torch.equal(run(x[:rows], packed, scale), together[:rows])
            assert torch.equal(run(x[most - rows : most], packed, scale), together[-rows:])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("m", [1, 8, 13, 40])
def test_integer_products_are_exact(library, kind, m):
    for n, k in SHAPES:
        if k % 16:
            continue
        plain, packed = weight_of(kind, n, k)
        x = torch.randint(-128, 128, (m, k), dtype=torch.int8, device="cuda")
        one = torch.ones(1, device="cuda")
        wanted = (x.double() @ plain.T * 0.5).float()
        for config in (None, *configs(m), *streamed(m)):
            if config is None or fits(config, packed, torch.int8):
                assert torch.equal(run(x, packed, one, config, x_scale=0.5), wanted)


@pytest.mark.gpu
def test_float8_and_int8_inputs(library):
    for kind in KINDS:
        plain, packed = weight_of(kind, 70, 768)
        inputs = [torch.randn(5, 768, device="cuda").to(F8)]
        inputs.append(torch.randint(-128, 128, (5, 768), dtype=torch.int8, device="cuda"))
        for x in inputs:
            y = run(x, packed, torch.ones(1, device="cuda"), x_scale=2.0)
            sums = x.double().abs() @ plain.abs().T * 2
            assert ((y.double() - x.double() @ plain.T * 2).abs() <= 2e-6 * sums).all()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [32, 64, 96, 128, 256])
@pytest.mark.parametrize("x_type", [torch.float16, torch.bfloat16, torch.int8])
def test_block_scales(library, kind, block, x_type):
    if kind == "float8" and x_type is torch.int8:
        pytest.skip("multiplied in float16, which is tested")
    for m in (1, 9, 40):
        k = 9 * block
        plain, packed = weight_of(kind, 70, k)
        x = torch.randn(m, k, device="cuda").to(x_type)
        if x_type is torch.int8:
            x = torch.randint(-128, 128, (m, k), dtype=torch.int8, device="cuda")
        scale = torch.rand(70, k // block, device="cuda") + 0.1
        expanded = plain * scale.double().repeat_interleave(block, 1)
        sums = x.double().abs() @ expanded.abs().T
        first = None
        compute = torch.float16 if x_type is torch.bfloat16 else x_type
        for config in (None, *configs(m, blocks=True), *streamed(m)):
            if config is None or fits(config, packed, compute, block):
                y = run(x, packed, scale, config)
                assert ((y.double() - x.double() @ expanded.T).abs() <= 2e-6 * sums).all(), config
                if config is not None and not config.streams:
                    first = y if first is None else first
                    assert torch.equal(y, first), config


@pytest.mark.gpu
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_epilogue(library, activation, dtype):
    for m, n in ((1, 70), (9, 300), (64, 33)):
        plain, packed = weight_of("int8", n, 768)
        x, bias = torch.randn(m, 768, device="cuda").half(), torch.randn(n, device="cuda").to(dtype)
        residual = torch.randn(m, n, device="cuda").to(dtype)
        scale = torch.full([1], 5e-4, device="cuda")
        linear = x.double() @ plain.T * scale.double() + bias.double()
        wanted = ACTIVATIONS[activation](linear) + residual.double()
        bound = max(torch.finfo(dtype).eps, 1e-5)
        for config in (*configs(m)[::3], *streamed(m)):
            if not fits(config, packed):
                continue
            y = run(
                x, packed, scale, config, dtype, bias=bias, residual=residual,
                activation=activation, pdl=True,
            )  # fmt: skip
            torch.testing.assert_close(y.double(), wanted, rtol=bound, atol=2 * bound)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x_type", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding(library, kind, x_type):
    plain, packed = weight_of(kind, 70, 768)
    scale = torch.full([70], 0.1, device="cuda")
    for m in (5, 16, 37):
        x = (torch.randn(m, 768, device="cuda") * 3 + 1).to(x_type)
        # By a tensor: a number's reciprocal is what a GPU multiplies with.
        quotient = x.float() / torch.tensor([0.02], device="cuda")
        if kind == "float8":
            rounded = quotient.clamp(-448, 448).to(F8).double()
        else:
            rounded = quotient.round().clamp(-128, 127).double()
        y = run(x, packed, scale, in_scale=0.02)
        bound = 2e-6 * 0.002 * (rounded.abs() @ plain.abs().T)
        assert ((y.double() - rounded @ plain.T * 0.1 * 0.02).abs() <= bound).all()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [torch.int8, F8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounded_results(library, kind, dtype):
    """Bit for bit what two steps give: the result in the layer's type, then its quotient."""
    _, packed = weight_of("int8", 300, 768)
    x, scale = torch.randn(9, 768, device="cuda").half(), torch.full([1], 5e-4, device="cuda")
    for rows in (9, 8):
        rounded_results(x[:rows], packed, scale, kind, dtype)


def rounded_results(x, packed, scale, kind, dtype):
    y = module.weight_only(x, packed, scale, activation="gelu", dtype=dtype)
    got = module.weight_only(
        x, packed, scale, activation="gelu", dtype=dtype, out_scale=0.004, out_dtype=kind
    )
    quotient = y.float() / torch.tensor(0.004, device="cuda")
    high = 448 if kind == F8 else 127
    assert (quotient > high).any()
    expected = quotient.clamp(-high, high)
    expected = expected.to(F8) if kind == F8 else expected.round().to(torch.int8)
    assert torch.equal(got.view(torch.int8), expected.view(torch.int8))


@pytest.mark.gpu
def test_rounding_is_half_to_even_and_saturates(library):
    x = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, 400.0, -400.0, 0.0]], device="cuda")
    packed = packing.pack_int8(torch.eye(8, dtype=torch.int8, device="cuda"))
    y = run(x, packed, torch.ones(1, device="cuda"), in_scale=1.0)
    assert y.tolist() == [[0, 2, 2, 0, -2, 127, -128, 0]]


@pytest.mark.gpu
@pytest.mark.parametrize("x_type", [torch.float16, torch.bfloat16])
def test_nan_and_large_values(library, x_type):
    """NaN stays in its row; sums beyond float16's range are scaled before they are rounded."""
    packed = packing.pack_int8(torch.full((40, 64), 127, dtype=torch.int8, device="cuda"))
    scale = torch.full([1], 1e-6, device="cuda")
    for rows, activation in itertools.product((2, 20), ACTIVATIONS):
        x = torch.full((rows, 64), 60000.0, device="cuda").to(x_type)
        x[1, 3] = float("nan")
        y = run(x, packed, scale, dtype=torch.float16, activation=activation)
        torch.testing.assert_close(y[0], (x[0, 0].float() * 127 * 64 * 1e-6).half().expand(40))
        assert y.isnan().all(1).tolist() == [row == 1 for row in range(rows)]
        assert not y[0].isnan().any()


@pytest.mark.gpu
def test_float8_nan_weight(library):
    plain = torch.ones(4, 64, device="cuda").to(F8)
    plain.view(torch.uint8)[2, 7] = 0x7F
    for x_type in (torch.float16, torch.bfloat16):
        for rows in (3, 33):
            x = torch.ones(rows, 64, device="cuda").to(x_type)
            y = run(x, packing.pack_fp8(plain), torch.ones(1, device="cuda"))
            expected = [False, False, True, False]
            assert y.isnan().all(0).tolist() == y.isnan().any(0).tolist() == expected


@pytest.mark.gpu
@pytest.mark.parametrize("m", [3, 24])
def test_chains_in_cuda_graphs(library, m):
    """Launched early, one behind the other, each reading what the one in front wrote."""
    layers = [weight_of(kind, 768, 768) for kind in KINDS]
    scales = [torch.full([1], 1 / (28 * s), device="cuda") for s in (74, 4.6, 1)]
    x = torch.randn(m, 768, device="cuda").half()

    def chain(x):
        for i in range(12):
            x = run(x, layers[i % 3][1], scales[i % 3], dtype=torch.float16, pdl=True)
        return x

    chain(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = chain(x)
    for _ in range(20):
        x.copy_(torch.randn(m, 768, device="cuda"))
        expected = x
        for i in range(12):
            expected = run(expected, layers[i % 3][1], scales[i % 3], dtype=torch.float16)
        graph.replay()
        assert torch.equal(result, expected)


@pytest.mark.gpu
def test_unaligned_views(library):
    """x, a bias and a residual that begin between multiples of 16 bytes."""
    plain, packed = weight_of("int8", 31, 104)
    x = torch.randn(2 * 104 + 1, device="cuda").half()[1:].view(2, 104)
    bias, residual = torch.randn(32, device="cuda")[1:], torch.randn(63, device="cuda")[1:]
    residual = residual.view(2, 31)
    y = run(x, packed, torch.ones(1, device="cuda"), bias=bias, residual=residual)
    wanted = x.double() @ plain.T + bias.double() + residual.double()
    torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.gpu
def test_a_refused_launch_is_an_error(library):
    _, packed = weight_of("int8", 16, 64)
    x = torch.ones(1, 64, device="cuda").half()
    with pytest.raises(RuntimeError, match=r"\[weight_only\] got 1x16x64 int8"):
        run(x, packed, torch.ones(1, device="cuda"), Config(3, 1, 2, 1))
