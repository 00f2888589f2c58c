"""Attacks beside exact greedy extraction in results.json."""

from __future__ import annotations

from kdaudit.schemas.result import Interval, Result


class NearVerbatimResult(Result):
    """Examples that greedy decoding reproduces but for a few tokens; those without a difference too."""

    max_edit_distance: float
    """Edits over the target's tokens, at most."""
    examples: int
    exposed: int
    rate: float
    ci95: Interval
    """Clopper-Pearson."""
    ci95_by_document: Interval | None = None
    distances: list[int]
    """Entry k: exposed examples whose continuation is k edits away, from 0 to the most edits allowed."""


class AttackResults(Result):
    """What attacks beside exact greedy extraction found of a model; each None if it was not run."""

    near_verbatim: NearVerbatimResult | None = None
