"""Membership inference as the page tells it: a row for each model, and what its figures are worth."""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.reporting.formatting import count, quoted, score, score_interval
from kdaudit.reporting.key_figure import KeyFigure, Reading, examples_in, ninety_five, whose, worst_of
from kdaudit.schemas.attacks import AgainstTeacher, MembershipResult
from kdaudit.schemas.results import AuditResults, ModelResult

_CHANCE = 0.5
_WORDS = {
    "loss": "loss",
    "zlib": "loss over zlib size",
    "min_k": "Min-K%",
    "min_k_plus_plus": "Min-K%++",
    "reference": "loss against the",
    "ez": "EZ-MIA against the",
}


def score_words(name: str) -> str:
    """A score's name for readers."""
    kind, _, reference = name.partition("_")
    return _WORDS[name] if name in _WORDS else f"{_WORDS[kind]} {reference}"


class MembershipRow(NamedTuple):
    """One model."""

    name: str
    model: ModelResult
    found: MembershipResult

    @property
    def true_positives(self) -> list[tuple[float, float, float] | None]:
        """Share of members that the best score recognizes at 1% and 0.1% false positives, with interval."""
        rates = self.found.score[self.found.best.score].tpr_at_fpr
        return [rates["0.01"], rates["0.001"]]


class MembershipTable(NamedTuple):
    """All models."""

    rows: list[MembershipRow]
    scores: list[str]
    """Names of all scores, in the order of the first model that has them."""

    @property
    def first(self) -> MembershipResult:
        """What holds for every model: how much was compared, and the text alone."""
        return self.rows[0].found

    @property
    def text_differs(self) -> bool:
        """Whether text alone tells members from the holdout."""
        ends = self.first.blind_ci95
        return ends is not None and ends[0] is not None and ends[0] > _CHANCE

    @property
    def explained(self) -> list[str]:
        """Models whose figures say nothing of membership."""
        return [row.name for row in self.rows if row.found.explained_by_text]

    @property
    def unclear(self) -> list[str]:
        """Other models whose best score is above chance, and not shown to be above text alone."""
        return [row.name for row in self.rows if row.name not in self.explained and _is_unclear(row.found)]

    @property
    def sentences(self) -> list[str]:
        """For each student, whether distillation lowers what the teacher tells."""
        return [
            _against(row.name, row.found.against_teacher)
            for row in self.rows
            if row.found.against_teacher is not None
        ]


def membership_table(results: AuditResults) -> MembershipTable | None:
    """None if membership was not measured of any model."""
    rows = [
        MembershipRow(name, model, found.membership)
        for name, model in results.models.items()
        if (found := results.attacks.get(name)) is not None and found.membership is not None
    ]
    scores = dict.fromkeys(name for row in rows for name in row.found.score)
    return MembershipTable(rows, [*scores]) if rows else None


def membership_figure(results: AuditResults) -> KeyFigure | None:
    """Of each student the best score; None where membership was measured of no student."""
    table = membership_table(results)
    rows = [row for row in table.rows if row.model.role == "student"] if table else []
    if not rows:
        return None
    rows.sort(key=lambda row: -row.found.best.auc)
    readings = [_reading(results, row) for row in rows]
    equals = sum(row.found.best.auc == rows[0].found.best.auc for row in rows)
    lead = readings[0]._replace(of=f"{readings[0].of}{worst_of(len(rows), equals)}")
    return KeyFigure("Membership: AUC of the best score", lead, readings[1:], None)


def _reading(results: AuditResults, row: MembershipRow) -> Reading:
    found, name = row.found, quoted(row.name)
    sentence = (
        f"So often a score of student {name} ranks an example of the corpus above one of the holdout; 0.5 "
        "is chance."
    )
    if found.explained_by_text:
        sentence = f"It says nothing of student {name}: text alone tells corpus from holdout just as well."
    counts = f"{examples_in(results, found.members)} against {count(found.nonmembers)} of the holdout"
    ends = ninety_five(score_interval(found.best.ci95))
    return Reading(whose(results, row.name), score(found.best.auc), ends, counts, sentence)


def _is_unclear(found: MembershipResult) -> bool:
    low, more = found.best.ci95[0], (found.best.minus_blind_ci95 or (None, None))[0]
    return low is not None and low > _CHANCE and (more is None or more <= 0)


def _against(name: str, found: AgainstTeacher) -> str:
    low, high = found.ci95
    outcome = "not shown to differ from the teacher's"
    if high is not None and high < 0:
        outcome = "lower than the teacher's"
    elif low is not None and low > 0:
        outcome = "higher than the teacher's"
    return f"{name}: {outcome}, by {score_words(found.score)}"
