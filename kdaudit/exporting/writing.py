"""`kdaudit export`: one file of an audit's findings, outside the run directory, which stays as it is."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

from kdaudit.analysis.leaks import read_leaks_with_spans
from kdaudit.errors import RunStateError
from kdaudit.exporting import sarif
from kdaudit.exporting.findings import Findings, findings_of
from kdaudit.exporting.fingerprints import Key, key_of_file, key_of_run
from kdaudit.exporting.junit import render_junit
from kdaudit.exporting.spreadsheet import COLUMNS, render_csv
from kdaudit.reporting.public import public_title, without_private_parts
from kdaudit.reporting.render import read_results
from kdaudit.runs import layout
from kdaudit.runs.files import check_place, open_regular, replacing
from kdaudit.runs.verify import refuse_changed_results
from kdaudit.schemas.results import AuditResults

Form = Literal["sarif", "junit", "csv"]
_MARKS: dict[Form, bytes] = {
    "sarif": b'"name": "kdaudit"',
    "junit": b'<testsuites name="kdaudit"',
    "csv": f'"{COLUMNS[0]}","{COLUMNS[1]}"'.encode(),
}
"""What the beginning of our own file holds: another file is not written over."""
_HEAD_BYTES = 4096


class Asked(NamedTuple):
    """What the user asks for."""

    form: Form
    out: Path | None = None
    """The file; None for its usual name in the working directory."""
    private: bool = False
    key: Path | None = None
    """Of the fingerprints; None for the run's own."""
    location: str | None = None
    """Path from the repository's root that alerts are shown on; None for audit.yaml."""


class Exported(NamedTuple):
    """What was written."""

    path: Path
    warnings: list[str]


def export(run_dir: Path, asked: Asked) -> Exported:
    """Write the findings of a finished audit in another system's format.

    Raises:
        RunStateError: the run cannot be read, was changed, or something of the user's stands in the way.
        StorageError: the file could not be written.

    """
    out = asked.out or Path(layout.exported(asked.form, private=asked.private))
    if not run_dir.is_dir():
        raise RunStateError(f"{run_dir}: is not a directory", fix="name the directory of an audit")
    _refuse_unfit(asked)
    results = read_results(run_dir)
    refuse_changed_results(run_dir)
    _refuse_place(out, run_dir, asked.form)
    if asked.key is not None and asked.key.resolve() == out.resolve():
        raise RunStateError(f"{out}: is both --out and --key", fix="name another file in one of them")
    key = None if asked.form == "junit" else _key(run_dir, asked)
    with replacing(out, private=asked.private) as partial:
        warnings = _write(partial, run_dir, results, asked, key)
    return Exported(out, [*(() if key is None else _about_key(key)), *warnings])


def _write(out: Path, run_dir: Path, results: AuditResults, asked: Asked, key: Key | None) -> list[str]:
    """Write the file; give what the user should know of its limits."""
    shown = results if asked.private else without_private_parts(results)
    name = public_title(results.name, results.name, results.corpus.path)
    if key is None:
        out.write_bytes(render_junit(shown, name))
        return []
    most = sarif.MOST_RESULTS if asked.form == "sarif" else None
    leaks = read_leaks_with_spans(run_dir, results)
    with (
        findings_of(leaks, key.secret, out.parent, most=most, private=asked.private) as found,
        out.open("wb") as file,
    ):
        if asked.form == "csv":
            file.writelines(render_csv(found, private=asked.private))
            return []
        parts = sarif.render_sarif(shown, name, found, asked.location or layout.AUDIT_FILE)
        return _about_limits(found, _packed_bytes(file, parts))


def _key(run_dir: Path, asked: Asked) -> Key:
    if asked.key is not None:
        _refuse_inside(asked.key, run_dir, "--key")
    return key_of_run(run_dir) if asked.key is None else key_of_file(asked.key)


def _packed_bytes(file: IO[bytes], parts: Iterable[bytes]) -> int:
    """Write the parts; give how many bytes gzip makes of them."""
    packer, packed = zlib.compressobj(level=9, wbits=31), 0
    for part in parts:
        file.write(part)
        packed += len(packer.compress(part))
    return packed + len(packer.flush())


def _about_key(key: Key) -> list[str]:
    if not key.lasting:
        return [
            "fingerprints hold for this run directory alone; --key FILE keeps them the same in later runs, "
            "so that known findings stay known"
        ]
    return ["the key file can be read by others than its owner: chmod 600"] if key.exposed else []


def _about_limits(found: Findings, packed: int) -> list[str]:
    told = []
    if found.total > found.shown:
        told.append(
            f"the file holds the worst {found.shown:,} of {found.total:,} findings: GitHub rejects more"
        )
    elif found.total > sarif.SHOWN_RESULTS:
        told.append(f"GitHub stores {sarif.SHOWN_RESULTS:,} of these {found.total:,} findings")
    if packed > sarif.MOST_BYTES:
        told.append("GitHub rejects the file: compressed it is larger than 10 MB")
    return told


def _refuse_unfit(asked: Asked) -> None:
    if asked.form == "junit" and asked.private:
        raise RunStateError(
            "--private has no meaning for junit: checks hold nothing private", fix="remove it"
        )
    if asked.form == "junit" and asked.key is not None:
        raise RunStateError("--key has no meaning for junit: checks have no fingerprints", fix="remove it")
    if asked.form != "sarif" and asked.location is not None:
        raise RunStateError("--location is for sarif alone", fix="remove it")
    if asked.location is not None and not layout.is_inside(asked.location):
        raise RunStateError(
            f"--location {asked.location!r}: is not a path from the repository's root",
            fix="write it with forward slashes, without a leading one and without `..`",
        )


def _refuse_place(out: Path, run_dir: Path, form: Form) -> None:
    _refuse_inside(out, run_dir, "--out")
    if not out.parent.is_dir():
        raise RunStateError(f"{out.parent}: is not a directory", fix="make it, or choose another --out")
    check_place(out)
    if out.exists() and not _is_ours(out, form):
        raise RunStateError(
            f"{out}: is there already and is not a {form} file of kdaudit", fix="choose another --out"
        )


def _refuse_inside(path: Path, run_dir: Path, option: str) -> None:
    inside: Sequence[Path] = path.resolve().parents
    if run_dir.resolve() in inside:
        raise RunStateError(
            f"{path}: lies inside the run directory, whose files are listed in its manifest",
            fix=f"choose another {option}",
        )


def _is_ours(path: Path, form: Form) -> bool:
    try:
        with open_regular(path) as file:
            return _MARKS[form] in file.read(_HEAD_BYTES)
    except OSError as error:
        raise RunStateError(
            f"{path}: cannot be read ({error.strerror})", fix="choose another --out"
        ) from error
