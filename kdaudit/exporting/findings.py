"""The findings of an audit: what a student reproduces, worst first, each with its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from kdaudit.analysis.leaks import LeakSpan
from kdaudit.exporting.fingerprints import fingerprint
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


class Findings(NamedTuple):
    """Findings, worst first, as far as they were asked for."""

    shown: list[Finding]
    total: int


def findings_of(
    leaks: Sequence[Leak], spans: Mapping[int, LeakSpan], secret: bytes, *, most: int, private: bool
) -> Findings:
    """The findings of leaks: one for each student that memorizes one.

    Args:
        leaks: of the results, worst first.
        spans: the texts of all leaks.
        secret: key of the fingerprints.
        most: findings that are wanted; the worst are kept.
        private: whether findings hold their text.

    """
    found = _each(leaks, spans, secret, private=private)
    return Findings([*islice(found, most)], sum(len(leak.classes) for leak in leaks))


def _each(
    leaks: Sequence[Leak], spans: Mapping[int, LeakSpan], secret: bytes, *, private: bool
) -> Iterator[Finding]:
    for leak in leaks:
        span = spans[leak.example_id]
        for student, kind in leak.classes.items():
            known = fingerprint(secret, student, span.prefix, span.suffix)
            yield Finding(leak, student, kind, known, span if private else None)
