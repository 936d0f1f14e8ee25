"""The library's kernels for few rows in the emulator of ``tests/native``, on random layers.

Every run has another order of events, so that a missing barrier shows up; speed and what compilers
make of the code do not.
"""

import contextlib
import ctypes
import random

import pytest
import torch

from tests import native as emulation
from tripy.backends.torch.kernels.cuda import native, packing
from tripy.backends.torch.kernels.cuda import native_weight_cuts as cuts
from tripy.backends.torch.kernels.cuda import native_weight_only as module

HALF, INT8, F8 = torch.float16, torch.int8, torch.float8_e4m3fn
# Kinds of weights, types of x and whether it is rounded: what tests/native/weight_only.cpp builds.
INPUTS = (
    ("int4", HALF, False), ("int8", torch.bfloat16, False), ("float8", HALF, False),
    ("int4", INT8, False), ("float8", INT8, False), ("float8", F8, False),
    ("int4", torch.float32, True), ("int4", HALF, True), ("float8", torch.bfloat16, True),
)  # fmt: skip
CUTS = {False: ((2, 8), (2, 16), (1, 8)), True: ((2, 8),)}  # By whether x is streamed.
KERNELS = ("resident", "streamed")


@pytest.fixture(scope="session")
def emulated_weight_only(tmp_path_factory):
    library = emulation.build("weight_only", tmp_path_factory)
    library.tripy_weight_only.argtypes = [ctypes.POINTER(module._WeightOnly), ctypes.c_void_p]
    library.tripy_error.restype = ctypes.c_char_p
    return library


@pytest.fixture
def library(emulated_weight_only, monkeypatch):
    class Stream:
        cuda_stream = 0

    monkeypatch.setattr(module, "_library", lambda: emulated_weight_only)
    monkeypatch.setattr(native, "library", lambda: emulated_weight_only)  # For its errors.
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)


def weight_of(kind, n, k):
    if kind == "float8":
        plain = torch.randn(n, k).to(F8)
        return plain.double(), packing.pack_fp8(plain)
    high = 8 if kind == "int4" else 128
    plain = torch.randint(-high, high, (n, k), dtype=INT8)
    return plain.double(), (packing.pack_int4 if kind == "int4" else packing.pack_int8)(plain)


def input_of(kind, m, k):
    if kind is INT8:
        return torch.randint(-128, 128, (m, k), dtype=INT8)
    return (3 * torch.randn(m, k)).to(kind)


def rounded_of(x, kind, step):
    quotient = x.float() / step
    if kind == "float8":
        return quotient.clamp(-448, 448).to(F8).double()
    return quotient.round().clamp(-128, 127).double()


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kernel", KERNELS)
def test_random_layers(library, kernel, seed):
    draw = random.Random(f"{kernel} {seed}")
    torch.manual_seed(draw.randrange(2**32))
    streams = kernel == "streamed"
    kind, x_type, rounds = draw.choice(INPUTS[:4] if streams else INPUTS)
    m = draw.choice((17, 20, 30, 33, 64, 70) if streams else (1, 2, 7, 8, 9, 16, 19))
    n, group = draw.choice((8, 19, 70, 130)), draw.choice((0, 1, 1, 32, 64, 96, 128, 256))
    k = group * draw.randint(1, 1400 // group) if group > 1 else 16 * draw.randint(1, 90)
    plain, packed = weight_of(kind, n, k)
    compute = module.compute_type(kind, x_type, rounds)
    rows = min(m, 64 if streams else 16)
    tiles, warps = draw.choice(
        [cut for cut in CUTS[streams] if cut[0] == 2 or (rows <= 8 and group <= 1)]
    )
    cluster = 1 if streams else draw.choice((1, 2, 4))
    passes = 1 if streams else draw.choice((1, 2, 3, 5))
    config = cuts.Config(tiles, cluster, draw.choice((2, 3)), rows, warps, streams, passes)
    while cuts.shared_bytes(config, packed, compute, group) > cuts.MEMORY:
        config = config._replace(slots=config.slots - 1)
    x, bias, residual = input_of(x_type, m, k), torch.randn(n), torch.randn(m, n)
    scale = torch.rand(*((n, k // group) if group > 1 else (n,) if group else (1,))) + 0.1
    values, factor = (rounded_of(x, kind, 0.04), 0.04) if rounds else (x.double(), 2.0)
    wide = scale.double().repeat_interleave(group, 1) if group > 1 else scale.double()[:, None]
    weight = plain * wide * factor
    y = module.weight_only(
        x, packed, scale, bias=bias, residual=residual, dtype=torch.float32, config=config,
        out=torch.full((m, n), float("nan")), in_scale=factor if rounds else None,
        x_scale=None if rounds else factor,
    )  # fmt: skip
    wanted = values @ weight.T + bias.double() + residual.double()
    sums = values.abs() @ weight.abs().T + bias.abs().double() + residual.abs().double()
    assert ((y.double() - wanted).abs() <= 2e-6 * sums).all(), (m, n, k, group, config)


@pytest.mark.parametrize("kind", ["int8", "int4", "float8"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_do_not_depend_on_others(library, kernel, kind):
    """Nor on how many there are: which rows share a launch, and its tiles of x, change no bit."""
    torch.manual_seed(0)
    streams, n, k = kernel == "streamed", 70, 416
    most, fewer = (64, (17, 31, 33)) if streams else (16, (1, 7, 8, 9))
    _, packed = weight_of(kind, n, k)
    x_type = torch.bfloat16 if kind == "int8" else HALF
    x, scale = input_of(x_type, most, k), torch.rand(n)

    def run(x):
        config = cuts.Config(2, 1 if streams else 2, 3, len(x), 8, streams)
        out = torch.full((len(x), n), float("nan"))
        return module.weight_only(x, packed, scale, dtype=torch.float32, config=config, out=out)

    together = run(x)
    for rows in fewer:
        assert torch.equal(run(x[:rows]), together[:rows])
        assert torch.equal(run(x[-rows:]), together[-rows:])
