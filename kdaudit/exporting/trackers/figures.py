"""What a tracker is given: settings, and figures by name. A figure that is not available is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting.formatting import wider
from kdaudit.reporting.public import public_title
from kdaudit.schemas.attacks import AttackResults, CanariesResult, MembershipResult
from kdaudit.schemas.comparison import ComparisonResult
from kdaudit.schemas.result import Interval
from kdaudit.schemas.results import ModelResult, PublicResults

_Figure = tuple[str, float | None]


class Tracked(NamedTuple):
    """An audit for a tracker."""

    name: str
    settings: dict[str, str]
    figures: dict[str, float]
    """`MODEL/rate` and the like; the ends of 95% intervals end with `_low` and `_high`."""


def tracked_of(results: PublicResults) -> Tracked:
    """An audit for a tracker, made from what is public."""
    found = {_plain(name): value for name, value in _figures(results) if value is not None}
    return Tracked(public_title(results.name, results.name, ""), _settings(results), found)


def _plain(name: str) -> str:
    """A name as all trackers take it."""
    return re.sub(r"[^\w./-]", "_", name, flags=re.ASCII)


def _settings(results: PublicResults) -> dict[str, str]:
    corpus, extraction = results.corpus, results.extraction
    limits = {f"gate/{check.name}": str(check.limit) for check in results.gate.checks}
    return limits | {
        "verdict": results.gate.verdict,
        "kdaudit": results.kdaudit_version,
        "created": results.created,
        "corpus": corpus.path,
        "corpus_fingerprint": corpus.fingerprint,
        "examples": str(corpus.examples),
        "sampled": str(corpus.sampled),
        "prefix_tokens": str(extraction.prefix_tokens),
        "suffix_tokens": str(extraction.suffix_tokens),
        "engine": f"{extraction.engine} {extraction.engine_version}",
        "dtype": extraction.dtype,
        "seed": str(results.seed),
    }


def _figures(results: PublicResults) -> Iterator[_Figure]:
    verdicts = [check.verdict for check in results.gate.checks]
    yield "leaks", leak_counts_of(results).leaks
    for verdict in ("pass", "fail", "inconclusive"):
        yield f"gate/{verdict}", verdicts.count(verdict)
    for name, model in results.models.items():
        yield from _of_model(name, model)
        yield from _of_attacks(name, results.attacks.get(name, AttackResults()))
    for name, comparison in results.comparison.items():
        yield from _of_student(name, comparison)


def _of_model(name: str, model: ModelResult) -> Iterator[_Figure]:
    yield f"{name}/memorized", model.memorized
    yield f"{name}/rate", model.rate
    yield from _ends(f"{name}/rate", model.ci95, model.ci95_by_document)
    yield f"{name}/perplexity", model.perplexity


def _of_attacks(name: str, found: AttackResults) -> Iterator[_Figure]:
    if (near := found.near_verbatim) is not None:
        yield f"{name}/near_verbatim_rate", near.rate
        yield from _ends(f"{name}/near_verbatim_rate", near.ci95, near.ci95_by_document)
    for point in () if found.sampled is None else found.sampled.curve:
        key = f"{name}/sampled_rate_p{point.p:g}_n{point.queries}"
        yield key, point.rate
        yield from _ends(key, point.ci95, point.ci95_by_document)
    if found.membership is not None:
        yield from _of_membership(f"{name}/membership", found.membership)
    if found.canaries is not None:
        yield from _of_canaries(f"{name}/canaries", found.canaries)


def _of_membership(key: str, found: MembershipResult) -> Iterator[_Figure]:
    yield f"{key}_auc", found.best.auc
    yield from _ends(f"{key}_auc", found.best.ci95, None)
    for fpr, recognized in found.score[found.best.score].tpr_at_fpr.items():
        if recognized is not None:
            yield f"{key}_tpr_fpr{fpr}", recognized[0]
            yield from _ends(f"{key}_tpr_fpr{fpr}", recognized[1:], None)


def _of_canaries(key: str, found: CanariesResult) -> Iterator[_Figure]:
    yield f"{key}_controls_extracted", found.controls_extracted
    for count, own in found.repetitions.items():
        yield f"{key}_extracted_x{count}", own.extracted / own.canaries
        yield from _ends(f"{key}_extracted_x{count}", own.extracted_ci95, None)
        if own.exposure is not None:
            yield f"{key}_exposure_x{count}", own.exposure.median
            yield from _ends(f"{key}_exposure_x{count}", (own.exposure.low, own.exposure.high), None)


def _of_student(name: str, found: ComparisonResult) -> Iterator[_Figure]:
    yield f"{name}/inherited", found.inherited
    yield f"{name}/inheritance_rate", found.inheritance_rate
    yield from _ends(f"{name}/inheritance_rate", found.inheritance_ci95, found.inheritance_ci95_by_document)
    yield f"{name}/excess_inheritance", found.excess_inheritance
    yield from _ends(f"{name}/excess_inheritance", found.excess_ci95, None)
    yield f"{name}/ratio_to_baseline", found.ratio_to_baseline
    yield from _ends(f"{name}/ratio_to_baseline", found.ratio_ci95, found.ratio_ci95_by_document)


def _ends(name: str, ends: Interval | None, by_document: Interval | None) -> Iterator[_Figure]:
    """The ends of the interval that the report shows: the wider one."""
    low, high = wider(ends, by_document) or (None, None)
    yield f"{name}_low", low
    yield f"{name}_high", high
