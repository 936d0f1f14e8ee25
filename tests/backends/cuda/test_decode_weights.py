"""What weights a decode step's kernel takes, how they are laid out, and how inputs are rounded."""

import ctypes

import numpy as np
import pytest
import torch

import tripy as tp

pytest.importorskip("triton")

from tests.backends.cuda.decode_models import GPT, OTHERS, Model, Sizes, compiled, runs
from tripy.backends.torch.kernels.cuda import decode_limits, decode_weights, native_decode
from tripy.backends.torch.kernels.cuda.linear import GpuLinear

MANY = {name: sizes for name, sizes in OTHERS.items() if "many blocks" in name}


def steps(sizes):
    (run,) = runs(compiled(Model(sizes)))
    return [step for step in run.steps if step["kind"] == native_decode.LINEAR]


def layers(sizes):
    """The kernels of a model's linear layers."""
    program = compiled(Model(sizes))._program
    functions = [kernel.function for kernel in program._kernels.values()]
    return [function for function in functions if isinstance(function, GpuLinear)]


@pytest.mark.parametrize("weights", [tp.float8, tp.int4])
def test_a_run_has_int8_beside_one_other_type(planning, weights):
    sizes = GPT._replace(weights=weights, static=weights is tp.float8, block=None)
    fast = compiled(Model(sizes))
    (run,) = runs(fast)
    other = native_decode.WEIGHTS[str(weights)]
    kinds = [s["weights"] for s in run.steps if s["kind"] == native_decode.LINEAR]
    assert kinds == [other] * 4 * sizes.layers + [0] and run._settings.weights == other
    (row,) = (row for row in fast.report().rows if row.operation == "decode_step")
    assert f"(1 int8, {4 * sizes.layers} {weights} weights)" in row.kernel


class Mixed(tp.Module):
    """Models of two kinds of weights, one after the other."""

    def __init__(self, *sizes):
        self.parts, self.sizes = [Model(s) for s in sizes], sizes[0]

    def forward(self, x, position, caches):
        written = []
        for part, cache in zip(self.parts, caches, strict=True):
            x, (new,) = part(x, position, [cache])
            written.append(new)
        return x, written


def test_a_third_type_begins_another_run(planning):
    base = Sizes(layers=1)
    float8, int4 = base._replace(weights=tp.float8), base._replace(weights=tp.int4, static=False)
    cache = tp.InputInfo((1, 2 * base.groups, base.capacity, base.width), base.dtype)
    args = [tp.InputInfo((1, base.size), base.dtype), tp.InputInfo((1,), tp.int32), [cache] * 3]
    fast = tp.compile(Mixed(float8, base, int4), args=args, backend="torch")
    first, second = runs(fast)
    assert (first._settings.weights, second._settings.weights) == (1, 2)
    assert len(first.steps) == 10 and len(second.steps) == 5


def test_heads_of_another_size_end_a_run(planning):
    wide = Sizes(layers=1)
    narrow = wide._replace(heads=6, groups=6, width=32)
    caches = [tp.InputInfo((1, 2 * s.groups, 40, s.width), s.dtype) for s in (wide, narrow)]
    args = [tp.InputInfo((1, wide.size), wide.dtype), tp.InputInfo((1,), tp.int32), caches]
    fast = tp.compile(Mixed(wide, narrow), args=args, backend="torch")
    (run,) = runs(fast)
    # The layer in front of the other attention is in it; what comes after that is too short a run.
    assert run._settings.width == 64 and len(run.steps) == 6
    attentions = [row for row in fast.report().rows if row.operation == "append_and_attend"]
    parts = [row for row in attentions if row.kernel == "a step of the decode step's kernel"]
    assert len(attentions) == 2 and len(parts) == 1


@pytest.mark.parametrize("name", MANY)
def test_groups_of_each_size_are_tested(planning, monkeypatch, name):
    monkeypatch.setattr(native_decode, "blocks", lambda where: MANY[name].blocks)
    integers = MANY[name].static and MANY[name].weights is tp.int8
    found = {step["rows"] for step in steps(MANY[name])}
    assert found == ({2, 4} if integers else {2, 4, 8})


def test_groups_of_eight_int8_rows(planning, monkeypatch):
    """For wide models, whose kernels have the code for them, and only where rows are many."""
    wide = OTHERS["groups of eight rows"]

    def found(sizes, blocks):
        monkeypatch.setattr(native_decode, "blocks", lambda where: blocks)
        return {step["rows"] for step in steps(sizes)}

    # Eight rows of its last layer do not fit a stage.
    assert found(wide, 3) == {2, 8} and found(wide, 400) == {2, 4}
    assert found(wide._replace(heads=4), 3) == {4}


@pytest.mark.parametrize("dtype", [tp.float16, tp.bfloat16])
@pytest.mark.parametrize("block", [None, 0, 32, 64, 128])
def test_records_have_scales_exactly(planning, dtype, block):
    sizes = Sizes(
        heads=2, groups=2, weights=tp.int4, block=block, static=False, dtype=dtype, layers=1
    )
    for kernel in layers(sizes):
        outputs, columns = kernel.weight.shape
        where = kernel.scale.device
        found = decode_weights.records(kernel, where)
        assert found.shape == (outputs, decode_weights.record_bytes(kernel))
        assert found.shape[1] % 8 == 0
        fields = decode_weights.fields(kernel)
        whole, bias = found[:, :8].contiguous().view(torch.float32).unbind(1)
        scales = found[:, 8:].contiguous().view(kernel.dtype).float()
        of_column = torch.arange(columns, device=where) >> fields["block_bits"]
        plain = kernel.scale if kernel.scale.dim() == 2 else kernel.scale[:, None]
        blocks = plain.shape[1]
        expected = plain.repeat_interleave(columns // blocks, 1).expand(outputs, columns)
        assert torch.equal(whole[:, None] * scales[:, of_column], expected)
        wanted = torch.zeros_like(bias) if kernel.bias is None else kernel.bias.float()
        assert torch.equal(bias, wanted)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        (Sizes(weights=tp.int4, block=16, static=False), "a scale for 16 inputs"),
        (Sizes(weights=tp.int4, block=96, static=False), "a scale for 96 inputs"),
        (Sizes(weights=tp.int8, block=64, static=False), "a scale for each block"),
        (Sizes(heads=3, groups=3, width=32, weights=tp.int4, static=False), "96 inputs"),
    ],
)
def test_what_is_not_taken_has_a_reason(planning, sizes, reason):
    fast = compiled(Model(sizes._replace(layers=1)))
    assert not runs(fast)
    kernels = fast._program._kernels
    linear = {n: k.function for n, k in kernels.items() if isinstance(k.function, GpuLinear)}
    reasons = {decode_limits.why_not_linear(kernel, node) for node, kernel in linear.items()}
    assert any(reason in (why or "") for why in reasons)


def test_float8_inputs_are_rounded_as_eager_rounds(request, device):
    """All float16 numbers, with scales whose reciprocals are and are not exact."""
    if device.type == "cuda":
        pytest.skip("runs in the emulator")
    library = request.getfixturevalue("emulated_library")
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    for scale in (1.0, 0.25, 0.0123, 3e-4, 7.7):
        scale = float(np.float32(scale))
        found = torch.empty(x.numel(), dtype=torch.uint8)
        halves = torch.empty(x.numel(), dtype=torch.float16)
        library.round_float8(
            ctypes.c_void_p(x.data_ptr()), x.numel(), ctypes.c_float(scale),
            ctypes.c_void_p(found.data_ptr()), ctypes.c_void_p(halves.data_ptr()),
        )  # fmt: skip
        eager = tp.quantize(tp.Tensor(x), scale, tp.float8).eval().torch()
        assert torch.equal(found.view(torch.float8_e4m3fn).float().nan_to_num(7e4),
                           eager.float().nan_to_num(7e4))  # fmt: skip
        assert torch.equal(halves.float().nan_to_num(7e4), eager.float().nan_to_num(7e4))
