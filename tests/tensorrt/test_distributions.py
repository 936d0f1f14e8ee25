"""TensorRT and TensorRT-RTX have one API, and engines run: where there is what that needs.

The full TensorRT's Python bindings come from the usual index, its libraries from NVIDIA's own.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import tripy as tp
from tests import helpers
from tests.demo import demo
from tests.ops.cases import CASES
from tests.tensorrt.support import RTX, SeededDraw, needs_rtx, reason_it_cannot
from tripy.backends import tensorrt
from tripy.backends.tensorrt.distribution import Distribution, for_device, installed

FULL = installed("tensorrt")
needs_full = pytest.mark.skipif(
    isinstance(FULL, str), reason=f"tensorrt is {FULL}: pip install tensorrt-cu13"
)
GPU = tp.device("gpu:0")
RUNS = for_device(GPU)
needs_to_run = pytest.mark.skipif(isinstance(RUNS, str), reason=f"no engine runs here: {RUNS}")

# What only TensorRT-RTX has, and where the backend looks before it uses it.
OF_RTX = {
    ("ComputeCapability", None),  # distribution.installed
    ("CudaGraphStrategy", None),  # program._Running._make_context
    ("IRuntimeConfig", "cuda_graph_strategy"),
    ("IBuilderConfig", "num_compute_capabilities"),  # Only for targets, which are TensorRT-RTX's.
    ("IBuilderConfig", "set_compute_capability"),
}
# Calls of the full TensorRT that take more; lowering.plugins gives it.
LONGER = {("IPluginCreatorV3Quick", "create_plugin")}


def words() -> set[str]:
    """Every name in the backend's source that may be one of TensorRT's."""
    found = set()
    for path in Path(tensorrt.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def signature(member) -> str:
    """The first line of a docstring, which is what it takes and gives, less modules' names."""
    lines = (getattr(member, "__doc__", None) or "").strip().splitlines()
    return re.sub(r"tensorrt\w*\.", "", lines[0]).strip() if lines else ""


@needs_rtx
@needs_full
def test_the_full_tensorrt_has_all_that_is_used():
    assert isinstance(RTX, Distribution)
    assert isinstance(FULL, Distribution)
    used, count = words(), 0
    for name, kind in vars(RTX.module).items():
        if not isinstance(kind, type):
            continue
        other = getattr(FULL.module, name, None)
        if other is None:
            assert name not in used or (name, None) in OF_RTX, name
            continue
        for member in used & set(dir(kind)):
            if (name, member) in OF_RTX:
                continue
            assert hasattr(other, member), f"{name}.{member}"
            wanted, got = signature(getattr(kind, member)), signature(getattr(other, member))
            # "(*args, **kwargs)" is one of several forms.
            fits = got == wanted or "(*args, **kwargs)" in got or (name, member) in LONGER
            assert fits, f"{name}.{member}: {got}, not {wanted}"
            count += 1
    assert count > 500
    assert hasattr(FULL.module.INetworkDefinition, "add_plugin_v3")


def on_gpu(tensor):
    return tp.copy(tensor, GPU).eval()


@needs_to_run
def test_operations_run():
    """All in one test: where no engine runs, one line says so."""
    wrong = []
    for case in CASES:
        for dtype in helpers.types_of(case.types):
            try:
                check_on_gpu(case.build(SeededDraw(CASES.index(case)), dtype))
            except tp.TripyException as error:
                if not reason_it_cannot(str(error)):
                    wrong.append(f"{case.name}, {dtype}: {error}")
            except AssertionError as error:
                wrong.append(f"{case.name}, {dtype}: {error}")
    assert not wrong, "\n".join(wrong)


def check_on_gpu(sample) -> None:
    infos = [tp.InputInfo([int(s) for s in t.shape], t.dtype) for t in sample.tensors]
    fast = tp.compile(
        lambda *tensors: sample.function(*tensors), args=infos, backend="tensorrt", device=GPU
    )
    results = fast(*map(on_gpu, sample.tensors))
    expected = sample.function(*sample.tensors)
    results = results if isinstance(results, (list, tuple)) else [results]
    expected = expected if isinstance(expected, (list, tuple)) else [expected]
    for got, wanted in zip(results, expected, strict=True):
        options = {k: v for k, v in sample.options.items() if k in ("rtol", "atol")}
        values = np.asarray(helpers.plain(wanted))
        helpers.assert_close(got, values, wanted.dtype, rounds=6, **options)


@needs_to_run
@pytest.mark.parametrize("mode", ["none", "int8-weight-only", "int8", "int4-weight-only"])
def test_gpt_writes_its_caches_in_place(mode, tmp_path):
    """Prefill and two steps; also from a file, in a stream of its own."""
    model, batch = demo(mode), 2
    shape = model.new_caches(batch)[0].shape
    row = tp.InputInfo((batch,), tp.int32)
    infos = [tp.InputInfo([int(s) for s in shape], tp.float32)] * len(model.h)
    options = {"backend": "tensorrt", "device": GPU}
    prompt = tp.InputInfo((batch, (1, 16, 256)), tp.int32)
    prefill = tp.compile(model.prefill, args=[prompt, row, infos], **options)
    decode = tp.compile(model.decode, args=[row, row, infos], **options)
    decode.save(tmp_path / "decode")
    decode = tp.Executable.load(tmp_path / "decode")
    decode.stream = tp.Stream()
    tokens = tp.Tensor(np.random.default_rng(0).integers(0, 256, (batch, 9)), dtype=tp.int32)
    lengths = tp.Tensor([9, 5], dtype=tp.int32)
    expected, written = model.prefill(tokens, lengths, model.new_caches(batch))
    caches = [on_gpu(cache) for cache in model.new_caches(batch)]
    places = [cache.torch().data_ptr() for cache in caches]
    logits, caches = prefill(on_gpu(tokens), on_gpu(lengths), caches)
    for step in range(3):
        assert [cache.torch().data_ptr() for cache in caches] == places
        error = np.abs(logits.torch().cpu().numpy() - expected.numpy())
        assert error.mean() < 0.1, step  # Roundings differ; what means something else is off by 1.
        position = lengths + step
        last = tokens[:, step]
        expected, written = model.decode(last, position, written)
        logits, caches = decode(on_gpu(last.eval()), on_gpu(position.eval()), caches)
        decode.stream.synchronize()
