"""python -m tripy.quantization, and the examples in the package's docstrings."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil

import pytest

import tripy.quantization as tq
from tests.quantization.support import tiny_gpt2
from tripy.quantization import __main__ as command

MODULES = [
    module.name
    for module in pkgutil.walk_packages(tq.__path__, "tripy.quantization.")
    if not module.name.endswith("__main__")
]


@pytest.fixture
def checkpoint(tmp_path):
    model = tiny_gpt2()
    model.config.vocab_size = 64
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_bytes(bytes(i * i % 61 for i in range(4000)))
    return tmp_path


def run(folder, *more):
    arguments = [
        folder / "model", "--calibration", folder / "text.txt", "--out", folder / "out",
        "--length", 16, "--windows", 8, "--device", "cpu", *more,
    ]  # fmt: skip
    return command.main([str(each) for each in arguments])


@pytest.mark.parametrize("name", command.FORMATS)
def test_every_format(checkpoint, name, capsys):
    assert run(checkpoint, "--format", name, "--report", checkpoint / "report.html") == 0
    out = capsys.readouterr().out
    assert "8 of 9 linear layers are quantized" in out
    assert "bits a byte, held-out text" in out
    assert len(tq.load_hf(checkpoint / "out").layers) == 8
    assert (checkpoint / "report.html").read_text().lstrip().startswith("<!")


def test_ranks_and_options(checkpoint):
    more = ("--layout", "model-config", "--tensor-parallel", 2, "--format", "int4-awq")
    more += ("--block-size", 32, "--report", checkpoint / "r.json")
    assert run(checkpoint, *more) == 0
    config = tq.load_model_config(checkpoint / "out", "gpt2", 1, 2)
    assert config["layers"][0]["mlp"]["fc"].awq_block_size == 32
    assert json.loads((checkpoint / "r.json").read_text())["summary"]["quantized_layers"] == 8
    assert run(checkpoint, "--kv-cache", "fp8", "--calibrator", "mse", "--exclude", "*h.0.*") == 0
    assert len(tq.load_hf(checkpoint / "out").layers) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--exclude", "*h.7.*"), "matches nothing"), (("--length", 9999), None),
        (("--format", "int4", "--block-size", 48), "cannot be cut into blocks"),
    ],
)  # fmt: skip
def test_errors_are_one_message(checkpoint, more, message, capsys):
    assert run(checkpoint, *more) == (1 if message else 0)
    assert message is None or message in capsys.readouterr().err
    assert (checkpoint / "out").exists() == (message is None)


@pytest.mark.parametrize("gone", ["model", "text.txt"])
def test_what_is_not_there(checkpoint, gone, capsys):
    (checkpoint / gone).rename(checkpoint / "elsewhere")
    assert run(checkpoint) == 1
    assert "error:" in capsys.readouterr().err
    assert not (checkpoint / "out").exists()


def test_a_text_that_is_too_short(checkpoint, capsys):
    (checkpoint / "text.txt").write_text("short")
    assert run(checkpoint) == 1
    assert "is too short" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ("--tensor-parallel", 2), ("--windows", 0), ("--format", "int3"), ("--report", "r.txt"),
        ("--out", "MODEL"), ("--calibrator", "median"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(checkpoint, more):
    model = checkpoint / "model"
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    with pytest.raises(SystemExit):
        run(checkpoint, *(model / "." if each == "MODEL" else each for each in more))
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert not (checkpoint / "out").exists()


def test_other_models_than_gpt2(checkpoint, capsys):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    for kind in ("Qwen2", "Qwen3"):
        config = getattr(transformers, f"{kind}Config")(**sizes, **ends)
        model = transformers.AutoModelForCausalLM.from_config(config)
        model.save_pretrained(checkpoint / "model")
        done = run(checkpoint, "--layout", "model-config")
        assert done == (0 if kind == "Qwen2" else 1)
    assert "decoder type is not known" in capsys.readouterr().err
    assert tq.load_model_config(checkpoint / "out", "qwen")["layers"][0]["qwen_type"] == "qwen2"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_public_names_are_documented():
    for name in tq.__all__:
        assert name == "PRESETS" or name.endswith("_CFG") or getattr(tq, name).__doc__, name
