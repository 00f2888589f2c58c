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
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow.parquet as pq

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs.files import (
    check_place,
    kind_of,
    open_regular,
    own_folder,
    read_bounded,
    remove_empty,
    remove_own,
    replacing,
    sha256_file,
)
from kdaudit.runs.journal import Begun, Entry, Finished, Journal, Listed, Planned, Unlisted
from kdaudit.runs.layout import (
    ANNOUNCED,
    HMAC_KEY,
    JOURNAL,
    MANIFEST,
    RENDERED,
    SEAL,
    is_inside,
    is_measurement,
    is_private,
    is_shard,
    shard_number,
)
from kdaudit.runs.lock import FolderLock
from kdaudit.runs.manifest import (
    Manifest,
    environment,
    read_manifest,
    refuse_strangers,
    seal,
    write_manifest,
)
from kdaudit.runs.verify import Checker, refuse_altered

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_ROWS = 4096
"""Examples a shard: small enough that a lost one costs little, large enough to fill an engine's batch."""

_MOST_ANNOUNCED = 64 << 20
"""Bytes of `.writing`: one line a file."""


class RunStore:
    """An open run directory.

    Args:
        folder: the directory; made if absent.
        name: the audit's name.
        inputs: what must not change while the run goes on, by configuration key; None takes a run as it is.
        fresh: forget an earlier run in the directory.

    Raises:
        RunStateError: another process works there; the inputs differ from the earlier run's; files of
            the earlier run are damaged; or the folder holds something that is no run.
        StorageError: the directory cannot be written.

    """

    def __init__(
        self, folder: Path, name: str, inputs: Mapping[str, str] | None, *, fresh: bool = False
    ) -> None:
        self.folder = folder
        self._journal = Journal(folder)
        self._lock = FolderLock(folder)
        try:
            self._manifest = self._earlier(fresh, inputs) or self._start(name, inputs or {})
            if inputs is not None:
                _refuse_changes(folder, self._manifest.inputs, inputs)
            self._sweep()
            self._shards = _Shards(self._manifest.files)
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

    @contextmanager
    def stage(self, stage: str, depends: Any = None) -> Iterator[None]:  # noqa: ANN401 - JSON values
        """Mark a stage finished when the block ends well."""
        began, wanted = time.monotonic(), fingerprint(depends)
        self._note(Begun(begun=stage, fingerprint=wanted))
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
                entry = _listed(name, partial)
                listed = True
                self._note(entry)
        except BaseException:
            if listed:  # and never put in its place
                self._take(Unlisted(unlisted=(name,)))
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
            self._note(_listed(name, self.folder / name))

    def discard(self, *names: str) -> None:
        """Unlist files and remove them: a later call does without. What the run did not list stays."""
        listed = tuple(name for name in names if self.has(name))
        if listed:
            self._note(Unlisted(unlisted=listed))
        for name in listed:
            self._unlink(name)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read one listed parquet file.

        Raises:
            StorageError: it cannot be read.

        """
        import pyarrow as pa

        try:
            with open_regular(self.folder / name) as file:
                # One thread: each further one keeps buffers of its own, and a shard is small.
                return pq.read_table(file, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(
                f"{self.folder / name}: cannot be read ({error}); use --fresh to start again"
            ) from error

    def shards(self, folder: str) -> list[str]:
        """Names of the listed shards of a folder, in the order of their numbers."""
        return self._shards.of(folder)

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
            self.write_text(HMAC_KEY, os.urandom(32).hex() + "\n")
        return bytes.fromhex(read_bounded(self.folder / HMAC_KEY, 1024).decode("ascii").strip())

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
        self._take(entry)

    def _take(self, entry: Entry) -> None:
        self._manifest.take(entry)
        if isinstance(entry, Listed):
            self._shards.add(entry.file)
        elif isinstance(entry, Unlisted):
            self._shards.remove(entry.unlisted)

    def _refuse_others(self, name: str) -> None:
        """Refuse to write over something that is not of this run."""
        path = self.folder / name
        check_place(path, self.folder)
        if not self._manifest.wrote(name) and kind_of(path) is not None:
            raise RunStateError(f"{path}: is there already and is not a file of this run", fix="move it away")

    def _compact(self) -> None:
        write_manifest(self.folder, self._manifest)
        self._journal.remove()

    def _announced(self) -> list[str]:
        """Files that an earlier version announced, listed or not."""
        path = self.folder / ANNOUNCED
        try:
            text = read_bounded(path, _MOST_ANNOUNCED).decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunStateError(
                f"{path}: cannot be read ({error.strerror})", fix="remove it, then run again"
            ) from error
        return [name for name in text.split("\n")[:-1] if is_inside(name)]  # the last may be half written

    def _earlier(self, fresh: bool, inputs: Mapping[str, str] | None) -> Manifest | None:
        """The manifest of an earlier run to go on with; None to begin, the folder being empty then.

        An earlier run is wiped with `fresh`, or when it was begun with other inputs and measured nothing
        yet: it stopped at a mistake that has been corrected since.
        """
        found = read_manifest(self.folder)
        if found is None:
            refuse_strangers(self.folder)
            return None
        if not fresh:
            refuse_altered(self.folder)
        measured = any(is_measurement(name) for name in found.files)
        if fresh or (inputs is not None and inputs != found.inputs and not measured):
            self._wipe(found)
            return None
        return found

    def _start(self, name: str, inputs: Mapping[str, str]) -> Manifest:
        manifest = Manifest(
            name=name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=environment(),
            inputs=dict(inputs),
            batch_plan={"shard_rows": SHARD_ROWS},
        )
        write_manifest(self.folder, manifest)
        return manifest

    def _sweep(self) -> None:
        """Check that listed files are as they were written, and remove what is not listed."""
        manifest = self._manifest
        checker = Checker(self.folder, manifest, hashed=False)
        for name in list(manifest.files):
            problem = checker.problem(name)
            if problem is None:
                continue
            if name not in (manifest.last, *RENDERED):
                raise RunStateError(
                    f"{self.folder / name}: {problem}", fix="put it back, or start again with --fresh"
                )
            check_place(self.folder / name, self.folder)
            manifest.unlist(name)  # it was not put in its place, or it is rendered again
        for name in {*manifest.own, *self._announced()} - {*manifest.files}:
            self._unlink(name)
        remove_own(self.folder)
        if any(os.path.lexists(self.folder / name) for name in (JOURNAL, ANNOUNCED)):
            self._compact()
            (self.folder / ANNOUNCED).unlink(missing_ok=True)

    def _unlink(self, name: str) -> None:
        """Remove a file of the run, and its folders where nothing else is left in them."""
        path = self.folder / name
        check_place(path, self.folder)
        path.unlink(missing_ok=True)
        remove_empty(path, self.folder)

    def _wipe(self, found: Manifest) -> None:
        """Remove what a run wrote, the manifest last, and nothing else that the user keeps in the folder."""
        names = [*{*found.files, *found.own, *self._announced()}, SEAL, ANNOUNCED, JOURNAL]
        for name in [*names, MANIFEST]:
            check_place(self.folder / name, self.folder)
        for name in names:
            self._unlink(name)
        remove_own(self.folder)
        (self.folder / MANIFEST).unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Refuse at once a folder that no run could use, before anything that takes long.

    Raises:
        RunStateError: another process works there, or it holds something that is no run.

    """
    if folder.exists():
        lock = FolderLock(folder)
        try:
            refuse_strangers(folder)
        finally:
            lock.withdraw()


class _Shards:
    """The listed shards of each folder, kept in the order of their numbers."""

    def __init__(self, names: Iterable[str]) -> None:
        self._folders: dict[str, list[str]] = {}
        for name in names:
            if is_shard(name):
                self._folders.setdefault(name.rpartition("/")[0], []).append(name)
        for found in self._folders.values():
            found.sort(key=shard_number)

    def of(self, folder: str) -> list[str]:
        return [*self._folders.get(folder, ())]

    def add(self, name: str) -> None:
        if is_shard(name):
            found = self._folders.setdefault(name.rpartition("/")[0], [])
            place = bisect_left(found, shard_number(name), key=shard_number)
            if found[place : place + 1] != [name]:
                found.insert(place, name)

    def remove(self, names: Iterable[str]) -> None:
        gone: dict[str, set[str]] = {}
        for name in names:
            gone.setdefault(name.rpartition("/")[0], set()).add(name)
        for folder, removed in gone.items():
            self._folders[folder] = [name for name in self.of(folder) if name not in removed]


def _listed(name: str, path: Path) -> Listed:
    """A line for a file that is written whole, here or under a name of ours."""
    found = path.stat()
    return Listed(file=name, sha256=sha256_file(path), size=found.st_size, mtime_ns=found.st_mtime_ns)


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


def _refuse_changes(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        key = changed[0]
        more = f" (also {', '.join(changed[1:])})" if len(changed) > 1 else ""
        raise RunStateError(
            f"{folder}: holds a run with another {key}: {before.get(key, 'none')} then, "
            f"{now.get(key, 'none')} now{more}",
            fix="use --fresh to start again, or choose another --out",
        )
