"""The content of a report page: the results, and the words and charts made from them.

A public page is built from results whose private parts were already removed, so no template can
show them.
"""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting import charts, predictor_charts
from kdaudit.reporting.accepted import AcceptedPart, accepted_part
from kdaudit.reporting.canaries import CanaryTable, canary_table
from kdaudit.reporting.entropy_charts import EntropyRow, entropy_panels, entropy_rows
from kdaudit.reporting.figures import KeyFigure, key_figures
from kdaudit.reporting.leak_cards import LeakCard
from kdaudit.reporting.membership import MembershipTable, membership_table
from kdaudit.reporting.missing_reasons import has_teacher
from kdaudit.reporting.other_attacks import (
    AttackRow,
    InheritanceRow,
    SampledRow,
    attack_rows,
    even_curves,
    inheritance_rows,
    sampled_rows,
)
from kdaudit.reporting.overlap import Inheritance, Region, inheritance, regions
from kdaudit.reporting.personal_data_counts import Tagged
from kdaudit.reporting.predictor_recall import Caught, Guarantee, caught, guarantee_of, kind_predicted
from kdaudit.reporting.reviewers import Question, questions
from kdaudit.reporting.scales import round_step
from kdaudit.reporting.shown_text import show_head
from kdaudit.reporting.verdict import CheckRow, Verdict, check_rows, close_calls, verdict_of
from kdaudit.schemas.results import AuditResults, PublicResults

_MILESTONES = 6
_TITLE_LENGTH = 200


class MissingFigures(NamedTuple):
    """Key figures that are not available, and the reason."""

    titles: list[str]
    reason: str


class Page(NamedTuple):
    """All that the report template needs."""

    public: bool
    title: str
    results: AuditResults
    verdict: Verdict
    checks: list[CheckRow]
    close_calls: int
    """Checks passed whose interval reaches above the limit."""
    figures: list[KeyFigure]
    """Those that are available."""
    forms: dict[str, str]
    """What a model is beside whole weights, in words; empty for those."""
    looks: dict[str, charts.Look]
    rates: charts.RateChart
    survival: charts.LineChart
    milestones: list[int]
    """Matched tokens that the survival table shows."""
    regions: list[Region]
    largest_region: int
    has_teacher: bool
    inheritance: Inheritance | None
    inheritance_bars: list[charts.StackedBar]
    predictor_panels: list[predictor_charts.Panel]
    target: str
    """The prediction target, in words."""
    guarantee: Guarantee
    caught: list[Caught]
    entropy_panels: list[predictor_charts.Panel]
    entropy_rows: list[EntropyRow]
    missing: list[MissingFigures]
    attacks: list[AttackRow]
    inherited_under: list[InheritanceRow]
    """Empty if exact greedy extraction alone ran."""
    membership: MembershipTable | None
    """None if it was not measured."""
    sampled: list[SampledRow]
    """A row a model and p; empty if sampling was not measured."""
    queries: charts.LineChart | None
    """Of the p that stands for sampling; None where there is nothing to draw."""
    canaries: CanaryTable | None
    """None if none are measured."""
    tagged: Tagged
    reviewers: list[Question]
    accepted: AcceptedPart | None
    """None where the gate names no accepted leaks."""
    cards: list[LeakCard]
    """The leaks shown."""
    leaks: int
    """All of them."""


def page(results: AuditResults | PublicResults, title: str, cards: list[LeakCard], tagged: Tagged) -> Page:
    """The page of an audit; a public one is made from public results.

    Its title comes from `public_title`.
    """
    shares, combinations, figures = inheritance(results), regions(results), key_figures(results)
    attacks = attack_rows(results)
    return Page(
        public=isinstance(results, PublicResults),
        title=_title(title),
        results=results,
        verdict=verdict_of(results),
        checks=check_rows(results.gate.checks),
        close_calls=close_calls(results.gate.checks),
        figures=[figure for figure in figures if figure.lead is not None],
        forms={name: _form(results, name) for name in results.models},
        looks=charts.looks(results.models),
        rates=charts.rate_chart(results.models),
        survival=charts.survival_chart(results.models),
        milestones=_milestones(results.extraction.suffix_tokens),
        regions=combinations,
        largest_region=_largest(combinations),
        has_teacher=has_teacher(results),
        inheritance=shares,
        inheritance_bars=[] if shares is None else charts.inheritance_bars(shares),
        predictor_panels=predictor_charts.panels(results.curves, results.predictor.threshold),
        target=kind_predicted(results),
        guarantee=guarantee_of(results),
        caught=caught(results),
        entropy_panels=entropy_panels(results.curves),
        entropy_rows=entropy_rows(results.curves),
        missing=_missing(figures),
        attacks=attacks,
        sampled=sampled_rows(attacks),
        queries=charts.queries_chart(results.models, even_curves(attacks)),
        inherited_under=inheritance_rows(attacks),
        membership=membership_table(results),
        canaries=canary_table(results),
        tagged=tagged,
        reviewers=questions(results, tagged),
        accepted=accepted_part(results, public=isinstance(results, PublicResults)),
        cards=cards,
        leaks=leak_counts_of(results).leaks,
    )


def _title(title: str) -> str:
    shown = show_head(title, _TITLE_LENGTH)
    return f"{shown.text}\N{HORIZONTAL ELLIPSIS}" if shown.omitted else title


def _form(results: AuditResults | PublicResults, name: str) -> str:
    """Notes of these codes say more; their text names paths."""
    codes = {note.code for note in results.notes if note.subject == name}
    if "adapter" in codes:
        return "an adapter"
    if "endpoint" in codes:
        return "behind an endpoint"
    quantization = results.models[name].quantization
    return "" if quantization is None else f"quantized: {quantization}"


def _missing(figures: list[KeyFigure]) -> list[MissingFigures]:
    """Each reason once, with all figures that are missing for it."""
    by_reason: dict[str, list[str]] = {}
    for figure in figures:
        if figure.absent is not None:
            by_reason.setdefault(figure.absent, []).append(figure.title)
    return [MissingFigures(titles, reason) for reason, titles in by_reason.items()]


def _largest(combinations: list[Region]) -> int:
    return max((number or 0 for region in combinations for number in region.counts.values()), default=0)


def _milestones(suffix_tokens: int) -> list[int]:
    step = max(1, round(round_step(suffix_tokens, _MILESTONES)))
    return sorted({1, suffix_tokens, *range(step, suffix_tokens, step)})
