"""The risk predictor in results.json."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from kdaudit.schemas.result import Result


class Trials(Result):
    """A figure's mean and 2.5 to 97.5% range over the trials."""

    mean: float
    low: float
    high: float


Unit = Literal["texts", "documents"]
"""What a recall guarantee counts: distinct texts, or documents in which all positives are flagged."""


class RecallGuarantee(Result):
    """With confidence `confidence`, at least the share `recall` of units with positives has all flagged."""

    recall: float
    confidence: float
    calibration_positives: int
    """Units with positives that it rests on."""
    unit: Unit = "texts"
    """As in all files before this key."""


class RecallThreshold(Result):
    """The threshold that would guarantee a recall, at the predictor's confidence."""

    recall: float
    confidence: float
    threshold: float | None
    """None if there are too few positives for this recall."""


Labels = Literal["student", "easy_core", "teacher"]
"""The prediction target."""


class Origin(Result):
    """What a predictor was fitted on, or is used on."""

    teacher: str
    """The teacher's fingerprint."""
    baselines: tuple[str, ...] = ()
    """The baselines' fingerprints."""
    family: str
    """The teacher's architecture, such as gpt_neox."""
    corpus: str
    """The corpus's fingerprint."""
    labels: Labels
    """What counts as a positive."""
    student: str | None = None
    """Name of the student whose memorized examples are the positives; with `labels: student` alone."""
    prefix_tokens: NonNegativeInt
    suffix_tokens: PositiveInt


class ScoredSample(Result):
    """Which examples a predictor was fitted on where these are not all."""

    certain: int
    """Examples that any model memorizes, exactly or under another attack: all are scored."""
    drawn: int
    """Examples that were drawn of the others."""
    others: int
    """How many others there are."""
    flagged_ci95: tuple[float, float]
    """Confidence interval of `flagged`: that of the share of the drawn ones, times `others`, and those
    flagged among the certain ones."""


class PredictorResult(Result):
    """The risk predictor; figures are None unless `status` is ok."""

    status: Literal["ok", "underpowered", "disabled"]
    reason: str | None = None
    """Why there is no predictor; None if there is one, and in results older than this key."""
    labels: str | None = None
    student: str | None = None
    """Whose memorized examples the positives are, for labels of that kind."""
    positives: int | None = None
    trials: int | None = None
    auc: Trials | None = None
    average_precision: Trials | None = None
    """Of flagging by risk, at the corpus's own share of memorized examples."""
    recall: Trials | None = None
    """At a risk equal to the share of positives: a score of 0.5 if both classes were equally frequent."""
    precision: Trials | None = None
    """At the same score; None if no trial flagged anything."""
    coefficients: dict[str, float] | None = None
    intercept: float | None = None
    threshold: float | None = None
    promise: RecallGuarantee | None = None
    flagged: int | None = None
    """Examples of the corpus whose risk reaches the threshold; an estimate where there is a sample."""
    sample: ScoredSample | None = None
    """None where all examples were scored."""
