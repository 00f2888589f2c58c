"""The section of attacks beside exact greedy extraction."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from kdaudit.config.section import Section


class NearVerbatimConfig(Section):
    """Near-verbatim extraction: greedy continuations that differ from the suffix in a few tokens."""

    max_edit_distance: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Highest edit distance of the continuation, in tokens over suffix_tokens, that counts as exposed."""


class AttacksConfig(Section):
    """Attacks beside exact greedy extraction, which always runs; null leaves one out."""

    near_verbatim: NearVerbatimConfig | None = NearVerbatimConfig()
    """Continuations that are nearly the suffix."""
