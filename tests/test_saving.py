"""Files of compiled functions: everything comes back, and nothing damaged is believed."""

from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import tripy as tp
from tests.compiler.support import numbers, same
from tests.helpers import raises
from tripy import saving

ROOT = Path(__file__).resolve().parent.parent


def info(*shape, dtype=tp.float32):
    return tp.InputInfo(shape, dtype)


def again(fast, folder, *arguments, **tolerance):
    """Save, load, and compare what both give."""
    path = folder / "function.tripy"
    fast.save(path)
    loaded = tp.Executable.load(path)
    same(loaded(*arguments), fast(*arguments), **tolerance)
    kinds = [
        [(p.name, p.kind) for p in f.__signature__.parameters.values()] for f in (loaded, fast)
    ]
    assert kinds[0] == kinds[1]
    assert str(loaded.input_infos) == str(fast.input_infos)
    return loaded


def model(quant_dtype=tp.int8, inner=6):
    rng = np.random.default_rng(1)
    layers = {"up": tp.Linear(inner, 8, quant_dtype=quant_dtype), "act": tp.gelu,
              "down": tp.Linear(8, 3, quant_dtype=quant_dtype, weight_quant_dim=0)}  # fmt: skip
    module = tp.Sequential(layers)
    for layer in (module.up, module.down):
        layer.weight = tp.Tensor(rng.normal(size=layer.weight.shape).astype(np.float32))
        layer.bias = tp.Tensor(rng.normal(size=layer.bias.shape).astype(np.float32))
        layer.weight_scale = 0.03 if layer.weight_quant_dim is None else [0.02, 0.03, 0.04]
        if quant_dtype is not tp.int4:
            layer.input_scale = 0.05
    return module


@pytest.mark.parametrize("kind", [tp.int8, tp.int4, tp.float8])
@pytest.mark.parametrize("dynamic", [True, False])
def test_quantized_models(tmp_path, kind, dynamic):
    rows = tp.NamedDimension("rows", 1, 3, 8) if dynamic else 3
    fast = tp.compile(model(kind), args=[info(rows, 6)])
    loaded = again(fast, tmp_path, numbers(3, 6) / 7.0)
    got, expected = loaded.report(), fast.report()
    assert [row._replace(name="") for row in got.rows] == [
        row._replace(name="") for row in expected.rows
    ]
    assert [row.name for row in got.rows[1:]] == [row.name for row in expected.rows[1:]]
    assert "as saved in function.tripy" in got.backend
    if dynamic:
        for count in (1, 8):
            same(loaded(numbers(count, 6)), fast(numbers(count, 6)))
        with raises(r"\.shape\[0\] is out of bounds"):
            loaded(numbers(9, 6))


def test_a_file_is_small(tmp_path):
    layer = tp.Linear(256, 256, quant_dtype=tp.int4, bias=False)
    layer.weight, layer.weight_scale = tp.ones((256, 256)), 0.5
    tp.compile(layer, args=[info(1, 256)]).save(tmp_path / "f")
    assert 256 * 128 < (tmp_path / "f").stat().st_size < 256 * 128 + 8000


def test_dynamic_sizes_and_their_arithmetic(tmp_path):
    def use(x, y, n):
        both = tp.concatenate([x, y], 0)
        return {
            "flat": tp.reshape(both, [both.shape[0] * 2]),
            "parts": [both[: n // 2 + 1], tp.arange(x.shape[0] * n, dtype=tp.int32)],
            "least": x[: y.shape[0]],
            "steps": both[both.shape[0] - 1 :: -2],
            "sum": tp.sum(x, 0) / x.shape[0] + n % 3,
        }

    n = tp.DimensionInputInfo((1, 4, 9))
    fast = tp.compile(use, args=[info((1, 2, 6), 2), info(tp.NamedDimension("m", 0, 3, 9), 2), n])
    loaded = again(fast, tmp_path, numbers(3, 2), numbers(4, 2), 5)
    same(loaded(numbers(1, 2), numbers(0, 2), 1), fast(numbers(1, 2), numbers(0, 2), 1))
    with raises("n is out of bounds"):
        loaded(numbers(1, 2), numbers(0, 2), 10)


def test_what_sizes_have_to_obey(tmp_path):
    def add_all(first, second):
        return first @ second

    fast = tp.compile(add_all, args=[info(2, (1, 2, 5)), info((1, 2, 5), 2)])
    loaded = again(fast, tmp_path, numbers(2, 3), numbers(3, 2))
    # The source line is in the file.
    with raises("summed dimensions differ", "return first @ second"):
        loaded(numbers(2, 3), numbers(4, 2))


def test_nested_arguments_and_results(tmp_path):
    def use(data, *rest, scale, **more):
        return (data["a"][0] * scale, {"b": [rest[0] + rest[1], more["z"]], 3: data["n"][2]})

    x = info(2)
    fast = tp.compile(
        use,
        args=[{"a": (x, 7, "text", None, 1.5, float("inf"), True), "n": {2: x}}, x, x],
        kwargs={"scale": x, "z": x},
    )
    path = tmp_path / "f"
    fast.save(path)
    loaded = tp.Executable.load(path)
    a = tp.ones((2,))
    data = {"a": (a, 7, "text", None, 1.5, float("inf"), True), "n": {2: a * 3}}
    got = loaded(data, a, a, scale=a * 5, z=a)
    same(got, fast(data, a, a, scale=a * 5, z=a))
    assert type(got) is tuple
    assert list(got[1]) == ["b", 3]
    assert str(loaded.__signature__) == str(fast.__signature__) == "(data, *rest, scale, z)"
    with raises(r"data\.a\[5\]: the value was fixed[\s\S]*got: +1.0[\s\S]*expected: +inf"):
        loaded({**data, "a": (a, 7, "text", None, 1.5, 1.0, True)}, a, a, scale=a, z=a)
    with raises(r"data\.n\[2\]: the argument is not a tensor"):
        loaded({**data, "n": {2: 1.0}}, a, a, scale=a, z=a)


@pytest.mark.parametrize(
    "dtype", [tp.float32, tp.float16, tp.bfloat16, tp.int8, tp.int32, tp.int64, tp.bool], ids=str
)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (3, 0, 2)])
def test_constants_of_every_type_and_shape(tmp_path, dtype, shape):
    constant = tp.cast(numbers(*shape) - 1.0, dtype).eval()
    again(tp.compile(lambda: (constant, constant), args=[]), tmp_path)


@pytest.mark.parametrize("kind", [tp.int4, tp.float8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8])
def test_small_types_of_odd_lengths(tmp_path, kind, count):
    constant = tp.quantize(numbers(count) - 3.0, 1.0, kind).eval()
    again(tp.compile(lambda: tp.dequantize(constant, 1.0, tp.float32)), tmp_path)
    again(tp.compile(lambda: constant), tmp_path)


def test_extreme_numbers_in_constants_and_attributes(tmp_path):
    extreme = tp.Tensor([float("inf"), float("-inf"), float("nan"), -0.0, 1e-45, 3.4e38])

    def use(x):
        return (
            extreme,
            tp.full((x.shape[0],), float("inf")),
            tp.full((x.shape[0],), float("-inf")),
            tp.full((x.shape[0],), 0.1),
            tp.full((x.shape[0],), float("nan")),
            tp.where(x > 0.0, x, float("-inf")),
        )

    again(tp.compile(use, args=[info((1, 2, 3))]), tmp_path, numbers(3))


def test_views_and_tied_constants(tmp_path):
    memory = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    parts = [memory, memory[1:3], memory[:, ::2], memory.t(), memory[0].expand(5, 6)]
    tensors = [tp.Tensor(part) for part in parts]
    fast = tp.compile(lambda: tensors)
    again(fast, tmp_path)
    with safetensors.safe_open(tmp_path / "function.tripy", "pt") as file:
        count = len(file.keys())
    tensors.append(tp.Tensor(memory.clone()))
    again(tp.compile(lambda: [*tensors, tensors[0]]), tmp_path)
    with safetensors.safe_open(tmp_path / "function.tripy", "pt") as file:
        assert len(file.keys()) == count  # Equal data is in the file once.


def test_a_tied_weight_is_one(tmp_path):
    table = tp.Tensor(np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32))

    def use(ids):
        return tp.gather(table, 0, ids) @ tp.transpose(table, 0, 1)

    again(tp.compile(use, args=[info(3, dtype=tp.int32)]), tmp_path, tp.Tensor([0, 399, 7]))
    assert (tmp_path / "function.tripy").stat().st_size < 1.5 * 400 * 16 * 4


def test_caches_are_written_in_place_after_loading(tmp_path):
    cache = info(1, 1, 4, 2)
    fast = tp.compile(tp.kv_cache_update, args=[cache, info(1, 1, 1, 2), info(1, dtype=tp.int32)])
    fast.save(tmp_path / "f")
    loaded = tp.Executable.load(tmp_path / "f")
    mine = tp.Tensor(np.zeros((1, 1, 4, 2), np.float32))
    got = loaded(mine, tp.ones((1, 1, 1, 2)), tp.Tensor([2]))
    assert got.torch().data_ptr() == mine.torch().data_ptr()


def test_saved_twice_and_saved_again_after_loading(tmp_path):
    fast = tp.compile(model(tp.int4), args=[info(2, 6)])
    fast.save(tmp_path / "a")
    tp.Executable.load(tmp_path / "a").save(tmp_path / "b")
    tp.Executable.load(tmp_path / "b").save(tmp_path / "b")
    x = numbers(2, 6)
    same(tp.Executable.load(tmp_path / "b")(x), fast(x))


def test_level_0_and_no_inputs(tmp_path):
    again(tp.compile(model(), 0, args=[info(2, 6)]), tmp_path, numbers(2, 6))
    again(tp.compile(lambda: tp.arange(3)), tmp_path)


CHILD = """
import sys
import numpy as np
import tripy as tp
fast = tp.Executable.load(sys.argv[1])
x = tp.Tensor(np.arange(18, dtype=np.float32).reshape(3, 6) / 7)
np.save(sys.argv[2], fast(x).numpy())
print(fast.report().rows[1].kernel)
assert not {"model", "pickle5"} & set(sys.modules)
"""


def test_loaded_in_a_new_process(tmp_path):
    fast = tp.compile(model(), args=[info((1, 2, 4), 6)])
    fast.save(tmp_path / "f")
    result = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "f", tmp_path / "out.npy"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), fast(numbers(3, 6) / 7.0).numpy())
    assert "int8" in result.stdout


# Damage.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file, its bytes, and what it computes."""
    path = tmp_path_factory.mktemp("saved") / "function.tripy"
    fast = tp.compile(model(tp.int4), args=[info((1, 2, 4), 6)])
    fast.save(path)
    return path.read_bytes(), fast(numbers(3, 6)).tolist()


def refused_or_the_same(path, content, expected):
    path.write_bytes(content)
    try:
        loaded = tp.Executable.load(path)
    except tp.TripyException as error:
        assert "Executable.load" in str(error)
        assert str(path) in str(error)
        return True
    assert loaded(numbers(3, 6)).tolist() == expected
    return False


def test_truncated_at_any_length(saved, tmp_path):
    content, expected = saved
    header = struct.unpack("<Q", content[:8])[0]
    lengths = {0, 1, 7, 8, 9, 8 + header // 2, 8 + header - 1, 8 + header, 8 + header + 1}
    lengths |= set(range(0, len(content), len(content) // 50)) | {len(content) - 1}
    for length in lengths - {len(content)}:
        assert refused_or_the_same(tmp_path / "f", content[:length], expected), length


def test_longer_than_it_was(saved, tmp_path):
    content, expected = saved
    assert refused_or_the_same(tmp_path / "f", content + b"\0", expected)


def test_one_byte_changed_anywhere(saved, tmp_path):
    """The header's length, its JSON and the tensors' bytes."""
    content, expected = saved
    header = 8 + struct.unpack("<Q", content[:8])[0]
    rng = np.random.default_rng(0)
    places = [*range(16), *range(header, len(content), 7)]
    places += [int(p) for p in rng.integers(16, header, 500)]
    # All of the small entries that describe tensors: types, shapes, offsets and digests.
    start = content.index(b'"tensor_digests"')
    places += range(start, min(start + 600, header), 3)
    refused = 0
    for place in places:
        changed = bytearray(content)
        changed[place] ^= int(rng.choice([1, 4, 8, 32, 128, 255]))
        refused += refused_or_the_same(tmp_path / "f", bytes(changed), expected)
    assert refused > 0.97 * len(places)


def test_the_types_of_tensors_changed(saved, tmp_path):
    content, expected = saved
    for old, new in ((b'"U8"', b'"I8"'), (b'"F32"', b'"I32"'), (b'"F32"', b'"U32"')):
        assert old in content
        changed = content.replace(old, new)
        assert refused_or_the_same(tmp_path / "f", changed, expected)


def altered(content, path, change):
    """A file whose program was changed by somebody who also corrects the checksum."""
    with open(path, "wb") as file:
        file.write(content)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    program = json.loads(metadata["program"])
    change(program, tensors, metadata)
    metadata["program"] = json.dumps(program)
    metadata["program_digest"] = saving._digest(metadata["program"].encode())
    safetensors.torch.save_file(tensors, path, metadata)


CHANGES = {
    "an unknown operation": lambda p, t, m: p["graph"]["nodes"][0].update(op="os.system"),
    "an internal name": lambda p, t, m: p["graph"]["nodes"][0].update(op="__class__"),
    "another shape": lambda p, t, m: p["graph"]["nodes"][0]["outputs"][0].update(shape=[99, 99]),
    "another type": lambda p, t, m: p["graph"]["nodes"][0]["outputs"][0].update(dtype="int32"),
    "no such type": lambda p, t, m: p["graph"]["nodes"][0]["outputs"][0].update(dtype="complex"),
    "a value that nothing makes": lambda p, t, m: p["graph"]["nodes"][0].update(inputs=[999]),
    "fewer inputs": lambda p, t, m: p["graph"]["nodes"][0].update(inputs=[]),
    "no nodes": lambda p, t, m: p["graph"].update(nodes=[]),
    "no graph": lambda p, t, m: p.pop("graph"),
    "no such constant": lambda p, t, m: p["graph"]["constants"][0].update(tensor="99"),
    "an unknown size": lambda p, t, m: p["graph"].update(symbols=[]),
    "a list for a name": lambda p, t, m: p.update(inputs=[]),
    "another device": lambda p, t, m: p.update(device="gpu"),
    "no device": lambda p, t, m: p.update(device="moon"),
    "bounds out of order": lambda p, t, m: p["inputs"]["x"].update(shape=[[None, 3, 2, 1]]),
    "a kind of parameter": lambda p, t, m: p.update(parameters=[["x", "__class__"]]),
    "a tensor that is missing": lambda p, t, m: t.popitem(),
    "a tensor that is another": lambda p, t, m: t.update({k: v + 1 for k, v in t.items()}),
    "a newer format": lambda p, t, m: m.update(tripy_format="2"),
    "no format": lambda p, t, m: m.pop("tripy_format"),
    "no digests": lambda p, t, m: m.pop("tensor_digests"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_program_that_makes_no_sense(saved, tmp_path, name):
    altered(saved[0], tmp_path / "f", CHANGES[name])
    with raises("Executable.load: .*"):
        tp.Executable.load(tmp_path / "f")


def test_an_altered_program_without_its_checksum(saved, tmp_path):
    path = tmp_path / "f"
    altered(saved[0], path, lambda p, t, m: None)
    tp.Executable.load(path)
    content = path.read_bytes()
    place = content.index(b"float32")
    path.write_bytes(content[:place] + b"float16" + content[place + 7 :])
    with raises("the program in the file was altered"):
        tp.Executable.load(path)


def test_an_older_or_newer_format_says_so(saved, tmp_path):
    altered(saved[0], tmp_path / "f", lambda p, t, m: m.update(tripy_format="7"))
    with raises(r"the file has format 7[\s\S]*compile and save again"):
        tp.Executable.load(tmp_path / "f")


def test_files_that_are_not_ours(tmp_path):
    with raises("there is no such file"):
        tp.Executable.load(tmp_path / "missing")
    with raises("it is a folder"):
        tp.Executable.load(tmp_path)
    for name, content in {
        "empty": b"",
        "zeros": bytes(100),
        "text": b"not a program\n" * 10,
        "pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.",
        "a huge header": b"\xff" * 64,
    }.items():
        (tmp_path / name).write_bytes(content)
        with raises("the file is damaged or not tripy's"):
            tp.Executable.load(tmp_path / name)
    safetensors.torch.save_file({"weight": torch.ones(2)}, tmp_path / "foreign")
    with raises("not a compiled function of tripy's"):
        tp.Executable.load(tmp_path / "foreign")


def test_nothing_runs_from_a_pickle(tmp_path):
    torch.save({"program": os.system}, tmp_path / "f")
    with raises("the file is damaged or not tripy's"):
        tp.Executable.load(tmp_path / "f")


def test_a_path_of_any_kind(tmp_path):
    fast = tp.compile(lambda x: x + 1.0, args=[info(2)])
    fast.save(str(tmp_path / "f"))
    assert tp.Executable.load(str(tmp_path / "f"))(tp.ones((2,))).tolist() == [2.0, 2.0]


def test_a_folder_that_is_not_there(tmp_path):
    fast = tp.compile(lambda x: x + 1.0, args=[info(2)])
    with raises("Executable.save: the file cannot be written; nothing was changed"):
        fast.save(tmp_path / "no" / "f")
    with raises("Executable.save: the file cannot be written"):
        fast.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path):
    fast = tp.compile(lambda x: x + 1.0, args=[info(2)])
    tmp_path.chmod(0o500)
    try:
        with raises("Executable.save: the file cannot be written"):
            fast.save(tmp_path / "f")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("failing", ["save_file", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, failing, error):
    path = tmp_path / "f"
    path.write_bytes(b"what was there")
    fast = tp.compile(lambda x: x + 1.0, args=[info(2)])

    def fail(*arguments):
        if failing == "save_file":
            Path(arguments[1]).write_bytes(b"half")
        raise error

    owner = safetensors.torch if failing == "save_file" else os
    monkeypatch.setattr(owner, failing, fail)
    expected = tp.TripyException if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        fast.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").write_bytes(b"")
    tp.compile(lambda x: x + 1.0, args=[info(2)]).save(tmp_path / "f")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("f", "other")]
    assert modes[0] == modes[1]


def test_a_constant_of_one_element_with_a_stride(tmp_path):
    one = tp.Tensor(torch.arange(6, dtype=torch.float32).reshape(3, 2)[1:2, ::2].t())
    again(tp.compile(lambda: (one, tp.Tensor(torch.ones(1).expand(1, 1)))), tmp_path)
    again(tp.compile(lambda x: tp.split(tp.iota((1, 2), dtype=tp.int32), 2, 1), args=[info(1)]),
          tmp_path, numbers(1))  # fmt: skip


@pytest.mark.parametrize("dtype", [tp.float32, tp.float16, tp.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [tp.int8, tp.int4, tp.float8], ids=str)
@pytest.mark.parametrize("grain", [None, 0, 1, "blocks"])
def test_layers_of_every_layout(tmp_path, dtype, kind, grain):
    rng = np.random.default_rng(2)
    dim = None if grain == "blocks" else grain
    layer = tp.Linear(64, 64, dtype=dtype, quant_dtype=kind, weight_quant_dim=dim)
    layer.weight = tp.cast(tp.Tensor(rng.normal(size=(64, 64)).astype(np.float32)), dtype)
    layer.bias = tp.cast(tp.Tensor(rng.normal(size=64).astype(np.float32)), dtype)
    shape = {None: (), "blocks": (64, 2)}.get(grain, (64,))
    scale = tp.Tensor(np.asarray(rng.uniform(0.01, 0.1, shape), np.float32))
    layer.weight_scale = tp.cast(scale, dtype)
    x = tp.cast(tp.Tensor(rng.normal(size=(3, 64)).astype(np.float32)), dtype).eval()
    infos = [tp.InputInfo(((1, 3, 9), 64), dtype)]
    again(tp.compile(layer, args=infos), tmp_path, x)
    if grain in (None, 0):
        layer.input_scale = 0.03
        again(tp.compile(lambda x: tp.relu(layer(x)), args=infos), tmp_path, x)


def test_convolutions_norms_and_attention(tmp_path):
    conv = tp.Conv(4, 8, (3, 3), padding=((1, 1), (1, 1)), quant_dtype=tp.int8)
    conv.initialize_dummy_parameters()
    conv.weight_scale, conv.input_scale = 0.02, 0.1
    norms = tp.Sequential(tp.LayerNorm(6), tp.RMSNorm(6))
    norms.initialize_dummy_parameters()

    def use(x, cache, index):
        y = norms(conv(x))
        cache = tp.kv_cache_update(cache, y, index)
        angle = tp.iota((6, 3))
        turned = tp.rotary_embedding(y, tp.cos(angle), tp.sin(angle))
        return tp.scaled_dot_product_attention(turned, cache, cache, is_causal=True), cache

    infos = [info((1, 2, 4), 4, 6, 6), info(2, 8, 12, 6), info(2, dtype=tp.int32)]
    fast = tp.compile(use, args=infos)
    fast.save(tmp_path / "f")
    x, index = numbers(2, 4, 6, 6) / 100.0, tp.Tensor([0, 3])
    caches = [tp.Tensor(np.zeros((2, 8, 12, 6), np.float32)) for _ in range(2)]
    got = tp.Executable.load(tmp_path / "f")(x, caches[0], index)
    same(got, fast(x, caches[1], index))
