"""The demo's text: the source of Python's own standard library, one token a byte.

Every Python installation holds it, so training, calibration and evaluation need no download.
A dozen modules are held out, and their tests with them: a test quotes the code that it tests.
The library differs a little from one Python release to the next, so compare bits a byte only
between runs under the same Python.
"""

import sysconfig
from contextlib import suppress
from pathlib import Path

import numpy as np

HELD_OUT = (
    "argparse.py", "asyncio/queues.py", "csv.py", "fractions.py", "graphlib.py", "heapq.py",
    "html/parser.py", "json/decoder.py", "shlex.py", "statistics.py", "textwrap.py", "timeit.py",
)  # fmt: skip
HELD_OUT_TESTS = (
    "test_argparse", "test_csv", "test_fractions", "test_graphlib", "test_heapq",
    "test_htmlparser", "test_json", "test_queues", "test_shlex", "test_statistics",
    "test_textwrap", "test_timeit",
)  # fmt: skip
# Installed packages are not the library; the others are tables and fixtures, not code to learn.
SKIPPED_FOLDERS = {
    "site-packages", "dist-packages", "__pycache__", "encodings", "pydoc_data", "data",
}  # fmt: skip
TEST_FOLDERS = {"test", "tests", "idle_test"}
SEPARATOR = b"\n\n"


STDLIB = Path(sysconfig.get_paths()["stdlib"])  # the running Python's


def training_files(folder: Path = STDLIB, tests: bool = True) -> list[Path]:
    """The library's source files in a fixed order, less the held-out modules and their tests.

    `tests` says whether the library's own tests are there too, where they are installed.
    """
    return [p for p in sorted(folder.rglob("*.py")) if _is_wanted(p.relative_to(folder), tests)]


def _is_wanted(name: Path, tests: bool) -> bool:
    if name.as_posix() in HELD_OUT or SKIPPED_FOLDERS.intersection(name.parts):
        return False
    # Build settings name the paths of whoever built this Python; 'bad' tests are broken on purpose.
    if name.name.startswith(("_sysconfigdata", "bad")):
        return False
    if any(part.removesuffix(".py") in HELD_OUT_TESTS for part in name.parts):
        return False
    return tests or not TEST_FOLDERS.intersection(name.parts)


def training_text(folder: Path = STDLIB, tests: bool = True) -> bytes:
    """The training files' bytes, each different file once and only if it is UTF-8."""
    texts = {}
    for path in training_files(folder, tests):
        with suppress(UnicodeDecodeError):
            text = path.read_bytes()
            text.decode("utf-8")
            texts[text] = None  # A dict keeps the order and drops identical files.
    return SEPARATOR.join(texts)


def held_out_text(folder: Path = STDLIB) -> bytes:
    """The bytes of the held-out modules, which no training text contains.

    Raises FileNotFoundError where the library is not installed as source files.
    """
    missing = [name for name in HELD_OUT if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"[held_out_text] got no {', '.join(missing)} in {folder}; expected the source of "
            "Python's standard library; try the folder of a full Python installation"
        )
    return SEPARATOR.join((folder / name).read_bytes() for name in HELD_OUT)


def calibration_text(windows: int = 128, length: int = 256, folder: Path = STDLIB) -> bytes:
    """`windows` pieces of `length` bytes, spread evenly over the training text."""
    text = training_text(folder)
    step = (len(text) - length) // max(windows - 1, 1)
    return b"".join(text[i * step : i * step + length] for i in range(windows))


def evaluation_windows(text: bytes, length: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Cuts text into inputs and targets, int64 [windows, length], for the demo's bits a byte.

    Window i reads bytes [i * length, (i + 1) * length) and predicts the bytes one further on, so
    every byte but the first is predicted once, from the 1 to `length` bytes before it. The last
    incomplete window is dropped.
    """
    tokens = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
    windows = (len(tokens) - 1) // length
    inputs = tokens[: windows * length].reshape(windows, length)
    return inputs, tokens[1 : windows * length + 1].reshape(windows, length)
