"""The scoring pass: what each model makes of every token of a sample's suffixes, given those before it.

One teacher-forced pass over prefix and suffix alone. What attacks beside greedy decoding measure follows
from it: how likely sampling is to give a suffix, and whether a text was trained on. It costs more than
extraction, so it reads a sample: every example that a model memorizes, exactly or under another attack, and
a seeded sample of the others. Each example has a weight, one over its probability to be in the sample:
weighted sums estimate those over all examples.

What was scored stays: where a new student memorizes more, other models read only that. An example's scores
do not depend on the sample, so weights stand in a file of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks.scored import of_sample, score_rows
from kdaudit.inference import Batch, Sampling, Scores
from kdaudit.inference.retry import retry_on_oom
from kdaudit.inference.scoring import Question, scores_of
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.attacked import exposed_by, is_done, leaked
from kdaudit.pipelines.stages.readings import examples_for, is_by_text
from kdaudit.pipelines.stages.scorers import Scorers, loaded_scorers
from kdaudit.pipelines.stages.shard_notes import setting_of, shard_notes
from kdaudit.pipelines.stages.work import CANARY_EXAMPLES, HOLDOUT_EXAMPLES, Work
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import SCORE_SAMPLE_SCHEMA, SCORES_SCHEMA
from kdaudit.runs.examples import next_shard, read_examples, regrouped

_SAMPLING = "sampling"
"""Key of a shard's metadata."""


class ScoredText(NamedTuple):
    """A text that is scored, by its folders in the run."""

    examples: str
    sample: str
    side: str | None
    """Its folder, if it is one beside the corpus."""

    def scores(self, model: str) -> str:
        """A model's scores: the stage and its folder."""
        own = layout.scores(model)
        return own if self.side is None else layout.beside_corpus(self.side, own)


CORPUS = ScoredText(layout.EXAMPLES, layout.SCORE_SAMPLE, None)
OF_HOLDOUT = ScoredText(HOLDOUT_EXAMPLES, layout.holdout(layout.SCORE_SAMPLE), layout.HOLDOUT)
OF_CANARIES = ScoredText(
    CANARY_EXAMPLES, layout.beside_corpus(layout.CANARIES, layout.SCORE_SAMPLE), layout.CANARIES
)
"""All of them are scored, as their exposure follows from it."""


def _texts_scored(work: Work) -> list[ScoredText]:
    """Texts that the scoring pass reads; none where nothing that is asked for follows from it."""
    asked = work.scoring
    of_corpus = [] if asked is None else [CORPUS, OF_HOLDOUT] if asked.holdout else [CORPUS]
    return [text for text in (*of_corpus, OF_CANARIES) if work.run.shards(text.examples)]


def write_score_samples(work: Work) -> None:
    """Draw the sample of each text, where the one that was drawn before is another.

    The corpus's is always drawn: it tells whether the predictor's features have to be.
    """
    run = work.run
    for text in dict.fromkeys((CORPUS, *_texts_scored(work))):
        certain = memorized(work) if text is CORPUS else np.empty(0, np.int64)
        size = None if text is OF_CANARIES else work.sample
        depends = {"sample": size, "certain": hashlib.sha256(certain.tobytes()).hexdigest()}
        if not run.done(text.sample, depends):
            with run.stage(text.sample, depends):
                total = work.total_examples(text.examples)
                run.write_table(text.sample, draw(total, certain, size, work.seed))


def draw(total: int, certain: NDArray[np.int64], size: int | None, seed: int) -> pa.Table:
    """A sample in two strata: rows of `SCORE_SAMPLE_SCHEMA`.

    Examples stand in a seeded order whatever is certain, and the first that are not are taken: samples with
    more that is certain, or of another size, have most examples in common.

    Args:
        total: how many examples there are.
        certain: ids of those that are taken, with weight 1.
        size: how many of the others are taken; None for all.
        seed: of the order.

    """
    order = seeded_order(total, seed)
    others = order[~np.isin(order, certain)]
    taken = others[:size]
    ids = np.concatenate([certain, taken]).astype(np.int64)
    weights = np.repeat([1.0, len(others) / max(1, len(taken))], [len(certain), len(taken)])
    places = np.argsort(ids)
    return pa.table([ids[places], weights[places]], schema=SCORE_SAMPLE_SCHEMA)


def seeded_order(total: int, seed: int) -> NDArray[np.int64]:
    """Ids of all examples in the order in which samples take them: int64 (total,)."""
    return np.random.default_rng(seed).permutation(total)


def memorized(work: Work) -> NDArray[np.int64]:
    """Examples that some model memorizes, exactly or under another attack that ran on it: ascending ids."""
    flags = [
        exposed_by(work, [audited], attack)[audited.name]
        for attack in work.attacks
        for audited in work.models.all
        if is_done(work, attack, audited)
    ]
    return leaked(flags)


def write_scores(work: Work) -> None:
    """Score every text's sample with every model that has weights, as far as `scores_in` did not yet."""
    for audited in work.models.with_weights:
        if _due(work, audited):
            retry_on_oom(audited.name, partial(_load_and_score, work, audited), work.warn)
            work.check_unchanged(audited, partial(scores_files, work, audited))


def _load_and_score(work: Work, audited: AuditedModel, retries: int) -> None:
    work.progress(f"{audited.name}: loading, to score a sample", 0, 0)
    with loaded_scorers(work, audited, retries) as scorers:
        scores_in(scorers, work, audited)


def scores_in(scorers: Scorers, work: Work, audited: AuditedModel) -> None:
    """Score every text's sample, as far as it is not yet, in processes that have the model loaded."""
    for text in _due(work, audited):
        _discard_others(work, audited, text)
        stage = text.scores(audited.name)
        with work.run.stage(stage, _sampling(work, audited), _begun_with(work, audited)):
            _write_pending(scorers, work, audited, text)


def scores_files(work: Work, audited: AuditedModel) -> list[str]:
    """What is written for a model."""
    folders = [text.scores(audited.name) for text in (CORPUS, OF_HOLDOUT, OF_CANARIES)]
    return [shard for folder in folders for shard in work.run.shards(folder)]


def read_scores(
    work: Work, audited: AuditedModel, text: ScoredText = CORPUS, columns: Sequence[str] = SCORES_SCHEMA.names
) -> pa.Table:
    """A finished model's scores of the sample, by example id, the weight behind the id.

    Args:
        work: the run.
        audited: the model.
        text: which is scored.
        columns: of `SCORES_SCHEMA`, the id among them.

    """
    run = work.run
    shards = [run.read_table(shard, [*columns]) for shard in run.shards(text.scores(audited.name))]
    rows = pa.concat_tables(shard.replace_schema_metadata() for shard in shards)
    return of_sample(rows, run.read_table(text.sample))


def is_sampled(work: Work, audited: AuditedModel) -> bool:
    """Whether it is known how likely sampling is to give a suffix."""
    return audited.model.behind is None and _sampling(work, audited) is not None


def _sampling(work: Work, audited: AuditedModel) -> Sampling | None:
    """How tokens would be drawn; none of a model that may write the suffix's text in other tokens too."""
    return None if work.scoring is None or is_by_text(work, audited) else work.scoring.sampling


def _due(work: Work, audited: AuditedModel) -> list[ScoredText]:
    """Texts whose sample is not scored yet, or not all of it."""

    def done(text: ScoredText) -> bool:
        return work.run.done(text.scores(audited.name), _sampling(work, audited))

    return [text for text in _texts_scored(work) if not done(text) or len(_pending(work, audited, text))]


def _pending(work: Work, audited: AuditedModel, text: ScoredText) -> NDArray[np.int64]:
    """Examples of the sample that have no scores yet: ascending ids."""
    run, shards = work.run, work.run.shards(text.scores(audited.name))
    scored = [run.read_table(shard, ["example_id"])["example_id"].to_numpy() for shard in shards]
    sample = run.read_table(text.sample, ["example_id"])["example_id"].to_numpy()
    return np.setdiff1d(sample, np.concatenate([np.empty(0, np.int64), *scored]))


def _begun_with(work: Work, audited: AuditedModel) -> dict[str, Any]:
    """Unfinished scoring starts over once one of these changed."""
    return {**work.stamps(audited), _SAMPLING: _sampling(work, audited)}


def _discard_others(work: Work, audited: AuditedModel, text: ScoredText) -> None:
    """Discard scores of another sampling, or that may be of weights which were here meanwhile."""
    run, folder = work.run, text.scores(audited.name)
    shards = run.shards(folder)
    of_others = shards and setting_of(run.read_table(shards[0], ["example_id"]), _SAMPLING) != _noted(
        _sampling(work, audited)
    )
    if of_others or run.begun_otherwise(folder, _begun_with(work, audited)):
        run.discard(*shards)


def _write_pending(scorers: Scorers, work: Work, audited: AuditedModel, text: ScoredText) -> None:
    """Score what has no scores yet, a shard's worth at a time."""
    run, folder, pending = work.run, text.scores(audited.name), _pending(work, audited, text)
    label, done = f"{audited.name}: scores", 0
    work.progress(label, done, len(pending))
    tables = regrouped(read_examples(run, text.examples, pending), run.shard_rows)
    sampling = _sampling(work, audited)

    def questions() -> Iterator[tuple[tuple[int, Batch], Question]]:
        for number, table in enumerate(tables, next_shard(run, folder)):
            batch = examples_for(work, audited, table)
            windows = batch.prompts.followed_by(batch.targets)
            yield (number, batch), scores_of(windows, work.models.vocabulary_of(audited), sampling)

    for (number, batch), answered in scorers.each(questions()):
        rows = score_rows(Scores(*answered.arrays), batch)
        notes = shard_notes(scorers.info, answered.seconds, **{_SAMPLING: _noted(sampling)})
        run.write_table(layout.shard(folder, number), rows.replace_schema_metadata(notes))
        done += len(rows)
        work.progress(label, done, len(pending))


def _noted(sampling: Sampling | None) -> str:
    return repr(None if sampling is None else tuple(sampling))
