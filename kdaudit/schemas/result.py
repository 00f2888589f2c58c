"""What the parts of results.json share: their base class, and kinds of values."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["teacher", "baseline", "base", "student"]
"""A model's part in an audit; base is the untouched model that baseline and students started from."""
Verdict = Literal["pass", "fail", "inconclusive", "none"]
LeakClass = Literal["easy_core", "inherited", "with_baseline", "student_only", "unknown"]
Interval = tuple[float | None, float | None]
"""Low and high end of a 95% interval; an open end is None."""


class Result(BaseModel):
    """Base of every part of results.json."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )
