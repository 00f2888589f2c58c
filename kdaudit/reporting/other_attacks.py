"""What attacks beside exact greedy extraction found, as the page tells it: a row for each model."""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.reporting.formatting import count, percent, percent_interval, plural, quoted, significant
from kdaudit.reporting.key_figure import KeyFigure, Reading, examples_in, ninety_five, whose, worst_of
from kdaudit.schemas.attacks import EVEN, AttackInheritance, NearVerbatimResult, SampledPoint, SampledResult
from kdaudit.schemas.result import Interval
from kdaudit.schemas.results import AuditResults, ModelResult

_COLUMNS = 5


class AttackRow(NamedTuple):
    """One model."""

    name: str
    model: ModelResult
    near: NearVerbatimResult | None
    sampled: SampledResult | None

    @property
    def more(self) -> int | None:
        """Examples that are near-verbatim and not reproduced exactly."""
        return None if self.near is None else self.near.exposed - self.near.distances[0]

    @property
    def by_edits(self) -> list[int]:
        """Of these, those that are 1, 2, ... edits away, as far as columns go."""
        return [] if self.near is None else self.near.distances[1 : 1 + _COLUMNS]

    @property
    def many_edits(self) -> int | None:
        """Those that are more edits away; None if the limit allows none."""
        rest = [] if self.near is None else self.near.distances[1 + _COLUMNS :]
        return sum(rest) if rest else None

    @property
    def drawn(self) -> SampledPoint | None:
        """The rate that stands for sampling: with the most queries."""
        if self.sampled is None:
            return None
        return self.sampled.at(max(one.queries for one in self.sampled.curve), EVEN)


class SampledRow(NamedTuple):
    """One model's rates for one p, by queries."""

    name: str
    model: ModelResult
    p: float
    points: list[SampledPoint]


class InheritanceRow(NamedTuple):
    """What one student inherits under one attack."""

    name: str
    attack: str
    found: AttackInheritance


class _Exposure(NamedTuple):
    """What one attack gives of a student's examples."""

    rate: float
    interval: str
    counts: str
    how: str
    """Behind "Student X gives up so much"."""


def attack_rows(results: AuditResults) -> list[AttackRow]:
    """Models on which an attack ran, in their order; empty if none ran."""
    rows = [
        AttackRow(name, model, found.near_verbatim, found.sampled)
        for name, model in results.models.items()
        if (found := results.attacks.get(name)) is not None
    ]
    return [row for row in rows if row.near is not None or row.sampled is not None]


def sampled_rows(rows: list[AttackRow]) -> list[SampledRow]:
    """The whole curve of each model that has one."""
    return [
        SampledRow(row.name, row.model, p, [one for one in row.sampled.curve if one.p == p])
        for row in rows
        if row.sampled is not None
        for p in dict.fromkeys(one.p for one in row.sampled.curve)
    ]


def even_curves(rows: list[AttackRow]) -> dict[str, list[SampledPoint]]:
    """Each model's rates by queries, of the p that stands for sampling."""
    return {row.name: row.points for row in sampled_rows(rows) if row.p == EVEN}


def inheritance_rows(rows: list[AttackRow]) -> list[InheritanceRow]:
    """Each student under each attack that its teacher and the baselines underwent too."""
    found = []
    for row in rows:
        for attack, result in (("near-verbatim", row.near), ("sampled", row.sampled)):
            if result is not None and result.inheritance is not None:
                found.append(InheritanceRow(row.name, attack, result.inheritance))
    return found


def worst_attack(results: AuditResults) -> KeyFigure | None:
    """Of each student the attack that exposes most; None where no other attack ran on a student."""
    worst = {
        row.name: max(_exposures(results, row), key=lambda one: one.rate)
        for row in attack_rows(results)
        if row.model.role == "student"
    }
    if not worst:
        return None
    worst_first = sorted(worst.items(), key=lambda item: -item[1].rate)
    (name, lead), *_ = worst_first
    which = worst_of(len(worst), sum(one.rate == lead.rate for one in worst.values()))
    readings = [_reading(results, *item) for item in worst_first]
    first = readings[0]._replace(of=f"{whose(results, name)}{which}")
    return KeyFigure("Worst of the other attacks", first, readings[1:], None)


def _reading(results: AuditResults, name: str, found: _Exposure) -> Reading:
    exact = percent(results.models[name].rate)
    sentence = (
        f"Student {quoted(name)} reveals {percent(found.rate)} of the examples {found.how}; greedy decoding "
        f"gives {exact} word for word."
    )
    return Reading(whose(results, name), percent(found.rate), found.interval, found.counts, sentence)


def _exposures(results: AuditResults, row: AttackRow) -> list[_Exposure]:
    found = []
    if row.near is not None:
        counts = f"{count(row.near.exposed)} of {examples_in(results, row.near.examples)}, near-verbatim"
        how = f"with at most {percent(row.near.max_edit_distance)} of the tokens changed"
        found.append(_Exposure(row.near.rate, _ends(row.near.ci95, row.near.ci95_by_document), counts, how))
    if row.sampled is not None and row.drawn is not None:
        queries = plural(row.drawn.queries, "sample")
        scored = f"{count(row.sampled.scored)} scored" if row.sampled.scored < row.sampled.examples else ""
        counts = ", ".join(filter(None, (f"of {examples_in(results, row.sampled.examples)}", scored)))
        how = f"to {queries} of each with a probability of {significant(row.drawn.p, 2)} or more"
        found.append(
            _Exposure(row.drawn.rate, _ends(row.drawn.ci95, row.drawn.ci95_by_document), counts, how)
        )
    return found


def _ends(ends: Interval, by_document: Interval | None) -> str:
    return ninety_five(percent_interval(ends, by_document))
