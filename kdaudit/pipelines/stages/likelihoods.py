"""What each model makes of whole windows: perplexity of the holdout, and entropy against log-probability.

One model is loaded at a time, for both, and reads no window twice: what the features hold of teacher and
baseline is taken from there. The second is the data of the paper's finding 8: for each example the mean
entropy of a model's next-token distribution, and the mean log-probability that it gives to the tokens that
stand there, in nats, over all tokens after the first. It is taken on a seeded sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks.examples import windows_of
from kdaudit.inference.base import Tokens
from kdaudit.inference.retry import retry_on_oom
from kdaudit.inference.scoring import FeatureWorker
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.nearness import score_in
from kdaudit.pipelines.stages.scoring import read_features, role_in_features
from kdaudit.pipelines.stages.work import HOLDOUT, Work
from kdaudit.runs import layout
from kdaudit.runs.examples import read_examples

Floats = NDArray[np.float64]
EntropyPoints = dict[str, NDArray[np.float64]]
"""For each model float64 (examples, 2): mean token entropy and mean log-probability, in nats."""

_AXES = layout.ENTROPY_SCHEMA.names[2:]
_SAMPLE = 2000
"""Examples whose entropy is taken: enough to see a cloud of points, and cheap beside the features."""


def write_likelihoods(work: Work, examples: int) -> None:
    """Both, for every model, each into files of its own; then the table of all models' entropies.

    Args:
        work: the run.
        examples: how many there are.

    """
    run, members = work.run, work.models.members
    if not (run.shards(HOLDOUT) or work.predictor.enabled):
        return
    sample = _sample(work.seed, examples)
    for number, member in enumerate(members):
        stage, files = likelihood_of(member), _files(work, member)
        if not run.done(stage):  # they may be of a model that was changed before it was checked
            run.discard(*files)
        if not all(run.has(name) for name in files):
            work.progress(f"{member.name}: perplexity and entropy", 0, 0)
            with run.stage(stage):
                _measure(work, member, sample)
        work.progress("perplexity and entropy", number + 1, len(members))
    if work.predictor.enabled:
        _write_all_entropies(work)


def _write_all_entropies(work: Work) -> None:
    run, names = work.run, [layout.entropy(member.name) for member in work.models.members]
    depends = [run.hash_of(name) for name in names]
    if not run.done("entropy", depends):
        with run.stage("entropy", depends):
            run.write_table(layout.ENTROPY_LOGPROB, pa.concat_tables(map(run.read_table, names)))


def _files(work: Work, member: AuditedModel) -> list[str]:
    """What is written for a model."""
    wanted = [layout.perplexity(member.name)] if work.run.shards(HOLDOUT) else []
    return [*wanted, layout.entropy(member.name)] if work.predictor.enabled else wanted


def _sample(seed: int, examples: int) -> NDArray[np.int64]:
    chosen = np.random.default_rng(seed).choice(examples, min(_SAMPLE, examples), replace=False)
    return np.sort(chosen).astype(np.int64)


def _measure(work: Work, member: AuditedModel, sample: NDArray[np.int64]) -> None:
    run = work.run
    role = role_in_features(work, member)
    if work.predictor.enabled and role is not None and not run.has(layout.entropy(member.name)):
        run.write_table(layout.entropy(member.name), _from_features(work, member, role, sample))
    if all(run.has(name) for name in _files(work, member)):
        return

    def attempt(retries: int) -> None:
        with FeatureWorker(*work.files(member), retries) as worker:
            if run.shards(HOLDOUT) and not run.has(layout.perplexity(member.name)):
                found = worker.perplexity(_holdout_windows(work), work.split_of(member).bos)
                run.write_text(layout.perplexity(member.name), json.dumps(found) + "\n")
            if work.predictor.enabled and not run.has(layout.entropy(member.name)):
                table = _entropies(work, member, worker, sample)
                run.write_table(layout.entropy(member.name), table)
            score_in(worker, work, member)

    retry_on_oom(member.name, attempt, work.warn)
    work.check_unchanged(member, lambda: [*_files(work, member), layout.nearness(member.name)])


def _from_features(work: Work, member: AuditedModel, role: str, sample: NDArray[np.int64]) -> pa.Table:
    entropy, perplexity = read_features(work, (f"{role}_entropy", f"{role}_perplexity"))[sample].T
    return _points(member, sample, entropy, -np.log(perplexity))


def _holdout_windows(work: Work) -> Iterator[list[Tokens]]:
    for shard in work.run.shards(HOLDOUT):
        yield list(windows_of(work.run.read_table(shard, ["token_ids"])))


def _entropies(
    work: Work, member: AuditedModel, worker: FeatureWorker, sample: NDArray[np.int64]
) -> pa.Table:
    before, entropies, log_probabilities = worker.seconds, [], []
    bos = work.split_of(member).bos
    for table in read_examples(work.run, layout.EXAMPLES, sample):
        found = worker.entropy(list(windows_of(table)), bos, work.vocabulary)
        entropies.append(found.entropy)
        log_probabilities.append(found.log_probability)
    table = _points(member, sample, np.concatenate(entropies), np.concatenate(log_probabilities))
    return table.replace_schema_metadata({"seconds": repr(worker.seconds - before)})


def _points(
    member: AuditedModel, sample: NDArray[np.int64], entropy: Floats, log_probability: Floats
) -> pa.Table:
    columns = [sample, [member.name] * len(sample), entropy, log_probability]
    return pa.table([pa.array(column) for column in columns], schema=layout.ENTROPY_SCHEMA)


def read_entropies(work: Work) -> EntropyPoints:
    """The sample's points of each model; empty where none were taken."""
    if not work.predictor.enabled:
        return {}
    points = {}
    for member in work.models.members:
        table = work.run.read_table(layout.entropy(member.name))
        points[member.name] = np.stack([table[name].to_numpy() for name in _AXES], axis=1)
    return points


def likelihood_of(member: AuditedModel) -> str:
    """The stage of a model's perplexity and entropy."""
    return f"{layout.PERPLEXITY}/{member.name}"
