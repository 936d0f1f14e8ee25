"""Files between processes: written whole or not at all, read with no more memory than needed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

import tripy as tp
from tests.compiler.support import numbers
from tests.helpers import raises
from tests.saving.support import info, model

ROOT = Path(__file__).resolve().parent.parent.parent


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


def test_a_path_through_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    fast = tp.compile(lambda x: x + 1.0, args=[info(2)])
    with raises("Executable.save: the file cannot be written"):
        fast.save(tmp_path / "file" / "f")
    with raises("there is no such file"):
        tp.Executable.load(tmp_path / "file" / "f")


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


MEMORY = """
import sys
import tripy as tp

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

before = resident()
fast = tp.Executable.load(sys.argv[1])
print(resident() - before, fast.report().weight_bytes)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells memory there")
@pytest.mark.parametrize("kind", [tp.int8, tp.int4], ids=str)
def test_no_larger_copy_of_the_weights_is_kept(tmp_path, kind):
    layers = []
    for number in range(8):
        layer = tp.Linear(2048, 2048, bias=False, quant_dtype=kind)
        layer.weight = tp.full((2048, 2048), float(number - 4))
        layer.weight_scale = 1.0
        layers.append(layer)
    tp.compile(tp.Sequential(*layers), args=[info(1, 2048)]).save(tmp_path / "f")
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "f"], capture_output=True, text=True, check=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    taken, weights = map(int, result.stdout.split())
    assert weights == 8 * 2048 * 2048 * kind.itemsize
    assert taken < weights + 40 * 2**20  # A float copy alone would be 128 MiB.
