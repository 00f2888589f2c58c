"""CSV for spreadsheets: a row for each leak, worst first; no cell can be a formula.

Source: RFC 4180; OWASP, "CSV Injection". Where a cell's text begins like a formula, or holds one behind
what another spreadsheet may take for the separator, an apostrophe goes before it. leaks.parquet has the
texts as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from kdaudit.exporting.findings import Finding
from kdaudit.reporting.shown_text import visible

COLUMNS = ("example_id", "fingerprints", "classes", "copies", "risk", "memorized_by", "accepted")
PRIVATE_COLUMNS = ("document_id", "kinds", "prefix", "suffix")
_FORMULA = re.compile(r"((?:^|[;\t\r\n|\"])\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


class _Row(NamedTuple):
    findings: list[Finding]

    @property
    def first(self) -> Finding:
        return self.findings[0]


def render_csv(findings: Iterable[Finding], *, private: bool) -> Iterator[bytes]:
    """The leaks of an audit as CSV in UTF-8, row by row.

    Args:
        findings: all of them, those of one leak behind one another.
        private: whether there are columns of documents and texts.

    """
    yield _line([*COLUMNS, *(PRIVATE_COLUMNS if private else ())])
    for _, own in groupby(findings, lambda finding: finding.leak.example_id):
        row = _Row([*own])
        yield _line([_cell(value) for value in (*_public(row), *(_private(row) if private else ()))])


def _line(cells: Sequence[object]) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_NONNUMERIC).writerow(cells)
    return out.getvalue().encode()


def _public(row: _Row) -> tuple[object, ...]:
    leak = row.first.leak
    return (
        leak.example_id,
        " ".join(f"{one.student}={one.fingerprint}" for one in row.findings),
        " ".join(f"{one.student}={one.kind}" for one in row.findings),
        leak.copies,
        leak.risk,
        " ".join(leak.memorized_by),
        "yes" if leak.accepted else "no",
    )


def _private(row: _Row) -> tuple[object, ...]:
    span = row.first.span
    assert span is not None  # noqa: S101 - private findings have theirs
    leak = row.first.leak
    return leak.document_id, " ".join(leak.tags), span.prefix, span.suffix


def _cell(value: object) -> object:
    """A number as it is; text that a spreadsheet shows and does not calculate."""
    if value is None:
        return ""
    return _FORMULA.sub(r"\1'", visible(value)) if isinstance(value, str) else value
