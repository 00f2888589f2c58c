"""What attacks beside exact greedy extraction found, as the page tells it: a row for each model."""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.schemas.attacks import NearVerbatimResult
from kdaudit.schemas.results import AuditResults, ModelResult

_COLUMNS = 5


class AttackRow(NamedTuple):
    """One model."""

    name: str
    model: ModelResult
    near: NearVerbatimResult

    @property
    def more(self) -> int:
        """Examples that are exposed and not reproduced exactly."""
        return self.near.exposed - self.near.distances[0]

    @property
    def by_edits(self) -> list[int]:
        """Of these, those that are 1, 2, ... edits away, as far as columns go."""
        return self.near.distances[1 : 1 + _COLUMNS]

    @property
    def many_edits(self) -> int | None:
        """Those that are more edits away; None if the limit allows none."""
        rest = self.near.distances[1 + _COLUMNS :]
        return sum(rest) if rest else None


def attack_rows(results: AuditResults) -> list[AttackRow]:
    """Models on which the attacks ran, in their order; empty if none ran."""
    return [
        AttackRow(name, model, found.near_verbatim)
        for name, model in results.models.items()
        if (found := results.attacks.get(name)) is not None and found.near_verbatim is not None
    ]
