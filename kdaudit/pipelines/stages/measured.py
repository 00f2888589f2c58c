"""All that an audit found, read back from its run directory: what results.json and leaks.parquet are made of.

Nothing here runs a model. Arrays are by example id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.inheritance import Family
from kdaudit.analysis.intervals import Flags
from kdaudit.attacks import GREEDY
from kdaudit.config.audit import AuditConfig
from kdaudit.corpus import ExampleTokens
from kdaudit.inference import Lengths, Split
from kdaudit.inference.agreement import within_rounding
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.pipelines.stages.attacked import Attacked, attack_folder, is_done, read_attack
from kdaudit.pipelines.stages.canary_results import measured_canaries
from kdaudit.pipelines.stages.engine_check import CheckOutcome, read_checked
from kdaudit.pipelines.stages.examples import read_copies, read_cuts, read_documents
from kdaudit.pipelines.stages.feature_sample import scored_examples
from kdaudit.pipelines.stages.features import read_features, role_in_features
from kdaudit.pipelines.stages.likelihoods import (
    EntropyPoints,
    Likelihood,
    read_entropies,
    read_likelihood,
)
from kdaudit.pipelines.stages.membership import Membership, find_membership
from kdaudit.pipelines.stages.nearness import read_baseline, unscored_baseline
from kdaudit.pipelines.stages.overlap import find_overlap
from kdaudit.pipelines.stages.predicting import Prediction, read_prediction
from kdaudit.pipelines.stages.risks import read_risk
from kdaudit.pipelines.stages.scores import is_sampled, read_scores
from kdaudit.pipelines.stages.work import GENERATED_EXAMPLES, HOLDOUT_EXAMPLES, Work
from kdaudit.runs import layout
from kdaudit.runs.store import RunStore
from kdaudit.schemas.attacks import CanariesResult
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.notes import Note


class SampleProbabilities(NamedTuple):
    """How likely sampling is to give the suffixes of a sample of the examples."""

    example_ids: NDArray[np.int64]
    """int64 (sample,), ascending."""
    weights: NDArray[np.float64]
    """Examples that each stands for: float64 (sample,)."""
    log_probability: NDArray[np.float64]
    """ln p_z, see `kdaudit.attacks.sampled`: float64 (sample,)."""


class Measured(NamedTuple):
    """What was found of one model."""

    audited: AuditedModel
    attacks: Mapping[str, Attacked]
    """On the corpus, by the attack's name; without those that the model's engine has no way to do."""
    holdout: Attacked | None
    generated: Attacked | None
    """On the text that the teacher wrote, where it is named."""
    likelihood: Likelihood | None
    """Of the holdout."""
    checked: CheckOutcome
    below_rounding: NDArray[np.float64] | None
    """For how many examples like this one rounding may decide whether it memorizes them: float64 (examples,),
    the example's weight, or 0; None if unknown."""
    drawn: SampleProbabilities | None
    """None if it was not asked for, or the model gives no probabilities of these tokens."""
    canaries: CanariesResult | None
    """None where none are measured."""

    @property
    def corpus(self) -> Attacked:
        """The attack that results are about."""
        return self.attacks[GREEDY.name]


class Measurements(NamedTuple):
    """Everything that was measured."""

    config: AuditConfig
    models: AuditedModels
    corpus: CorpusResult
    holdout: CorpusResult | None
    generated: CorpusResult | None
    split: Split
    copies: NDArray[np.int32]
    """Places of each example: int32 (examples,)."""
    prompt_tokens: int
    """Tokens of all prompts, without BOS tokens."""
    target_lengths: Lengths
    """Tokens of each example's target: int64 (examples,)."""
    by_model: Mapping[str, Measured]
    """By name, in the models' order."""
    prediction: Prediction
    """What the predictor was found to be worth, or why there is none."""
    risk: NDArray[np.float64] | None
    """Risk of each example, where there is a predictor: float64 (examples,); NaN of what was not scored."""
    membership: Membership
    """Nothing if it was not asked for."""
    entropies: EntropyPoints
    """Entropy against log-probability of a sample of examples, by model."""
    notes: list[Note]
    """Those of `Work`."""
    overlap: Flags | None
    """Which examples of the holdout stand in the corpus too: bool (holdout examples,)."""
    family: Family
    """What students are compared with."""

    @property
    def usual(self) -> ExampleTokens:
        """Tokens of prompt and target where an example does not say them."""
        return ExampleTokens(self.split.prefix_tokens, self.split.suffix_tokens)

    @property
    def canaries(self) -> dict[str, CanariesResult]:
        """What models know of canaries, by name; empty where none are measured."""
        return {name: one.canaries for name, one in self.by_model.items() if one.canaries is not None}

    def memorized(self, name: str) -> Flags:
        """Which examples a model memorizes: bool (examples,)."""
        return self.by_model[name].corpus.exposed


def gather(config: AuditConfig, work: Work, corpus: CorpusResult) -> Measurements:
    """Read every stage's files back."""
    run = work.run
    measured = {audited.name: _measured(work, audited) for audited in work.models.all}
    prefixes, suffixes = read_cuts(work)
    overlap = find_overlap(work)
    membership = Membership({}, []) if config.attacks.membership is None else find_membership(work, overlap)
    return Measurements(
        config=config,
        models=work.models,
        corpus=corpus,
        holdout=_text(run, HOLDOUT_EXAMPLES),
        generated=_text(run, GENERATED_EXAMPLES),
        split=work.split,
        copies=read_copies(work),
        prompt_tokens=int(prefixes.sum()),
        target_lengths=suffixes,
        by_model=measured,
        prediction=read_prediction(work),
        risk=read_risk(work),
        membership=membership,
        entropies=read_entropies(work),
        notes=work.notes,
        overlap=overlap,
        family=_family(work, measured, suffixes),
    )


def _text(run: RunStore, examples: str) -> CorpusResult | None:
    """A text beside the corpus; None where there is none."""
    return run.read_json(layout.summary(examples), CorpusResult) if run.shards(examples) else None


def _family(work: Work, measured: Mapping[str, Measured], suffixes: Lengths) -> Family:
    """Teacher, baselines and documents, as inheritance takes them."""
    each = [one.corpus.exposed for one in measured.values() if one.audited.role != "base"]
    compared: Flags = np.logical_or.reduce(each)
    teacher = work.models.teacher
    baselines = [
        unscored_baseline(measured[one.name].corpus, suffixes)
        if teacher is None or one.model.behind is not None
        else read_baseline(work, one, measured[one.name].corpus, compared, suffixes)
        for one in work.models.baselines
    ]
    flags = None if teacher is None else measured[teacher.name].corpus.exposed
    return Family(flags, baselines, Documents(read_documents(work), work.seed))


def _measured(work: Work, audited: AuditedModel) -> Measured:
    run, checked = work.run, read_checked(work, audited)
    near = _below_rounding(work, audited, checked)
    ran = [attack for attack in work.attacks if is_done(work, attack, audited)]
    found = {one.name: read_attack(run, one, attack_folder(one, audited)) for one in ran}
    holdout, generated = (_beside_corpus(work, audited, text) for text in (layout.HOLDOUT, layout.GENERATED))
    scored = holdout is not None and audited.model.behind is None
    likelihood = read_likelihood(work, audited) if scored else None
    canaries = measured_canaries(work, audited)
    return Measured(
        audited=audited,
        attacks=found,
        holdout=holdout,
        generated=generated,
        likelihood=likelihood,
        checked=checked,
        below_rounding=near,
        drawn=_drawn(work, audited),
        canaries=canaries,
    )


def _drawn(work: Work, audited: AuditedModel) -> SampleProbabilities | None:
    if not is_sampled(work, audited):
        return None
    columns = ["example_id", "sampled_log_probability"]
    table = read_scores(work, audited, columns=columns)
    return SampleProbabilities(*(table[name].to_numpy() for name in (columns[0], "weight", columns[1])))


def _beside_corpus(work: Work, audited: AuditedModel, text: str) -> Attacked | None:
    """What was found on a text of `layout.SIDE_TEXTS`; None where it was not named."""
    if not work.run.shards(layout.beside_corpus(text, layout.EXAMPLES)):
        return None
    return read_attack(work.run, GREEDY, layout.beside_corpus(text, attack_folder(GREEDY, audited)))


def _below_rounding(work: Work, audited: AuditedModel, checked: CheckOutcome) -> NDArray[np.float64] | None:
    role = role_in_features(work, audited)
    # Features that an earlier call left in the folder do not count: a run says what its configuration asks.
    if role is None or checked.check is None or not work.predictor.enabled:
        return None
    scored = scored_examples(work)
    names = (f"{role}_suffix_margin", f"{role}_suffix_spread")
    margins, spreads = read_features(work, names, scored.ids).T
    near = np.zeros(len(read_copies(work)))
    near[scored.ids] = within_rounding(margins, spreads, checked.check.tolerance)
    if scored.weights is not None:
        near[scored.ids] *= scored.weights
    return near
