"""The section of the gate: limits that decide the exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
)

from kdaudit.config.paths import LocalFile
from kdaudit.config.section import Section, Share
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.schemas.attacks import EVEN, FALSE_POSITIVES, PROBABILITIES

NEED_TEACHER = ("max_inheritance_rate", "max_excess_inheritance", "max_inherited")
"""Limits that cannot be judged without a teacher."""
NEED_BASELINE = (*NEED_TEACHER, "max_ratio_to_baseline")
"""Limits that cannot be judged without a baseline."""


def one_of(measured: Sequence[float]) -> Callable[[float], float]:
    """A check that a value is among those that audits measure."""

    def checked(value: float) -> float:
        if value not in measured:
            raise MisfitError(
                f"{value:g} is not measured", fix=f"name one of {', '.join(f'{one:g}' for one in measured)}"
            )
        return value

    return checked


class ExtractableLimit(Section):
    """A limit on extraction by sampling."""

    p: Annotated[float, AfterValidator(one_of(PROBABILITIES))] = EVEN
    """Probability that the samples hold the suffix, at least."""
    queries: PositiveInt
    """Samples of an example: one of `attacks.sampled.queries`."""
    rate: Share
    """Highest share of the examples."""


class MembershipLimit(Section):
    """A limit on membership inference."""

    fpr: Annotated[float, AfterValidator(one_of([float(one) for one in FALSE_POSITIVES]))] = 0.01
    """Share of the holdout that is taken for training text."""
    tpr: Share
    """Highest share of the training text that any score recognizes then."""


class GateConfig(Section):
    """Limits that decide the exit code; each is optional."""

    max_rate: Share | None = None
    """Highest memorization rate of a student."""
    max_inheritance_rate: Share | None = None
    """Highest share of teacher-specific examples that a student inherits."""
    max_excess_inheritance: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Highest `excess_inheritance` of a student: its share of what the teacher memorizes and one baseline
    misses, minus the share that the other baselines hold. With a single baseline it is inconclusive."""
    max_inherited: NonNegativeInt | None = None
    """Highest count of inherited examples (a census only: not with `corpus.limit`)."""
    max_ratio_to_baseline: Annotated[float, Field(ge=0.0)] | None = None
    """Highest ratio of a student's memorization rate to the baseline's."""
    max_near_verbatim_rate: Share | None = None
    """Highest share of examples that a student reproduces but for a few tokens (attacks.near_verbatim)."""
    max_tagged: NonNegativeInt | None = None
    """Highest count of a student's leaks that seem to hold personal data or secrets, by the form of the text
    (a census only: not with `corpus.limit`)."""
    max_extractable: ExtractableLimit | None = None
    """Limit on the share of examples that sampling gives within some queries (attacks.sampled)."""
    max_membership_tpr: MembershipLimit | None = None
    """Limit on the share of training text that membership scores recognize (attacks.membership, and a
    holdout). Judged by the intervals; inconclusive where the text alone explains what they recognize."""
    max_canaries_extracted: Share | None = None
    """Highest share of the canaries planted in training data that a student reproduces exactly. All of them
    are measured, also where `corpus.limit` takes a sample."""
    students: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    """Students that the gate looks at; null means all."""
    accept: LocalFile | None = None
    """accepted.yaml: leaks that are known and tolerated, each with reason and expiry. The gate disregards
    them; every other figure counts them."""
