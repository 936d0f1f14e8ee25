"""Several files that appear together, or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Union

from tripy.errors import TripyException


@contextmanager
def staged(folder: Union[str, os.PathLike], caller: str) -> Iterator[Path]:
    """A temporary folder inside a folder; what is written there moves up at the end.

    Files of the same names are replaced. If anything fails, the folder is as it was, or is not
    there if it was not. The files of an index (JSON) move last: where they are, all is.

    Raises:
        TripyException: For files that cannot be written, saying why.
    """
    final = Path(folder)
    made = _made_folders(final, caller)
    temporary = final / f".{secrets.token_hex(4)}.tmp"
    done = False
    try:
        try:
            temporary.mkdir()
            yield temporary
            _publish(temporary, final)
            done = True
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            for path in [] if done else made:
                with suppress(OSError):
                    path.rmdir()
    except OSError as error:
        raise TripyException(
            f"{caller}: the checkpoint could not be written; the folder is as it was.",
            got=f"{type(error).__name__}: {error}",
            expected=f"room and the right to write in {final}",
        ) from error


def _made_folders(final: Path, caller: str) -> list[Path]:
    """Makes a folder and its parents; those that were not there, the innermost first."""
    missing = [path for path in (final, *final.parents) if not path.exists()]
    try:
        final.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TripyException(
            f"{caller}: the folder cannot be made.",
            got=f"{type(error).__name__}: {error}",
            expected="a path where a folder is, or can be made",
        ) from error
    return missing


def _publish(temporary: Path, final: Path) -> None:
    """Moves files up; on failure what was there comes back."""
    old = temporary / "old"
    old.mkdir()
    names = sorted(
        (path.name for path in temporary.iterdir() if path.is_file()),
        key=lambda name: (name.endswith(".json"), name),
    )
    for name in names:
        _sync(temporary / name, temporary)
    moved: list[str] = []
    try:
        for name in names:
            target = final / name
            if target.is_dir():
                raise IsADirectoryError(f"{target} is a folder")
            moved.append(name)
            if target.exists():
                os.replace(target, old / name)
            os.replace(temporary / name, target)
    except BaseException:
        for name in moved:
            (final / name).unlink(missing_ok=True)
            if (old / name).exists():
                os.replace(old / name, final / name)
        raise


def _sync(path: Path, folder: Path) -> None:
    """On disk, and readable by whom the user's umask lets: some libraries let nobody else."""
    probe = folder / "mode"
    with open(probe, "xb") as file:
        mode = os.fstat(file.fileno()).st_mode
    probe.unlink()
    os.chmod(path, mode)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """JSON that any reader takes: no NaN, no infinity."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, caller: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        TripyException: For files that are missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise TripyException(
            f"{caller}: {path.name} {'is missing' if missing else 'is damaged'}.",
            got=f"{path}: {error}",
            expected="a file that an exporter has written",
        ) from error
    if not isinstance(value, dict):
        raise TripyException(
            f"{caller}: {path.name} is damaged.",
            got=f"{path}: a {type(value).__name__}",
            expected="a JSON object",
        )
    return value
