"""JUnit XML: a test case for each check of the gate.

A check that fails is a failure. So is an inconclusive one, with type "inconclusive": kdaudit then ends with
exit code 3, and a report whose cases all pass or are skipped would be shown as green beside it. Without
limits the only case is skipped, since consumers refuse a report without cases.

Source: the elements and attributes that GitLab's "Unit test reports" and Jenkins' schema name.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from kdaudit.reporting.formatting import ABSENT
from kdaudit.reporting.shown_text import visible
from kdaudit.reporting.verdict import CheckRow, check_rows, verdict_of
from kdaudit.schemas.results import AuditResults

_NO_CHARACTER = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, escaped or not."""


def render_junit(results: AuditResults, name: str) -> bytes:
    """The gate's checks as a JUnit report.

    Args:
        results: of the audit, without private parts.
        name: the audit's, without a path.

    """
    rows = check_rows(results.gate.checks)
    keys = [check.name for check in results.gate.checks]
    cases = [_case(name, key, row) for key, row in zip(keys, rows, strict=True)] or [_no_limit(name)]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(row.verdict != "pass" for row in rows)),
        "errors": "0",
        "skipped": str(int(not rows)),
        "time": "0",
    }
    suites = ET.Element("testsuites", {"name": "kdaudit", **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": _text(name), **counts})
    if stamp := _timestamp(results.created):
        suite.set("timestamp", stamp)
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = _text(verdict_of(results).sentence)
    ET.indent(suites, " ")
    written: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _case(name: str, key: str, row: CheckRow) -> ET.Element:
    words = {
        "classname": _text(f"{name}.{row.student}"),
        "name": _text(f"{key} of {row.student}"),
        "time": "0",
    }
    case = ET.Element("testcase", words)
    if row.verdict != "pass":
        parts = [f"{row.what}: {row.value}, limit {row.limit}", row.left_out]
        parts += [] if row.interval == ABSENT else [f"95% interval {row.interval}"]
        told = _text("; ".join(part for part in parts if part))
        kind = "inconclusive" if row.verdict == "inconclusive" else "limit exceeded"
        failure = ET.SubElement(case, "failure", {"message": told, "type": kind})
        failure.text = _text(f"{key} of student {row.student}: {row.word.lower()}. {told}.")
    return case


def _no_limit(name: str) -> ET.Element:
    case = ET.Element("testcase", {"classname": _text(name), "name": "gate", "time": "0"})
    ET.SubElement(
        case, "skipped", {"message": "the configuration sets no limit (gate), so nothing is judged"}
    )
    return case


def _timestamp(created: str) -> str | None:
    """As the schema wants it, without a time zone; None if that is not what it looks like."""
    found = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", created, re.ASCII)
    return found[0] if found else None


def _text(words: str) -> str:
    return _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", visible(words))
