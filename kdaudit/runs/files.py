"""Reading and writing files so that nothing but them is met or changed.

A file is written beside its place, flushed to disk and moved over: a reader never meets half of one, and a
failed write is always an error. Writing goes through no link and over nothing but a file.
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
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs.layout import is_private

_OWN_PREFIX, _OWN_SUFFIX = ".kdaudit-", ".partial"
_OWN_NAME = re.compile(r"\.kdaudit-[a-z0-9_]{8}\.partial")
"""Names of what is still being written: random, so that nothing of the user's can be meant."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_of(path: Path) -> str | None:
    """What stands at a path, a link not followed: "a file", "a folder", "a link" ...; None for nothing.

    Raises:
        OSError: it cannot be found out.
    """
    _refuse_nul(path)
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return kind_of_mode(mode)


def kind_of_mode(mode: int) -> str:
    """What a mode of `lstat` stands for: "a file", "a folder", "a link" ..."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def check_place(path: Path, root: Path | None = None) -> None:
    """Refuse a place where to write would reach or remove something that is not ours.

    Args:
        path: what is to be written or removed.
        root: a folder that it lies in, at any depth; None for its own. No folder below may be a link.

    Raises:
        RunStateError: what stands at `path` is not a plain file, or a folder between `root` and it is a link.
    """
    check_folders(path.parent, root)
    kind = _kind(path)
    if kind not in ("a file", None):
        raise RunStateError(f"{path}: is {kind}, and will not be replaced by a file", fix="move it away")


def check_folders(folder: Path, root: Path | None) -> None:
    """Refuse a folder if it, or one between it and `root`, is there and is a link or no folder.

    Raises:
        RunStateError: it is.
    """
    for place in (*reversed(folder.parents), folder):
        kind = _kind(place) if root in place.parents else None
        if kind not in ("a folder", None):
            raise RunStateError(
                f"{place}: is {kind}, not a directory", fix="move it away, or write to another place"
            )


def _kind(path: Path) -> str | None:
    try:
        return kind_of(path)
    except OSError as error:
        raise RunStateError(
            f"{path}: cannot be read ({error.strerror})", fix="fix its permissions"
        ) from error


def remove_empty(path: Path, root: Path) -> None:
    """Remove the folders between `root` and a path in which nothing lies."""
    with suppress(OSError):  # not empty: something else lies there
        for parent in path.parents:
            if root in parent.parents:
                parent.rmdir()


@contextmanager
def replacing(path: Path, *, private: bool) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` when the block ends well.

    The temporary file stands beside `path` under a random name and is made by this call alone, so that
    nothing that lies there, a link least of all, is written through.

    Raises:
        RunStateError: something else than a file stands at `path`.
        StorageError: the file could not be written; `path` is as it was before.
    """
    check_place(path)
    partial: Path | None = None
    try:
        descriptor, made = tempfile.mkstemp(_OWN_SUFFIX, _OWN_PREFIX, path.parent)
        partial = Path(made)
        os.fchmod(descriptor, 0o600 if private else 0o644)
        os.close(descriptor)
        yield partial
        with open_regular(partial) as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
        sync_folder(path.parent)
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


def write_file(folder: Path, name: str, data: bytes) -> None:
    """Write a file of one of our folders, as private as its name says, whole or not at all."""
    write_bytes(folder / name, data, private=is_private(name))


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; a link to one is followed.

    Anything else could block forever (a FIFO, a terminal) or never end (/dev/zero). It is not opened at all,
    and should it be exchanged in between, it is opened without blocking and refused by its descriptor.

    Raises:
        OSError: it cannot be opened, or is not a regular file (EINVAL; a directory: EISDIR).
    """
    _refuse_nul(path)
    _refuse_irregular(path.stat(), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _refuse_irregular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _refuse_nul(path: Path) -> None:
    """Python raises a ValueError for what is, to a user, a name that no file has."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a file name cannot hold a NUL", str(path))


def _refuse_irregular(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_bounded(path: Path, most: int) -> bytes:
    """All bytes of a regular file that describes something: a configuration, a card, a manifest.

    Args:
        path: the file; see `open_regular`.
        most: bytes that it may hold.

    Raises:
        OSError: it cannot be read, is not a regular file, or holds more (EFBIG).
    """
    with open_regular(path) as handle:
        large = os.fstat(handle.fileno()).st_size > most
        data = b"" if large else handle.read(most + 1)
    if large or len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes, which no such file needs", str(path))
    return data


def sha256_file(path: Path) -> str:
    """The regular file's SHA-256 in hexadecimal, read in chunks."""
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush to disk which files a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
