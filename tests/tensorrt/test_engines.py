"""Engines as a user meets them: reports, files, the cache, errors, and stopping a build."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import safetensors

import tripy as tp
from tests.helpers import raises
from tests.saving.support import info, model
from tests.tensorrt.support import ROOT, needs_rtx
from tripy.backends.tensorrt import build, progress

pytestmark = needs_rtx
ROWS = tp.NamedDimension("rows", 1, 2, 8)


def built(function=None, target="sm_89", **options):
    function = model() if function is None else function
    return tp.compile(function, args=[info(ROWS, 6)], backend="tensorrt", target=target, **options)


def test_the_report():
    report = built(target=["sm_89", "sm_120"]).report()
    first = str(report).splitlines()[0]
    assert first.startswith("backend: tensorrt (tensorrt_rtx 1.")
    assert first.endswith("on gpu:0: built ahead of time for sm_89 and sm_120")
    kernels = {row.name: row.kernel for row in report.rows if row.operation == "dequantize"}
    assert kernels == dict.fromkeys(("up", "down"), "TensorRT DQ, int8 weight")
    assert report.engine_bytes > 0
    assert f"{report.engine_bytes:,} bytes" in str(report)


def test_layers_lead_to_the_users_lines():
    def double(x):
        return tp.exp(x) * 2.0  # this line

    layers = built(double).layers()
    assert {layer.kind for layer in layers} >= {"UNARY", "ELEMENTWISE"}
    line = double.__code__.co_firstlineno + 1
    assert all(layer.detail.endswith(f"test_engines.py:{line}") for layer in layers)


def test_the_engine_is_there_for_other_tools():
    assert built().serialized_tensorrt_engine[1:4] == b"trt"
    plain = tp.compile(tp.relu, args=[info(2)], backend="torch")
    with raises("there is no engine"):
        plain.serialized_tensorrt_engine  # noqa: B018


def test_running_where_there_is_no_such_gpu():
    if tp.config.default_device.kind == "gpu":
        pytest.skip("this machine has a GPU")
    with raises("cannot run on this machine[\\s\\S]*for sm_89; this machine has no gpu:0"):
        built()(tp.ones((2, 6)))
    with raises("tensorrt cannot run on cpu[\\s\\S]*target="):
        tp.compile(tp.relu, args=[info(2)], backend="tensorrt")


def test_loading_where_it_does_not_fit(tmp_path):
    path = tmp_path / "engine.tripy"
    built().save(path)
    with raises("cannot run on gpu:0[\\s\\S]*built by tensorrt_rtx 1.* for sm_89; this machine"):
        tp.Executable.load(path)


def test_a_damaged_engine(tmp_path, monkeypatch):
    """Damage is told from an engine that does not fit, wherever that would be loaded."""
    path = tmp_path / "engine.tripy"
    built().save(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("tripy.backends.tensorrt.backend.misfit", lambda *arguments: None)
    with raises("constant engine in the file is damaged"):
        tp.Executable.load(path)
    path.write_bytes(content[: len(content) // 2])
    with raises("damaged or not tripy's"):
        tp.Executable.load(path)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sm_90", r"ahead of time for a target[\s\S]*sm_75, sm_80[\s\S]*tensorrt-cu13"),
        ("ada", r"ahead of time for a target[\s\S]*'ada'"),
        (89, r"not a compute capability[\s\S]*target=89"),
        ([], "not a compute capability"),
        (["sm_89", 1], "not a compute capability"),
    ],
)
def test_targets(target, message):
    with raises(message):
        built(target=target)


def test_a_target_of_another_backend():
    with raises("torch does not compile ahead of time"):
        tp.compile(tp.relu, args=[info(2)], backend="torch", target="sm_89")


def test_what_a_target_does_not_have():
    def product(x):
        return x @ tp.ones((6, 2))  # the user's line

    with raises("matmul: TensorRT does not accept[\\s\\S]*FP32 GEMM", "# the user's line"):
        built(product, target="sm_75")


def test_what_tensorrt_does_not_have():
    def largest(x):
        return tp.topk(tp.expand(x, (1, 5000)), 4000, 1)[0]

    with raises("topk: TensorRT has nothing for it: .* 3840 largest", "return tp.topk("):
        tp.compile(largest, args=[info(1, 1)], backend="tensorrt", target="sm_89")


def test_sizes_that_tensorrt_does_not_have():
    """It would cut off their upper bits."""
    for most in (2**31, 2**40):
        with raises(f"no sizes as large[\\s\\S]*input: float32.*{most}"):
            tp.compile(tp.relu, args=[info((1, 2, most))], backend="tensorrt", target="sm_89")
    assert tp.compile(
        tp.relu, args=[info((1, 2, 2**31 - 1))], backend="tensorrt", target="sm_89"
    ).layers()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "engines"
    monkeypatch.setattr(tp.config, "engine_cache_path", folder)
    return folder


@pytest.fixture
def builds(monkeypatch):
    """How often an engine is built."""
    count = []
    real = build.serialized
    monkeypatch.setattr(build, "serialized", lambda *arguments: count.append(1) or real(*arguments))
    return count


def test_an_engine_is_built_once(cache, builds):
    module = model()
    first = built(module)
    again = built(module)
    assert len(builds) == 1
    assert again.serialized_tensorrt_engine == first.serialized_tensorrt_engine
    assert again.layers() == first.layers()
    assert again.report().engine_bytes == first.report().engine_bytes > 0
    assert len(list(cache.iterdir())) == 1


def test_another_engine_is_built_anew(cache, builds, monkeypatch):
    module = model()
    built(module)
    built(module, target="sm_120")
    built(module, optimization_level=1)
    module.up.weight = module.up.weight * 2.0
    built(module)
    assert len(builds) == 4
    built(module)
    assert len(builds) == 4
    # Another tripy may write another network for the same graph.
    monkeypatch.setattr("tripy.backends.tensorrt.engine_cache._written_by", lambda: "another")
    built(module)
    assert len(builds) == 5


def test_a_damaged_cached_engine_is_built_again(cache, builds, capsys):
    module = model()
    expected = built(module).layers()
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    assert built(module).layers() == expected
    assert len(builds) == 2
    assert "is damaged" in capsys.readouterr().err
    with safetensors.safe_open(path, "pt") as file:
        assert "plan" in file.keys()  # noqa: SIM118  (it is no dict)


PROGRAM = """
import sys
import tripy as tp

tp.config.engine_cache_path = sys.argv[1]
for number in range(6):
    def add(x):
        return x + float(number)
    engine = tp.compile(add, args=[tp.InputInfo((4,), tp.float32)], backend="tensorrt",
                        target="sm_89")
    assert len(engine.layers()) >= 2
print("done")
"""


def test_two_processes_use_one_cache(tmp_path):
    """Both write the same engines at the same time; what they leave is whole."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "engines")]
    running = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert output == "done\n", errors
        assert "damaged" not in errors
    files = sorted((tmp_path / "engines").iterdir())
    assert len(files) == 6
    for path in files:
        assert path.suffix == ".engine"
        with safetensors.safe_open(path, "pt") as file:
            assert file.get_tensor("plan").numel()


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tp.config, "engine_cache_path", tmp_path / "file" / "engines")
    (tmp_path / "file").write_text("")
    assert built().layers()
    assert "the engine cannot be kept" in capsys.readouterr().err


@pytest.fixture
def interruptible():
    """A process that a shell has put into the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_stops_a_build(presses, interruptible, monkeypatch):
    """The builder has ended at its next step, however often it is pressed; then it works again."""
    steps = []

    def show(self, phase, step, total):
        steps.append(phase)
        if len(steps) <= presses:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.15)  # The thread that waits has noticed.

    monkeypatch.setattr(progress.Progress, "show", show)
    with pytest.raises(KeyboardInterrupt):
        built()
    count = len(steps)
    assert count
    assert not [t for t in threading.enumerate() if t.name == "tensorrt build"]
    monkeypatch.undo()
    assert built().layers()
    assert len(steps) == count


def test_ctrl_c_before_the_builder_begins(monkeypatch):
    """Its thread is there already, and finds that nothing is wanted of it."""
    started, calls = threading.Thread.start, []

    def start(self):
        if self.name != "tensorrt build":
            return started(self)
        calls.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        built()
    monkeypatch.undo()
    (late,) = calls
    monkeypatch.setattr(progress.Progress, "show", lambda *arguments: pytest.fail("it builds"))
    late.start()
    late.join(20)
    assert not late.is_alive()
    monkeypatch.undo()
    assert built().layers()


def test_progress_is_shown_after_a_while(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    built()
    shown = capsys.readouterr().err
    assert "tensorrt: 0 s, " in shown
    assert shown.endswith("\r\x1b[K")


def test_sizes_given_at_run_time():
    from tests.tensorrt.support import interpreted  # noqa: PLC0415

    def cut(x, length):
        return x[:length] * tp.cast(length, tp.float32)

    args = [info(8), tp.DimensionInputInfo((1, 4, 8))]
    engine = tp.compile(cut, args=args, backend="tensorrt", target="sm_89")
    x = tp.arange(8)
    (got,) = interpreted(engine, [x], **{"int(length)": 3})
    np.testing.assert_array_equal(got.numpy(), [0.0, 3.0, 6.0])
