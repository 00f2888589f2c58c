"""The run directory: shards, manifest, resume.

Invariants: a file is announced (`.writing`) before it is put in its place, and listed in the manifest only
after it stands there whole; a stage is listed only after all its files are. So whatever moment a process dies
at, the next one finds finished work listed. It sweeps away what was announced and not listed, and what lies
under a random name of ours; nothing else in the directory is touched. One process at a time works in it. No
link is followed to write.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
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
from kdaudit.runs.layout import (
    ANNOUNCED,
    HMAC_KEY,
    MANIFEST,
    RENDERED,
    SEAL,
    is_measurement,
    is_private,
    is_shard,
    shard_number,
)
from kdaudit.runs.lock import FolderLock
from kdaudit.runs.manifest import (
    Manifest,
    Stage,
    environment,
    is_inside,
    problem_of,
    read_manifest,
    refuse_altered,
    refuse_strangers,
    seal,
    write_manifest,
)

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
        self._own: set[str] = set()
        """Names that this process announced."""
        self._lock = FolderLock(folder)
        try:
            self._manifest = self._earlier(fresh, inputs) or self._start(name, inputs or {})
            if inputs is not None:
                _refuse_changes(folder, self._manifest.inputs, inputs)
            self._sweep()
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
            self._manifest.batch_plan[key] = value
            if value == 0:
                del self._manifest.batch_plan[key]
            write_manifest(self.folder, self._manifest)

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
        began = time.monotonic()
        self._manifest.stages.pop(stage, None)
        yield
        seconds = round(time.monotonic() - began, 3)
        self._manifest.stages[stage] = Stage(fingerprint=fingerprint(depends), seconds=seconds)
        write_manifest(self.folder, self._manifest)

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

    def forget(self, *names: str) -> None:
        """Unlist files that are about to be replaced: a crash in between must not look like damage.

        They stay known as the run's own: what is not replaced then is removed by the next call.
        """
        listed = [name for name in names if name in self._manifest.files]
        if listed:
            self._announce(*listed)
            for name in listed:
                self._manifest.unlist(name)
            write_manifest(self.folder, self._manifest)

    def discard(self, *names: str) -> None:
        """Unlist files and remove them: a later call does without. What the run did not list stays."""
        listed = [name for name in names if name in self._manifest.files]
        self.forget(*listed)
        for name in listed:
            self._unlink(name)

    def adopt(self, *names: str) -> None:
        """List files that another room wrote, whole, into the directory."""
        for name in names:
            self._manifest.list_file(self.folder, name)
        write_manifest(self.folder, self._manifest)

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
                f"{self.folder / name}: cannot be read ({error}); use --fresh to start the run anew"
            ) from error

    def shards(self, folder: str) -> list[str]:
        """Names of the listed shards of a folder, in the order of their numbers."""
        found = filter(is_shard, self._manifest.files)
        return sorted((name for name in found if name.startswith(f"{folder}/")), key=shard_number)

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
        """Seal the manifest: the run is complete."""
        (self.folder / ANNOUNCED).unlink(missing_ok=True)
        if not (self.folder / SEAL).exists():
            seal(self.folder)

    def close(self) -> None:
        """Let other processes in."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a path to write one file to; it stands in its place, and is listed, when the block ends well.

        Raises:
            RunStateError: something that is not of this run stands there.
            StorageError: it could not be written.

        """
        path = self.folder / name
        check_place(path, self.folder)
        if name not in self._manifest.files and name not in self._own and kind_of(path) is not None:
            raise RunStateError(f"{path}: is there already and is not a file of this run", fix="move it away")
        _make(path.parent)
        self.forget(name)
        with replacing(path, private=is_private(name)) as partial:
            yield partial
            found = sha256_file(partial)
            self._announce(name)
        self._manifest.list_file(self.folder, name, found)
        write_manifest(self.folder, self._manifest)

    def _announce(self, *names: str) -> None:
        """Note that files are about to stand in their places, or to be removed, and are not listed."""
        self._own.update(names)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self.folder / ANNOUNCED, flags, 0o600)
        except OSError as error:
            raise _unmade(self.folder / ANNOUNCED, error) from error
        try:
            os.write(descriptor, "".join(f"{name}\n" for name in names).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _announced(self) -> list[str]:
        """Files that were announced, listed or not."""
        try:
            text = read_bounded(self.folder / ANNOUNCED, _MOST_ANNOUNCED).decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunStateError(
                f"{self.folder / ANNOUNCED}: cannot be read ({error.strerror})",
                fix="remove it, then run again",
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
        for name in list(self._manifest.files):
            problem = problem_of(self.folder, name, self._manifest)
            if problem is None:
                continue
            if name not in RENDERED:
                raise RunStateError(
                    f"{self.folder / name}: {problem}", fix="put it back, or start again with --fresh"
                )
            check_place(self.folder / name, self.folder)
            self._manifest.unlist(name)  # it is rendered again
        for name in {*self._announced()} - {*self._manifest.files}:
            self._unlink(name)
        (self.folder / ANNOUNCED).unlink(missing_ok=True)
        remove_own(self.folder)

    def _unlink(self, name: str) -> None:
        """Remove a file of the run, and its folders where nothing else is left in them."""
        path = self.folder / name
        check_place(path, self.folder)
        path.unlink(missing_ok=True)
        remove_empty(path, self.folder)

    def _wipe(self, found: Manifest) -> None:
        """Remove what a run wrote, the manifest last, and nothing else that the user keeps in the folder."""
        names = [*{*found.files, *self._announced()}, SEAL, ANNOUNCED]
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
