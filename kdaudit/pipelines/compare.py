"""`kdaudit compare OLD_RUN NEW_RUN`: two finished audits of one corpus become one JSON and two pages.

    results.json, leaks.parquet -> examples joined by their tokens -> outcomes of each attack, pair by pair
    -> leaks new, gone, remaining -> settings that differ -> compare.json, compare.html, compare.public.html

Where a run holds no examples any more, its leaks are joined by their text, and there are no paired rates.
Nothing in the runs changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from kdaudit import __version__
from kdaudit.analysis.accepted import acceptance, match, today
from kdaudit.analysis.compared import (
    Side,
    compared_models,
    known_by_examples,
    known_by_text,
    leak_changes,
    leak_ids,
)
from kdaudit.analysis.joined import (
    COMPARED_ATTACKS,
    Joined,
    RunExamples,
    join,
    read_run_examples,
)
from kdaudit.analysis.leaks import PLACES, leak_batches, read_leaks
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import ConfigError, RunStateError
from kdaudit.pipelines.stages.differences import differences, tokenizer_fingerprint_of
from kdaudit.reporting.compared import render_compared
from kdaudit.reporting.render import MOST_BYTES, read_results
from kdaudit.runs import layout
from kdaudit.runs.files import check_folders, check_place, read_bounded, write_file
from kdaudit.runs.verify import refuse_changed_results
from kdaudit.schemas.compared import ComparedRun, CompareResults, Shared
from kdaudit.schemas.notes import Note
from kdaudit.schemas.results import AuditResults

_LEAST_SHARED = 0.5
"""Share of the smaller census that two audits of one corpus have in common: less is another corpus with
passages of the same boilerplate."""


def compare_runs(old_dir: Path, new_dir: Path) -> CompareResults:
    """What changed between two audits of one corpus.

    Raises:
        RunStateError: a run cannot be read, or they cannot be compared.

    """
    if os.path.realpath(old_dir) == os.path.realpath(new_dir):
        raise RunStateError(f"{new_dir}: is the old run itself", fix="name two runs, the older one first")
    old, new = (_side(path) for path in (old_dir, new_dir))
    _refuse_unlike(old, new)
    students = _students(old, new)
    joined = _joined(old, new)
    known = known_by_text(old, new) if joined is None else known_by_examples(joined, old, new)
    accepted = _accepted(new)
    names = {name: name for name in new.results.models if _is_common(name, old, new)} | students
    models, model_notes = compared_models(old, new, names, joined)
    changes = leak_changes(old, new, students, known, accepted.examples)
    return CompareResults(
        kdaudit_version=__version__,
        old=_told(old.results),
        new=_told(new.results),
        shared=None if joined is None else _shared(joined),
        models=models,
        counts=changes.counts,
        new_leaks=changes.totals["new"],
        not_accepted=changes.not_accepted,
        leaks=changes.leaks,
        leak_totals=changes.totals,
        differences=differences(old.path, new.path, old.results, new.results),
        notes=[*_notes(old, new, students, joined), *accepted.notes, *model_notes],
    )


def write_compared(results: CompareResults, old_dir: Path, new_dir: Path, out: Path) -> list[Path]:
    """Write compare.json and both pages; give their paths.

    Raises:
        RunStateError: `out` holds a run, lies in one, or is not a directory.
        StorageError: a file could not be written.

    """
    if any((out / name).exists() for name in (layout.MANIFEST, layout.RESULTS)):
        raise RunStateError(f"{out}: holds a run", fix="choose another --out")
    if any((folder / layout.MANIFEST).exists() for folder in out.resolve().parents):
        raise RunStateError(
            f"{out}: lies in a run directory, whose files `kdaudit verify` checks", fix="choose another --out"
        )
    check_folders(out, out.parent)
    for name in layout.COMPARE_FILES:
        check_place(out / name)
    _refuse_others(out / layout.COMPARISON)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunStateError(
            f"{out}: cannot be made ({error.strerror})", fix="choose another --out"
        ) from error
    full, public = render_compared(results, old_dir, new_dir)
    write_file(out, layout.COMPARISON, (results.model_dump_json(indent=1) + "\n").encode())
    write_file(out, layout.COMPARE_REPORT, full)
    write_file(out, layout.PUBLIC_COMPARE_REPORT, public)
    return [out / name for name in layout.COMPARE_FILES]


def _refuse_others(path: Path) -> None:
    """Refuse a file in the comparison's place that is not a comparison."""
    if not path.exists():
        return
    try:
        CompareResults.model_validate_json(read_bounded(path, MOST_BYTES))
    except (OSError, ValidationError) as error:
        raise RunStateError(
            f"{path}: is there already and is not a comparison of kdaudit", fix="choose another --out"
        ) from error


def place_of(old_dir: Path, new_dir: Path) -> Path:
    """Where a comparison is written if no place is named: in the working directory, by the runs' names."""
    return Path(layout.COMPARISONS, f"{old_dir.resolve().name}-{new_dir.resolve().name}")


def _side(path: Path) -> Side:
    results = read_results(path)
    refuse_changed_results(path)
    return Side(path, results, leak_ids(read_leaks(path, results), [*results.comparison]))


def _told(results: AuditResults) -> ComparedRun:
    return ComparedRun(
        name=results.name,
        created=results.created,
        kdaudit_version=results.kdaudit_version,
        corpus=results.corpus.fingerprint,
        examples=results.corpus.examples,
        sampled=results.corpus.sampled,
    )


def _shared(joined: Joined) -> Shared:
    both = len(joined.old)
    return Shared(both=both, old_only=joined.old_total - both, new_only=joined.new_total - both)


def _refuse_unlike(old: Side, new: Side) -> None:
    """Refuse runs whose examples were cut otherwise: none would be of the same prefix and suffix."""
    for key, (then, now) in _cuts(old, new).items():
        if then != now:
            raise RunStateError(
                f"{new.path}: was measured with another {key} than {old.path} ({now} and {then})",
                fix="compare audits of one corpus that were cut alike, or audit one of them again",
            )


def _cuts(old: Side, new: Side) -> Mapping[str, tuple[object, object]]:
    then, now = (
        {
            "prefix": f"{side.results.extraction.prefix_tokens} tokens",
            "suffix": f"{side.results.extraction.suffix_tokens} tokens",
            "kind of text": "plain text" if side.results.corpus.answers is None else "prompts and answers",
            "tokenizer": tokenizer_fingerprint_of(side.path),
        }
        for side in (old, new)
    )
    known = {key for key in then if None not in (then[key], now[key])}
    return {key: (then[key], now[key]) for key in then if key in known}


def _students(old: Side, new: Side) -> dict[str, str]:
    """The new run's students that have a counterpart, and that one's name: the same, or the only one."""
    then, now = ([*side.results.comparison] for side in (old, new))
    common = {name: name for name in now if name in then}
    if common:
        return common
    if len(then) == len(now) == 1:
        return {now[0]: then[0]}
    raise RunStateError(
        f"{new.path}: has no student in common with {old.path} ({', '.join(now)} and {', '.join(then)})",
        fix="give a student one name in both audits (models.students, key name)",
    )


def _is_common(name: str, old: Side, new: Side) -> bool:
    was = old.results.models.get(name)
    return was is not None and was.role == new.results.models[name].role


def _joined(old: Side, new: Side) -> Joined | None:
    """The examples in common; None where a run holds none.

    Raises:
        RunStateError: they are audits of other corpora.

    """
    runs = [read_run_examples(side.path, side.results) for side in (old, new)]
    first, second = runs
    if first is None or second is None:
        _refuse_other_leaks(old, new)
        return None
    return _of_one_corpus(first, second, old, new)


def _of_one_corpus(first: RunExamples, second: RunExamples, old: Side, new: Side) -> Joined:
    joined = join(first, second)
    both, smaller = len(joined.old), min(joined.old_total, joined.new_total)
    sampled = old.results.corpus.sampled or new.results.corpus.sampled
    if not both or (not sampled and both < _LEAST_SHARED * smaller):
        raise RunStateError(
            f"{new.path}: has {both:,} of {smaller:,} examples in common with {old.path}: they are audits of "
            "other corpora, or of one that was cut otherwise",
            fix="compare audits of one corpus, which may have grown, with the same window and template",
        )
    return joined


def _refuse_other_leaks(old: Side, new: Side) -> None:
    if old.results.corpus.fingerprint != new.results.corpus.fingerprint:
        raise RunStateError(
            f"{new.path}: is of another corpus than {old.path} by its fingerprint, and without examples of "
            "both nothing tells what they have in common",
            fix=f"keep {layout.EXAMPLES}/ of both runs, or audit again",
        )


class _Accepted(NamedTuple):
    examples: set[int]
    """Ids of accepted leaks of the new run."""
    notes: list[Note]


def _accepted(new: Side) -> _Accepted:
    """What the file of the new run's gate accepts today; where it is gone, what the run knew of it."""
    try:
        file = load_audit(new.path / layout.CONFIG).gate.accept
        if file is None:
            return _Accepted(_still(new.results), [])
        found = match(acceptance(Path(file)), leak_batches(new.path, PLACES))
    except ConfigError:  # it names paths, and pages for everyone show notes
        notes = [] if new.results.accepted is None else [_as_judged()]
        return _Accepted(_still(new.results), notes)
    return _Accepted(found.examples, [])


def _still(results: AuditResults) -> set[int]:
    """What the run accepted when it ran, and whose last day is not over."""
    if results.accepted is None:
        return set()
    day = today().isoformat()
    return {leak for entry in results.accepted.in_force if entry.until >= day for leak in entry.leaks}


def _as_judged() -> Note:
    text = (
        "The file of accepted leaks that the new run names cannot be used here. Leaks count as accepted "
        "where the run itself accepted them and the last day is not over."
    )
    return Note(code="accepted_as_judged", subject="accepted", text=text)


def _notes(old: Side, new: Side, students: Mapping[str, str], joined: Joined | None) -> Iterator[Note]:
    for name, was in students.items():
        if name != was:
            text = f"{name} is compared with {was}, the only student of the old run."
            yield Note(code="no_counterpart", subject=name, text=text)
    for side, other, where in ((old, {*students.values()}, "new"), (new, {*students}, "old")):
        for name in side.results.comparison:
            if name not in other:
                text = (
                    f"{name} is not compared, nor are its leaks: the {where} run has no student of that name."
                )
                yield Note(code="no_counterpart", subject=name, text=text)
    others = _other_attacks(old.results) & _other_attacks(new.results)
    if others:
        names = ", ".join(sorted(others))
        text = (
            f"Figures of other attacks ({names}) are in each run's own report: here they are not paired by "
            "example."
        )
        yield Note(code="attack_not_compared", subject="attacks", text=text)
    if joined is None:
        text = "A run holds no examples any more: leaks are joined by text, and there are no paired rates."
        yield Note(code="leaks_alone", subject=None, text=text)
    elif len(joined.old) < max(joined.old_total, joined.new_total) and (
        old.results.corpus.sampled or new.results.corpus.sampled
    ):
        text = (
            "A run is a sample of its corpus, and the other run did not audit all of it: a leak of an "
            "example that only one run audited may have been there before."
        )
        yield Note(code="other_sample", subject=None, text=text)


def _other_attacks(results: AuditResults) -> set[str]:
    """Attacks that ran and are not compared."""
    return {
        name
        for one in results.attacks.values()
        for name in type(one).model_fields
        if getattr(one, name) is not None and name not in COMPARED_ATTACKS
    }
