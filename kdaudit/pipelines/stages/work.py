"""What every stage is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from kdaudit.config.audit import ExtractionBase, PredictorBase
from kdaudit.errors import ModelError
from kdaudit.inference import Split
from kdaudit.inference.scoring import ModelFiles
from kdaudit.models.audited import Member, Roster
from kdaudit.models.resolving import check_model_unchanged
from kdaudit.pipelines.stages.fit import member_split
from kdaudit.runs import Progress, layout
from kdaudit.runs.store import RunStore

HOLDOUT = layout.holdout(layout.EXAMPLES)
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

    def check_unchanged(self, member: Member, written: Callable[[], Iterable[str]]) -> None:
        """Check at the end of a stage that a model is what was fingerprinted; else discard what was written.

        Raises:
            ModelError: it is not.

        """
        try:
            check_model_unchanged(member.model, member.key)
        except ModelError:
            self.run.discard(*written())
            raise

    def files(self, member: Member) -> ModelFiles:
        """Where a model lies and how it is loaded for forward passes."""
        dtype = member.config.dtype or self.extraction.dtype
        return ModelFiles(member.model.folder, dtype, member.config.trust_remote_code)
