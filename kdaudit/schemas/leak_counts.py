"""Counts over all leaks of an audit: results.json lists only the first of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt

from kdaudit.schemas.result import Result


class TagCount(Result):
    """Leaks with one tag."""

    leaks: NonNegativeInt
    inherited: NonNegativeInt
    """Those of them that a student has from the teacher alone."""


class LeakGroup(Result):
    """Leaks of one student, or of all together."""

    leaks: NonNegativeInt
    flagged: NonNegativeInt | None
    """Those whose risk reaches the predictor's threshold; None without one, or if a risk is unknown."""
    inherited: NonNegativeInt
    """Those that the student, or of all together any student, has from the teacher alone."""
    inherited_flagged: NonNegativeInt | None


class LeakCounts(LeakGroup):
    """All leaks of the audit."""

    tagged: NonNegativeInt
    """Those with a tag."""
    tags: dict[str, TagCount]
    """By tag. A leak may have several."""
    students: dict[str, LeakGroup]


class PublicLeakCounts(LeakCounts):
    """The counts as pages for everyone know them; a page counts tags by kind, see `count_tags`."""

    tagged: Annotated[int, Field(le=0)] = 0
    tags: Annotated[dict[str, TagCount], Field(max_length=0)] = Field(default={})
