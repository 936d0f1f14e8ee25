"""A decode step in one kernel, of random models: as close to float32 as eager is."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tripy as tp

pytest.importorskip("triton")

from tests.backends.cuda.decode_models import Model, Sizes, compiled, runs
from tests.backends.cuda.test_decode_step import bound, distance, exact_result, inputs, result_of
from tripy.backends.torch.kernels.cuda import native_decode


@st.composite
def models(draw):
    width, groups = draw(st.sampled_from([32, 64, 128])), draw(st.integers(1, 3))
    heads = groups * draw(st.integers(1, max(1, 1000 // (width * groups))))
    weights = draw(st.sampled_from([tp.int8, tp.float8, tp.int4]))
    # int4 comes in windows of 256 columns, or of 64 where these do not divide a row.
    blocks = [0, None, 32, 64] + [128] * (heads * width % 256 == 0)
    scales = {tp.int8: [0], tp.float8: [0, None], tp.int4: blocks}[weights]
    return Sizes(
        heads=heads, groups=groups, width=width, weights=weights,
        block=draw(st.sampled_from(scales)), capacity=draw(st.integers(1, 300)),
        layers=draw(st.integers(1, 2)), inner=draw(st.integers(1, 4)),
        norm=draw(st.sampled_from(["layer", "rms"])),
        dtype=draw(st.sampled_from([tp.float16, tp.bfloat16])),
        static=weights is not tp.int4 and draw(st.booleans()),
        classes=draw(st.sampled_from([0, 17, 501])), blocks=draw(st.integers(1, 17)),
    )  # fmt: skip


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=models(), part=st.floats(0, 1))
def test_is_as_exact_as_eager(kernel, device, sizes, part):
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cpu":
            patch.setattr(native_decode, "blocks", lambda where: sizes.blocks)
        model = Model(sizes)
        fast = compiled(model)
    x, where, caches = inputs(sizes, round(part * (sizes.capacity - 1)), device)
    eager, _ = result_of(model, x, where, caches)
    exact, _ = exact_result(model, x, where, caches)
    if not runs(fast):  # A layer that is no step: int4's windows do not divide its rows.
        assert sizes.weights is tp.int4
        return
    found = fast(x, where, [tp.Tensor(cache.clone()) for cache in caches])[0].torch().float()
    # Of 113 models none was further from float32 than 1.5 times eager.
    assert distance(found, exact) < bound(sizes, eager, exact)
