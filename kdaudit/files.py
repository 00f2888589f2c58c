"""Writing files so that a reader never meets half of one.

A file is written beside its place, flushed to disk and moved over; a failed write is always an error.
Files that hold training text are private: readable by their owner only, from the first byte on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from kdaudit.errors import StorageError

_OWN_PREFIX, _OWN_SUFFIX = ".kdaudit-", ".partial"
_OWN_NAME = re.compile(r"\.kdaudit-[a-z0-9_]{8}\.partial")
"""Names of what is still being written: random, so that nothing of the user's can be meant."""


@contextmanager
def replacing(path: Path, *, private: bool) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` when the block ends well.

    The temporary file stands beside `path` under a random name and is made by this call alone, so that
    nothing that lies there, a link least of all, is written through.

    Raises:
        StorageError: the file could not be written; `path` is as it was before.
    """
    partial: Path | None = None
    try:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "is a link, and links are not written through; remove it")
        descriptor, made = tempfile.mkstemp(_OWN_SUFFIX, _OWN_PREFIX, path.parent)
        partial = Path(made)
        os.fchmod(descriptor, 0o600 if private else 0o644)
        os.close(descriptor)
        yield partial
        with open_regular(partial) as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(partial)
        reason = error.strerror or str(error)
        raise StorageError(
            f"{path}: could not be written ({reason}); free space or fix the folder's permissions, "
            "then run again"
        ) from error
    except BaseException:
        _remove(partial)
        raise


def _remove(partial: Path | None) -> None:
    if partial is not None:
        partial.unlink(missing_ok=True)


def own_folder(beside: Path) -> Path:
    """A new folder under a random name inside `beside`, for its owner alone; `remove_own` knows it.

    Raises:
        OSError: it could not be made.
    """
    return Path(tempfile.mkdtemp(_OWN_SUFFIX, _OWN_PREFIX, beside))


def is_own(name: str) -> bool:
    """Whether a name is one that `replacing` and `own_folder` give."""
    return _OWN_NAME.fullmatch(name) is not None


def remove_own(folder: Path, *, deep: bool = True) -> None:
    """Remove what a killed process left under the names of `replacing` and `own_folder`, and nothing else.

    Args:
        folder: where to look; the caller makes sure that no other process writes there.
        deep: whether to look into folders below, too. Links are not followed.

    Raises:
        OSError: something could not be removed.
    """
    for entry in list(os.scandir(folder)):
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_own(entry.name):
            shutil.rmtree(entry.path) if is_folder else Path(entry.path).unlink()
        elif is_folder and deep:
            remove_own(Path(entry.path))


def write_bytes(path: Path, data: bytes, *, private: bool) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path, private=private) as partial:
        partial.write_bytes(data)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; a link to one is followed.

    Anything else could block forever (a FIFO, a terminal) or never end (/dev/zero). It is opened without
    blocking and refused by what the descriptor is, so that nothing can be exchanged in between.

    Raises:
        OSError: it cannot be opened, or is not a regular file (EINVAL; a directory: EISDIR).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bounded(path: Path, most: int) -> bytes:
    """All bytes of a regular file that describes something: a configuration, a card, a manifest.

    Args:
        path: the file; see `open_regular`.
        most: bytes that it may hold.

    Raises:
        OSError: it cannot be read, is not a regular file, or holds more (EFBIG).
    """
    with open_regular(path) as handle:
        data = handle.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes, which no such file needs", str(path))
    return data


def sha256_file(path: Path) -> str:
    """The regular file's SHA-256 in hexadecimal, read in chunks."""
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
