"""The section of the gate: limits that decide the exit code."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
    NonNegativeInt,
)

from kdaudit.config.paths import LocalFile
from kdaudit.config.section import Section, Share

NEED_TEACHER = ("max_inheritance_rate", "max_excess_inheritance", "max_inherited")
"""Limits that cannot be judged without a teacher."""
NEED_BASELINE = (*NEED_TEACHER, "max_ratio_to_baseline")
"""Limits that cannot be judged without a baseline."""


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
    students: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    """Students that the gate looks at; null means all."""
    accept: LocalFile | None = None
    """accepted.yaml: leaks that are known and tolerated, each with reason and expiry. The gate disregards
    them; every other figure counts them."""
