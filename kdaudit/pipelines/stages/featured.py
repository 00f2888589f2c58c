"""Which examples features are taken of, how far each of their windows is read, and what is left to do.

A screening scores every example. An audit scores what the scoring pass reads: every example that a model
memorizes and a seeded sample of the others, each with a weight. Where too few are memorized for a predictor,
it takes the features of what teacher and baseline memorize, and of the examples whose entropy is shown: they
tell what rounding may decide. What a predictor needs of a window ends with its suffix, unless it uses the
paper's features, which are means over whole windows. Windows whose entropy is shown are read to their ends:
it comes from this pass.
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
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs import layout
from kdaudit.runs.examples import read_examples, regrouped
from kdaudit.runs.store import RunStore
from kdaudit.schemas.corpus import CorpusResult

_ENTROPIES = 2000
"""Examples whose entropy is taken: enough to see a cloud of points, and cheap beside the features."""


class Scored(NamedTuple):
    """Examples that a predictor is fitted on; arrays are (examples,), by ascending id."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    """Examples of the corpus that each stands for; None where they are the corpus."""

    @property
    def depends(self) -> dict[str, Any]:
        """What tells a sample from others; empty for the corpus."""
        return {} if self.weights is None else {"sample": _digest(self.ids), "weights": _digest(self.weights)}


class Wanted(NamedTuple):
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
    }
    if not run.done(layout.FEATURE_SAMPLE, depends):
        with run.stage(layout.FEATURE_SAMPLE, depends):
            run.write_table(layout.FEATURE_SAMPLE, _sample(work, powered=not underpowered()))


def _sample(work: Work, *, powered: bool) -> pa.Table:
    """Rows of FEATURE_SAMPLE_SCHEMA."""
    total = _total(work)
    shown = entropy_sample(work.seed, total)
    weight = np.zeros(total)
    if powered:
        ids, weights = (column.to_numpy() for column in work.run.read_table(layout.SCORE_SAMPLE).columns)
        weight[ids] = weights
    else:
        certain = leaked([*exposed_by(work, _pair(work)).values()])
        others = np.setdiff1d(shown, certain)
        weight[others] = (total - len(certain)) / max(1, len(others))
        weight[certain] = 1
    ids = np.union1d(np.flatnonzero(weight), shown)
    whole = np.isin(ids, shown, assume_unique=True) | (work.predictor.features == "paper")
    return pa.table([ids, weight[ids], whole], schema=layout.FEATURE_SAMPLE_SCHEMA)


def _pair(work: Work) -> list[AuditedModel]:
    """Teacher and first baseline."""
    return [one for one in (work.models.teacher, *work.models.baselines[:1]) if one is not None]


def scored_examples(work: Work) -> Scored:
    """Examples that stand for the corpus: what a predictor is fitted on."""
    total, found = _total(work), _read_sample(work)
    if found is None:
        return Scored(np.arange(total), None)
    ids, weights, _ = found
    ids, weights = ids[weights > 0], weights[weights > 0]
    return Scored(ids, None if len(ids) == total else weights)


def wanted_features(work: Work) -> Wanted:
    """The examples that features are taken of: those that are scored, and those whose entropy is shown."""
    total, found = _total(work), _read_sample(work)
    if found is None:
        return Wanted(np.arange(total), np.ones(total, np.bool_), is_corpus=True)
    ids, _, whole = found
    return Wanted(ids, whole, is_corpus=len(ids) == total)


def _read_sample(work: Work) -> tuple[NDArray[Any], ...] | None:
    """Columns of FEATURE_SAMPLE_SCHEMA; None in a screening, and without features."""
    if not work.run.has(layout.FEATURE_SAMPLE):
        return None
    table = work.run.read_table(layout.FEATURE_SAMPLE)
    return tuple(column.to_numpy() for column in table.columns)


class Group(NamedTuple):
    """Examples that are scored together."""

    name: str
    """The shard that their features are written to."""
    examples: pa.Table
    """Rows of `EXAMPLES_SCHEMA`."""
    whole: NDArray[np.bool_]
    """As in `Wanted`; also true where nothing follows the suffix."""


class Groups(NamedTuple):
    """What is not scored yet."""

    total: int
    each: Iterator[Group]


def due_groups(work: Work, wanted: Wanted) -> Groups:
    """Examples that have no features yet, or not of as much of their window as is wanted."""
    if wanted.is_corpus:
        shards = _due_shards(work.run, wanted)
        beside = ((layout.beside(one, layout.FEATURES), work.run.read_table(one)) for one in shards)
        return Groups(len(shards), (_group(work, wanted, *one) for one in beside))
    due, rows = _due_ids(work.run, wanted), work.run.shard_rows
    tables = enumerate(regrouped(read_examples(work.run, layout.EXAMPLES, due), rows), _next_shard(work.run))
    named = ((layout.shard(layout.FEATURES, number), table) for number, table in tables)
    return Groups(-(-len(due) // rows), (_group(work, wanted, *one) for one in named))


def _group(work: Work, wanted: Wanted, name: str, examples: pa.Table) -> Group:
    prompts, targets = cuts_of(examples, work.split)
    places = np.searchsorted(wanted.ids, examples["example_id"].to_numpy())
    nothing_more = windows_of(examples).lengths == prompts + targets
    return Group(name, examples, wanted.whole[places] | nothing_more)


def _next_shard(run: RunStore) -> int:
    there = run.shards(layout.FEATURES)
    return layout.shard_number(there[-1])[0] + 1 if there else 0


def _due_shards(run: RunStore, wanted: Wanted) -> list[str]:
    """Shards of the examples whose features are not beside them; what stands there instead is discarded."""
    shards = run.shards(layout.EXAMPLES)
    due = [shard for shard in shards if not _is_beside(run, shard, wanted)]
    beside = {layout.beside(shard, layout.FEATURES) for shard in shards if shard not in {*due}}
    run.discard(*(shard for shard in run.shards(layout.FEATURES) if shard not in beside))
    return due


def _is_beside(run: RunStore, shard: str, wanted: Wanted) -> bool:
    name = layout.beside(shard, layout.FEATURES)
    if not run.has(name):
        return False
    ids, entire = _read_so_far(run, name)
    of_shard = run.read_table(shard, ["example_id"])["example_id"].to_numpy()
    return np.array_equal(ids, of_shard) and bool(entire[wanted.whole[ids]].all())


def _due_ids(run: RunStore, wanted: Wanted) -> NDArray[np.int64]:
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

    Args:
        seed: of the draw.
        examples: how many there are.

    """
    chosen = np.random.default_rng(seed).choice(examples, min(_ENTROPIES, examples), replace=False)
    return np.sort(chosen).astype(np.int64)


def _digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def _total(work: Work) -> int:
    return work.run.read_json(layout.summary(layout.EXAMPLES), CorpusResult).examples
