"""Which examples features are taken of, how far each of their windows is read, and what is left to do.

A screening scores every example. An audit scores every example that a model memorizes and a seeded sample of
the others, each with a weight: those of the scoring pass, as far as the predictor has use for them. Where too
few are memorized for a predictor, it takes the features of what teacher and baseline memorize, and of the
examples whose entropy is shown: they tell what rounding may decide. What a predictor needs of a window ends
with its suffix, unless it uses the paper's features, which are means over whole windows. Windows whose
entropy is shown are read to their ends: it comes from this pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags
from kdaudit.attacks.examples import cuts_of, windows_of
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.attacked import exposed_by, leaked
from kdaudit.pipelines.stages.scores import draw, memorized, seeded_order
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import FEATURE_SAMPLE_SCHEMA
from kdaudit.runs.examples import next_shard, read_examples, regrouped
from kdaudit.runs.store import RunStore

_ENTROPIES = 2000
"""Examples whose entropy is taken: enough to see a cloud of points, and cheap beside the features."""


_OTHERS_A_POSITIVE, _LEAST_OTHERS = 100, 4000
"""Examples without the label that a predictor is fitted on, at most: with so many for each that has it, more
change neither its AUC nor its calibration, also where both kinds are nearly separable."""


class ScoredExamples(NamedTuple):
    """Examples that a predictor is fitted on; arrays are (examples,), by ascending id."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    """Examples of the corpus that each stands for; None where they are the corpus."""

    @property
    def depends(self) -> dict[str, Any]:
        """What tells a sample from others; empty for the corpus."""
        return {} if self.weights is None else {"sample": _digest(self.ids), "weights": _digest(self.weights)}


class WantedFeatures(NamedTuple):
    """Examples that features are taken of; arrays are (examples,), by ascending id."""

    ids: NDArray[np.int64]
    whole: NDArray[np.bool_]
    """Whether the window is read to its end; else to the end of its suffix."""
    is_corpus: bool
    """Whether these are all examples of the corpus."""

    @property
    def depends(self) -> dict[str, Any] | None:
        """What tells these from others; None for all examples read whole."""
        if self.is_corpus and self.whole.all():
            return None
        return {"ids": _digest(self.ids), "whole": _digest(self.whole)}


def write_feature_sample(work: Work, labels: Flags, *, underpowered: Callable[[], bool]) -> None:
    """Write which examples an audit takes features of, where what it follows from changed.

    Args:
        work: the run, its score sample drawn.
        labels: the prediction target: bool (examples,).
        underpowered: whether too few examples have or lack that label for a predictor.

    """
    run = work.run
    depends = {
        "sample": run.hash_of(layout.SCORE_SAMPLE),
        "labels": _digest(labels),
        "features": work.predictor.features,
        "pair": work.fingerprints(*(one.name for one in _pair(work))),
        "shown": _digest(entropy_sample(work.seed, work.total_examples())),
    }
    if not run.done(layout.FEATURE_SAMPLE, depends):
        with run.stage(layout.FEATURE_SAMPLE, depends):
            positives = 0 if underpowered() else int(labels.sum())
            run.write_table(layout.FEATURE_SAMPLE, _sample(work, positives))


def _sample(work: Work, positives: int) -> pa.Table:
    """Rows of FEATURE_SAMPLE_SCHEMA; 0 positives where there will be no predictor."""
    total = work.total_examples()
    shown = entropy_sample(work.seed, total)
    weight = np.zeros(total)
    if positives:
        enough = max(_LEAST_OTHERS, _OTHERS_A_POSITIVE * positives)
        size = None if work.sample is None else min(work.sample, enough)
        ids, weights = (column.to_numpy() for column in draw(total, memorized(work), size, work.seed).columns)
        weight[ids] = weights
    else:
        certain = leaked([*exposed_by(work, _pair(work)).values()])
        others = np.setdiff1d(shown, certain)
        weight[others] = (total - len(certain)) / max(1, len(others))
        weight[certain] = 1
    ids = np.union1d(np.flatnonzero(weight), shown)
    whole = np.isin(ids, shown, assume_unique=True) | (work.predictor.features == "paper")
    return pa.table([ids, weight[ids], whole], schema=FEATURE_SAMPLE_SCHEMA)


def _pair(work: Work) -> list[AuditedModel]:
    """Teacher and first baseline."""
    return [one for one in (work.models.teacher, *work.models.baselines[:1]) if one is not None]


def scored_examples(work: Work) -> ScoredExamples:
    """Examples that stand for the corpus: what a predictor is fitted on."""
    total, found = work.total_examples(), _read_sample(work)
    if found is None:
        return ScoredExamples(np.arange(total), None)
    ids, weights, _ = found
    ids, weights = ids[weights > 0], weights[weights > 0]
    return ScoredExamples(ids, None if len(ids) == total else weights)


def wanted_features(work: Work) -> WantedFeatures:
    """The examples that features are taken of: those that are scored, and those whose entropy is shown."""
    total, found = work.total_examples(), _read_sample(work)
    if found is None:
        return WantedFeatures(np.arange(total), np.ones(total, np.bool_), is_corpus=True)
    ids, _, whole = found
    return WantedFeatures(ids, whole, is_corpus=len(ids) == total)


def _read_sample(work: Work) -> tuple[NDArray[Any], ...] | None:
    """Columns of FEATURE_SAMPLE_SCHEMA; None in a screening, and without features."""
    if not work.run.has(layout.FEATURE_SAMPLE):
        return None
    table = work.run.read_table(layout.FEATURE_SAMPLE)
    return tuple(column.to_numpy() for column in table.columns)


class FeatureGroup(NamedTuple):
    """Examples that are scored together."""

    name: str
    """The shard that their features are written to."""
    examples: pa.Table
    """Rows of `EXAMPLES_SCHEMA`."""
    whole: NDArray[np.bool_]
    """As in `WantedFeatures`; also true where nothing follows the suffix."""


class DueGroups(NamedTuple):
    """What is not scored yet."""

    total: int
    each: Iterator[FeatureGroup]


def due_groups(work: Work, wanted: WantedFeatures) -> DueGroups:
    """Examples that have no features yet, or not of as much of their window as is wanted."""
    if wanted.is_corpus:
        shards = _due_shards(work.run, wanted)
        beside = ((layout.beside(one, layout.FEATURES), work.run.read_table(one)) for one in shards)
        return DueGroups(len(shards), (_group(work, wanted, *one) for one in beside))
    due, rows = _due_ids(work.run, wanted), work.run.shard_rows
    tables = regrouped(read_examples(work.run, layout.EXAMPLES, due), rows)
    numbered = enumerate(tables, next_shard(work.run, layout.FEATURES))
    named = ((layout.shard(layout.FEATURES, number), table) for number, table in numbered)
    return DueGroups(-(-len(due) // rows), (_group(work, wanted, *one) for one in named))


def _group(work: Work, wanted: WantedFeatures, name: str, examples: pa.Table) -> FeatureGroup:
    prompts, targets = cuts_of(examples, work.split)
    places = np.searchsorted(wanted.ids, examples["example_id"].to_numpy())
    nothing_more = windows_of(examples).lengths == prompts + targets
    return FeatureGroup(name, examples, wanted.whole[places] | nothing_more)


def _due_shards(run: RunStore, wanted: WantedFeatures) -> list[str]:
    """Shards of the examples whose features are not beside them; what stands there instead is discarded."""
    shards = run.shards(layout.EXAMPLES)
    due = [shard for shard in shards if not _is_beside(run, shard, wanted)]
    beside = {layout.beside(shard, layout.FEATURES) for shard in shards if shard not in {*due}}
    run.discard(*(shard for shard in run.shards(layout.FEATURES) if shard not in beside))
    return due


def _is_beside(run: RunStore, shard: str, wanted: WantedFeatures) -> bool:
    name = layout.beside(shard, layout.FEATURES)
    if not run.has(name):
        return False
    ids, entire = _read_so_far(run, name)
    of_shard = run.read_table(shard, ["example_id"])["example_id"].to_numpy()
    return np.array_equal(ids, of_shard) and bool(entire[wanted.whole[ids]].all())


def _due_ids(run: RunStore, wanted: WantedFeatures) -> NDArray[np.int64]:
    """Ids of what is wanted and not there, ascending."""
    missing = np.ones(len(wanted.ids), np.bool_)
    for name in run.shards(layout.FEATURES):
        ids, entire = _read_so_far(run, name)
        places = np.minimum(np.searchsorted(wanted.ids, ids), len(wanted.ids) - 1)
        there = (wanted.ids[places] == ids) & (entire | ~wanted.whole[places])
        missing[places[there]] = False
    return wanted.ids[missing]


def _read_so_far(run: RunStore, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Ids of a shard's examples, and whether their windows were read to the end."""
    table = run.read_table(name, ["example_id", "teacher_entropy"])
    return table["example_id"].to_numpy(), table["teacher_entropy"].is_valid().to_numpy()


def entropy_sample(seed: int, examples: int) -> NDArray[np.int64]:
    """Ids of the examples whose entropy is taken under every model, ascending.

    They are the first of the order in which others are drawn, so that most are scored for the predictor too.

    Args:
        seed: of the order.
        examples: how many there are.

    """
    return np.sort(seeded_order(examples, seed)[:_ENTROPIES])


def _digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()
