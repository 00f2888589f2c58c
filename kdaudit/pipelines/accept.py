"""`kdaudit accept`: leaks of a finished run become entries of accepted.yaml.

    results.json, leaks.parquet -> the leaks that are asked for -> keyed hashes -> accepted.yaml, accepted.key

Nothing in the run changes. The next `kdaudit run` with `gate.accept` repeats the last stages alone.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.analysis.accepted import hash_of, key_of, today
from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.analysis.leaks import LeakSpan, LeakWithSpan, read_leaks_with_spans
from kdaudit.analysis.personal_data import find_tags
from kdaudit.config.accepted import (
    MOST_BYTES,
    AcceptedLeak,
    checked_reason,
    day_of,
    read_accepted,
    with_entries,
)
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import ConfigError, RunStateError, UsageError
from kdaudit.reporting.render import read_results
from kdaudit.runs import layout
from kdaudit.runs.files import replacing
from kdaudit.runs.keys import make_key
from kdaudit.runs.verify import refuse_changed_results
from kdaudit.schemas.result import LeakClass
from kdaudit.schemas.results import AuditResults, Leak

_QUOTED = 25
"""Characters of a leak from which a reason that holds them quotes it."""


class LeakFilter(NamedTuple):
    """Which leaks to accept: those that meet all that is asked."""

    examples: frozenset[int] = frozenset()
    """Empty for any."""
    kind: LeakClass | None = None
    min_duplicates: int | None = None
    document: str | None = None


class EntryWords(NamedTuple):
    """What every new entry says."""

    reason: str
    until: str


class AcceptResult(NamedTuple):
    """What was written."""

    file: Path
    key: Path
    new_key: bool
    added: int
    renewed: int
    """Entries that the file had already: they have the new reason and last day."""
    tagged: list[int]
    """Leaks among them that seem to hold personal data or secrets."""
    in_gate: bool
    """Whether the run's own gate names the file."""


def accept(run_dir: Path, wanted: LeakFilter, words: EntryWords, out: Path | None = None) -> AcceptResult:
    """Write entries for leaks of a run.

    Args:
        run_dir: a finished audit.
        wanted: which leaks.
        words: what the entries say.
        out: the file; else the one that the run's gate names, or accepted.yaml beside the run's folder.

    Raises:
        UsageError: the run or the file cannot be read, no leak is meant, or the words do not do.
        StorageError: a file could not be written.

    """
    results = read_results(run_dir)
    refuse_changed_results(run_dir)
    leaks = _chosen(run_dir, results, wanted)
    spans = [span for _, span in leaks]
    model = _entry(words, spans)
    named = _named_by(run_dir)
    file = Path(os.path.abspath(out or named or run_dir.absolute().parent / layout.ACCEPTED))  # noqa: PTH100
    _refuse_place(file)
    with _alone(file):
        before = {one.example for one in read_accepted(file)} if os.path.lexists(file) else set()
        new_key = _needs_key(file, before)
        key = make_key(layout.accepted_key(file)) if new_key else key_of(file)
        hashes = dict.fromkeys(hash_of(key, one.prefix, one.suffix) for one in spans)
        entries = [model.model_copy(update={"example": hashed}) for hashed in hashes]
        _write(file, with_entries(file, entries))
    renewed = len(before & hashes.keys())
    return AcceptResult(
        file,
        layout.accepted_key(file),
        new_key,
        len(hashes) - renewed,
        renewed,
        [leak.example_id for leak, _ in leaks if leak.tags],
        named is not None and os.path.realpath(named) == os.path.realpath(file),
    )


def _chosen(run_dir: Path, results: AuditResults, wanted: LeakFilter) -> list[LeakWithSpan]:
    if wanted == LeakFilter():
        raise UsageError(
            "no leak is named",
            fix="name leaks with --leak N, or choose some with --class, --min-duplicates or --document",
        )
    found: list[LeakWithSpan] = []
    there: set[int] = set()
    for one in read_leaks_with_spans(run_dir, results):
        there |= wanted.examples & {one.leak.example_id}
        found += [one] if _is_wanted(one.leak, wanted) else []
    missing = sorted(wanted.examples - there)
    if missing:
        more = f" (nor are {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise UsageError(
            f"example {missing[0]} is not a leak of this run{more}",
            fix="take the numbers from the full report or from leaks.parquet",
            where="--leak",
        )
    if not found:
        raise UsageError(
            f"none of the run's {leak_counts_of(results).leaks:,} leaks meets all that is asked",
            fix="ask for less: an example, class, number of duplicates or document that the report shows",
        )
    return found


def _is_wanted(leak: Leak, wanted: LeakFilter) -> bool:
    return (
        (not wanted.examples or leak.example_id in wanted.examples)
        and (wanted.kind is None or wanted.kind in leak.classes.values())
        and (wanted.min_duplicates is None or leak.copies >= wanted.min_duplicates)
        and (wanted.document is None or leak.document_id == wanted.document)
    )


def _entry(words: EntryWords, texts: Iterable[LeakSpan]) -> AcceptedLeak:
    """An entry with these words; refuse words that a file for others must not hold, or a day that is over."""
    reason: str = _of_option("--reason", checked_reason, words.reason)
    until: date = _of_option("--until", day_of, words.until)
    if until < today():
        raise UsageError(f"{until} is over", fix="give a day to come, such as 2027-06-30", where="--until")
    if find_tags(reason) or any(_quotes(reason, f"{text.prefix}{text.suffix}") for text in texts):
        raise UsageError(
            "quotes the leak, or holds personal data by its form",
            fix="say in other words why it is tolerated: the file may be shared",
            where="--reason",
        )
    return AcceptedLeak(example=f"{'0' * 8}-{'0' * 64}", reason=reason, until=until)


def _of_option(option: str, check: Callable[[Any], Any], value: str) -> Any:  # noqa: ANN401 - what `check` gives
    try:
        return check(value)
    except UsageError as error:
        error.where = option
        raise


def _quotes(reason: str, text: str) -> bool:
    words, plain = (" ".join(part.casefold().split()) for part in (reason, text))
    return any(words[at : at + _QUOTED] in plain for at in range(len(words) - _QUOTED + 1))


def _named_by(run_dir: Path) -> str | None:
    """The file that the run's gate names; None if its configuration cannot be read any more."""
    try:
        return load_audit(run_dir / layout.CONFIG).gate.accept
    except ConfigError:
        return None


def _refuse_place(file: Path) -> None:
    """Refuse a place that is not a YAML file beside an audit or a run."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(
            f"{file}: is not a YAML file by its name", fix="end it with .yaml: its key lies beside it"
        )
    if not file.parent.is_dir():
        raise UsageError(f"{file.parent}: is not a directory", fix="make it, or correct --out")
    if any((folder / layout.MANIFEST).exists() for folder in file.resolve().parents):
        raise RunStateError(
            f"{file}: lies in a run directory, whose files `kdaudit verify` checks",
            fix="give --out a file beside audit.yaml or beside the run directory",
        )


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Let one process at a time read, add and write there."""
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _needs_key(file: Path, before: Iterable[object]) -> bool:
    """Whether a key is to be made: a file with hashes has one, and another would match none of them."""
    has_hashes = any(isinstance(example, str) for example in before)
    return not has_hashes and not os.path.lexists(layout.accepted_key(file))


def _write(file: Path, text: str) -> None:
    """Put the text in the file's place; as readable as the file was, and for its owner alone if new."""
    data = text.encode()
    if len(data) > MOST_BYTES:
        raise UsageError(
            f"{file}: would be over {MOST_BYTES >> 20} MiB",
            fix="accept fewer leaks, or a document by {document: ID}",
        )
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o600
    with replacing(file, private=True) as partial:
        partial.write_bytes(data)
        partial.chmod(mode)
