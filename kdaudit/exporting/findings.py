"""The findings of an audit: what a student reproduces, worst first, each with its fingerprint.

Leaks are read in the order of their ids. Until all are known they wait in a temporary file without a name,
which goes with the process: memory holds each leak's place in it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from kdaudit.analysis.leaks import LeakSpan, LeakWithSpan
from kdaudit.analysis.severity import Severity, severity
from kdaudit.exporting.fingerprints import fingerprint
from kdaudit.reporting.public import public_leak
from kdaudit.schemas.result import LeakClass
from kdaudit.schemas.results import Leak


class Finding(NamedTuple):
    """One student reproduces one example."""

    leak: Leak
    """Without document and tags in what is public."""
    student: str
    kind: LeakClass
    fingerprint: str
    span: LeakSpan | None
    """Its text; None in what is public."""


class Findings:
    """Findings, worst first, as far as they were asked for; can be read several times.

    Args:
        file: a line of JSON for each leak.
        order: how severe each leak is, and where its line begins.
        total: findings there are.
        most: findings that are wanted; the worst are kept.

    """

    def __init__(
        self, file: IO[bytes], order: list[tuple[Severity, int]], total: int, most: int | None
    ) -> None:
        self._file, self._order = file, order
        self.total = total
        self.shown = total if most is None else min(most, total)

    def __iter__(self) -> Iterator[Finding]:
        return islice((found for _, start in self._order for found in self._at(start)), self.shown)

    def _at(self, start: int) -> Iterator[Finding]:
        self._file.seek(start)
        line = json.loads(self._file.readline())
        leak = Leak.model_validate(line["leak"])
        span = None if line["span"] is None else LeakSpan(*line["span"])
        for student, kind in leak.classes.items():
            yield Finding(leak, student, kind, line["fingerprints"][student], span)


@contextmanager
def findings_of(
    leaks: Iterable[LeakWithSpan], secret: bytes, folder: Path, *, most: int | None, private: bool
) -> Iterator[Findings]:
    """The findings of leaks: one for each student that memorizes one.

    Args:
        leaks: all of them.
        secret: key of the fingerprints.
        folder: where the temporary file lies.
        most: findings that are wanted; None for all.
        private: whether findings hold document, tags and text.

    """
    order: list[tuple[Severity, int]] = []
    total = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for leak, span in leaks:
            order.append((severity(leak), file.tell()))
            file.write(_line(leak, span, secret, private=private))
            total += len(leak.classes)
        order.sort()
        yield Findings(file, order, total, most)


def _line(leak: Leak, span: LeakSpan, secret: bytes, *, private: bool) -> bytes:
    line: dict[str, Any] = {
        "leak": (leak if private else public_leak(leak)).model_dump(mode="json"),
        "fingerprints": {
            student: fingerprint(secret, student, span.prefix, span.suffix) for student in leak.classes
        },
        "span": span if private else None,
    }
    return json.dumps(line).encode() + b"\n"
