"""Features of examples under teacher and baseline, a shard's worth at a time.

Both models are in one worker process and meet each window once. Where all examples are scored, shard n holds
the features of the examples of shard n, in their order. Else shards hold those of a sample, in no order; what
an earlier sample had is among them, and of an example that was read again the last row counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks.examples import cuts_of, windows_of
from kdaudit.inference import EngineInfo, Ragged
from kdaudit.inference.checking import Asking
from kdaudit.inference.executors import share_out, wait_for
from kdaudit.inference.retry import retry_on_oom
from kdaudit.inference.scoring import FeatureWorker, PairWorker, SoloScores
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.pipelines.stages.engine_check import check_loaded, write_reference
from kdaudit.pipelines.stages.feature_sample import (
    DueGroups,
    FeatureGroup,
    WantedFeatures,
    due_groups,
    wanted_features,
)
from kdaudit.pipelines.stages.readings import examples_for, is_by_text, windows_for
from kdaudit.pipelines.stages.shard_notes import engine_of, shard_notes
from kdaudit.pipelines.stages.work import Work
from kdaudit.risk.text import zlib_entropy
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import FEATURES_SCHEMA
from kdaudit.runs.store import RunStore

_COLUMNS = FEATURES_SCHEMA.names
_OF_WHOLE = (
    "teacher_perplexity",
    "baseline_perplexity",
    "kl_divergence",
    "teacher_entropy",
    "baseline_entropy",
)
"""Columns that are null where a window was not read to its end."""


def write_features(work: Work, *, measures: bool = False) -> None:
    """Score what `wanted_features` says, resuming an earlier call; nothing without teacher and baseline.

    Args:
        work: the run.
        measures: whether what these passes match is what counts as memorized, no engine being asked; then
            they are checked as an engine is.

    """
    run, pair = work.run, scored_pair(work.models)
    if pair is None or features_done(work):
        return
    wanted = wanted_features(work)
    stamps = {**work.stamps(*pair), "columns": _COLUMNS}
    if run.done(layout.FEATURES) or run.begun_otherwise(layout.FEATURES, stamps):
        run.discard(*run.shards(layout.FEATURES))
    for audited in pair if measures else ():
        write_reference(work, audited)
    with run.stage(layout.FEATURES, _depends(wanted), with_=stamps):
        retry_on_oom("features", lambda retries: _write_due(work, pair, wanted, measures, retries), work.warn)
        for audited in pair:
            work.check_unchanged(audited, lambda: run.shards(layout.FEATURES))


def features_done(work: Work) -> bool:
    """Whether all that is wanted is scored, with all columns: an earlier version wrote fewer."""
    there = work.run.has(layout.summary(layout.EXAMPLES))
    return there and work.run.done(layout.FEATURES, _depends(wanted_features(work)))


def _depends(wanted: WantedFeatures) -> list[Any]:
    return _COLUMNS if wanted.depends is None else [*_COLUMNS, wanted.depends]


class ScoredPair(NamedTuple):
    """The models that features are taken under."""

    teacher: AuditedModel
    baseline: AuditedModel


def scored_pair(models: AuditedModels) -> ScoredPair | None:
    """Teacher and first baseline; None where the weights of one are missing, and so there are no features."""
    pair = [models.teacher, *models.baselines[:1]]
    found = [one for one in pair if one is not None and one.model.behind is None]
    return ScoredPair(*found) if len(found) == len(ScoredPair._fields) else None


def role_in_features(work: Work, audited: AuditedModel) -> str | None:
    """What the features call a model that they were taken under; None for any other."""
    pair = scored_pair(work.models)
    if pair is None or not features_done(work):
        return None
    return next((role for role, one in pair._asdict().items() if one is audited), None)


def _write_due(work: Work, pair: ScoredPair, wanted: WantedFeatures, measures: bool, retries: int) -> None:
    groups = due_groups(work, wanted)
    if groups.total:
        write = _write_apart if scored_apart(work) else partial(_write_together, measures=measures)
        write(work, pair, groups, retries=retries)


def _write_together(work: Work, pair: ScoredPair, groups: DueGroups, *, measures: bool, retries: int) -> None:
    """Score examples with both models, each window once."""
    suffix_copies = _suffix_copies(work.run)
    work.progress("features: loading teacher and baseline", 0, 0)
    with ExitStack() as stack:
        workers = _pair_workers(work, pair, groups.total, retries, stack)
        first = workers[0]
        for role, audited in enumerate(pair if measures else ()):
            check_loaded(work, audited, Asking(first.info, _matcher(work, first, audited, role), None))
        work.progress("features", 0, groups.total)
        begin = partial(_begin, work)
        found = share_out(workers, groups.each, begin, lambda worker: worker.finish(), work.warn)
        for done, (group, (scores, seconds)) in enumerate(found, 1):
            _write(work, group, scores._asdict(), suffix_copies, first.info, seconds)
            work.progress("features", done, groups.total)


def _pair_workers(
    work: Work, pair: ScoredPair, groups: int, retries: int, stack: ExitStack
) -> list[PairWorker]:
    """Processes that hold both models, as many as are asked for; they end with the stack."""
    files = [work.files(audited) for audited in pair]
    hosts = stack.enter_context(work.executor.hosts([work.hosted(audited) for audited in pair], groups))
    begun = [
        stack.enter_context(
            PairWorker(
                *files,
                vocabulary=work.vocabulary,
                teacher_bos=work.split_of(pair.teacher).bos,
                baseline_bos=work.split_of(pair.baseline).bos,
                retries=retries,
                start=start,
            )
        )
        for start in hosts.starts
    ]
    wait_for(begun, work.warn)
    # All features must come from one engine: GPUs of another kind stay idle.
    return [worker for worker in begun if worker.info == begun[0].info]


def _begin(work: Work, worker: PairWorker, group: FeatureGroup) -> None:
    prompts, targets = cuts_of(group.examples, work.split)
    windows = windows_of(group.examples)
    read = windows.head(np.where(group.whole, windows.lengths, prompts + targets))
    worker.begin(read, prompts, targets)


def _with_progress(work: Work, groups: DueGroups) -> Iterator[FeatureGroup]:
    for done, group in enumerate(groups.each):
        work.progress("features", done, groups.total)
        yield group
    work.progress("features", groups.total, groups.total)


def _matcher(
    work: Work, worker: PairWorker, audited: AuditedModel, role: int
) -> Callable[[Ragged, Ragged], NDArray[np.int16]]:
    """What these passes match of suffixes under the teacher (0) or the baseline (1), see `Engine.match`."""
    begin = int(work.split_of(audited).bos is not None)  # which the passes add themselves

    def match(prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        read = prompts.tail(begin)
        scores = worker.scores(read.followed_by(targets), read.lengths, targets.lengths)
        return (scores.teacher_matched, scores.baseline_matched)[role]

    return match


def scored_apart(work: Work) -> bool:
    """Whether teacher and baseline read different tokens: each is scored by itself, and there is no KL."""
    pair = scored_pair(work.models)
    return pair is not None and any(is_by_text(work, audited) for audited in pair)


def _write_apart(work: Work, pair: ScoredPair, groups: DueGroups, *, retries: int) -> None:
    """Score examples with teacher and baseline by themselves, each on its own tokens of the same text."""
    suffix_copies = _suffix_copies(work.run)
    with ExitStack() as stack:
        work.progress("features: loading teacher and baseline", 0, 0)
        workers = {
            role: stack.enter_context(FeatureWorker(*work.files(audited), retries))
            for role, audited in pair._asdict().items()
        }
        for group in _with_progress(work, groups):
            before = sum(worker.seconds for worker in workers.values())
            scores: dict[str, NDArray[Any]] = {}
            for role, audited in pair._asdict().items():
                found = _solo(work, audited, workers[role], group)
                scores |= {f"{role}_{name}": values for name, values in found._asdict().items()}
            seconds = sum(worker.seconds for worker in workers.values()) - before
            _write(work, group, scores, suffix_copies, workers["teacher"].info, seconds)


def _solo(work: Work, audited: AuditedModel, worker: FeatureWorker, group: FeatureGroup) -> SoloScores:
    bos, vocabulary = work.split_of(audited).bos, work.models.vocabulary_of(audited)
    cut = examples_for(work, audited, group.examples)
    prompts, targets = cut.prompts.lengths - (bos is not None), cut.targets.lengths
    windows = windows_for(work, audited, group.examples)
    read = windows.head(np.where(group.whole, windows.lengths, prompts + targets))
    return worker.solo(read, prompts, targets, bos, vocabulary)


def _write(
    work: Work,
    group: FeatureGroup,
    scores: Mapping[str, NDArray[Any]],
    suffix_copies: NDArray[np.int64],
    info: EngineInfo,
    seconds: float,
) -> None:
    table = _table(group, scores, suffix_copies).replace_schema_metadata(shard_notes(info, seconds))
    work.run.write_table(group.name, table)


def _suffix_copies(run: RunStore) -> NDArray[np.int64]:
    """Places of each example's suffix: int64 (examples,)."""
    counts: NDArray[np.int64] = run.read_table(layout.SUFFIX_COPIES)["suffix_copies"].to_numpy()
    return counts


def _table(
    group: FeatureGroup, scores: Mapping[str, NDArray[Any]], suffix_copies: NDArray[np.int64]
) -> pa.Table:
    """A shard of features; null where the scores lack a column, or the window was not read to its end."""
    examples = group.examples
    ids = examples["example_id"].to_numpy()
    columns = {
        **{name: pa.nulls(len(ids), FEATURES_SCHEMA.field(name).type) for name in _COLUMNS},
        **{name: scores[name] for name in _COLUMNS if name in scores},
        "example_id": ids,
        "zlib_entropy": [zlib_entropy(text) for text in examples["text"].to_pylist()],
        "teacher_perplexity": np.exp(scores["teacher_nll"]),
        "baseline_perplexity": np.exp(scores["baseline_nll"]),
        "suffix_copies": suffix_copies[ids],
        "copies": examples["copies"],
        "tokens": examples["token_ids"].combine_chunks().value_lengths(),
    }
    for name in _OF_WHOLE:
        if name == "kl_divergence" and name not in scores:
            continue
        columns[name] = pa.array(columns[name], mask=~group.whole)
    return pa.table(columns, schema=FEATURES_SCHEMA)


def read_features(
    work: Work, names: tuple[str, ...], ids: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Columns of the features: float64 (examples, names); NaN for null.

    Args:
        work: the run.
        names: of the columns.
        ids: which examples; None for all, by ascending id.

    """
    table = features_table(work, ids, names)
    return np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float64)


def features_table(
    work: Work, ids: NDArray[np.int64] | None = None, names: tuple[str, ...] = tuple(_COLUMNS)
) -> pa.Table:
    """The same as a table, nulls as they are."""
    run, columns = work.run, [*dict.fromkeys(["example_id", *names])]
    shards = [run.read_table(shard, columns) for shard in run.shards(layout.FEATURES)]
    rows = pa.concat_tables(shard.replace_schema_metadata() for shard in shards)
    there = rows["example_id"].to_numpy()
    places = np.full(there.max(initial=-1) + 1, -1)
    places[there] = np.arange(len(there))  # of an example that was read again the last row counts
    return rows.take(places if ids is None else places[ids])


def read_scoring(work: Work) -> EngineInfo:
    """What the teacher's forward passes ran on."""
    return engine_of(work.run.read_table(work.run.shards(layout.FEATURES)[0], ["example_id"]))
