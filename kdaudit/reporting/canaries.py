"""Canaries as the page tells them: a row for each model, a column for each number of repetitions."""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.reporting.formatting import bits, count, interval, percent_interval, significant
from kdaudit.schemas.attacks import CanariesResult, ExposureResult, RepetitionsResult
from kdaudit.schemas.results import AuditResults, ModelResult


class CanaryCell(NamedTuple):
    """One model's canaries with equal repetitions, in words."""

    exposure: str | None
    """Median in bits; None where it is not known."""
    ends: str
    """Its interval."""
    extracted: str
    extracted_ends: str


class CanaryRow(NamedTuple):
    """One model."""

    name: str
    model: ModelResult
    found: CanariesResult
    cells: list[CanaryCell | None]
    """In the order of the columns; None where none of them is an example."""


class CanaryTable(NamedTuple):
    """All models."""

    rows: list[CanaryRow]
    repetitions: list[int]
    """The columns, ascending."""

    @property
    def first(self) -> CanariesResult:
        """What holds for every model: how many canaries and controls there are."""
        return self.rows[0].found

    @property
    def highest(self) -> str | None:
        """The largest exposure that the controls can show, in bits; None where no model has exposures."""
        known = [row.found.highest_exposure for row in self.rows if row.found.highest_exposure is not None]
        return significant(max(known), 2) if known else None

    @property
    def controls_extracted(self) -> list[str]:
        """Models that reproduce controls, and how many: what they never read, and so guessed."""
        return [
            f"{row.name} ({count(row.found.controls_extracted)})"
            for row in self.rows
            if row.found.controls_extracted
        ]


def canary_table(results: AuditResults) -> CanaryTable | None:
    """None if no canaries are measured."""
    found = {name: one.canaries for name, one in results.attacks.items() if one.canaries is not None}
    columns = sorted({int(key) for one in found.values() for key in one.repetitions})
    if not columns:
        return None
    rows = [
        CanaryRow(name, model, found[name], [_cell(found[name].repetitions.get(str(key))) for key in columns])
        for name, model in results.models.items()
        if name in found
    ]
    return CanaryTable(rows, columns)


def _cell(found: RepetitionsResult | None) -> CanaryCell | None:
    if found is None:
        return None
    return CanaryCell(
        exposure=None if found.exposure is None else bits(found.exposure.median),
        ends="" if found.exposure is None else _ends(found.exposure),
        extracted=f"{count(found.extracted)} of {count(found.canaries)}",
        extracted_ends=percent_interval(found.extracted_ci95),
    )


def _ends(exposure: ExposureResult) -> str:
    return interval((exposure.low, exposure.high), bits)
