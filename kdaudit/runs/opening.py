"""Opening a run directory: an earlier run is checked and tidied, or wiped, or a new one begins.

The caller holds the directory's lock.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from kdaudit.errors import RunStateError
from kdaudit.runs.files import check_place, read_bounded, remove_empty, remove_own
from kdaudit.runs.inputs import Stale, State, by_name, stale, starts_again
from kdaudit.runs.layout import ANNOUNCED, JOURNAL, MANIFEST, RENDERED, SEAL, is_inside
from kdaudit.runs.lock import FolderLock
from kdaudit.runs.manifest import Manifest, environment, read_manifest, refuse_strangers, write_manifest
from kdaudit.runs.verify import Checker, refuse_altered

_MOST_ANNOUNCED = 64 << 20
"""Bytes of `.writing`: one line a file."""


class Opened(NamedTuple):
    """A run directory in which nothing lies under a name of ours but what its manifest lists."""

    manifest: Manifest
    stale: Stale
    """What does not hold with the inputs of now, and is still there."""


def check_folder(folder: Path) -> None:
    """Refuse at once a folder that a run could not use, before anything that takes long.

    Raises:
        RunStateError: another process works there, or it holds something other than a run.

    """
    if folder.exists():
        lock = FolderLock(folder)
        try:
            refuse_strangers(folder)
        finally:
            lock.withdraw()


def open_run_folder(
    folder: Path, name: str, inputs: Mapping[str, str] | None, *, fresh: bool, shard_rows: int
) -> Opened:
    """Go on with an earlier run, or begin one.

    Args:
        folder: the run directory, locked.
        name: the name of a new run.
        inputs: what the run is made from now; None takes an earlier run as it is.
        fresh: forget an earlier run.
        shard_rows: rows of a new run's shards.

    Raises:
        RunStateError: see `RunStore`.

    """
    manifest = _earlier(folder, fresh, inputs) or _begin(folder, name, inputs or {}, shard_rows)
    gone = stale(folder, _state(manifest), manifest.inputs if inputs is None else inputs)
    _sweep(folder, manifest)
    return Opened(manifest, gone)


def _earlier(folder: Path, fresh: bool, inputs: Mapping[str, str] | None) -> Manifest | None:
    """The manifest of an earlier run to go on with; None to begin, the folder being empty then.

    An earlier run is wiped with `fresh`, or when it was begun with other inputs and measured nothing
    yet: it stopped at a mistake that has been corrected since.
    """
    found = read_manifest(folder)
    if found is None:
        refuse_strangers(folder)
        return None
    if not fresh:
        refuse_altered(folder)
    found.inputs = by_name(found.inputs)
    if fresh or (inputs is not None and starts_again(_state(found), inputs)):
        _wipe(folder, found)
        return None
    return found


def _state(manifest: Manifest) -> State:
    stages = {**manifest.stages, **manifest.begun}
    return State(manifest.inputs, manifest.files, stages, manifest.batch_plan)


def _begin(folder: Path, name: str, inputs: Mapping[str, str], shard_rows: int) -> Manifest:
    manifest = Manifest(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment(),
        inputs=dict(inputs),
        batch_plan={"shard_rows": shard_rows},
    )
    write_manifest(folder, manifest)
    return manifest


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Check that listed files are as they were written, and remove what is not listed."""
    checker = Checker(folder, manifest, hashed=False)
    for name in list(manifest.files):
        problem = checker.problem(name)
        if problem is None:
            continue
        if name not in (manifest.last, *RENDERED):
            raise RunStateError(f"{folder / name}: {problem}", fix="put it back, or start again with --fresh")
        check_place(folder / name, folder)
        manifest.unlist(name)  # it was not put in its place, or it is rendered again
    for name in {*manifest.own, *_announced(folder)} - {*manifest.files}:
        unlink(folder, name)
    remove_own(folder)
    if any(os.path.lexists(folder / name) for name in (JOURNAL, ANNOUNCED)):
        write_manifest(folder, manifest)
        (folder / JOURNAL).unlink(missing_ok=True)
        (folder / ANNOUNCED).unlink(missing_ok=True)


def unlink(folder: Path, name: str) -> None:
    """Remove a file of the run, and its folders where nothing else is left in them."""
    path = folder / name
    check_place(path, folder)
    path.unlink(missing_ok=True)
    remove_empty(path, folder)


def _wipe(folder: Path, found: Manifest) -> None:
    """Remove what a run wrote, the manifest last, and nothing else that the user keeps in the folder."""
    names = [*{*found.files, *found.own, *_announced(folder)}, SEAL, ANNOUNCED, JOURNAL]
    for name in [*names, MANIFEST]:
        check_place(folder / name, folder)
    for name in names:
        unlink(folder, name)
    remove_own(folder)
    (folder / MANIFEST).unlink(missing_ok=True)


def _announced(folder: Path) -> list[str]:
    """Files that an earlier version announced, listed or not."""
    path = folder / ANNOUNCED
    try:
        text = read_bounded(path, _MOST_ANNOUNCED).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunStateError(
            f"{path}: cannot be read ({error.strerror})", fix="remove it, then run again"
        ) from error
    return [name for name in text.split("\n")[:-1] if is_inside(name)]  # the last may be half written
