"""The run directory: shards, manifest, resume.

Invariants: a file is listed in the journal, with its hash, before it is put in its place; a stage is listed
only after all its files are. So whatever moment a process dies at, the next one finds finished work listed,
and knows by its hash whether the file that was listed last stands in its place. It sweeps away what the
journal speaks of and does not list, and what lies under a random name of ours; nothing else in the directory
is touched. When a run is opened and when it is finished the journal goes into the manifest. One process at a
time works in the directory. No link is followed to write.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs.files import check_place, kind_of, open_regular, own_folder, replacing
from kdaudit.runs.inputs import Stale
from kdaudit.runs.journal import Begun, Entry, Finished, Journal, Listed, Planned, Unlisted
from kdaudit.runs.keys import new_key, read_key
from kdaudit.runs.layout import HMAC_KEY, JOURNAL, MANIFEST, SEAL, is_private
from kdaudit.runs.lock import FolderLock
from kdaudit.runs.manifest import seal, write_manifest
from kdaudit.runs.opening import open_run_folder, unlink

if TYPE_CHECKING:
    import pyarrow as pa

_T = TypeVar("_T")

SHARD_ROWS = 2048
"""Examples a shard: small enough that a lost one costs little, large enough to fill an engine's batch."""

_GONE, _AGAIN = "gone", ""
"""For the fingerprint of an unfinished stage: what it wrote is to go; or it stays, and more is to do."""


class RunStore:
    """An open run directory.

    Args:
        folder: the directory; made if absent.
        name: the audit's name.
        inputs: what it is made from, by configuration key, see `kdaudit.runs.inputs`; None takes a run as it
            is. What does not hold with them any more is discarded.
        fresh: forget an earlier run in the directory.

    Raises:
        RunStateError: another process works there; measurements of the earlier run are of other inputs;
            files of it are damaged; or the folder holds something that is not a run.
        StorageError: the directory cannot be written.

    """

    def __init__(
        self, folder: Path, name: str, inputs: Mapping[str, str] | None, *, fresh: bool = False
    ) -> None:
        self.folder = folder
        self._journal = Journal(folder)
        self._lock = FolderLock(folder)
        try:
            opened = open_run_folder(folder, name, inputs, fresh=fresh, shard_rows=SHARD_ROWS)
            self._manifest = opened.manifest
            self._adapt(opened.stale, self._manifest.inputs if inputs is None else inputs)
        except BaseException:
            self._lock.withdraw()
            raise

    @classmethod
    def reopen(cls, folder: Path) -> Self:
        """Open an earlier run as it is, to make something of its results again."""
        return cls(folder, folder.name, None)

    @property
    def shard_rows(self) -> int:
        """Rows a shard, as the run began."""
        return self._manifest.batch_plan["shard_rows"]

    def planned(self, key: str) -> int:
        """What was recorded by `plan`; 0 where nothing was."""
        return self._manifest.batch_plan.get(key, 0)

    def plan(self, key: str, value: int) -> None:
        """Record how work is batched, so that a continued run batches as this one does; 0 forgets it."""
        if self.planned(key) != value:
            self._note(Planned(planned=key, value=value))

    @property
    def created(self) -> str:
        """When the run began: UTC, ISO 8601."""
        return self._manifest.created

    def done(self, stage: str, depends: Any = None) -> bool:  # noqa: ANN401 - JSON values
        """Whether a stage is finished and still depends on the same values."""
        found = self._manifest.stages.get(stage)
        return found is not None and found.fingerprint == fingerprint(depends)

    def begun_otherwise(self, stage: str, with_: Any) -> bool:  # noqa: ANN401 - JSON values
        """Whether an unfinished stage was begun with other values, so that what it wrote is of no use."""
        found = self._manifest.begun.get(stage, _AGAIN)
        return found not in (_AGAIN, fingerprint(with_))

    @contextmanager
    def stage(self, stage: str, depends: Any = None, with_: Any = None) -> Iterator[None]:  # noqa: ANN401
        """Mark a stage finished when the block ends well.

        Args:
            stage: its name.
            depends: JSON values that it depends on beyond the run's inputs, for `done`.
            with_: JSON values whose change makes an unfinished stage start over, for `begun_otherwise`.

        """
        began, wanted = time.monotonic(), fingerprint(depends)
        self._note(Begun(begun=stage, fingerprint=fingerprint(with_)))
        yield
        seconds = round(time.monotonic() - began, 3)
        self._note(Finished(finished=stage, fingerprint=wanted, seconds=seconds))

    def has(self, name: str) -> bool:
        """Whether a file is written and listed."""
        return name in self._manifest.files

    def hash_of(self, name: str) -> str:
        """SHA-256 of a listed file.

        Raises:
            RunStateError: it is not listed, though a finished stage wrote it.

        """
        try:
            return self._manifest.files[name]
        except KeyError:
            raise RunStateError(
                f"{self.folder / MANIFEST}: does not list {name}, which a finished stage wrote",
                fix="start again with --fresh",
            ) from None

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write one parquet file and list it."""
        with self.writing(name) as path:
            pq.write_table(table, path, compression="zstd")

    def write_text(self, name: str, text: str) -> None:
        """Write one text file and list it."""
        with self.writing(name) as path:
            path.write_text(text, encoding="utf-8")

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a path to write one file to; it stands in its place, and is listed, when the block ends well.

        Raises:
            RunStateError: something that is not of this run stands there.
            StorageError: it could not be written.

        """
        path, listed = self.folder / name, False
        self._refuse_others(name)
        _make(path.parent)
        try:
            with replacing(path, private=is_private(name)) as partial:
                yield partial
                entry = Listed.of(name, partial)
                listed = True
                self._note(entry)
        except BaseException:
            if listed:  # and never put in its place
                self._manifest.take(Unlisted(unlisted=(name,)))
                self._journal.owe(Unlisted(unlisted=(name,)))
            raise

    @contextmanager
    def rewriting(self, *names: str) -> Iterator[None]:
        """Let another module write these files, whole, into the directory, and list them at the end.

        A crash in between does not look like damage: what they were is forgotten first, and what is not
        replaced is removed by the next call.

        Raises:
            RunStateError: something that is not of this run stands in the place of one.

        """
        for name in names:
            self._refuse_others(name)
        self._note(Unlisted(unlisted=names))
        yield
        for name in names:
            self._note(Listed.of(name, self.folder / name))

    def discard(self, *names: str) -> None:
        """Unlist files and remove them: a later call does without. What the run did not list stays."""
        listed = tuple(name for name in names if self.has(name))
        if listed:
            self._note(Unlisted(unlisted=listed))
        for name in listed:
            unlink(self.folder, name)

    def digest(self) -> str:
        """SHA-256 over names and hashes of all shards and files of models: of what was measured."""
        return fingerprint({name: hashed for name, hashed in self._manifest.files.items() if "/" in name})

    def read_table(
        self, name: str, columns: list[str] | None = None, if_there: Sequence[str] = ()
    ) -> pa.Table:
        """Read one listed parquet file.

        Args:
            name: the file.
            columns: those to read; None for all.
            if_there: more of them, which files of earlier versions may lack.

        Raises:
            StorageError: it cannot be read.

        """
        import pyarrow as pa

        try:
            with open_regular(self.folder / name) as file:
                if columns is not None and if_there:
                    there = pq.read_schema(file).names
                    columns = [*columns, *(column for column in if_there if column in there)]
                    file.seek(0)
                # One thread: each further one keeps buffers of its own, and a shard is small.
                return pq.read_table(file, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(
                f"{self.folder / name}: cannot be read ({error}); use --fresh to start again"
            ) from error

    def read_json(self, name: str, schema: type[_T]) -> _T:
        """Read one listed JSON file: what a stage wrote for later ones.

        Raises:
            StorageError: it cannot be read, or does not follow the schema.

        """
        try:
            with open_regular(self.folder / name) as file:
                return TypeAdapter(schema).validate_json(file.read())
        except (OSError, ValidationError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not as the run wrote it"
            raise StorageError(
                f"{self.folder / name}: cannot be read ({why}); use --fresh to start again"
            ) from error

    def shards(self, folder: str) -> list[str]:
        """Names of the listed shards of a folder, in the order of their numbers."""
        return self._manifest.shards(folder)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder, gone when the block ends."""
        try:
            folder = own_folder(self.folder)
        except OSError as error:
            raise _unmade(self.folder, error) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def key(self) -> bytes:
        """The run's secret key for hashes of text; made on first use, for its owner's eyes."""
        if not self.has(HMAC_KEY):
            self.write_text(HMAC_KEY, new_key())
        return read_key(self.folder / HMAC_KEY)

    def finish(self) -> None:
        """Write the journal into the manifest and seal it: the run is complete."""
        if os.path.lexists(self.folder / JOURNAL):
            self._compact()
        if not (self.folder / SEAL).exists():
            seal(self.folder)

    def close(self) -> None:
        """Let other processes in."""
        self._journal.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self, entry: Entry) -> None:
        """Journal what happens, before it does."""
        self._journal.append(entry)
        self._manifest.take(entry)

    def _adapt(self, gone: Stale, now: Mapping[str, str]) -> None:
        """Discard what does not hold with the inputs of now, and record these.

        Stages go first and the record comes last: a process that dies in between has forgotten nothing.
        """
        for stage in gone.stages:
            self._note(Begun(begun=stage, fingerprint=_GONE))
        for stage in self._manifest.stages.keys() & gone.again:  # an unfinished one keeps what it began with
            self._note(Begun(begun=stage, fingerprint=_AGAIN))
        for key in gone.plans:
            self.plan(key, 0)
        self.discard(*gone.files)
        if now != self._manifest.inputs:
            self._manifest.inputs = dict(now)
            self._compact()

    def _refuse_others(self, name: str) -> None:
        """Refuse to write over something that is not of this run."""
        path = self.folder / name
        check_place(path, self.folder)
        if not self._manifest.wrote(name) and kind_of(path) is not None:
            raise RunStateError(f"{path}: is there already and is not a file of this run", fix="move it away")

    def _compact(self) -> None:
        write_manifest(self.folder, self._manifest)
        self._journal.remove()


def fingerprint(values: Any) -> str:  # noqa: ANN401 - JSON values
    """SHA-256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unmade(folder, error) from error


def _unmade(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{folder}: could not be made ({error.strerror}); free space or fix the permissions, then run again"
    )
