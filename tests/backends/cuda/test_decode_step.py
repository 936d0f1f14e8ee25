"""A decode step in one kernel: planned, and equal to eager.

On a CPU the kernel runs in the emulator of ``tests/native``, with few blocks; on a GPU it is the
native library's.
"""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tripy as tp

pytest.importorskip("triton")

from tests.backends.cuda.decode_models import GPT, OTHERS, Model, Sizes, compiled, runs
from tripy.backends.torch.kernels.cuda import decode_limits, native_decode

# ---- Planning.


@given(
    outputs=st.integers(1, 60000), size=st.integers(1, 512), scales=st.integers(0, 10),
    integers=st.booleans(), rounded=st.booleans(), blocks=st.integers(1, 140),
)  # fmt: skip
def test_stages_fit_the_ring(outputs, size, scales, integers, rounded, blocks):
    row_bytes, record = 16 * size, 8 + 8 * scales
    if decode_limits.fits(decode_limits.unit_rows(rounded), row_bytes, record):
        rows, groups, each = decode_limits.split_of(
            outputs, row_bytes, record, integers, rounded, blocks
        )
        assert rows in ((4, 8) if rounded else (2, 4, 8))
        assert rows * groups >= outputs and each * blocks >= groups
        group = rows * (row_bytes + record)
        size, stages, in_flight = decode_limits.stages(group, each * group)
        assert size % 128 == 0 and 1 <= in_flight < stages <= native_decode.MOST_STAGES
        assert stages >= native_decode.WARPS  # Whose first groups are there at the same time.
        assert size * stages <= native_decode.RING_BYTES
        stage = decode_limits.stage_groups(each, group, size)
        assert 1 <= stage <= each and stage * group <= size


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
    # Of the kernels there are, the one for these sizes; a stage of its ring holds every group.
    settings = run._settings
    of_size = 1 if sizes.size <= 896 else 2 if sizes.size <= 1792 else 5
    assert settings.width == sizes.width and settings.quads == of_size
    linear = [step for step in run.steps if step["kind"] == native_decode.LINEAR]
    for s in linear:
        group = s["rows"] * (s["row_bytes"] + s["record_bytes"])
        assert s["stage_groups"] * group <= settings.stage_bytes
    assert (settings.stage_bytes > 16640) == (max(s["row_bytes"] for s in linear) > 8312)
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


def furthest(found, expected):
    return float((found - expected).abs().max())


def result_of(model, x, where, caches):
    """A model's result and what it writes into its caches, in float32."""
    y, written = model(x, where, [tp.Tensor(cache.clone()) for cache in caches])
    at = int(where.torch())
    return y.eval().torch().float(), [c.eval().torch()[:, :, at].float() for c in written]


def exact_result(model, x, where, caches):
    """The same of the same parameters, computed in float32."""
    exact = Model(model.sizes._replace(dtype=tp.float32))
    exact.load_state_dict({k: tp.cast(v, tp.float32) for k, v in model.state_dict().items()})
    return result_of(exact, tp.cast(x, tp.float32), where, [cache.float() for cache in caches])


def bound(sizes, eager, exact):
    """How far from float32, on the average, a result may be: not much more than eager is.

    A value at a rounding's edge may fall either way, by a step of an int8 or float8 input, in
    eager and in the kernel. (float8's steps are up to 1/8 of a value.) With weights only there are
    roundings to the activations' type.
    """
    few = 0.03 if sizes.weights is tp.float8 else 0.02
    step = 2**-11 if sizes.dtype is tp.float16 else 2**-8
    least = sizes.layers * (few if sizes.static else 4 * step)
    return max(least, 2 * distance(eager, exact))


def check(sizes, positions, device, monkeypatch):
    model = Model(sizes)
    if device.type == "cpu":
        monkeypatch.setattr(native_decode, "blocks", lambda where: sizes.blocks)
    fast = compiled(model)
    assert [row.operation for row in fast.report().rows].count("decode_step") == 1
    for position in positions:
        x, where, caches = inputs(sizes, position, device)
        eager, eager_rows = result_of(model, x, where, caches)
        exact, exact_rows = exact_result(model, x, where, caches)
        written = [cache.clone() for cache in caches]
        # The second run in the same caches is recorded, the third one a replay.
        for _ in range(3 if device.type == "cuda" else 1):
            for mine, cache in zip(written, caches, strict=True):
                mine.copy_(cache)
            got, got_caches = fast(x, where, [tp.Tensor(cache) for cache in written])
        assert distance(got.torch().float(), exact) < bound(sizes, eager, exact)
        for i, (before, after) in enumerate(zip(caches, got_caches, strict=True)):
            found, wanted, other = after.torch()[:, :, position], exact_rows[i], eager_rows[i]
            assert distance(found.float(), wanted) < bound(sizes, other, wanted)
            few = 0.04 if sizes.weights is tp.float8 else 0.02
            most = max(few * float(wanted.abs().max()), 3 * furthest(other, wanted))
            assert furthest(found.float(), wanted) < most
            changed = (after.torch() != before).any(-1)[0]
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
