"""tp.config and tp.logger: settings are checked, and what is asked for is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tripy as tp
from tests.helpers import raises
from tests.passes.support import info, linear

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def restored():
    """Settings as they were before the test."""
    names = ("enable_input_validation", "timing_cache_file_path", "extra_error_information")
    before = {name: getattr(tp.config, name) for name in names}
    yield
    for name, value in before.items():
        setattr(tp.config, name, value)
    tp.config.default_device = None


@pytest.mark.usefixtures("restored")
def test_settings_may_be_changed():
    tp.config.default_device = "cpu"
    assert tp.config.default_device == tp.device("cpu")
    tp.config.default_device = tp.device("cpu:0")
    assert tp.ones((2,)).device == tp.device("cpu")
    tp.config.timing_cache_file_path = "elsewhere"
    tp.config.enable_input_validation = False
    assert (tp.ones((2,)) + 1.0).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("enable_input_validation", 1, "True or False"),
        ("timing_cache_file_path", 3, "a path"),
        ("extra_error_information", "frames", "frames"),
        ("extra_error_information", ["everything"], "frames"),
        ("default_device", 0, "a tp.device"),
        ("default_device", "tpu", "cpu"),
    ],
)
def test_values_that_are_refused(name, value, expected):
    with raises(rf"got: +.*{value!r:.5}[\s\S]*{expected}", "setattr(tp.config, name, value)"):
        setattr(tp.config, name, value)


def test_an_unknown_setting():
    with raises("tp.config has no setting 'default_divice'[\\s\\S]*tp.config.default_device"):
        tp.config.default_divice = tp.device("cpu")


def test_without_validation_shapes_are_still_checked(monkeypatch):
    monkeypatch.setattr(tp.config, "enable_input_validation", False)
    with raises("summed dimensions"):
        tp.ones((2, 3)) @ tp.ones((2, 3))


def test_verbosity_is_a_name_or_several():
    assert tp.logger.verbosity == ("info",)
    with tp.logger.use_verbosity("ir") as logger:
        assert logger is tp.logger
        assert tp.logger.verbosity == ("ir",)
        with tp.logger.use_verbosity(["error", "timing"]):
            assert tp.logger.verbosity == ("error", "timing")
        assert tp.logger.verbosity == ("ir",)
    assert tp.logger.verbosity == ("info",)


def test_verbosity_is_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), tp.logger.use_verbosity("ir"):
        raise ZeroDivisionError
    assert tp.logger.verbosity == ("info",)


def test_an_unknown_verbosity():
    with raises(r"there is no such verbosity[\s\S]*'loud'[\s\S]*verbose"):
        tp.logger.verbosity = "loud"
    with raises("there is no such verbosity"), tp.logger.use_verbosity(["ir", "mlir"]):
        pass


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        ("error", ["error"]),
        ("warning", ["error", "warning"]),
        ("info", ["error", "warning", "info"]),
        ("verbose", ["error", "warning", "info", "verbose"]),
        ("timing", ["error", "warning", "info", "timing"]),
        (["error", "ir", "trace"], ["error", "ir", "trace"]),
    ],
)
def test_degrees_show_those_before_them_and_topics_themselves(capsys, verbosity, shown):
    with tp.logger.use_verbosity(verbosity):
        for name in ("error", "warning", "info", "verbose", "timing", "ir", "trace"):
            getattr(tp.logger, name)(f"a message\nof {name}")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "".join(f"[{n}] a message\n[{n}] of {n}\n" for n in shown)


def test_a_message_is_made_only_if_it_is_shown():
    tp.logger.trace(lambda: pytest.fail("made"))


def compiled(rng):
    return tp.compile(tp.Sequential({"up": linear(rng), "act": tp.gelu}), args=[info(3, 6)])


def test_graphs_before_and_after_each_pass(rng, capsys):
    with tp.logger.use_verbosity("ir"):
        fast = compiled(rng)
    text = capsys.readouterr().err
    stages = [line[7:] for line in text.splitlines() if line.startswith("[ir] # ")]
    assert stages == ["as recorded", "after constant folding", "after quantization fusion"]
    assert "[ir] graph(%x: float32[3, 6])" in text
    assert "test_config.py:" in text
    last = text.split("# after quantization fusion\n")[1].replace("[ir] ", "")
    assert last.rstrip("\n") == str(fast.graph)


def test_a_graph_as_text_is_in_single_assignment_form(rng):
    lines = str(compiled(rng).graph).splitlines()
    assert lines[0] == "graph(%x: float32[3, 6])"
    assert lines[-1].strip().startswith("return %")
    made = [line.split(" = ")[0].strip() for line in lines[1:-1]]
    assert len(set(made)) == len(made)
    (fused,) = [line for line in lines if "quantized_linear" in line]
    assert "%up = quantized_linear(" in fused
    assert "%up.weight" in fused
    assert "activation=gelu" in fused
    assert "test_config.py:" in fused


def test_values_of_one_name_are_told_apart():
    def use(x):
        y = x + 1.0
        y.name = "x"
        z = y * 2.0
        z.name = "x"
        return z

    text = str(tp.compile(use, args=[info(2)]).graph)
    assert "%x.1 = add(%x, " in text
    assert "%x.2 = mul(%x.1, " in text


def test_a_graph_as_a_drawing(rng):
    text = compiled(rng).graph.to_dot()
    assert text.startswith("digraph tripy {")
    assert text.endswith("}")
    assert text.count("{") == text.count("}") == 1
    assert '[label="quantized_linear\\n' in text
    assert "node0 -> node1" in text
    assert "node1 -> result0" in text


def test_rewrites_timing_and_kernels(rng, capsys):
    with tp.logger.use_verbosity(["trace", "timing", "verbose"]):
        compiled(rng)
    text = capsys.readouterr().err
    assert "[trace] rewrite 'static quantized linear' makes" in text
    assert "[timing] constant folding: " in text
    assert "[timing] recording: " in text
    assert "[verbose] compile: backend torch on cpu:0" in text
    assert "[verbose] up: quantized_linear by " in text


@pytest.mark.parametrize(
    ("level", "topics"),
    [
        ("0", set()),
        ("1", {"timing"}),
        ("2", {"timing", "ir"}),
        ("3", {"timing", "ir", "trace"}),
        ("4", {"timing", "ir", "trace", "verbose"}),
    ],
)
def test_debugging_by_the_environment(level, topics):
    code = (
        "import tripy as tp\n"
        "w = tp.ones((2, 2))\n"
        "tp.compile(lambda x: x @ w + 1.0, args=[tp.InputInfo((2, 2), tp.float32)])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TRIPY_DEBUG": level},
    )  # fmt: skip
    assert result.stdout == ""
    assert {line[1:].split("]")[0] for line in result.stderr.splitlines()} == topics


def test_the_command_for_bug_reports():
    result = subprocess.run(
        [sys.executable, "-m", "tripy"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    lines = result.stdout.splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == [
        "versions", "processor", "GPUs", "backends", "kernels for GPUs", "matrix products",
        "environment",
    ]  # fmt: skip
    reasons = "built|no: the native library is not built|no: the native library is of another"
    assert re.search(rf"^  native library, .*9\.0: ({reasons})", result.stdout, re.MULTILINE)
    assert re.search(r"^  Triton, .*: (version \d|no: Triton is not)", result.stdout, re.MULTILINE)
    if not torch.cuda.is_available():
        assert "  on gpu: no: torch sees no CUDA device" in lines
    assert f"  tripy {tp.__version__}" in lines
    assert any("torch on cpu: usable" in line for line in lines)
    assert any(line.startswith("  tensorrt_rtx: ") for line in lines)
    for kind in ("float32", "int8", "int4", "float8"):
        assert any(line.startswith(f"  {kind} ") for line in lines)
