"""One process at a time in a run directory."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
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
        descriptor = _opened(folder / LOCK_FILE)
    except FileExistsError as error:
        raise RunStateError(f"{folder}: is a file, not a folder; choose another --out") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO):
            raise RunStateError(
                f"{folder / LOCK_FILE}: is not a regular file, as a lock is; remove it, or choose another "
                "--out"
            ) from error
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


def _opened(path: Path) -> int:
    """The lock file's descriptor; made if absent, and never through a link.

    Raises:
        OSError: it cannot be opened, or is a link, a FIFO or a device.

    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor
