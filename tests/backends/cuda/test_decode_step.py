"""A decode step in one kernel: planned, and equal to eager.

On a CPU the kernel runs in the emulator of ``tests/native``, with few blocks; on a GPU it is the
native library's.
"""

import ctypes
import itertools
from typing import NamedTuple, Optional

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tripy as tp

pytest.importorskip("triton")

from tests import native as emulation
from tripy.backends.torch import program
from tripy.backends.torch.kernels.cuda import decode_limits, decode_step, native_decode


class Sizes(NamedTuple):
    """Of a model, and how many blocks the emulator runs."""

    heads: int = 3
    groups: int = 3
    width: int = 64
    capacity: int = 200
    layers: int = 2
    inner: int = 4  # times the model's size
    norm: str = "layer"
    dtype: tp.dtype = tp.float16
    static: bool = True  # Whether inputs are of the weights' type too; else only weights are.
    weights: tp.dtype = tp.int8  # Of the blocks' layers.
    block: Optional[int] = 0  # Columns that share a scale; 0: all of a row; None: the whole weight.
    classes: int = 0  # Outputs of a last layer, whose inputs are not int8; 0: there is none.
    blocks: int = 3
    loud: float = 1.0  # What queries, keys and values are multiplied with.

    @property
    def size(self):
        return self.heads * self.width


LARGEST = {tp.int8: 127, tp.int4: 7, tp.float8: 448}
GPT = Sizes(classes=501)
OTHERS = {
    "many blocks": Sizes(layers=1, classes=40, blocks=20),  # Groups of fewer rows.
    "many blocks, only weights": Sizes(static=False, layers=1, blocks=20),
    "only weights are int8": Sizes(static=False, classes=71),
    "only weights, bfloat16, wide": Sizes(
        heads=20, groups=4, static=False, dtype=tp.bfloat16, layers=1
    ),
    "grouped, narrow heads": Sizes(heads=6, groups=2, width=32, capacity=600, norm="rms"),
    "wide heads, several chunks": Sizes(heads=2, groups=1, width=128, capacity=300),
    "bfloat16": Sizes(dtype=tp.bfloat16, layers=1),
    "several quads, stages and rounds": Sizes(heads=33, groups=33, capacity=40, layers=1, inner=2),
    "float8": Sizes(weights=tp.float8, block=None, classes=501),
    "float8, many blocks": Sizes(weights=tp.float8, block=None, layers=1, blocks=25),
    "float8, bfloat16": Sizes(weights=tp.float8, dtype=tp.bfloat16, layers=1),
    "float8, large": Sizes(
        heads=33, groups=33, capacity=40, layers=1, inner=2, weights=tp.float8, block=None
    ),
    "only weights are float8": Sizes(weights=tp.float8, static=False, classes=71),
    "only weights are float8, bfloat16, many blocks": Sizes(
        weights=tp.float8, block=None, static=False, dtype=tp.bfloat16, layers=1, blocks=25
    ),
    "int4, blocks of 64": Sizes(weights=tp.int4, block=64, static=False, classes=501),
    "int4, blocks of 32, many blocks": Sizes(
        weights=tp.int4, block=32, static=False, layers=1, blocks=25
    ),
    "int4, blocks of 128": Sizes(
        heads=4, groups=2, weights=tp.int4, block=128, static=False, layers=1
    ),
    "int4, a scale for each output, bfloat16": Sizes(
        weights=tp.int4, static=False, dtype=tp.bfloat16, layers=1
    ),
    "int4, bfloat16, large": Sizes(
        heads=33, groups=33, capacity=40, layers=1, inner=2, weights=tp.int4, block=64,
        static=False, dtype=tp.bfloat16,
    ),
}  # fmt: skip


class Block(tp.Module):
    """Attention over a cache and an MLP, as in the nanoGPT example."""

    def __init__(self, sizes):
        self.sizes = sizes
        size, pairs = sizes.size, 2 * sizes.groups * sizes.width
        dim = 0 if sizes.block == 0 else None
        options = {"quant_dtype": sizes.weights, "weight_quant_dim": dim, "dtype": sizes.dtype}
        norm = tp.LayerNorm if sizes.norm == "layer" else tp.RMSNorm
        self.norm_1, self.norm_2 = (norm(size, sizes.dtype) for _ in range(2))
        self.qkv = tp.Linear(size, size + pairs, **options)
        self.out = tp.Linear(size, size, **options)
        self.up = tp.Linear(size, sizes.inner * size, **options)
        self.down = tp.Linear(sizes.inner * size, size, bias=False, **options)

    def forward(self, x, cache, position):
        s = self.sizes
        heads = tp.reshape(self.qkv(self.norm_1(x)), (x.shape[0], -1, 1, s.width))
        query, pair = tp.split(heads, [s.heads, 2 * s.groups], dim=1)
        cache = tp.kv_cache_update(cache, pair, position)
        key, value = tp.split(cache, 2, dim=1)
        y = tp.scaled_dot_product_attention(query, key, value, key_value_lengths=position + 1)
        x = x + self.out(tp.reshape(y, x.shape))
        return x + self.down(tp.gelu(self.up(self.norm_2(x)), approximate="tanh")), cache


class Model(tp.Module):
    """Blocks with random weights and static scales."""

    def __init__(self, sizes=GPT):
        self.sizes = sizes
        self.blocks = [Block(sizes) for _ in range(sizes.layers)]
        if sizes.classes:
            self.norm = tp.LayerNorm(sizes.size, sizes.dtype)
            self.head = tp.Linear(
                sizes.size, sizes.classes, bias=False, dtype=sizes.dtype, quant_dtype=tp.int8,
                weight_quant_dim=0,
            )  # fmt: skip
        random = np.random.default_rng(0)
        state = {}
        parameters = self.state_dict()
        for name, parameter in parameters.items():
            shape = tuple(int(n) for n in parameter.shape)
            if name.endswith("weight_scale"):
                most = LARGEST[tp.int8 if name.startswith("head") else sizes.weights]
                if sizes.block and not name.startswith("head"):
                    outputs, columns = map(int, parameters[name.removesuffix("_scale")].shape)
                    shape = (outputs, columns // sizes.block)
                values = random.uniform(0.25, 0.75, shape) / most
            elif "norm" in name:
                values = random.uniform(0.5, 1.5, shape)
            else:
                values = random.normal(0, 0.1, shape)
            values *= sizes.loud if "qkv" in name else 1
            values = tp.Tensor(values.astype(np.float32), device=tp.config.default_device)
            state[name] = tp.cast(values, sizes.dtype)
        self.load_state_dict(state)
        for block in self.blocks:
            for layer in (block.qkv, block.out, block.up, block.down) if sizes.static else ():
                layer.input_scale = 5 / LARGEST[sizes.weights]

    def forward(self, x, position, caches):
        written = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block(x, cache, position)
            written.append(cache)
        return self.head(self.norm(x)) if self.sizes.classes else x, written


def compiled(model, rows=1):
    s = model.sizes
    cache = tp.InputInfo((rows, 2 * s.groups, s.capacity, s.width), s.dtype)
    args = [tp.InputInfo((rows, s.size), s.dtype), tp.InputInfo((rows,), tp.int32)]
    args.append([cache] * s.layers)
    return tp.compile(model, args=args, backend="torch")


@pytest.fixture
def planning(emulated, monkeypatch, device):
    """Programs are planned for a GPU with the native library, or as for one."""
    if device.type == "cuda":
        reason = native_decode.available(emulated)
        if reason:
            pytest.skip(reason)
        return
    monkeypatch.setattr(program, "native_decode_missing", lambda where: None)
    monkeypatch.setattr(native_decode, "blocks", lambda where: 132)


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory):
    library = emulation.build("decode_step", tmp_path_factory.mktemp("native"))
    library.run_decode_step.restype = ctypes.c_char_p
    assert native_decode.agrees(library)
    return library


class Kernel:
    """Runs launches in the emulator, each with another order of events."""

    def __init__(self, library):
        self.library, self.seed, self.spaces = library, 0, {}

    def space(self, run):
        if run not in self.spaces:
            self.spaces[run] = native_decode.Exchange(run._exchanged, run.where)
        return self.spaces[run]

    def run(self, launch, where):
        self.seed += 1
        error = self.library.run_decode_step(ctypes.byref(launch), ctypes.c_uint64(self.seed))
        assert not error, error.decode()


@pytest.fixture
def kernel(request, planning, device, monkeypatch):
    torch.manual_seed(0)
    if device.type == "cuda":
        return
    made = Kernel(request.getfixturevalue("emulated_library"))
    monkeypatch.setattr(native_decode, "run", made.run)
    monkeypatch.setattr(decode_step.Run, "_space", lambda run: made.space(run))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def runs(executable):
    functions = [step.function for step in executable._program._steps]
    return [function for function in functions if isinstance(function, decode_step.Run)]


# ---- Planning.


@given(
    kind=st.sampled_from(list(native_decode.WEIGHTS)), outputs=st.integers(1, 60000),
    size=st.integers(1, 512), scales=st.integers(0, 10), integers=st.booleans(),
    rounded=st.booleans(), blocks=st.integers(1, 140),
)  # fmt: skip
def test_stages_fit_the_ring(kind, outputs, size, scales, integers, rounded, blocks):
    row_bytes, integers = 16 * size, integers or rounded
    record = 8 + (8 * scales if kind == "int4" else 0)
    if decode_limits.fits(decode_limits.unit_rows(rounded), row_bytes, record):
        rows, groups, each, stage = decode_limits.split_of(
            kind, outputs, row_bytes, record, integers, rounded, blocks
        )
        assert rows in ((4, 8) if rounded else (2, 4, 8))
        assert rows < 8 or not integers or kind != "int8"
        assert rows * groups >= outputs and each * blocks >= groups and 1 <= stage <= each
        assert stage * rows * (row_bytes + record) <= native_decode.RING_BYTES


@pytest.mark.parametrize("sizes", [GPT, *OTHERS.values()], ids=["GPT", *OTHERS])
def test_all_layers_are_one_run(planning, sizes):
    fast = compiled(Model(sizes))
    (run,) = runs(fast)
    # The report names the run, and says of each layer that it is in it.
    rows = fast.report().rows
    (whole,) = (row for row in rows if row.operation == "decode_step")
    parts = [row for row in rows if row.kernel == "a step of the decode step's kernel"]
    steps = [row for row in parts if row.operation != "quantize"]
    assert whole.name == f"run of {len(steps)} steps"
    assert all(row in [*parts, whole] or row.operation == "launch" for row in rows)
    assert sum(row.weight_bytes for row in parts) > 0
    kinds = [step["kind"] for step in run.steps]
    layer = [native_decode.LINEAR, native_decode.ATTENTION, *[native_decode.LINEAR] * 3]
    assert kinds == layer * sizes.layers + [native_decode.LINEAR] * (sizes.classes > 0)
    # The input, the position, a cache and lengths for each layer; the result is a tensor too.
    assert len(run.reads) == 2 + 2 * sizes.layers and len(run.writes) == 1 + sizes.layers
    places = []
    for step in run.steps:
        if step["kind"] == native_decode.LINEAR:
            assert step["groups_each"] * step["rows"] * run.blocks >= step["n"]
            group = decode_limits.unit_rows("inverse_out_scale" in step)
            if step["out"] < 0:
                assert step is run.steps[-1]  # Nobody in the run reads it.
            else:
                places.append((step["out"], -(-step["n"] // group)))
        else:
            assert step["chunk"] * step["chunks"] >= sizes.capacity
            units = sizes.width // 2 + 2
            places.append((step["out"], sizes.heads * step["chunks"] * units))
    # No two steps write to the same units of the exchange, and two neighbours can be read at once.
    places.sort()
    assert all(at % 2 == 0 for at, _ in places)
    assert all(at + size <= other for (at, size), (other, _) in itertools.pairwise(places))
    last = run.steps[-1]
    assert last["out_tensor"] == len(run.reads)
    assert sizes.classes or last["residual"] >= 0


def test_what_the_kernel_does_not_take_is_no_run(planning):
    assert not runs(compiled(Model(), rows=2))
    longest = decode_limits._MOST_CHUNKS * decode_limits.keys_of_chunk(GPT.width)
    assert not runs(compiled(Model(GPT._replace(capacity=longest + 1))))


# ---- Running.


def inputs(sizes, position, device):
    kind = torch.float16 if sizes.dtype is tp.float16 else torch.bfloat16
    shape = (1, 2 * sizes.groups, sizes.capacity, sizes.width)
    caches = [torch.randn(shape, device=device).to(kind) / 2 for _ in range(sizes.layers)]
    x = torch.randn(1, sizes.size, device=device).to(kind)
    where = torch.tensor([position], dtype=torch.int32, device=device)
    return tp.Tensor(x), tp.Tensor(where), caches


def distance(found, expected):
    return float((found - expected).abs().mean() / expected.abs().mean())


def exact_result(model, x, where, caches):
    """In float32, of the same parameters."""
    exact = Model(model.sizes._replace(dtype=tp.float32))
    exact.load_state_dict({k: tp.cast(v, tp.float32) for k, v in model.state_dict().items()})
    wide = [tp.Tensor(cache.float()) for cache in caches]
    return exact(tp.cast(x, tp.float32), where, wide)[0].eval().torch()


def check(sizes, positions, device, monkeypatch):
    model = Model(sizes)
    if device.type == "cpu":
        monkeypatch.setattr(native_decode, "blocks", lambda where: sizes.blocks)
    fast = compiled(model)
    assert [row.operation for row in fast.report().rows].count("decode_step") == 1
    for position in positions:
        x, where, caches = inputs(sizes, position, device)
        expected, expected_caches = model(x, where, [tp.Tensor(c.clone()) for c in caches])
        expected = expected.eval().torch().float()
        written = [cache.clone() for cache in caches]
        # The second run in the same caches is recorded, the third one a replay.
        for _ in range(3 if device.type == "cuda" else 1):
            for mine, cache in zip(written, caches, strict=True):
                mine.copy_(cache)
            got, got_caches = fast(x, where, [tp.Tensor(cache) for cache in written])
        found = got.torch().float()
        print("DIST", sizes.weights, sizes.static, sizes.dtype, distance(found, expected), distance(found, exact_result(model, x, where, caches)), distance(expected, exact_result(model, x, where, caches)))
        if sizes.static:
            # A value at a rounding's edge may fall the other way, by one step of an int8 input.
            # (The layers' own kernels, one by one, are as far from eager: 0.012 a block.)
            assert distance(found, expected) < 0.02 * sizes.layers
        else:
            # There are roundings to the activations' type only. Eager has more of them: on a GPU,
            # those of its attention in bfloat16 come to six steps.
            exact = exact_result(model, x, where, caches)
            step = 2**-11 if sizes.dtype is tp.float16 else 2**-8
            assert distance(found, exact) < 4 * step * sizes.layers
        for before, mine, other in zip(caches, got_caches, expected_caches, strict=True):
            wanted = other.eval().torch().float()
            assert (mine.torch().float() - wanted).abs().max() < 0.02 * wanted.abs().max()
            changed = (mine.torch() != before).any(-1)[0]
            assert changed.nonzero()[:, 1].unique().tolist() == [position]


def test_equals_eager(kernel, device, monkeypatch):
    chunk = decode_limits.keys_of_chunk(GPT.width)
    check(GPT, (0, 5, 63, 64, chunk - 1, GPT.capacity - 1), device, monkeypatch)


@pytest.mark.parametrize("name", OTHERS)
def test_other_sizes(kernel, device, monkeypatch, name):
    check(OTHERS[name], (0, OTHERS[name].capacity - 1), device, monkeypatch)


def test_the_only_score_may_be_very_small(kernel, device, monkeypatch):
    """One key has all of the weight, whatever its score: here some are below -1e32."""
    loud = Sizes(heads=6, groups=6, static=False, dtype=tp.bfloat16, layers=1, loud=1e17)
    check(loud, (0,), device, monkeypatch)
