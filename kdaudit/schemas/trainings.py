"""trainings.json: the figures of several runs of one corpus side by side, with mean and spread.

It holds figures, and names of audits and models: no training text, no document id and no path.
"""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from kdaudit.schemas.notes import Note
from kdaudit.schemas.result import Interval, Result

Form = Literal["percent", "points", "times", "count", "number"]


class Variance(Result):
    """The two sources of a figure's variance, in its unit squared; None if it is not known."""

    between: float
    """Between trainings, on this corpus: the sample variance over the runs."""
    within: float | None
    """Within a training, between texts of this kind: mean over the runs of the variance that each one's own
    interval stands for, by document where there is one."""


class TrainingsFigure(Result):
    """One figure over all runs."""

    about: str
    """The model, or soft_vs_hard, or predictor."""
    key: str
    """Where results.json has it, under models, comparison, soft_vs_hard or predictor."""
    what: str
    """In words."""
    form: Form
    values: list[float | None]
    """In the order of the runs; None where a run does not have it, and its results.json says why."""
    intervals: list[Interval | None]
    """Each run's own 95% interval, by document where there is one."""
    mean: float | None
    """None unless every run has a value of a training of its own; so for all that follows."""
    deviation: float | None
    """Standard deviation over the runs."""
    ci95: Interval | None
    """t interval of the mean over trainings, on this corpus; without width where all values are equal."""
    ci95_both_sources: Interval | None
    """The same with the variance within a training added; None if that is not known."""
    variance: Variance | None


class Training(Result):
    """One of the runs."""

    name: str
    """The audit's."""
    created: str
    models: dict[str, str]
    """Fingerprints by name."""


class TrainingsCorpus(Result):
    """What all of them were audited on."""

    fingerprint: str
    examples: PositiveInt
    sampled: bool


class TrainingsResults(Result):
    """trainings.json."""

    schema_version: Literal["1"] = "1"
    kdaudit_version: str
    corpus: TrainingsCorpus
    prefix_tokens: NonNegativeInt
    suffix_tokens: PositiveInt
    runs: list[Training]
    figures: list[TrainingsFigure]
    notes: list[Note]
