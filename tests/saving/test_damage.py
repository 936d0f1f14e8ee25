"""Files that are damaged, altered or not ours: one clear error, or the very same results."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import tripy as tp
from tests.compiler.support import numbers
from tests.helpers import raises
from tests.saving.support import info, model
from tripy.files import digest


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
    metadata["program_digest"] = digest(metadata["program"].encode())
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
    "another device": lambda p, t, m: p.update(device="gpu:99"),
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
