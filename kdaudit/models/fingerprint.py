"""What a model's files are, as one string, and whether they were written to since."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from kdaudit.errors import ModelError
from kdaudit.runs.files import sha256_file


class Stamp(NamedTuple):
    """A file as the system knows it."""

    device: int
    inode: int
    size: int
    changed: int
    """Nanoseconds since 1970."""


def stamp_of(file: Path) -> Stamp | None:
    """A file as the system knows it; None where it says nothing."""
    try:
        status = file.stat()
    except OSError:
        return None  # to read it says why
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def fingerprint_of(files: list[Path], key: str) -> str:
    """`sha256:` over names and contents of files, in their order.

    Raises:
        ModelError: one cannot be read.

    """
    digest = sha256()
    for path in files:
        try:
            digest.update(f"{path.name}\0{sha256_file(path)}\n".encode())
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read ({error.strerror})", fix="check it and its disk", key=f"{key}.path"
            ) from error
    return f"sha256:{digest.hexdigest()}"
