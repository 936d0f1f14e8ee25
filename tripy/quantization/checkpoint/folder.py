"""Folders whose files appear together, after they were read back, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Union


def write_folder(
    folder: Union[str, os.PathLike], write: Callable[[Path], None], verify: Callable[[Path], None]
) -> None:
    """Writes into a temporary folder, checks it, and moves its files into place.

    Args:
        folder: Where the files shall be; other files in it stay.
        write: Writes files into the folder that it gets.
        verify: Reads them again; raises where they are not what they should be.
    """
    final = Path(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        write(temporary)
        verify(temporary)
        final.mkdir(exist_ok=True)
        (temporary / "mode").touch()
        mode = (temporary / "mode").stat().st_mode
        (temporary / "mode").unlink()
        for path in sorted(temporary.iterdir()):
            os.chmod(path, mode)  # safetensors lets nobody else read what it writes.
            os.replace(path, final / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
