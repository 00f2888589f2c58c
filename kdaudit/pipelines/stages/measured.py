"""All that an audit found, read back from its run directory: what results.json and leaks.parquet are made of.

Nothing here runs a model. Arrays are by example id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags
from kdaudit.attacks.greedy import Extraction, read_extraction
from kdaudit.config.audit import AuditConfig
from kdaudit.inference import Split
from kdaudit.models.audited import Member, Roster
from kdaudit.pipelines.stages.engine_check import Checked, read_checked
from kdaudit.pipelines.stages.examples import read_copies
from kdaudit.pipelines.stages.extracting import extraction_of
from kdaudit.pipelines.stages.likelihoods import EntropyPoints, perplexity_file, read_entropies
from kdaudit.pipelines.stages.predicting import Prediction, read_prediction, read_risk
from kdaudit.pipelines.stages.work import HOLDOUT, Work
from kdaudit.schemas.results import CorpusResult


class Measured(NamedTuple):
    """One model's extractions."""

    member: Member
    corpus: Extraction
    holdout: Extraction | None
    perplexity: float | None
    checked: Checked


class Audited(NamedTuple):
    """Everything that was measured."""

    config: AuditConfig
    roster: Roster
    corpus: CorpusResult
    split: Split
    copies: NDArray[np.int32]
    """Places of each example: int32 (examples,)."""
    measured: Mapping[str, Measured]
    """By model name, in the roster's order."""
    prediction: Prediction
    """What the predictor was found to be worth, or why there is none."""
    risk: NDArray[np.float64] | None
    """Risk of each example, where there is a predictor: float64 (examples,)."""
    entropies: EntropyPoints
    """Entropy against log-probability of a sample of examples, by model."""

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """Tokens of each example's target: int64 (examples,)."""
        return np.full(self.corpus.examples, self.split.suffix_tokens, np.int64)

    def memorized(self, name: str) -> Flags:
        """Which examples a model memorizes: bool (examples,)."""
        flags: Flags = self.measured[name].corpus.matched == self.split.suffix_tokens
        return flags


def gather(config: AuditConfig, work: Work, corpus: CorpusResult) -> Audited:
    """Read every stage's files back."""
    return Audited(
        config,
        work.roster,
        corpus,
        work.split,
        read_copies(work),
        {member.name: _measured(work, member) for member in work.roster.members},
        read_prediction(work),
        read_risk(work),
        read_entropies(work),
    )


def _measured(work: Work, member: Member) -> Measured:
    run, stage = work.run, extraction_of(member)
    corpus, checked = read_extraction(run, stage), read_checked(work, member)
    if not run.shards(HOLDOUT):
        return Measured(member, corpus, None, None, checked)
    perplexity = json.loads((run.folder / perplexity_file(member)).read_bytes())
    return Measured(member, corpus, read_extraction(run, f"holdout/{stage}"), perplexity, checked)
