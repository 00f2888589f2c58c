"""A run's result in a few lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from kdaudit.results import AuditResults, Interval, ModelResult


def summarize(results: AuditResults, folder: Path) -> str:
    """Verdict, one line a model, one line a student, and where the reports are."""
    lines = [f"{results.name}: {_verdict(results)}", ""]
    width = max(len(name) for name in results.models)
    lines += [f"  {name:<{width}}  {_model(model)}" for name, model in results.models.items()]
    lines += ["", f"  {_left_out(results)}"]
    lines += [f"  {line}" for line in _students(results)]
    lines += [f"  note: {note}" for note in results.notes]
    lines += ["", f"full report (holds training text): {folder / 'report.html'}"]
    lines.append(f"public report:                     {folder / 'report.public.html'}")
    return "\n".join(lines)


def _left_out(results: AuditResults) -> str:
    skipped = results.corpus.skipped
    return (
        f"of {results.corpus.documents:,} documents: {results.corpus.windows:,} windows; left out: "
        f"{skipped.too_short:,} documents or tails too short, {skipped.empty:,} rows empty, "
        f"{skipped.undecodable:,} not valid Unicode"
    )


def _verdict(results: AuditResults) -> str:
    if results.gate.verdict == "none":
        return "no limit was set, so there is no verdict"
    missed = [check for check in results.gate.checks if check.verdict == results.gate.verdict]
    said = (
        "" if results.gate.verdict == "pass" else ": " + ", ".join(f"{c.name} of {c.student}" for c in missed)
    )
    return f"the gate's verdict is {results.gate.verdict}{said}"


def _model(model: ModelResult) -> str:
    count = f"{model.memorized:,} of {model.examples:,} examples"
    return f"memorized {count} ({model.rate:.3%}, {_ends(model.ci95)})"


def _students(results: AuditResults) -> list[str]:
    lines = []
    for name, found in results.comparison.items():
        if found.inherited is not None:
            lines.append(
                f"{name} inherited {found.inherited:,} of the {found.teacher_specific:,} examples that the "
                "teacher memorizes and no baseline does"
            )
    return lines


def _ends(ci95: Interval) -> str:
    low, high = ("?" if end is None else f"{end:.3%}" for end in ci95)
    return f"95 % interval {low} to {high}"
