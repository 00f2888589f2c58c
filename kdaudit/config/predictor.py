"""The section of the risk predictor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    PositiveInt,
)

from kdaudit.config.section import Section

LabelKind = Literal["student", "easy_core", "teacher"]
FeatureSet = Literal["all", "paper"]


class PredictorBase(Section):
    """How examples are scored by their risk of being memorized."""

    enabled: bool = True
    """Whether to score examples by their risk of being memorized."""
    labels: str
    """The prediction target."""
    student: str | None = None
    """The student whose memorized examples are the labels; null takes the first."""
    features: FeatureSet = "all"
    """What risk is predicted from: all (both models on the suffix alone, where memorization lies, its
    occurrences and zlib entropy), or the paper's four, taken over whole windows."""
    trials: PositiveInt = 100
    """Stratified resampled trials that the figures are averaged over."""
    recall: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    """Share of the positives that the threshold must flag."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """Confidence of that recall guarantee."""


class PredictorConfig(PredictorBase):
    """How an audit scores examples by their risk of being memorized."""

    labels: LabelKind = "student"
    """The prediction target: what a student memorizes, what teacher and baseline both
    memorize (easy_core), or what the teacher memorizes."""
