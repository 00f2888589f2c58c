"""All that an audit found, read back from its run directory: what results.json and leaks.parquet are made of.

Nothing here runs a model. Arrays are by example id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags
from kdaudit.attacks import ATTACKS, GREEDY
from kdaudit.config.audit import AuditConfig
from kdaudit.inference import Split
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.pipelines.stages.attacked import Attacked, attack_folder, read_attack
from kdaudit.pipelines.stages.engine_check import Checked, read_checked
from kdaudit.pipelines.stages.examples import read_copies
from kdaudit.pipelines.stages.likelihoods import EntropyPoints, read_entropies
from kdaudit.pipelines.stages.predicting import Prediction, read_prediction, read_risk
from kdaudit.pipelines.stages.work import HOLDOUT, Work
from kdaudit.runs import layout
from kdaudit.schemas.notes import Note
from kdaudit.schemas.results import CorpusResult


class Measured(NamedTuple):
    """What was found of one model."""

    member: AuditedModel
    attacks: Mapping[str, Attacked]
    """On the corpus, by the attack's name."""
    holdout: Attacked | None
    perplexity: float | None
    checked: Checked

    @property
    def corpus(self) -> Attacked:
        """The attack that results are about."""
        return self.attacks[GREEDY.name]


class Audited(NamedTuple):
    """Everything that was measured."""

    config: AuditConfig
    models: AuditedModels
    corpus: CorpusResult
    split: Split
    copies: NDArray[np.int32]
    """Places of each example: int32 (examples,)."""
    measured: Mapping[str, Measured]
    """By model name, in the models' order."""
    prediction: Prediction
    """What the predictor was found to be worth, or why there is none."""
    risk: NDArray[np.float64] | None
    """Risk of each example, where there is a predictor: float64 (examples,)."""
    entropies: EntropyPoints
    """Entropy against log-probability of a sample of examples, by model."""
    notes: list[Note]
    """Those of `Work`."""

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """Tokens of each example's target: int64 (examples,)."""
        return np.full(self.corpus.examples, self.split.suffix_tokens, np.int64)

    def memorized(self, name: str) -> Flags:
        """Which examples a model memorizes: bool (examples,)."""
        return self.measured[name].corpus.exposed


def gather(config: AuditConfig, work: Work, corpus: CorpusResult) -> Audited:
    """Read every stage's files back."""
    return Audited(
        config,
        work.models,
        corpus,
        work.split,
        read_copies(work),
        {member.name: _measured(work, member) for member in work.models.members},
        read_prediction(work),
        read_risk(work),
        read_entropies(work),
        work.notes,
    )


def _measured(work: Work, member: AuditedModel) -> Measured:
    run, checked = work.run, read_checked(work, member)
    found = {one.name: read_attack(run, one, attack_folder(one, member)) for one in ATTACKS}
    if not run.shards(HOLDOUT):
        return Measured(member, found, None, None, checked)
    perplexity = run.read_json(layout.perplexity(member.name), float)
    holdout = read_attack(run, GREEDY, layout.holdout(attack_folder(GREEDY, member)))
    return Measured(member, found, holdout, perplexity, checked)
