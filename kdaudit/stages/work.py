"""What every stage is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kdaudit.config.audit import ExtractionBase, PredictorBase
from kdaudit.extraction import Progress, Split
from kdaudit.features import ModelFiles
from kdaudit.roster import Member, Roster, member_split
from kdaudit.store import RunStore

EXAMPLES = "examples"
"""Folder of the corpus's examples."""
HOLDOUT = "holdout/examples"
"""Folder of the holdout's examples."""


class Work(NamedTuple):
    """The run, its models, and how they are measured."""

    run: RunStore
    roster: Roster
    split: Split
    """Where examples are cut, with the teacher's BOS token; `split_of` has each model's."""
    extraction: ExtractionBase
    predictor: PredictorBase
    seed: int
    progress: Progress
    warn: Callable[[str], None]

    @property
    def vocabulary(self) -> int:
        """Columns of all models' logits that stand for tokens."""
        return self.roster.vocabulary

    def split_of(self, member: Member) -> Split:
        """Where examples are cut for a model, with its own BOS token."""
        return member_split(self.extraction, member)

    def files(self, member: Member) -> ModelFiles:
        """Where a model lies and how it is loaded for forward passes."""
        dtype = member.config.dtype or self.extraction.dtype
        return ModelFiles(member.model.folder, dtype, member.config.trust_remote_code)
