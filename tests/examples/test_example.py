"""The example as a command: in this process where that will do, since imports take seconds."""

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import example
import pytest
import torch
from model import QUANT_MODES
from weight_loader import DEMO

from tests.examples.test_quantized_gpt import LIMITS
from tripy.backends.torch.kernels.cpu_int8 import int8_products_are_exact

EXAMPLE = Path(example.__file__)
# Attributes of tripy's objects that start with an underscore, and modules other than tripy itself.
PRIVATE = re.compile(
    r"\btripy\.(?!quantization\b)\w|from tripy|\btp\._|\.(_value|_program|_from_value|_declare)\b"
)


def run(monkeypatch, capsys, *arguments):
    """Exit code, output and error output of the command."""
    monkeypatch.setattr(sys, "argv", ["example.py", *map(str, arguments)])
    try:
        code = example.main()
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())


def test_generating(monkeypatch, capsys):
    arguments = ("--input-text", "import os\n", "--max-new-tokens", 60, "--seed", 3)
    code, out, errors = run(monkeypatch, capsys, *arguments, "--quant-mode", "int8-weight-only")
    assert (code, errors) == (0, "")
    text, statistics = out.split("\n---\n")
    assert text.startswith("import os\n") and len(text) == 10 + 60
    for part in (
        "prefill  10 tokens",
        "decode   59 tokens",
        "weights  11,708,416 bytes; 43,376,640",
    ):
        assert part in statistics
    assert re.search(r"kernels  \d+ x quantized_linear: .*int8", statistics)
    assert (
        text
        == run(monkeypatch, capsys, *arguments, "--quant-mode", "int8-weight-only")[1].split(
            "\n---\n"
        )[0]
    )


def test_evaluating(monkeypatch, capsys):
    text = example.held_out_text()
    monkeypatch.setattr(example, "held_out_text", lambda: text[:2700])
    arguments = ("--max-new-tokens", 2, "--quant-mode", "int4-weight-only", "--evaluate")
    code, out, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "evaluate 512 bytes of held-out text, 2 windows of 256 tokens" in out
    assert re.search(r"  float32: \d\.\d{4} bits a byte\n", out)
    assert re.search(r"  int4-weight-only: \d\.\d{4} bits a byte, [+-]\d\.\d\d%\n$", out)
    code, out, _ = run(monkeypatch, capsys, "--max-new-tokens", 2, "--evaluate")
    assert code == 0 and out.count("bits a byte") == 1


@pytest.mark.parametrize("mode", QUANT_MODES)
def test_other_data_types(monkeypatch, capsys, mode):
    """Half as many bytes for what is not quantized; nearly as good."""
    text = example.held_out_text()
    monkeypatch.setattr(example, "held_out_text", lambda: text[:1300])
    arguments = ("--device", "cpu", "--dtype", "bfloat16", "--quant-mode", mode, "--evaluate")
    code, out, errors = run(monkeypatch, capsys, *arguments, "--max-new-tokens", 8)
    assert (code, errors) == (0, "")
    cost = re.search(rf"  {mode}, bfloat16: \d\.\d{{4}} bits a byte, ([+-]\d\.\d\d)%\n$", out)
    assert abs(float(cost[1])) < 100 * LIMITS.get(mode, 0.01) + 1
    size = re.search(r"weights  ([\d,]+) bytes; ([\d,]+) in float32", out)
    size, floating = (int(n.replace(",", "")) for n in size.groups())
    assert size <= floating / 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("mode", QUANT_MODES)
def test_on_a_gpu(monkeypatch, capsys, mode):
    text = example.held_out_text()
    monkeypatch.setattr(example, "held_out_text", lambda: text[:13000])
    arguments = ("--device", "gpu", "--quant-mode", mode, "--evaluate", "--max-new-tokens", 300)
    code, out, errors = run(monkeypatch, capsys, *arguments)
    assert (code, errors) == (0, "") and "the context was full 1 times" in out
    cost = re.search(rf"  {mode}, float16: \d\.\d{{4}} bits a byte, ([+-]\d\.\d\d)%\n$", out)
    assert abs(float(cost[1])) < 100 * LIMITS.get(mode, 0.001)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(monkeypatch, capsys):
    code, out, errors = run(monkeypatch, capsys, "--device", "gpu")
    assert (code, out) == (1, "") and "The device is not there" in errors


def test_characters_of_several_bytes(monkeypatch, capsys):
    made = "naïve → 𝄞 \ufffd".encode() + b"\xff\x80\xe2\x86"
    tokens = iter(made)
    monkeypatch.setattr(example.Generator, "stream", lambda *_, **options: tokens)
    arguments = ("--input-text", "ü", "--max-new-tokens", len(made))
    out = run(monkeypatch, capsys, *arguments)[1]
    assert out.split("\n---")[0] == "ü" + made.decode(errors="replace")


def test_stopping(monkeypatch, capsys):
    """The text so far and the statistics stay; nothing is evaluated."""
    stream = example.Generator.stream

    def interrupted(self, prompt, count, **options):
        yield from stream(self, prompt, 4, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(example.Generator, "stream", interrupted)
    code, out, errors = run(monkeypatch, capsys, "--input-text", "x = ", "--evaluate")
    assert (code, errors) == (130, "")
    assert re.match(r"x = [\n -~]{4}\n--- stopped\n", out) and "decode   3 tokens" in out
    assert "bits a byte" not in out


def test_stopping_before_there_is_text(monkeypatch, capsys):
    def load(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "load", load)
    assert run(monkeypatch, capsys) == (130, "", "stopped\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input-text", "x" * 257], "got a prompt of 257 tokens; expected 1 to 256"),
        (["--input-text", ""], "got a prompt of 0 tokens"),
        (["--checkpoint", "no/such/folder"], "no/such/folder"),
        (["--quant-mode", "int3"], "invalid choice: 'int3'"),
        (["--model-type", "gpt3"], "invalid choice: 'gpt3'"),
        (["--max-new-tokens", "0"], "got max_new_tokens=0; expected 1 or more"),
        (["--temperature", "-1"], "got temperature=-1.0; expected 0 or more"),
        (["--temperature", "nan"], "got temperature=nan"),
        (["--seed", "-1"], "got seed=-1"),
        (["--top-k", "-5"], "got top_k=-5"),
        (["--max-new-tokens", "many"], "invalid int value: 'many'"),
    ],
)
def test_bad_arguments(monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, errors = run(monkeypatch, capsys, *arguments)
    assert code in (1, 2) and out == ""
    assert message in errors and "Traceback" not in errors


def test_a_damaged_checkpoint(monkeypatch, capsys, tmp_path):
    shutil.copy(DEMO / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes((DEMO / "model.safetensors").read_bytes()[:5000])
    code, out, errors = run(monkeypatch, capsys, "--checkpoint", tmp_path)
    assert (code, out) == (1, "") and errors.startswith("error: ")
    assert "that cannot be read" in errors


def test_bytes_outside_the_vocabulary(monkeypatch, capsys, tmp_path):
    transformers = pytest.importorskip("transformers")
    size = {"vocab_size": 128, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 1}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).save_pretrained(tmp_path)
    capsys.readouterr()
    code, out, errors = run(
        monkeypatch, capsys, "--checkpoint", tmp_path, "--input-text", "caf\u00e9"
    )
    assert (code, out) == (1, "")
    assert (
        "got the tokens [169, 195]; expected 1 to 16 tokens (the block size) from 0 to 127"
        in errors
    )
    # Bytes that are not UTF-8 come from the command line as surrogates.
    code, _, errors = run(monkeypatch, capsys, "--checkpoint", tmp_path, "--input-text", "\udcff")
    assert code == 1 and "[255]" in errors
    assert run(monkeypatch, capsys, "--checkpoint", tmp_path, "--input-text", "a")[0] == 0


def test_a_tokenizer_of_its_own(monkeypatch, capsys, tmp_path):
    """As GPT-2's: byte-level BPE, here with a vocabulary of 300, of a model that knows nothing."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import ByteLevelBPETokenizer  # noqa: PLC0415  (comes with transformers)

    text = example.held_out_text().decode()[:20_000]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([text], vocab_size=300, show_progress=False)
    trained.save(str(tmp_path / "tokenizer.json"))
    size = {"vocab_size": 300, "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 1}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).save_pretrained(tmp_path)
    monkeypatch.setattr(example, "held_out_text", lambda: text.encode())
    capsys.readouterr()
    arguments = (
        "--checkpoint",
        tmp_path,
        "--input-text",
        "caf\u00e9 (x) .",
        "--max-new-tokens",
        70,
    )
    code, out, _ = run(monkeypatch, capsys, *arguments, "--quant-mode", "int8", "--evaluate")
    assert code == 0 and out.startswith("caf\u00e9 (x) .")
    assert "the context was full 1 times" in out
    # Nothing learned: a token takes log2(300) bits, and is more than a byte.
    found = float(re.search(r"float32: (\d\.\d{4}) bits a byte", out)[1])
    assert found == pytest.approx(8.23 * len(trained.encode(text).ids) / len(text), rel=0.05)


def test_no_tokenizer(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="try pip install transformers"):
        example.make_tokenizer(DEMO, 50257)


def test_as_a_command():
    """A real interrupt, in a process of its own."""
    command = [sys.executable, EXAMPLE, "--quant-mode", "int8", "--max-new-tokens", "100000"]
    with subprocess.Popen(
        [*command, "--input-text", "def main("],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[2])},
    ) as process:
        first = process.stdout.read(40)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (errors, process.returncode) == (b"", 130)
    assert first.startswith(b"def main(")
    text = (first + out).decode(errors="replace")
    kernel = "int8 GEMM" if int8_products_are_exact() else "GEMM of the integers"
    assert "\n--- stopped\nprefill" in text and kernel in text


@pytest.mark.skipif(find_spec("modelopt") is not None, reason="nvidia-modelopt is installed")
def test_modelopt_where_it_is_not_installed(monkeypatch, capsys):
    arguments = ("--quant-mode", "int8", "--calibration", "modelopt", "--max-new-tokens", 1)
    code, _, errors = run(monkeypatch, capsys, *arguments)
    assert code == 1 and "pip install nvidia-modelopt" in errors


def test_the_house_rules():
    """Under 1,000 lines, and nothing but the public API."""
    files = sorted(EXAMPLE.parent.glob("*.py"))
    assert sum(len(file.read_text().splitlines()) for file in files) < 1000
    for file in files:
        assert not PRIVATE.search(file.read_text()), file
