"""journal.jsonl: what happened since manifest.json was written last, one line of JSON for each event.

A line is on disk before what it says is done. So a file's line both announces the file and lists it: of all
lines only the last can speak of a file that was never put in its place. A half-written last line is dropped.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from kdaudit.errors import RunStateError, StorageError, reason
from kdaudit.runs.files import kind_of, read_bounded, sha256_file, sync_folder
from kdaudit.runs.layout import JOURNAL, SEAL, is_inside

_MOST_BYTES = 512 << 20
"""Of a journal: a million files take some 200 MB."""


def inside(name: str) -> str:
    """Check that a name is a plain relative path inside the run directory.

    Raises:
        ValueError: it is not.

    """
    if not is_inside(name):
        raise ValueError(f"it names {name!r}, which lies outside the run directory or is not a file of a run")
    return name


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listed(_Entry):
    """A file is about to stand in its place."""

    file: Annotated[str, AfterValidator(inside)]
    sha256: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, name: str, path: Path) -> Self:
        """A line for a file that is written whole, in its place or under a name of ours."""
        found = path.stat()
        return cls(file=name, sha256=sha256_file(path), size=found.st_size, mtime_ns=found.st_mtime_ns)


class Unlisted(_Entry):
    """Files are about to be replaced or removed; they stay known as the run's own."""

    unlisted: tuple[Annotated[str, AfterValidator(inside)], ...]


class Begun(_Entry):
    """A stage begins, or begins again."""

    begun: str
    fingerprint: str
    """Of all that it depends on."""


class Finished(_Entry):
    """A stage has written all its files."""

    finished: str
    fingerprint: str
    seconds: float


class Planned(_Entry):
    """How work is batched; 0 forgets it."""

    planned: str
    value: int


Entry = Listed | Unlisted | Begun | Finished | Planned
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


def read_journal(folder: Path) -> list[Entry]:
    """The entries of a run directory's journal, oldest first; none where there is no journal.

    Raises:
        RunStateError: it cannot be read as one.

    """
    path = folder / JOURNAL
    try:
        if (kind := kind_of(path)) not in ("a file", None):
            raise RunStateError(f"{path}: is {kind}, not a file of the run", fix="move it away")
        lines = read_bounded(path, _MOST_BYTES).split(b"\n")[:-1]  # the last may be half written
        return [_ENTRY.validate_json(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValidationError, RecursionError) as error:
        raise RunStateError(
            f"{path}: is not the journal of a run, or a damaged one ({problem_of(error)})",
            fix="put it back, or remove what the run wrote there and start again",
        ) from error


def problem_of(error: Exception) -> str:
    """What is wrong, without values of the file: they may be long and hold anything."""
    if isinstance(error, ValidationError):
        return str(error.errors(include_input=False, include_url=False)[0]["msg"])
    return (error.strerror if isinstance(error, OSError) else None) or reason(error)


class Journal:
    """Appends to the journal of a run directory; the caller holds its lock and has read what was there.

    Args:
        folder: the run directory; it has no journal now.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1
        self._end = 0
        """Bytes of whole lines."""
        self._owed: list[Entry] = []

    def append(self, *entries: Entry) -> None:
        """Write entries to disk, all or none.

        Raises:
            StorageError: they could not be written.

        """
        data = "".join(entry.model_dump_json() + "\n" for entry in (*self._owed, *entries)).encode()
        try:
            if self._descriptor < 0:
                self._descriptor = _create(self._folder)
            self._write(data)
        except OSError as error:
            raise StorageError(
                f"{self._folder / JOURNAL}: could not be written ({error.strerror}); free space or fix the "
                "folder's permissions, then run again"
            ) from error
        self._owed = []

    def owe(self, entry: Entry) -> None:
        """Write an entry now if that is possible, else before the next one."""
        self._owed.append(entry)
        with suppress(StorageError):
            self.append()

    def remove(self) -> None:
        """Remove the journal, its entries standing in the manifest."""
        self.close()
        (self._folder / JOURNAL).unlink(missing_ok=True)
        self._end, self._owed = 0, []

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> None:
        os.ftruncate(self._descriptor, self._end)  # of half a line that an earlier call could not finish
        if os.write(self._descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._descriptor)
        self._end += len(data)


def _create(folder: Path) -> int:
    """Make the journal, and give its descriptor; the seal of what was finished before goes first.

    Raises:
        OSError: it could not be made, or something stands in its place.

    """
    (folder / SEAL).unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / JOURNAL, flags, 0o600)
    sync_folder(folder)
    return descriptor
