"""Folders whose files appear together, after they were read back, or not at all.

Files are written to a temporary folder first and read back there. A folder that did not exist then
takes its name in one step. In one that exists, the files of these names are replaced, and whatever
else is in it stays; that takes several steps, so they are ordered: JSON files go away first and
come last. Without them no reader takes the folder for a checkpoint, so at no time can a mixture of
old and new files be read. What fails in between is undone. Where the process ends in between, the
JSON files are missing, and the old and the new files are in a folder named ``.*.tmp`` inside.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Union

from tripy import logger
from tripy.errors import TripyException


def write_folder(
    folder: Union[str, os.PathLike], write: Callable[[Path], None], verify: Callable[[Path], None]
) -> None:
    """Writes into a temporary folder, checks it, and puts its files in place.

    Args:
        folder: Where the files shall be; other files in it stay.
        write: Writes files into the folder that it gets.
        verify: Reads them again; raises where they are not what they should be.

    Raises:
        TripyException: For a path at which there is a file, or folders where files shall be.
    """
    final = Path(os.path.abspath(folder))
    if final.exists() and not final.is_dir():
        raise TripyException(
            "Export: there is a file where the folder shall be.",
            got=str(folder),
            expected="a folder, or a path at which there is nothing yet",
        )
    exists = final.is_dir()
    # Inside, so that it is on the same file system, and nothing else has to be writable.
    outer = final if exists else final.parent
    temporary = outer / f".{final.name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir(parents=True)
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        write(new)
        verify(new)
        _settle(new, temporary / "mode")
        if exists:
            old.mkdir()
            _exchange(new, final, old)
        else:
            os.rename(new, final)
    except BaseException:
        if old.is_dir() and any(old.iterdir()):
            logger.error(f"the files that were in {final} could not be put back; they are in {old}")
        else:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(temporary, ignore_errors=True)


def _settle(folder: Path, probe: Path) -> None:
    """Gives files the mode of any new file, and has them on the disk."""
    probe.touch()
    mode = probe.stat().st_mode
    for path in folder.iterdir():
        os.chmod(path, mode)  # safetensors lets nobody else read what it writes.
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _exchange(new: Path, final: Path, old: Path) -> None:
    """Puts new files in the place of those of the same names, which go to ``old``."""
    names = sorted((path.name for path in new.iterdir()), key=lambda n: (n.endswith(".json"), n))
    there = [name for name in reversed(names) if os.path.lexists(final / name)]
    for name in there:
        if (final / name).is_dir():
            raise TripyException(
                "Export: there is a folder where a file shall be.",
                got=str(final / name),
                expected="a file, or nothing",
            )
    moves = [(final / name, old / name) for name in there]
    moves += [(new / name, final / name) for name in names]
    begun: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            begun.append((source, target))
            os.rename(source, target)
    except BaseException:
        for source, target in reversed(begun):
            if not os.path.lexists(source):  # The last one may not have been moved.
                os.rename(target, source)
        raise
