"""What a report page is made of: the results, and all that is told in words or drawn from them.

A public page is built from results whose private parts were already taken out, so no template can
show what it must not.
"""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.config.audit import ReportConfig
from kdaudit.report import absence, charts, predictor_charts
from kdaudit.report.figures import KeyFigure, key_figures
from kdaudit.report.leak_cards import LeakCard
from kdaudit.report.overlap import Inheritance, Region, inheritance, regions
from kdaudit.report.redaction import public_corpus_name, without_paths
from kdaudit.report.scales import round_step
from kdaudit.report.verdict import CheckRow, Verdict, check_rows, verdict_of
from kdaudit.results import AuditResults

_MILESTONES = 6


class Reasons(NamedTuple):
    """Why a part of the page is missing."""

    comparison: str
    inheritance: str
    soft_vs_hard: str
    predictor: str


class Page(NamedTuple):
    """All that the report template needs."""

    public: bool
    title: str
    results: AuditResults
    verdict: Verdict
    checks: list[CheckRow]
    figures: list[KeyFigure]
    looks: dict[str, charts.Look]
    rates: charts.RateChart
    survival: charts.SurvivalChart
    milestones: list[int]
    """Matched tokens that the survival table shows."""
    regions: list[Region]
    largest_region: int
    inheritance: Inheritance | None
    inheritance_bar: list[charts.Segment]
    predictor_panels: list[predictor_charts.Panel]
    entropy_panels: list[predictor_charts.Panel]
    reasons: Reasons
    cards: list[LeakCard]
    """The leaks shown; the results hold them all."""


def page(results: AuditResults, config: ReportConfig, cards: list[LeakCard], *, public: bool) -> Page:
    """The page of an audit; for a public one `results` come from `without_private_parts`."""
    shares, combinations = inheritance(results), regions(results)
    return Page(
        public=public,
        title=config.title or results.name,
        results=results,
        verdict=verdict_of(results),
        checks=check_rows(results.gate.checks),
        figures=key_figures(results),
        looks=charts.looks(results.models),
        rates=charts.rate_chart(results.models),
        survival=charts.survival_chart(results.models),
        milestones=_milestones(results.extraction.suffix_tokens),
        regions=combinations,
        largest_region=_largest(combinations),
        inheritance=shares,
        inheritance_bar=[] if shares is None else charts.inheritance_bar(shares),
        predictor_panels=predictor_charts.panels(results.curves),
        entropy_panels=predictor_charts.entropy_panels(results.curves),
        reasons=_reasons(results),
        cards=cards,
    )


def without_private_parts(results: AuditResults) -> AuditResults:
    """The results without local paths and without the leaks' document ids and tags.

    The corpus path and the notes keep only the last part of a path. Models of the results carry no
    paths.
    """
    path = results.corpus.path
    return results.model_copy(
        update={
            "corpus": results.corpus.model_copy(update={"path": public_corpus_name(path)}),
            "notes": [without_paths(note, path) for note in results.notes],
            "leaks": [leak.model_copy(update={"document_id": "", "tags": []}) for leak in results.leaks],
        }
    )


def _reasons(results: AuditResults) -> Reasons:
    return Reasons(
        absence.why_no_comparison(results),
        absence.why_no_inheritance(results),
        absence.why_no_soft_vs_hard(results),
        absence.why_no_predictor(results),
    )


def _largest(combinations: list[Region]) -> int:
    return max((number or 0 for region in combinations for number in region.counts.values()), default=0)


def _milestones(suffix_tokens: int) -> list[int]:
    step = max(1, round(round_step(suffix_tokens, _MILESTONES)))
    return sorted({1, suffix_tokens, *range(step, suffix_tokens, step)})
