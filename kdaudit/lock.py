"""One process at a time in a run directory."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from kdaudit.errors import RunStateError, StorageError

LOCK_FILE = ".lock"


def take_lock(folder: Path) -> int:
    """Take the directory's lock, which the system lets go when its holder dies.

    Args:
        folder: the directory; made if absent.

    Returns:
        A file descriptor; closing it lets other processes in.

    Raises:
        RunStateError: another process holds the lock, or the directory cannot be written.
        StorageError: the disk is full.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except FileExistsError as error:
        raise RunStateError(f"{folder}: is a file, not a folder; choose another --out") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"{folder}: no space left; free some, then run again") from error
        raise RunStateError(
            f"{folder}: cannot be written ({error.strerror}); choose another --out or mend its permissions"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise RunStateError(
                f"{folder}: its file system cannot lock files ({error.strerror}); choose another --out"
            ) from error
        raise RunStateError(
            f"{folder}: another kdaudit process is at work here; wait for it, or choose another --out"
        ) from error
    return descriptor
