"""Comparing a run directory with its manifest and journal: whole, or as far as a resumed run needs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from kdaudit.errors import RunStateError
from kdaudit.runs.files import kind_of, kind_of_mode, read_bounded, sha256_file
from kdaudit.runs.layout import JOURNAL, LEAKS, MANIFEST, RESULTS, SEAL, UNLISTED, is_private
from kdaudit.runs.manifest import Manifest, read_manifest, seal_line

_COARSEST_CLOCK_NS = 2_000_000_000
"""Steps of a file system's clock: two writes within one leave the same time."""


class Checker:
    """Looks at the listed files of a run directory.

    Args:
        folder: the run directory.
        manifest: what it should hold.
        hashed: read every file; else a file of the listed size and time counts as unchanged, unless it was
            written when the manifest was, or it is the last one listed.

    """

    def __init__(self, folder: Path, manifest: Manifest, *, hashed: bool = True) -> None:
        self._folder = folder
        self._manifest = manifest
        self._settled = -1 if hashed else _last_write(folder) - _COARSEST_CLOCK_NS
        """Files of this age, or older, can be told by their times."""
        self._folders: dict[str, str | None] = {}
        """What is wrong with folders that were looked at."""

    def problem(self, name: str) -> str | None:
        """What is wrong with a listed file beside its permissions; None if nothing is.

        A file that has another time and the same content gets its time into the manifest.
        """
        try:
            return self._folder_problem(name.rpartition("/")[0]) or self._file_problem(name)
        except OSError as error:
            return f"cannot be read ({error.strerror}); check it as its owner"

    def _folder_problem(self, name: str) -> str | None:
        if not name:
            return None
        if name not in self._folders:
            kind = kind_of(self._folder / name)
            found = self._folder_problem(name.rpartition("/")[0])
            if found is None and kind != "a folder":
                lies = f"lies behind {name}, which is {kind}; the run wrote a folder"
                found = "is missing" if kind is None else lies
            self._folders[name] = found
        return self._folders[name]

    def _file_problem(self, name: str) -> str | None:
        path, listed = os.path.join(self._folder, name), self._manifest  # noqa: PTH118 - half the time
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return "is missing"
        if not stat.S_ISREG(found.st_mode):
            return f"is {kind_of_mode(found.st_mode)}; the run wrote a file"
        if listed.sizes.get(name, found.st_size) != found.st_size:
            return "was changed since the run wrote it"
        settled = found.st_mtime_ns <= self._settled and name != listed.last
        if settled and listed.mtimes.get(name) == found.st_mtime_ns:
            return None
        if sha256_file(Path(path)) != listed.files[name]:
            return "was changed since the run wrote it"
        listed.mtimes[name] = found.st_mtime_ns
        return None


def _last_write(folder: Path) -> int:
    """When manifest or journal was written last, in nanoseconds."""
    times = [0]
    for name in (MANIFEST, JOURNAL):
        with suppress(OSError):
            times.append((folder / name).lstat().st_mtime_ns)
    return max(times)


def check_files(folder: Path) -> list[str]:
    """Compare a run directory with its manifest, byte by byte.

    Returns:
        A sentence for each file that is damaged, missing or not listed; empty when all is well.

    Raises:
        RunStateError: it holds no run, or its manifest cannot be read.

    """
    if not folder.is_dir():
        raise RunStateError(f"{folder}: is not a directory", fix="name the directory of an audit")
    # Where a Path may not look it raises; here to read the manifest says so.
    sealed, listed = (os.path.exists(folder / name) for name in (SEAL, MANIFEST))  # noqa: PTH110
    if sealed and not listed:
        return [f"{MANIFEST}: is missing"]
    try:
        manifest = read_manifest(folder)
    except RunStateError as error:
        if sealed:
            return [
                f"{MANIFEST}: was damaged since the run wrote it; nothing else can be checked: {error.what}"
            ]
        raise
    if manifest is None:
        raise RunStateError(f"{folder}: holds no {MANIFEST}", fix="name the directory of an audit")
    problems, checker = _check_seal(folder), Checker(folder, manifest)
    for name in manifest.files:
        problem = checker.problem(name)
        if problem and not (name == manifest.last and _was_never_placed(folder / name, manifest)):
            problems.append(f"{name}: {problem}")
    return [*problems, *_strangers(folder, manifest)]


def _was_never_placed(path: Path, manifest: Manifest) -> bool:
    """Whether the process that listed the last file died before it put that file in its place."""
    if not os.path.lexists(path):
        return True
    return kind_of(path) == "a file" and sha256_file(path) == manifest.replaced


def _strangers(folder: Path, manifest: Manifest) -> list[str]:
    """What lies in the folder and is not the run's, and private files that others can read."""
    known = {*manifest.files, *manifest.own, *UNLISTED}
    folders = {str(parent) for name in known for parent in PurePosixPath(name).parents}
    problems = []
    for name, mode in _everything(folder):
        if stat.S_ISLNK(mode):
            problems += [] if name in manifest.files else [f"{name}: is a link; the run made none"]
        elif name not in (folders if stat.S_ISDIR(mode) else known):
            problems.append(f"{name}: was added; the run did not write it")
        elif is_private(name) and stat.S_ISREG(mode) and mode & 0o077:
            problems.append(f"{name}: holds training text and can be read by others than its owner")
    return problems


def _everything(folder: Path) -> Iterator[tuple[str, int]]:
    """Names and modes of all that lies in a folder, links not followed; what goes meanwhile is left out."""
    found = (Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files))
    for path in sorted(found):
        with suppress(FileNotFoundError):
            yield str(path.relative_to(folder)), path.lstat().st_mode


def refuse_changed(folder: Path, name: str, remedy: str) -> None:
    """Refuse a file that is not as the run wrote it; a folder without a manifest says nothing of its files.

    Args:
        folder: a run directory.
        name: the file's name there.
        remedy: what the user can do.

    Raises:
        RunStateError: it was changed, is missing, or is not the run's.

    """
    manifest = read_manifest(folder)
    if manifest is None or (name not in manifest.files and not os.path.lexists(folder / name)):
        return  # who reads it says what is missing
    listed = name in manifest.files
    problem = Checker(folder, manifest).problem(name) if listed else "is not a file that the run wrote"
    if problem is not None:
        raise RunStateError(f"{folder / name}: {problem}", fix=remedy)


def refuse_changed_results(folder: Path) -> None:
    """Refuse a finished audit whose results or leaks are not as the run wrote them; see `refuse_changed`.

    Raises:
        RunStateError: they are not.

    """
    for name in (RESULTS, LEAKS):
        refuse_changed(folder, name, "`kdaudit verify` says what was changed")


def refuse_altered(folder: Path) -> None:
    """Refuse a finished run whose manifest is not the one that was sealed.

    Raises:
        RunStateError: it is not.

    """
    if kind_of(folder / SEAL) is not None and (problems := _check_seal(folder)):
        raise RunStateError(
            f"{folder}: {problems[0]}", fix="put the files back as they were, or start again with --fresh"
        )


def _check_seal(folder: Path) -> list[str]:
    try:
        found = read_bounded(folder / SEAL, 1024)
    except FileNotFoundError:
        return [f"{SEAL}: is missing; the run is unfinished, or the file was removed"]
    except OSError as error:
        return [f"{SEAL}: cannot be read ({error.strerror}); the run wrote a file"]
    if found != seal_line(folder):
        return [f"{MANIFEST}: does not fit {SEAL}; one of them was changed"]
    if os.path.lexists(folder / JOURNAL):
        return [f"{JOURNAL}: was added; the run was finished without it"]
    return []
