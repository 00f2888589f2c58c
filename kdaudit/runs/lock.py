"""One process at a time in a run directory."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs.files import kind_of
from kdaudit.runs.layout import LOCK


class FolderLock:
    """The directory's lock, which the system lets go when its holder dies.

    Args:
        folder: the directory; made if absent.

    Raises:
        RunStateError: another process holds the lock, or the directory cannot be written.
        StorageError: the disk is full.

    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._made: Sequence[Path] = []
        """What this lock brought into being, in this order: folders, and the file."""
        try:
            self._made = _make_folder(folder)
            self._descriptor = self._take()
        except OSError as error:
            self._remove_made()
            raise _refusal(folder, error) from error
        except BaseException:
            self._remove_made()
            raise

    def close(self) -> None:
        """Let other processes in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def withdraw(self) -> None:
        """Let other processes in, and leave nothing behind that the lock made, but where files lie in it."""
        self._remove_made()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an error, withdraw from a folder in which nothing was written."""
        if error is not None and not _holds_other_than(self._path):
            self.withdraw()
        self.close()

    def _take(self) -> int:
        """A descriptor of the lock file, locked.

        A file that was removed while it was opened locks nobody out: then the one that took its place counts.
        """
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self._path.lstat()):
                        return descriptor
            except BaseException as error:
                if isinstance(error, BlockingIOError):
                    self._made = [path for path in self._made if path != self._path]  # it is its holder's
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        kind = kind_of(self._path)
        if kind not in ("a file", None):
            raise RunStateError(
                f"{self._path}: is {kind}, not a regular file, as a lock is",
                fix="remove it, or choose another --out",
            )
        try:
            descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            self._made = [*self._made, self._path]
        except FileExistsError:
            descriptor = os.open(self._path, flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, f"{LOCK} is not a regular file")
        return descriptor

    def _remove_made(self) -> None:
        for path in reversed(self._made):
            with suppress(OSError):  # a folder that holds something stays
                path.unlink() if path == self._path else path.rmdir()
        self._made = []


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those that it lies in; the ones that were not there, from the top."""
    missing = [place for place in (folder, *folder.parents) if kind_of(place) is None]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return missing[::-1]


def _holds_other_than(path: Path) -> bool:
    try:
        return any(entry != path for entry in path.parent.iterdir())
    except OSError:
        return True


def _refusal(folder: Path, error: OSError) -> RunStateError | StorageError:
    """An error of the system as a sentence."""
    if isinstance(error, BlockingIOError):
        return RunStateError(
            f"{folder}: another kdaudit process is at work here", fix="wait for it, or choose another --out"
        )
    if isinstance(error, FileExistsError):
        kind = "a link that leads nowhere" if folder.is_symlink() else "a file, not a folder"
        return RunStateError(f"{folder}: is {kind}", fix="choose another --out")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{folder}: no space left; free some, then run again")
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
        return RunStateError(
            f"{folder}: its file system cannot lock files ({error.strerror})", fix="choose another --out"
        )
    return RunStateError(
        f"{folder}: cannot be written ({error.strerror})", fix="choose another --out or fix its permissions"
    )
