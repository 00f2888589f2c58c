"""The verdict in one sentence, and each check of the gate in words.

The sentence must be clear to a reader who does not know the method: it gives the finding and the limit. It is
about the check that matters most: the largest excess if the gate failed, else the check closest to its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting.formatting import (
    ABSENT,
    Formatter,
    apart,
    be,
    capitalized,
    count,
    listed,
    percent,
    plural,
    points,
    quoted,
    significant,
    times,
    wider,
    wider_interval,
)
from kdaudit.reporting.missing_reasons import has_teacher
from kdaudit.schemas.result import Interval
from kdaudit.schemas.result import Verdict as VerdictName
from kdaudit.schemas.results import AuditResults, Check, GateResult, ModelResult

WORDS: dict[VerdictName, str] = {
    "pass": "Passed",
    "fail": "Failed",
    "inconclusive": "Inconclusive",
    "none": "No limit set",
}
_BANNER: dict[VerdictName, str] = {
    "pass": "Passed: no limit is exceeded",
    "fail": "Failed: a limit is exceeded",
    "inconclusive": "Inconclusive: the audit cannot tell",
    "none": "No limit was set",
}
_WORST_FIRST: tuple[VerdictName, ...] = ("fail", "inconclusive", "pass")

_NOT_INHERITED = " The teacher was not audited: what students inherited from it is not known."


class Verdict(NamedTuple):
    """The banner on top of the report."""

    name: VerdictName
    word: str
    sentence: str
    reason: str


class CheckRow(NamedTuple):
    """A check of the gate, ready to be shown."""

    student: str
    what: str
    limit: str
    value: str
    interval: str
    verdict: VerdictName
    word: str
    left_out: str
    """How many accepted leaks are disregarded; empty if none are."""


class _Limit(NamedTuple):
    what: str
    statement: str
    form: Formatter


def _number(value: float, digits: int) -> str:
    return count(int(value)) if value == int(value) else significant(value, digits)


_LIMITS = {
    "max_rate": _Limit(
        "Share of the training examples reproduced word for word",
        "student {student} reproduces {value} of the training examples word for word",
        percent,
    ),
    "max_inheritance_rate": _Limit(
        "Share inherited of the examples that only the teacher memorizes",
        "student {student} reproduces {value} of the training examples that only the teacher had memorized",
        percent,
    ),
    "max_excess_inheritance": _Limit(
        "Share inherited beyond chance",
        "the inheritance of student {student} differs from what chance gives by {value}",
        points,
    ),
    "max_inherited": _Limit(
        "Number inherited of the examples that only the teacher memorizes",
        "student {student} reproduces {value} training examples that only the teacher had memorized",
        _number,
    ),
    "max_canaries_extracted": _Limit(
        "Share of the planted canaries reproduced word for word",
        "student {student} reproduces {value} of the canaries planted in training data word for word",
        percent,
    ),
    "max_ratio_to_baseline": _Limit(
        "Memorization relative to the baseline",
        "student {student} memorizes {value} as much as a model of its size trained without the teacher",
        times,
    ),
    "max_near_verbatim_rate": _Limit(
        "Share of the training examples reproduced but for a few tokens",
        "student {student} reproduces {value} of the training examples word for word or nearly so",
        percent,
    ),
    "max_extractable": _Limit(
        "Share of the training examples that sampling gives",
        "sampling gives {value} of the training examples from student {student}",
        percent,
    ),
    "max_membership_tpr": _Limit(
        "Share of the training text that membership scores recognize",
        "membership scores of student {student} recognize {value} of the training text",
        percent,
    ),
    "max_tagged": _Limit(
        "Number of leaks that seem to hold personal data or secrets",
        "student {student} leaks {value} examples that seem to hold personal data or secrets",
        _number,
    ),
}


def verdict_of(results: AuditResults) -> Verdict:
    """The gate's verdict, its sentence and the reason behind it."""
    name, checks = results.gate.verdict, results.gate.checks
    unknown = "" if has_teacher(results) else _NOT_INHERITED
    if name == "none" or not checks:
        return Verdict("none", _BANNER["none"], _finding(results), _no_limit(results) + unknown)
    tally = _tally(results.gate, results.corpus.sampled)
    return Verdict(name, _BANNER[name], _sentence(results, name, checks), tally + unknown)


def check_rows(checks: Sequence[Check]) -> list[CheckRow]:
    """The gate's checks in words, in their order."""
    return [_check_row(check) for check in checks]


def close_calls(checks: Sequence[Check]) -> int:
    """How many checks passed although their interval reaches above the limit."""
    return sum(check.verdict == "pass" and _above(_ends(check), check.limit) for check in checks)


def _ends(check: Check) -> Interval | None:
    return wider(check.ci95, check.ci95_by_document)


def _above(ends: Interval | None, limit: float) -> bool:
    return ends is not None and (ends[1] is None or ends[1] > limit)


def _check_row(check: Check) -> CheckRow:
    limit = _limit_of(check)
    value, bound = _value_and_limit(check, limit)
    ends = wider_interval(check.ci95, check.ci95_by_document, limit.form)
    what = limit.what if check.at is None else f"{limit.what} ({check.at})"
    word, left_out = WORDS[check.verdict], _left_out(check)
    return CheckRow(check.student, what, bound, value, ends, check.verdict, word, left_out)


def _left_out(check: Check) -> str:
    return f"{plural(check.accepted, 'accepted leak')} disregarded" if check.accepted else ""


def _limit_of(check: Check) -> _Limit:
    words = check.name.replace("_", " ")
    return _LIMITS.get(check.name) or _Limit(
        words, f"student {{student}} has a {words} of {{value}}", _number
    )


def _value_and_limit(check: Check, limit: _Limit) -> tuple[str, str]:
    if check.value is None:
        return ABSENT, limit.form(check.limit, 2)
    return apart(check.value, check.limit, limit.form)


def _sentence(results: AuditResults, name: VerdictName, checks: Sequence[Check]) -> str:
    sampled = results.corpus.sampled
    deciding = max((check for check in checks if check.verdict == name), key=_strain, default=checks[0])
    limit = _limit_of(deciding)
    value, bound = _value_and_limit(deciding, limit)
    if deciding.value is None:
        return _undefined(results, deciding, limit)
    statement = limit.statement.format(student=quoted(deciding.student), value=value)
    statement += _counted(results, deciding)
    if sampled:
        statement = f"in this sample {statement}"
    ends = wider_interval(deciding.ci95, deciding.ci95_by_document, limit.form)
    if name == "fail":
        excess = "and none is allowed" if deciding.limit == 0 else f"more than the {bound} allowed"
        return f"{capitalized(statement)}, {excess}."
    if name == "pass":
        lead = "" if len(checks) == 1 else f"all {len(checks)} checks pass; closest to its limit, "
        reach = f" (95% interval {ends})" if sampled and deciding.ci95 else ""
        return f"{capitalized(lead + statement)}{reach}, within the {bound} allowed."
    if _ends(deciding) in (None, (None, None), (0.0, None)):
        return f"{capitalized(statement)}; the data do not show whether that is within the {bound} allowed."
    return f"{capitalized(statement)}, but {ends} is possible, on both sides of the {bound} allowed."


def _undefined(results: AuditResults, check: Check, limit: _Limit) -> str:
    """A check whose figure is undefined: what a census makes of it, or why nothing can be told."""
    student = quoted(check.student)
    if check.verdict == "pass" and check.name == "max_ratio_to_baseline":
        return f"Student {student} memorizes nothing, and no baseline does."
    if check.verdict == "pass":
        return f"Student {student} has nothing to inherit: what the teacher memorizes, a baseline does too."
    if check.verdict == "fail":
        return f"Student {student} memorizes training text, and no baseline memorizes any."
    baselines = sum(model.role == "baseline" for model in results.models.values())
    why = "could not be measured"
    if check.name == "max_excess_inheritance" and baselines == 1:
        why = "takes two baselines or more (models.baseline), and there is one"
    return f"The audit cannot tell for student {student}: {limit.what[0].lower()}{limit.what[1:]} {why}."


def _counted(results: AuditResults, check: Check) -> str:
    """The counts behind a check's value, in brackets; empty if there is nothing to say."""
    parts = [part for part in (_counts(results, check), _left_out(check)) if part]
    return f" ({'; '.join(parts)})" if parts else ""


def _counts(results: AuditResults, check: Check) -> str:
    """Empty if the results do not hold them."""
    student, figures = results.models.get(check.student), results.comparison.get(check.student)
    if student is None or figures is None:
        return ""
    if check.name == "max_rate":
        return f"{count(student.memorized - check.accepted)} of {count(student.examples)}"
    if check.name == "max_inheritance_rate" and figures.teacher_specific is not None:
        inherited = round((check.value or 0.0) * figures.teacher_specific)  # without accepted leaks
        return f"{count(inherited)} of {count(figures.teacher_specific)}"
    if check.name == "max_inherited" and figures.teacher_specific is not None:
        return f"of {count(figures.teacher_specific)}"
    baselines = [model.memorized for model in results.models.values() if model.role == "baseline"]
    if check.name == "max_ratio_to_baseline" and baselines:
        mean = significant(sum(baselines) / len(baselines), 6)
        return f"{count(student.memorized - check.accepted)} examples against {mean}"
    return ""


def _strain(check: Check) -> float:
    """How much of its limit a check uses; infinite if the limit is 0 and exceeded."""
    value = check.value if check.value is not None else 0.0
    return value / check.limit if check.limit else (float("inf") if value else 1.0)


def _together(gate: GateResult) -> str:
    """How sure all checks of a sample are together, and by which correction."""
    if gate.confidence is None:
        return ""
    by = f" ({gate.confidence_by} over all checks and students)" if gate.confidence_by else ""
    return f"; with at least {percent(gate.confidence)} confidence none of them passes or fails wrongly{by}"


def _tally(gate: GateResult, sampled: bool) -> str:
    checks = gate.checks
    counts = {name: sum(check.verdict == name for check in checks) for name in _WORST_FIRST}
    words = {"fail": "failed", "inconclusive": f"{be(counts['inconclusive'])} inconclusive", "pass": "passed"}
    found = listed([f"{number} {words[name]}" for name, number in counts.items() if number])
    judged = (
        "each rate is judged by its 95% interval, the wider of those by window and by document, since the "
        f"audit took a sample of the corpus{_together(gate)}"
        if sampled
        else "each figure is compared as measured, since every example was audited"
    )
    return (
        f"Of {plural(len(checks), 'check')}, {found}{_each_student(checks)}; {judged}{_disregarded(checks)}."
    )


def _disregarded(checks: Sequence[Check]) -> str:
    """That accepted leaks are left out, where there are any."""
    if not any(check.accepted for check in checks):
        return ""
    return "; accepted leaks are left out of what students memorize, here alone"


def _each_student(checks: Sequence[Check]) -> str:
    """Each student's verdict, if they differ."""
    fares: dict[str, set[VerdictName]] = {}
    for check in checks:
        fares.setdefault(check.student, set()).add(check.verdict)
    worst = {
        student: next(name for name in _WORST_FIRST if name in found) for student, found in fares.items()
    }
    if len({*worst.values()}) < 2:
        return ""
    words = {"fail": "fails", "inconclusive": "is inconclusive", "pass": "passes"}
    return ": " + listed([f"student {quoted(student)} {words[name]}" for student, name in worst.items()])


def _finding(results: AuditResults) -> str:
    students = {name: model for name, model in results.models.items() if model.role == "student"}
    if not students:
        return "The audit holds no student, so there is nothing to judge."
    name = max(students, key=lambda student: students[student].rate)
    worst = students[name]
    if len(students) == 1:
        which = f"Student {quoted(name)}"
    elif worst.memorized:
        equals = [quoted(one) for one, model in students.items() if model.rate == worst.rate and one != name]
        alike = f" (as much as {listed(equals)})" if equals else ""
        which = f"The student that memorizes most, {quoted(name)}{alike},"
    else:
        which = f"None of the {len(students)} students"
    found = f"{which} reproduces {_of_all(results, worst, len(students))} word for word"
    baselines = [model.rate for model in results.models.values() if model.role == "baseline"]
    if not baselines:
        return f"{found}; there is no baseline to compare it with."
    rate = percent(sum(baselines) / len(baselines))
    if len(baselines) > 1:
        others = f"{len(baselines)} models of its size trained without the teacher"
        return f"{found}; {others} reproduce {rate} on average."
    return f"{found}; a model of its size trained without the teacher reproduces {rate}."


def _of_all(results: AuditResults, model: ModelResult, students: int) -> str:
    examples = f"{'sampled' if results.corpus.sampled else 'training'} examples"
    if not model.memorized:
        return f"{'any' if students > 1 else 'none'} of the {count(model.examples)} {examples}"
    counts = f"{count(model.memorized)} of {count(model.examples)}"
    return f"{percent(model.rate)} of the {examples} ({counts})"


def _no_limit(results: AuditResults) -> str:
    judged = "The audit gives no verdict: its configuration sets no limit."
    leaks = leak_counts_of(results).leaks
    if not leaks:
        return judged
    return f"{judged} {plural(leaks, 'example')} {be(leaks)} memorized by at least one student."
