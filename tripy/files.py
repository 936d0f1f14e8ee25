"""Files that are there whole or not at all, and checksums."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union


def digest(data: Any) -> str:
    """A checksum of bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@contextmanager
def replacing(path: Union[str, os.PathLike]) -> Iterator[Path]:
    """A temporary name beside a path; what is written there takes its place at the end.

    If anything fails, what was there before stays, and nothing else is left.
    """
    final = Path(path)
    temporary = final.with_name(f"{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        yield temporary
        os.chmod(temporary, mode)  # Some libraries let nobody else read what they write.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Union[str, os.PathLike], data: Any) -> None:
    """Write a file at once or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
