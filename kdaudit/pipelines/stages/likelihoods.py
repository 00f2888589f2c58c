"""What each model makes of whole windows: perplexity of the holdout, and entropy against log-probability.

One model is loaded at a time, for both and for all else that takes its forward passes (`nearness`,
`scores`): what the features hold of teacher and baseline is taken from there. The second is the data of the
paper's finding 8: for each example the mean entropy of a model's next-token distribution, and the mean
log-probability that it gives to the tokens that stand there, in nats, over all tokens after the first. It is
taken on a seeded sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import RootModel

from kdaudit.analysis.intervals import Floats
from kdaudit.errors import ModelError
from kdaudit.inference.base import Tokens
from kdaudit.inference.retry import retry_on_oom
from kdaudit.inference.scoring import Question, entropy_of, log_likelihood_of
from kdaudit.models.audited import AuditedModel
from kdaudit.models.tokenizer import ModelTokenizer, reader_of
from kdaudit.pipelines.stages.feature_sample import entropy_sample
from kdaudit.pipelines.stages.features import read_features, role_in_features
from kdaudit.pipelines.stages.nearness import score_in
from kdaudit.pipelines.stages.readings import read_for, windows_for
from kdaudit.pipelines.stages.scorers import Scorers, loaded_scorers
from kdaudit.pipelines.stages.scores import scores_files, scores_in
from kdaudit.pipelines.stages.work import HOLDOUT_EXAMPLES, Work
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import ENTROPY_SCHEMA
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore
from kdaudit.schemas.notes import Note
from kdaudit.schemas.result import Result

EntropyPoints = dict[str, Floats]
"""For each model float64 (examples, 2): mean token entropy and mean log-probability, in nats."""

_AXES = ENTROPY_SCHEMA.names[2:]


class Likelihood(Result):
    """The contents of perplexity/MODEL.json."""

    perplexity: float
    bits_per_byte: float | None


class _Written(RootModel[Likelihood | float]):
    """The same, or what earlier versions wrote: the perplexity alone."""


def write_likelihoods(work: Work, examples: int) -> None:
    """Both, for every model, each into files of its own; then the table of all models' entropies.

    Args:
        work: the run.
        examples: how many there are.

    """
    run, audited_models = work.run, work.models.with_weights
    if not audited_models or not (run.shards(HOLDOUT_EXAMPLES) or work.predictor.enabled):
        return
    sample = entropy_sample(work.seed, examples)
    for number, audited in enumerate(audited_models):
        stage, files = _likelihood_of(audited), _files(work, audited)
        if not run.done(stage):  # they may be of a model that was changed before it was checked
            run.discard(*files)
        elif _is_of_others(run, layout.entropy(audited.name), sample):
            run.discard(layout.entropy(audited.name))
        if not all(run.has(name) for name in files):
            work.progress(f"{audited.name}: perplexity and entropy", 0, 0)
            with run.stage(stage):
                _measure(work, audited, sample)
            work.progress("perplexity and entropy", number + 1, len(audited_models))
    if work.predictor.enabled:
        _write_all_entropies(work)


def _write_all_entropies(work: Work) -> None:
    run, names = work.run, [layout.entropy(audited.name) for audited in work.models.with_weights]
    depends = [run.hash_of(name) for name in names]
    if not run.done("entropy", depends):
        with run.stage("entropy", depends):
            run.write_table(layout.ENTROPY_LOGPROB, pa.concat_tables(map(run.read_table, names)))


def _is_of_others(run: RunStore, name: str, sample: NDArray[np.int64]) -> bool:
    """Whether entropies are there, of other examples: earlier versions drew another sample."""
    return run.has(name) and not np.array_equal(run.read_table(name)["example_id"].to_numpy(), sample)


def _files(work: Work, audited: AuditedModel) -> list[str]:
    """What is written for a model."""
    wanted = [layout.perplexity(audited.name)] if work.run.shards(HOLDOUT_EXAMPLES) else []
    return [*wanted, layout.entropy(audited.name)] if work.predictor.enabled else wanted


def _measure(work: Work, audited: AuditedModel, sample: NDArray[np.int64]) -> None:
    run = work.run
    role = role_in_features(work, audited)
    if work.predictor.enabled and role is not None and not run.has(layout.entropy(audited.name)):
        run.write_table(layout.entropy(audited.name), _from_features(work, audited, role, sample))
    if all(run.has(name) for name in _files(work, audited)):
        return

    def attempt(retries: int) -> None:
        with loaded_scorers(work, audited, retries) as scorers:
            if run.shards(HOLDOUT_EXAMPLES) and not run.has(layout.perplexity(audited.name)):
                found = _likelihood(work, audited, scorers)
                run.write_text(layout.perplexity(audited.name), found.model_dump_json() + "\n")
            if work.predictor.enabled and not run.has(layout.entropy(audited.name)):
                table = _entropies(work, audited, scorers, sample)
                run.write_table(layout.entropy(audited.name), table)
            score_in(scorers, work, audited)
            scores_in(scorers, work, audited)

    retry_on_oom(audited.name, attempt, work.warn)
    work.check_unchanged(
        audited,
        lambda: [*_files(work, audited), layout.nearness(audited.name), *scores_files(work, audited)],
    )


def _from_features(work: Work, audited: AuditedModel, role: str, sample: NDArray[np.int64]) -> pa.Table:
    entropy, perplexity = read_features(work, (f"{role}_entropy", f"{role}_perplexity"), sample).T
    return _points(audited, sample, entropy, -np.log(perplexity))


def _likelihood(work: Work, audited: AuditedModel, scorers: Scorers) -> Likelihood:
    """Perplexity and bits per byte of the holdout."""
    lengths, bos = _piece_lengths(audited.tokenizer), work.split_of(audited).bos

    def questions() -> Iterator[tuple[list[Tokens], Question]]:
        for shard in work.run.shards(HOLDOUT_EXAMPLES):
            windows = list(windows_for(work, audited, read_for(work, audited, shard)))
            yield windows, log_likelihood_of(windows, bos)

    total, tokens, size = 0.0, 0, 0
    for windows, answered in scorers.in_order(questions()):
        total += float(answered.arrays[0].sum())
        tokens += sum(len(window) - 1 for window in windows)
        size += 0 if lengths is None else sum(int(lengths[window[1:]].sum()) for window in windows)
    perplexity = float(np.exp(-total / tokens))
    bits = tokens * math.log2(perplexity) / size if size else None
    return Likelihood(perplexity=perplexity, bits_per_byte=bits)


def _piece_lengths(tokenizer: ModelTokenizer) -> NDArray[np.int64] | None:
    """Bytes that each token writes; None where the tokenizer does not say."""
    try:
        return reader_of(tokenizer).bytes_of
    except ModelError:
        return None


def read_likelihood(work: Work, audited: AuditedModel) -> Likelihood:
    """What a model makes of the holdout."""
    found = work.run.read_json(layout.perplexity(audited.name), _Written).root
    return Likelihood(perplexity=found, bits_per_byte=None) if isinstance(found, float) else found


def likelihood_notes(likelihoods: Mapping[str, Likelihood | None]) -> list[Note]:
    """A note where models, by name, have a perplexity and no bits per byte."""
    without = [name for name, one in likelihoods.items() if one is not None and one.bits_per_byte is None]
    text = (
        f"Bits per byte are not known of {', '.join(without)}: an earlier version measured the perplexity, "
        "or the tokenizer's decoder does not write each token by itself."
    )
    return [Note(code="bits_per_byte_unknown", subject="bits_per_byte", text=text)] if without else []


def _entropies(work: Work, audited: AuditedModel, scorers: Scorers, sample: NDArray[np.int64]) -> pa.Table:
    bos, vocabulary = work.split_of(audited).bos, work.models.vocabulary_of(audited)

    def questions() -> Iterator[tuple[None, Question]]:
        for table in read_examples(work.run, layout.EXAMPLES, sample):
            yield None, entropy_of(list(windows_for(work, audited, table)), bos, vocabulary)

    found = [answered for _, answered in scorers.in_order(questions())]
    entropy, log_probability = map(np.concatenate, zip(*(one.arrays for one in found), strict=True))
    table = _points(audited, sample, entropy, log_probability)
    return table.replace_schema_metadata({"seconds": repr(sum(one.seconds for one in found))})


def _points(
    audited: AuditedModel, sample: NDArray[np.int64], entropy: Floats, log_probability: Floats
) -> pa.Table:
    columns = [sample, [audited.name] * len(sample), entropy, log_probability]
    return pa.table([pa.array(column) for column in columns], schema=ENTROPY_SCHEMA)


def read_entropies(work: Work) -> EntropyPoints:
    """The sample's points of each model; empty where none were taken."""
    if not work.predictor.enabled:
        return {}
    points = {}
    for audited in work.models.with_weights:
        table = work.run.read_table(layout.entropy(audited.name))
        points[audited.name] = np.stack([table[name].to_numpy() for name in _AXES], axis=1)
    return points


def _likelihood_of(audited: AuditedModel) -> str:
    """The stage of a model's perplexity and entropy."""
    return f"{layout.PERPLEXITY}/{audited.name}"
