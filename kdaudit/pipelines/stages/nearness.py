"""How near each baseline is to what any model memorizes: by how much chance could carry inheritance.

A baseline that misses an example by one token of fifty may well memorize it in another training. Examples
that some model memorizes are scored for that. Which further examples a baseline is nearest to takes the
scoring pass's sample (`scores`): else what no model memorizes is missing, and the rest would seem nearer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.analysis.excess import Baseline
from kdaudit.analysis.intervals import Flags
from kdaudit.attacks.examples import cuts_of
from kdaudit.inference import Batch, Lengths
from kdaudit.inference.retry import retry_on_oom
from kdaudit.inference.scoring import Question, nearness_of
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.attacked import Attacked, exposed_by, leaked
from kdaudit.pipelines.stages.readings import examples_for, is_by_text
from kdaudit.pipelines.stages.scorers import Scorers, loaded_scorers
from kdaudit.pipelines.stages.scores import read_scores
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import NEARNESS_SCHEMA
from kdaudit.runs.examples import read_examples


def write_nearness(work: Work) -> None:
    """Score every baseline on the examples that teacher, baselines or students memorize.

    Without a teacher there is no inheritance that chance could explain, and nothing is scored; nor is a model
    behind an endpoint.
    """
    for audited in work.models.baselines:
        wanted = _due(work, audited)
        if wanted is not None:
            retry_on_oom(audited.name, partial(_load_and_score, work, audited, wanted), work.warn)
            work.check_unchanged(audited, lambda: [layout.nearness(audited.name)])  # noqa: B023 - called at once


def score_in(scorers: Scorers, work: Work, audited: AuditedModel) -> None:
    """The same of one baseline, in processes that have it loaded; nothing of any other model."""
    wanted = _due(work, audited) if audited.role == "baseline" else None
    if wanted is not None:
        _write(work, audited, _scores(scorers, work, audited, wanted))


def _due(work: Work, audited: AuditedModel) -> NDArray[np.int64] | None:
    """Examples to score; None if an earlier call scored them, or more before a student was removed."""
    if work.models.teacher is None or audited.model.behind is not None:
        return None
    run, name = work.run, layout.nearness(audited.name)
    compared = [one for one in work.models.all if one.role != "base"]
    wanted = leaked([*exposed_by(work, compared).values()])
    if run.done(name, work.fingerprints(audited.name)):
        scored = run.read_table(name, ["example_id"])["example_id"].to_numpy()
        if np.isin(wanted, scored).all():
            return None
    return wanted


def _load_and_score(work: Work, audited: AuditedModel, wanted: NDArray[np.int64], retries: int) -> None:
    work.progress(f"{audited.name}: how near it is to {len(wanted):,} memorized examples", 0, 0)
    if not len(wanted):
        _write(work, audited, ())
        return
    with loaded_scorers(work, audited, retries) as scorers:
        _write(work, audited, _scores(scorers, work, audited, wanted))


def _scores(
    scorers: Scorers, work: Work, audited: AuditedModel, wanted: NDArray[np.int64]
) -> Iterator[pa.Table]:
    work.progress(f"{audited.name}: how near it is to {len(wanted):,} memorized examples", 0, 0)
    vocabulary = work.models.vocabulary_of(audited)

    def questions() -> Iterator[tuple[tuple[pa.Table, Batch], Question]]:
        for table in read_examples(work.run, layout.EXAMPLES, wanted):
            batch = examples_for(work, audited, table)
            yield (table, batch), nearness_of(batch.prompts, batch.targets, vocabulary)

    for (table, batch), answered in scorers.in_order(questions()):
        wrong, log_probability = answered.arrays
        if is_by_text(work, audited):  # as many of the run's tokens, in proportion
            _, suffixes = cuts_of(table, work.split)
            wrong = np.ceil(wrong * suffixes / batch.targets.lengths)
        columns = [batch.example_ids, wrong.astype(np.int32), log_probability]
        yield pa.table(columns, schema=NEARNESS_SCHEMA)


def _write(work: Work, audited: AuditedModel, rows: Iterable[pa.Table]) -> None:
    name = layout.nearness(audited.name)
    work.run.discard(name)
    with work.run.stage(name, work.fingerprints(audited.name)):
        work.run.write_table(name, pa.concat_tables([NEARNESS_SCHEMA.empty_table(), *rows]))


def read_baseline(
    work: Work, audited: AuditedModel, found: Attacked, compared: Flags, suffixes: Lengths
) -> Baseline:
    """A baseline as inheritance is compared with it.

    Args:
        work: the run.
        audited: the baseline.
        found: by greedy extraction.
        compared: what teacher, baselines or students memorize: bool (examples,). More may have been scored.
        suffixes: tokens of each example's target: int64 (examples,).

    """
    matched = found.rows["matched_tokens"].to_numpy() / suffixes
    if work.scoring is not None:
        return Baseline.of(found.exposed, matched, *_sampled(work, audited))
    table = work.run.read_table(layout.nearness(audited.name))
    kept = compared[table["example_id"].to_numpy()]
    ids, wrong, log_probability = (column.to_numpy()[kept] for column in table.columns)
    return Baseline.of(found.exposed, matched, ids, wrong / suffixes[ids], np.exp(log_probability))


class _Sampled(NamedTuple):
    """What the scoring pass read of a sample that stands for the corpus; as `Baseline.of` takes it."""

    ids: Lengths
    wrong: NDArray[np.float64]
    probability: NDArray[np.float64]
    weights: NDArray[np.float64]


def _sampled(work: Work, audited: AuditedModel) -> _Sampled:
    """All that any model memorizes is in the sample, with a weight of 1."""
    table = read_scores(work, audited, columns=["example_id", "log_probabilities", "hits"])
    ids, weights, log_probabilities, hits = (column.combine_chunks() for column in table.columns)
    lengths = hits.value_lengths().to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    right = np.add.reduceat(hits.flatten().to_numpy(zero_copy_only=False).astype(np.int64), starts)
    total = np.add.reduceat(log_probabilities.flatten().to_numpy().astype(np.float64), starts)
    return _Sampled(ids.to_numpy(), 1 - right / lengths, np.exp(total / lengths), weights.to_numpy())


def unscored_baseline(found: Attacked, suffixes: Lengths) -> Baseline:
    """A baseline that was not scored, and is near by its matched tokens alone; `suffixes` as above."""
    nothing = np.empty(0)
    matched = found.rows["matched_tokens"].to_numpy() / suffixes
    ranked = Baseline.of(found.exposed, matched, nothing.astype(np.int64), nothing, nothing)
    return ranked._replace(nearly=None)
