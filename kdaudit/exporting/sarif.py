"""SARIF 2.1.0, as GitHub's code scanning takes it: a rule for each class of leak, a result for each finding.

Source: OASIS SARIF 2.1.0 (errata 01), and GitHub's "SARIF support for code scanning": the fields that it
requires, and its limits. Code scanning follows an alert by rule, location and `primaryLocationLineHash`, so
these are equal in all runs that share key, student and text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from kdaudit.exporting.findings import Finding, Findings
from kdaudit.reporting.formatting import plural, quoted
from kdaudit.reporting.personal_data_counts import tag_words
from kdaudit.reporting.shown_text import visible
from kdaudit.schemas.result import LeakClass
from kdaudit.schemas.results import AuditResults

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
MOST_RESULTS = 25_000
"""Results of a run: GitHub rejects a file that has more."""
SHOWN_RESULTS = 5_000
"""Results that GitHub stores of an upload."""
MOST_BYTES = 10_000_000
"""Of an upload, compressed by gzip."""
_NO_RESULTS = '"results": []'
"""What no string of the log can hold: its quotation marks are escaped there."""
_MARGIN = " " * 4
"""Before a result."""


class _Rule(NamedTuple):
    name: str
    short: str
    full: str
    level: str
    severity: str
    """Of 10. Scores order alerts; they measure no harm."""


_RULES: dict[LeakClass, _Rule] = {
    "inherited": _Rule(
        "InheritedFromTheTeacher",
        "The student reproduces training text that the teacher memorizes and no baseline does",
        "Distillation may have passed this text on: no baseline, a model of the student's size trained "
        "without the teacher, reproduces it. Another baseline might, by chance.",
        "error",
        "7.5",
    ),
    "student_only": _Rule(
        "StudentOnly",
        "The student reproduces training text that neither teacher nor baseline memorizes",
        "The student's own training, or chance, is the likely source of this text.",
        "error",
        "7.0",
    ),
    "unknown": _Rule(
        "ClassUnknown",
        "The student reproduces training text; where it has it from is not known",
        "Teacher or baseline was not audited, so the class of this leak is not known.",
        "error",
        "7.0",
    ),
    "with_baseline": _Rule(
        "WithBaseline",
        "Student and baseline reproduce training text that the teacher does not memorize",
        "A model of this size learns this text from the corpus, without the teacher.",
        "warning",
        "5.5",
    ),
    "easy_core": _Rule(
        "EasyCore",
        "Student, teacher and baseline reproduce the same training text",
        "Text that any model of this corpus memorizes: often a licence, boilerplate or what is repeated.",
        "warning",
        "5.0",
    ),
}
_HELP = (
    "The student was given the first tokens of a training example and generated exactly those that follow "
    "(greedy decoding). The owner of the audit finds the text by the example's number in report.html or "
    "leaks.parquet of the run directory. What to do: leave such text out of the corpus (kdaudit screen), "
    "remove duplicates of it, or accept it with a reason."
)


def render_sarif(results: AuditResults, name: str, findings: Findings, location: str) -> Iterator[bytes]:
    """The SARIF log of an audit, part by part.

    Args:
        results: of the audit; public ones if the log is for others.
        name: the audit's, without a path.
        findings: at most MOST_RESULTS of them.
        location: path of the file, from the repository's root, on which alerts are shown.

    """
    kinds = [*_RULES]
    run = {
        "tool": {"driver": _driver(results, kinds)},
        "automationDetails": {"id": f"kdaudit/{visible(name).replace('/', '-')}/{visible(results.created)}"},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(findings)],
        "results": [],
        "properties": {"verdict": results.gate.verdict, "findings": findings.total},
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    before, empty, after = json.dumps(log, indent=1).partition(_NO_RESULTS)
    yield f"{before}{empty.removesuffix(']')}".encode()
    written = _results(findings, kinds, results.corpus.examples, location)
    for number, one in enumerate(written):
        text = json.dumps(one, indent=1).replace("\n", f"\n{_MARGIN}")
        yield f"{',' if number else ''}\n{_MARGIN}{text}".encode()
    end = f"\n{_MARGIN[1:]}]" if findings.shown else "]"
    yield f"{end}{after}\n".encode()


def _driver(results: AuditResults, kinds: Sequence[LeakClass]) -> dict[str, Any]:
    return {
        "name": "kdaudit",
        "version": visible(results.kdaudit_version),
        "rules": [_descriptor(kind, _RULES[kind]) for kind in kinds],
    }


def _descriptor(kind: LeakClass, rule: _Rule) -> dict[str, Any]:
    return {
        "id": kind,
        "name": rule.name,
        "shortDescription": {"text": rule.short},
        "fullDescription": {"text": rule.full},
        "defaultConfiguration": {"level": rule.level},
        "help": {"text": f"{rule.full}\n\n{_HELP}", "markdown": f"{rule.full}\n\n{_HELP}"},
        "properties": {
            "tags": ["security", "privacy", "memorization"],
            "precision": "very-high",
            "problem.severity": "error" if rule.level == "error" else "warning",
            "security-severity": rule.severity,
        },
    }


def _invocation(findings: Findings) -> dict[str, Any]:
    rest = findings.total - findings.shown
    text = f"{plural(rest, 'finding')} beyond the worst {findings.shown:,} are not in this file."
    notes = [{"level": "warning", "message": {"text": text}}] if rest else []
    return {"executionSuccessful": True, "toolExecutionNotifications": notes}


def _results(
    findings: Iterable[Finding], kinds: Sequence[LeakClass], examples: int, location: str
) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for finding in findings:
        seen[finding.fingerprint] += 1  # decoded text may be equal where token ids are not
        known = f"{finding.fingerprint}:{seen[finding.fingerprint]}"
        yield _result(finding, kinds, examples, location, known)


def _result(
    finding: Finding, kinds: Sequence[LeakClass], examples: int, location: str, known: str
) -> dict[str, Any]:
    region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 2}
    return {
        "ruleId": finding.kind,
        "ruleIndex": kinds.index(finding.kind),
        "level": "note" if finding.leak.accepted else _RULES[finding.kind].level,
        "suppressions": [{"kind": "external"}] if finding.leak.accepted else [],
        "message": {"text": _message(finding, examples)},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": quote(location)}, "region": region}}],
        "partialFingerprints": {"primaryLocationLineHash": known},
        "properties": _properties(finding),
    }


def _message(finding: Finding, examples: int) -> str:
    leak = finding.leak
    lead = (
        f"Student {quoted(visible(finding.student))} reproduces example {leak.example_id} of {examples:,} "
        f"word for word. {_RULES[finding.kind].short}. {plural(leak.copies, 'occurrence')} in the corpus."
    )
    lead += " The owner accepts it (accepted.yaml)." if leak.accepted else ""
    if finding.span is None:
        return lead
    held = f" By its form it holds: {', '.join(map(tag_words, leak.tags))}." if leak.tags else ""
    document = f" Document {quoted(visible(leak.document_id))}."
    given, said = map(visible, (finding.span.prefix, finding.span.suffix))
    return f"{lead}{held}{document} Prefix: {given} Suffix: {said}"


def _properties(finding: Finding) -> dict[str, Any]:
    leak = finding.leak
    shown = {"student": visible(finding.student), "example": leak.example_id, "copies": leak.copies}
    shown |= {} if leak.risk is None else {"risk": leak.risk}
    if finding.span is None:
        return shown
    return shown | {"document": visible(leak.document_id), "kinds": [*map(visible, leak.tags)]}
