"""Features of every example under teacher and baseline, shard by shard.

Both models are in one worker process and meet each window once. Shard n holds the features of the examples
of shard n, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks.examples import examples_of, windows_of
from kdaudit.inference import EngineInfo, Ragged
from kdaudit.inference.checking import Asking
from kdaudit.inference.retry import retry_on_oom
from kdaudit.inference.scoring import FeatureWorker, PairWorker, SoloScores
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.pipelines.stages.engine_check import check_loaded, write_reference
from kdaudit.pipelines.stages.readings import examples_for, is_by_text, windows_for
from kdaudit.pipelines.stages.work import Work
from kdaudit.risk.text import zlib_entropy
from kdaudit.runs import layout
from kdaudit.runs.examples import read_shard
from kdaudit.runs.store import RunStore

_COLUMNS = layout.FEATURES_SCHEMA.names


def write_features(work: Work, *, measures: bool = False) -> None:
    """Score every example, going on where an earlier call stopped; nothing without teacher and baseline.

    Args:
        work: the run.
        measures: whether what these passes match is what counts as memorized, no engine being asked; then
            they are checked as an engine is.

    """
    run, pair = work.run, scored_pair(work.models)
    if pair is None or features_done(run):
        return
    stamps = {**work.stamps(*pair), "columns": _COLUMNS}
    if run.done(layout.FEATURES) or run.begun_otherwise(layout.FEATURES, stamps):
        run.discard(*run.shards(layout.FEATURES))
    for member in pair if measures else ():
        write_reference(work, member)
    with run.stage(layout.FEATURES, _COLUMNS, with_=stamps):
        retry_on_oom("features", lambda retries: _write_shards(work, pair, measures, retries), work.warn)
        for member in pair:
            work.check_unchanged(member, lambda: run.shards(layout.FEATURES))


def features_done(run: RunStore) -> bool:
    """Whether every example is scored, with all columns: an earlier version wrote fewer."""
    return run.done(layout.FEATURES, _COLUMNS)


class ScoredPair(NamedTuple):
    """The models that features are taken under."""

    teacher: AuditedModel
    baseline: AuditedModel


def scored_pair(models: AuditedModels) -> ScoredPair | None:
    """Teacher and first baseline; None where the weights of one are missing, and so there are no features."""
    pair = [models.teacher, *models.baselines[:1]]
    found = [one for one in pair if one is not None and one.model.behind is None]
    return ScoredPair(*found) if len(found) == len(ScoredPair._fields) else None


def role_in_features(work: Work, member: AuditedModel) -> str | None:
    """What the features call a model that they were taken under; None for any other."""
    pair = scored_pair(work.models)
    if pair is None or not features_done(work.run):
        return None
    return next((role for role, one in pair._asdict().items() if one is member), None)


def _write_shards(work: Work, pair: ScoredPair, measures: bool, retries: int) -> None:
    run = work.run
    shards = run.shards(layout.EXAMPLES)
    pending = [shard for shard in shards if not run.has(layout.beside(shard, layout.FEATURES))]
    if not pending:
        return
    if scored_apart(work):
        _write_apart(work, pair, pending, retries)
        return
    suffix_copies = _suffix_copies(run)
    teacher, baseline = pair
    work.progress("features: loading teacher and baseline", 0, 0)
    with PairWorker(
        work.files(teacher),
        work.files(baseline),
        vocabulary=work.vocabulary,
        teacher_bos=work.split_of(teacher).bos,
        baseline_bos=work.split_of(baseline).bos,
        retries=retries,
    ) as worker:
        for role, member in enumerate((teacher, baseline) if measures else ()):
            check_loaded(work, member, Asking(worker.info, _matcher(work, worker, member, role), None))
        work.progress("features", len(run.shards(layout.FEATURES)), len(shards))
        for shard in pending:
            examples = read_shard(run, shard, ["example_id", "text", "token_ids", "copies"])
            before = worker.seconds
            cut = examples_of(examples, work.split._replace(bos=None))
            lengths = cut.prompts.lengths, cut.targets.lengths
            scores = worker.scores(windows_of(examples), *lengths)
            notes = {**worker.info._asdict(), "seconds": repr(worker.seconds - before)}
            table = _table(examples, scores._asdict(), suffix_copies).replace_schema_metadata(notes)
            run.write_table(layout.beside(shard, layout.FEATURES), table)
            work.progress("features", len(run.shards(layout.FEATURES)), len(shards))


def _matcher(
    work: Work, worker: PairWorker, member: AuditedModel, role: int
) -> Callable[[Ragged, Ragged], NDArray[np.int16]]:
    """What these passes match of suffixes under the teacher (0) or the baseline (1), see `Engine.match`."""
    begin = int(work.split_of(member).bos is not None)  # which the passes add themselves

    def match(prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        read = prompts.tail(begin)
        scores = worker.scores(read.followed_by(targets), read.lengths, targets.lengths)
        return (scores.teacher_matched, scores.baseline_matched)[role]

    return match


def scored_apart(work: Work) -> bool:
    """Whether teacher and baseline read different tokens: each is scored by itself, and there is no KL."""
    pair = scored_pair(work.models)
    return pair is not None and any(is_by_text(work, member) for member in pair)


def _write_apart(work: Work, pair: ScoredPair, pending: Sequence[str], retries: int) -> None:
    """Score shards with teacher and baseline by themselves, each on its own tokens of the same text."""
    run, suffix_copies = work.run, _suffix_copies(work.run)
    count = len(run.shards(layout.EXAMPLES))
    with ExitStack() as stack:
        work.progress("features: loading teacher and baseline", 0, 0)
        workers = {
            role: stack.enter_context(FeatureWorker(*work.files(member), retries))
            for role, member in pair._asdict().items()
        }
        for shard in pending:
            before = sum(worker.seconds for worker in workers.values())
            examples = run.read_table(shard)
            scores: dict[str, NDArray[Any]] = {}
            for role, member in pair._asdict().items():
                found = _solo(work, member, workers[role], examples)
                scores |= {f"{role}_{name}": values for name, values in found._asdict().items()}
            seconds = sum(worker.seconds for worker in workers.values()) - before
            notes = {**workers["teacher"].info._asdict(), "seconds": repr(seconds)}
            table = _table(examples, scores, suffix_copies).replace_schema_metadata(notes)
            run.write_table(layout.beside(shard, layout.FEATURES), table)
            work.progress("features", len(run.shards(layout.FEATURES)), count)


def _solo(work: Work, member: AuditedModel, worker: FeatureWorker, examples: pa.Table) -> SoloScores:
    bos, vocabulary = work.split_of(member).bos, work.models.vocabulary_of(member)
    cut = examples_for(work, member, examples)
    prompts = cut.prompts.lengths - (bos is not None)
    return worker.solo(windows_for(work, member, examples), prompts, cut.targets.lengths, bos, vocabulary)


def _suffix_copies(run: RunStore) -> NDArray[np.int64]:
    """Places of each example's suffix: int64 (examples,)."""
    counts: NDArray[np.int64] = run.read_table(layout.SUFFIX_COPIES)["suffix_copies"].to_numpy()
    return counts


def _table(
    examples: pa.Table, scores: Mapping[str, NDArray[Any]], suffix_copies: NDArray[np.int64]
) -> pa.Table:
    """A shard of features; null where the scores lack a column."""
    ids = examples["example_id"].to_numpy()
    columns = {
        **{name: pa.nulls(len(ids), layout.FEATURES_SCHEMA.field(name).type) for name in _COLUMNS},
        **{name: scores[name] for name in _COLUMNS if name in scores},
        "example_id": ids,
        "zlib_entropy": [zlib_entropy(text) for text in examples["text"].to_pylist()],
        "teacher_perplexity": np.exp(scores["teacher_nll"]),
        "baseline_perplexity": np.exp(scores["baseline_nll"]),
        "suffix_copies": suffix_copies[ids],
        "copies": examples["copies"],
        "tokens": examples["token_ids"].combine_chunks().value_lengths(),
    }
    return pa.table(columns, schema=layout.FEATURES_SCHEMA)


def read_features(work: Work, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Columns of the features: float64 (examples, names)."""
    tables = [work.run.read_table(shard, list(names)) for shard in work.run.shards(layout.FEATURES)]
    columns = [np.concatenate([table[name].to_numpy() for table in tables]) for name in names]
    return np.stack(columns, axis=1).astype(np.float64)


def read_scoring(work: Work) -> EngineInfo:
    """What the teacher's forward passes ran on."""
    notes = work.run.read_table(work.run.shards(layout.FEATURES)[0], ["example_id"]).schema.metadata
    return EngineInfo(*(notes[name.encode()].decode() for name in EngineInfo._fields))
