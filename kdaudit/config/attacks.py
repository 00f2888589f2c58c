"""The section of attacks beside exact greedy extraction."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
)

from kdaudit.config.paths import LocalFile
from kdaudit.config.section import Section, path_alone


class NearVerbatimConfig(Section):
    """Near-verbatim extraction: greedy continuations that differ from the suffix in a few tokens."""

    max_edit_distance: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Highest edit distance of the continuation, in tokens over suffix_tokens, that counts as exposed."""


Queries = Annotated[int, Field(ge=1, strict=True)]
"""Samples that an attacker draws of one example."""


class SampledConfig(Section):
    """(n, p)-discoverable extraction: how likely sampling is to give the suffix within some queries."""

    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Divides the logits."""
    top_k: Annotated[int, Field(ge=1)] | None = 40
    """Likeliest tokens that can be drawn, renormalized; null: the whole vocabulary."""
    queries: Annotated[tuple[Queries, ...], Field(min_length=1, strict=False)] = (1, 10, 100, 1000)
    """For how many samples of an example rates are given: n."""


class MembershipConfig(Section):
    """Membership inference: scores that tell examples of the corpus from the holdout's."""


class CanariesConfig(Section):
    """Texts that were planted in the training data, and controls that stayed out of it."""

    path: LocalFile
    """The canaries.jsonl that `kdaudit canaries` wrote."""


CanariesRef = Annotated[
    CanariesConfig, BeforeValidator(path_alone, json_schema_input_type=LocalFile | CanariesConfig)
]


class AttacksConfig(Section):
    """Attacks beside exact greedy extraction, which always runs; null leaves one out."""

    near_verbatim: NearVerbatimConfig | None = NearVerbatimConfig()
    """Continuations that are nearly the suffix."""
    sampled: SampledConfig | None = SampledConfig()
    """Suffixes that sampling is likely to give."""
    membership: MembershipConfig | None = MembershipConfig()
    """Whether a text was trained on; it takes a holdout."""
    canaries: CanariesRef | None = None
    """How well models know texts that were planted in their training data."""
    sample: Annotated[int, Field(ge=1)] | None = 20_000
    """Examples that the scoring pass, and the predictor's features, are taken of besides those memorized: a
    seeded sample; null: all."""
