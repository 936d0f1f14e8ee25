"""Do the tests notice? One place of the library is changed at a time, and some test has to fail.

    python -m tests.tools.mutations                 all of them, in a quarter of an hour
    python -m tests.tools.mutations --only NAME ... some
    python -m tests.tools.mutations --list          what there is

The changes are rows of tests/tools/mutation_table.py. Everything happens in a temporary copy of the
package and its tests. The tests are first run unchanged, so that one that fails anyway does not
count as having noticed. The exit status is 1 if a change survives.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple, Optional

from tests.tools.mutation_table import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("tripy", "tests", "examples", "pyproject.toml")
# Unchanged, the tests of one row take a few seconds; a change may make them run for ever.
SECONDS = 300
ALL_SECONDS = 1800


class Outcome(NamedTuple):
    """What pytest said."""

    status: int
    first: str  # The first test that failed, or why none ran.
    seconds: float
    output: str


def count(mutation: Mutation, root: Path = ROOT) -> int:
    """How often the text to change is in its file."""
    return (root / mutation.file).read_text("utf-8").count(mutation.old)


def stale(mutations: Sequence[Mutation], root: Path = ROOT) -> list[str]:
    """What is wrong with the table: each text has to be in its file once, and the tests exist."""
    found = []
    for mutation in mutations:
        if not (root / mutation.file).is_file():
            found.append(f"{mutation.name}: there is no {mutation.file}")
        elif count(mutation, root) != 1:
            times = count(mutation, root)
            found.append(f"{mutation.name}: {mutation.old!r} is {times} times in {mutation.file}")
        if mutation.old == mutation.new:
            found.append(f"{mutation.name}: it changes nothing")
        found += [
            f"{mutation.name}: there is no {test}"
            for test in mutation.tests
            if not (root / test.split("::")[0]).exists()
        ]
    names = Counter(mutation.name for mutation in mutations)
    twice = [name for name, times in names.items() if times > 1]
    return found + [f"{name}: two rows have this name" for name in twice]


def copy_to(folder: Path) -> None:
    """The library and what its tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, folder / name)


def run(folder: Path, tests: Sequence[str], limit: float = SECONDS) -> Outcome:
    """Run tests of the copy until one fails."""
    environment = {
        **os.environ, "PYTHONPATH": str(folder), "TRIPY_VERIFY": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return Outcome(1, "no end within the time limit", time.perf_counter() - start, "")
    seconds, output = time.perf_counter() - start, done.stdout + done.stderr
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", output, re.MULTILINE)
    first = failed[1] if failed else "no test failed" if done.returncode == 0 else "pytest itself"
    return Outcome(done.returncode, first, seconds, output)


def write(file: Path, text: str) -> None:
    """Write a module, and forget what Python has compiled of it: times have whole seconds there."""
    file.write_text(text, "utf-8")
    Path(cache_from_source(str(file))).unlink(missing_ok=True)


def try_out(mutation: Mutation, folder: Path) -> Outcome:
    """Run the tests of a row with its change made, and take the change back."""
    file = folder / mutation.file
    text = file.read_text("utf-8")
    try:
        write(file, text.replace(mutation.old, mutation.new))
        return run(folder, mutation.tests)
    finally:
        write(file, text)


def check_copy(folder: Path, mutations: Sequence[Mutation]) -> Optional[str]:
    """Why the copy cannot be used: another tripy is imported there, or a test fails unchanged."""
    command = [sys.executable, "-c", "import tripy; print(tripy.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not found.stdout.startswith(str(folder)):
        return f"the copy is not what Python imports: {found.stdout}{found.stderr}"
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    outcome = run(folder, tests, ALL_SECONDS)
    if outcome.status:
        return f"a test fails unchanged: {outcome.first}\n{outcome.output[-3000:]}"
    print(f"unchanged, all tests pass ({outcome.seconds:.0f} s)", flush=True)
    return None


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Try out the table's rows, or list them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only the rows of these names")
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - {mutation.name for mutation in MUTATIONS}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}; see --list")
    chosen = [m for m in MUTATIONS if not options.only or m.name in options.only]
    if options.list:
        for mutation in chosen:
            print(f"{mutation.name:44} {mutation.file}")
        return 0
    wrong = stale(chosen)
    if wrong:
        print("the table does not fit the library any more:", *wrong, sep="\n  ")
        return 2
    survivors = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_to(folder)
        reason = check_copy(folder, chosen)
        if reason is not None:
            print(reason)
            return 2
        print(f"{'mutation':44} {'':8} {'s':>5}  first test to fail")
        for mutation in chosen:
            outcome = try_out(mutation, folder)
            # Status 1 is a failed test; 2 a file that cannot be imported any more, and all others
            # are errors of the call, which would hide that nothing was tested.
            if outcome.status not in (0, 1, 2):
                print(outcome.output)
                return 2
            if outcome.status == 0:
                survivors.append(mutation.name)
            verdict = "killed" if outcome.status else "SURVIVED"
            print(
                f"{mutation.name:44} {verdict:8} {outcome.seconds:5.1f}  {outcome.first}",
                flush=True,
            )
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    if survivors:
        print("no test notices:", *survivors, sep="\n  ")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
