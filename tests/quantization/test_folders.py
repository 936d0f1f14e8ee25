"""Exports that fail midway: the folder is as it was, or no reader takes it for a checkpoint."""

from __future__ import annotations

import os

import pytest
import torch

import tripy as tp
import tripy.quantization as tq
from tests.quantization.support import tiny_gpt2, tokens

RENAMES = {"hf": 6, "model_config": 6}  # Three files out, three in.


def model(seed: int):
    made, data = tiny_gpt2(seed, layers=1, width=32), tokens()
    tq.quantize(made, tq.INT8_DEFAULT_CFG, lambda: made(data))
    return made


@pytest.fixture(scope="module")
def models():
    return model(0), model(1)


def export(kind: str, source, folder) -> None:
    if kind == "hf":
        tq.export_hf(source, folder)
    else:
        tq.export_model_config(source, "gpt2", "float32", folder, inference_gpus=2)


def load(kind: str, folder) -> torch.Tensor:
    """A weight by which the two models can be told apart, from every file that has one."""
    if kind == "hf":
        return tq.load_hf(folder).tensors["transformer.wte.weight"]
    parts = [tq.load_model_config(folder, "gpt2", rank, 2) for rank in range(2)]
    return torch.cat([part["vocab_embedding"]["weight"] for part in parts])


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Disk:
    """os.rename, which fails at the n-th call; and at all later ones, if it is ``gone``."""

    def __init__(self, monkeypatch, at: int, gone: bool) -> None:
        self.calls, self.at, self.gone, self.real = 0, at, gone, os.rename
        monkeypatch.setattr("tripy.quantization.checkpoint.folder.os.rename", self)

    def __call__(self, source, target):
        self.calls += 1
        if self.calls == self.at or (self.gone and self.calls > self.at):
            raise OSError("input/output error")
        self.real(source, target)


@pytest.mark.parametrize("kind", RENAMES)
def test_any_rename_that_fails_is_undone(kind, models, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("the user's own")
    export(kind, models[0], tmp_path)
    before = contents(tmp_path)
    for at in range(1, RENAMES[kind] + 1):
        with monkeypatch.context() as patch:
            Disk(patch, at, gone=False)
            with pytest.raises(OSError, match="input/output"):
                export(kind, models[1], tmp_path)
        assert contents(tmp_path) == before, at
    export(kind, models[1], tmp_path)
    assert set(contents(tmp_path)) == set(before)
    assert torch.equal(load(kind, tmp_path), models[1].transformer.wte.weight)
    assert (tmp_path / "notes.txt").read_text() == "the user's own"


@pytest.mark.parametrize("kind", RENAMES)
def test_a_mixture_is_never_read(kind, models, tmp_path, monkeypatch, capsys):
    """As where the process is killed: nothing can be undone either."""
    for at in range(1, RENAMES[kind] + 1):
        folder = tmp_path / str(at)
        export(kind, models[0], folder)
        old = contents(folder)
        with monkeypatch.context() as patch:
            Disk(patch, at, gone=True)
            with pytest.raises(OSError, match="input/output"):
                export(kind, models[1], folder)
        if at == 1:  # Nothing had been moved.
            assert contents(folder) == old
            continue
        with pytest.raises(tp.TripyException, match="cannot be read"):
            load(kind, folder)
        # Nothing is lost: what was there is in the folder, or in the one that the log names.
        kept = {p.name: p.read_bytes() for p in folder.rglob("*") if "new" not in p.parts and
                p.is_file() and old.get(p.name) == p.read_bytes()}  # fmt: skip
        assert kept == old
        assert "could not be put back" in capsys.readouterr().err


def test_a_new_folder_appears_at_once(models, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        disk = Disk(patch, 99, gone=False)
        export("hf", models[0], tmp_path / "a" / "b")
    assert disk.calls == 1
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_the_folder_one_is_in(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export("hf", models[0], ".")
    assert torch.equal(load("hf", tmp_path), models[0].transformer.wte.weight)
    assert len(contents(tmp_path)) == 3


def test_what_is_in_the_way(models, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(tp.TripyException, match="there is a file where the folder"):
        export("hf", models[0], tmp_path / "out")
    (tmp_path / "other" / "config.json").mkdir(parents=True)
    with pytest.raises(tp.TripyException, match="there is a folder where a file"):
        export("hf", models[0], tmp_path / "other")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["config.json"]


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_do_not_make_the_whole_are_not_kept(models, rank, tmp_path, monkeypatch):
    """A part that was written wrongly is found by joining what was read."""
    module = "tripy.quantization.checkpoint.model_config"
    real = tq.load_model_config.__globals__["model_config"]._array
    seen = []

    def wrong(value):
        array = real(value)
        seen.append(array)
        # Two ranks of 12 tensors each and more: one value of one of them.
        if len(seen) == (5 if rank == 0 else 30):
            array = array.copy()
            array.reshape(-1)[-1] += 1
        return array

    monkeypatch.setattr(f"{module}._array", wrong)
    with pytest.raises(tp.TripyException, match="what was written is not what was meant"):
        export("model_config", models[0], tmp_path / "out")
    assert len(seen) > 30 and not list(tmp_path.iterdir())
