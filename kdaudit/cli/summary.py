"""A run's result in a few lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting.accepted import accepted_lead
from kdaudit.reporting.formatting import percent, percent_interval, plural, points, points_interval
from kdaudit.reporting.personal_data_counts import count_tags
from kdaudit.reporting.screening_words import whose, withheld
from kdaudit.reporting.verdict import CheckRow, check_rows
from kdaudit.risk import percent_down
from kdaudit.runs import layout
from kdaudit.schemas.comparison import ComparisonResult
from kdaudit.schemas.results import AuditResults, ModelResult
from kdaudit.schemas.screening import ScreenRecord


def summarize(results: AuditResults, folder: Path) -> str:
    """Verdict, one line a model, one line a student, and where the reports are."""
    lines = [f"{results.name}: {_verdict(results)}", ""]
    width = max(len(name) for name in results.models)
    lines += [f"  {name:<{width}}  {_model(results, model)}" for name, model in results.models.items()]
    lines += ["", f"  {_left_out(results)}"]
    lines += [f"  {line}" for line in (*_students(results), *_tagged(results), *_accepted(results))]
    lines += [f"  note: {note.text}" for note in results.notes]
    lines += ["", f"full report (holds training text): {folder / layout.REPORT}"]
    lines.append(f"public report:                     {folder / layout.PUBLIC_REPORT}")
    return "\n".join(lines)


def _left_out(results: AuditResults) -> str:
    skipped = results.corpus.skipped
    corpus = results.corpus
    drawn = f", of which {corpus.examples:,} distinct ones were drawn as a sample" if corpus.sampled else ""
    if corpus.answers is not None:
        return (
            f"of {plural(corpus.documents, 'row')}: {plural(corpus.windows, 'answer')}{drawn}; left out: "
            f"{plural(skipped.too_short, 'answer')} too short, {plural(skipped.empty, 'row')} empty, "
            f"{skipped.undecodable:,} not valid Unicode, "
            f"{plural(corpus.for_other_reasons, 'row or answer', 'rows or answers')} for other reasons"
        )
    return (
        f"of {plural(corpus.documents, 'document')}: {plural(corpus.windows, 'window')}{drawn}; left out: "
        f"{plural(skipped.too_short, 'document or tail', 'documents or tails')} too short, "
        f"{plural(skipped.empty, 'row')} empty, {skipped.undecodable:,} not valid Unicode"
        + (
            f", {plural(skipped.no_boundary, 'window')} without a common boundary"
            if skipped.no_boundary
            else ""
        )
    )


def _verdict(results: AuditResults) -> str:
    if results.gate.verdict == "none":
        return "no limit was set, so there is no verdict"
    rows = zip(results.gate.checks, check_rows(results.gate.checks), strict=True)
    missed = [_missed(check.name, row) for check, row in rows if row.verdict == results.gate.verdict]
    reasons = "" if results.gate.verdict == "pass" else ": " + "; ".join(missed)
    return f"the gate's verdict is {results.gate.verdict}{reasons}"


def _missed(name: str, row: CheckRow) -> str:
    """A check that did not pass, with what decides it."""
    ends = f", 95% interval {row.interval}" if row.verdict == "inconclusive" else ""
    left = f", {row.left_out}" if row.left_out else ""
    return f"{name} of {row.student} ({row.value}{ends}{left}; limit {row.limit})"


def _model(results: AuditResults, model: ModelResult) -> str:
    examples = plural(model.examples, "sampled example" if results.corpus.sampled else "example")
    ends = percent_interval(model.ci95, model.ci95_by_document)
    return f"memorized {model.memorized:,} of {examples} ({percent(model.rate)}, 95% interval {ends})"


def _students(results: AuditResults) -> list[str]:
    suffixes = {} if results.leak_suffixes is None else results.leak_suffixes.students
    lines = [
        f"{name}: what it continues word for word is {plural(texts, 'distinct text')} (suffixes)"
        for name, texts in suffixes.items()
        if texts
    ]
    for name, model in results.models.items():
        if model.role != "teacher" and (repeated := model.generated) is not None:
            lines.append(
                f"{name} continues {repeated.memorized:,} of {plural(repeated.examples, 'example')} that the "
                f"teacher wrote word for word as it did ({percent(repeated.rate)}, 95% interval "
                f"{percent_interval(repeated.ci95)})"
            )
    for name, found in results.comparison.items():
        if found.easy_core is None and found.shared_with_baseline is not None:
            lines.append(
                f"{name}: a baseline memorizes {found.shared_with_baseline:,} of the "
                f"{plural(results.models[name].memorized, 'example')} that it memorizes; what it inherited "
                "is not known without the teacher"
            )
        if found.inherited is not None:
            lines.append(
                f"{name} inherited {found.inherited:,} of the {found.teacher_specific:,} examples that the "
                "teacher memorizes and no baseline does"
            )
        lines += _against_chance(name, found)
    return lines


def _against_chance(name: str, found: ComparisonResult) -> list[str]:
    """What goes beyond chance, at the student's own rate where that is known."""
    chance = found.beyond_chance
    if chance is None:
        return []
    others = "other baselines, cut at its count," if chance.at_own_rate else "other baselines"
    return [
        f"{name} against chance: {points(chance.excess)} (95% interval {points_interval(chance.ci95)}) "
        f"beyond the {percent(chance.floor)} that {others} hold of what the teacher memorizes and one "
        "baseline misses"
    ]


def _tagged(results: AuditResults) -> list[str]:
    """How many leaks, of all students together, a reviewer should look at first."""
    leaks = leak_counts_of(results).leaks
    if not leaks:
        return []
    tagged = count_tags(results).leaks
    seem = "seems" if tagged == 1 else "seem"
    return [
        f"{tagged:,} of {plural(leaks, 'leaked example')} {seem} to "
        "hold personal data or secrets, by the form of the text; absence of a tag is not evidence of absence"
    ]


def _accepted(results: AuditResults) -> list[str]:
    lead = accepted_lead(results)
    return [] if lead is None else [lead]


def _tradeoff(record: ScreenRecord) -> list[str]:
    """What each recall would flag, in one line."""
    known = [one for one in record.tradeoff or [] if one.flagged_examples is not None]
    parts = [
        f"{percent_down(one.recall)}: {percent((one.flagged_examples or 0) / record.corpus.examples)}"
        f"{' (chosen)' if one.chosen else ''}"
        for one in known
    ]
    return [f"  examples flagged by recall guaranteed: {', '.join(parts)}"] if parts else []


def summarize_screen(record: ScreenRecord, folder: Path) -> str:
    """What is flagged, what was kept, what is guaranteed, and where the files are."""
    flagged, kept = record.flagged, record.kept
    share = flagged.examples / record.corpus.examples
    sampled = "sampled " if record.corpus.sampled else ""
    refused = withheld(record)
    lines = [] if refused is None else [f"{record.name}: {refused.sentence}", f"  {refused.reason}", ""]
    lines += [
        f"{record.name}: {flagged.examples:,} of {record.corpus.examples:,} {sampled}examples are flagged "
        f"({percent(share)})",
        f"  observed: {flagged.memorized:,} that {whose(record)}",
        f"  predicted: {flagged.predicted:,} more, by their risk alone",
        *_tradeoff(record),
        "",
    ]
    lines += [
        f"  {name} memorized {one.memorized:,} of {one.examples:,}" for name, one in record.models.items()
    ]
    verb, rows = ("would keep", "") if kept.withheld else ("kept", f" in {plural(kept.rows_written, 'row')}")
    lines.append(
        f"  {verb} {kept.documents_kept:,} of {kept.documents_read:,} documents{rows}, "
        f"{kept.characters_after:,} of {kept.characters_before:,} characters"
    )
    if kept.windows_unscored:
        outside = plural(kept.windows_unscored, "window")
        lines.append(f"  {outside} outside the sample: not scored, and kept")
    if kept.too_short:
        lines.append(f"  {plural(kept.too_short, 'stretch', 'stretches')} too short to be scored: kept")
    lines += [f"  note: {note.text}" for note in record.notes]
    lines.append("")
    if not kept.withheld:
        lines.append(f"kept corpus (training text):                   {folder / layout.KEPT}")
    lines.append(f"what was flagged, and why (training text):     {folder / layout.FLAGGED}")
    lines.append(f"report (training text):                        {folder / layout.SCREEN_REPORT}")
    lines.append(f"public report:                                 {folder / layout.PUBLIC_SCREEN_REPORT}")
    return "\n".join(lines)
