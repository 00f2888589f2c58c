"""From features and labels to a predictor, and from that to the risk of what was scored.

`prediction.json` keeps what the predictor was found to be worth, so that results can be made again without
fitting again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags, Floats
from kdaudit.attacks.examples import examples_of
from kdaudit.config.predictor import LabelKind
from kdaudit.models.checkpoint.files import read_config
from kdaudit.pipelines.stages.feature_sample import ScoredExamples, scored_examples
from kdaudit.pipelines.stages.features import read_features, scored_apart, scored_pair
from kdaudit.pipelines.stages.risks import estimate_flagged, sample_words, write_risks
from kdaudit.pipelines.stages.work import Work
from kdaudit.risk import (
    Fitted,
    Predictor,
    PredictorSettings,
    Table,
    Units,
    features_for,
    find_underpowered,
    find_units,
    fit_predictor,
    predictor_note,
    risk_histogram,
)
from kdaudit.runs import layout
from kdaudit.runs.examples import read_shard
from kdaudit.schemas.notes import Note, Notes, text_of
from kdaudit.schemas.predictor import Origin, PredictorResult, RecallThreshold
from kdaudit.schemas.result import Result
from kdaudit.schemas.results import Curves

_NO_DIVERGENCE = (
    "The risk predictor does without the KL divergence of teacher and baseline, which is undefined: their "
    "tokenizers differ, and so do the vocabularies of their distributions. What the baseline makes of a "
    "suffix is taken over its own tokens of the same text."
)


class Prediction(Result):
    """What a predictor was found to be worth, or why there is none."""

    result: PredictorResult
    curves: Curves
    thresholds: tuple[RecallThreshold, ...] = ()
    """Of rising recall; empty without a predictor, or with one from elsewhere."""
    notes: Notes


def absent(reason: str) -> Prediction:
    """No predictor, and why."""
    result = PredictorResult(status="disabled", reason=reason)
    return Prediction(result=result, curves=Curves(), notes=[predictor_note("no_predictor", reason)])


def label_flags(kind: str, memorized: Mapping[str, Flags], student: str | None) -> Flags:
    """The prediction target: bool (examples,).

    Args:
        kind: student, easy_core or teacher.
        memorized: which examples each model memorizes, by its name; the teacher among them, unless the labels
            are a student's.
        student: the student's name, for labels of that kind.

    """
    if kind == "student":
        return memorized[student or ""]
    teacher = memorized["teacher"]
    if kind == "teacher":
        return teacher
    baselines = [flags for name, flags in memorized.items() if layout.is_baseline(name)]
    easy: Flags = teacher & np.logical_or.reduce(baselines)
    return easy


def origin_of(work: Work, kind: LabelKind, student: str | None, corpus: str) -> Origin:
    """What a predictor is fitted on, or used on.

    Args:
        work: the run.
        kind: the labels.
        student: the student's name, for labels of that kind.
        corpus: the corpus's fingerprint.

    """
    pair = scored_pair(work.models)
    if pair is None:
        raise ValueError("there is no predictor without teacher and baseline")
    teacher = pair.teacher.model
    return Origin(
        teacher=teacher.fingerprint,
        baselines=tuple(one.model.fingerprint for one in work.models.baselines),
        family=str(read_config(teacher.folder).get("model_type", "unknown")),
        corpus=corpus,
        labels=kind,
        student=student,
        prefix_tokens=work.split.prefix_tokens,
        suffix_tokens=work.split.suffix_tokens,
    )


def write_prediction(work: Work, labels: Flags, origin: Origin) -> None:
    """Fit a predictor; write predictor.json, the risk of what was scored, and what the predictor is worth.

    Without one, where too few examples are memorized, no example has a risk; what is memorized is flagged.

    Args:
        work: the run, its features written.
        labels: the prediction target: bool (examples,).
        origin: what it is fitted on.

    """
    units = _units(work, labels)
    without = find_underpowered(labels, units.of_row)
    if without is not None:
        _write_without(work, labels, origin, without)
        return
    one_vocabulary = not scored_apart(work)
    names = features_for(work.predictor.features, origin.labels, one_vocabulary=one_vocabulary)
    scored = scored_examples(work)
    positive, features = labels[scored.ids], read_features(work, names, scored.ids)
    settings = PredictorSettings(
        work.predictor.trials, work.predictor.recall, work.predictor.confidence, work.seed
    )

    def step(trials: int) -> None:
        work.progress("predictor: trials", trials, settings.trials)

    step(0)
    table = Table(features, positive, units.of_row[scored.ids], units.name, scored.weights)
    fitted = fit_predictor(table, settings, origin, names, step=step)
    if fitted.predictor is None:
        _write_without(work, labels, origin, fitted)
        return
    risk = write_risk(work, fitted.predictor, features, scored)
    work.run.write_text(layout.PREDICTOR, fitted.predictor.model_dump_json(indent=1) + "\n")
    caveat = [] if units.caveat is None else [predictor_note("guarantee_units", units.caveat)]
    divergence = [] if one_vocabulary else [predictor_note("kl_undefined", _NO_DIVERGENCE)]
    notes = [*fitted.notes, *caveat, *divergence, *_what_is_missing(fitted)]
    facts = facts_of(fitted.predictor, risk)
    if scored.weights is not None:
        estimate = estimate_flagged(fitted.predictor.flagged(risk), scored.weights)
        facts |= {"flagged": estimate.flagged, "sample": estimate.sample}
        notes.append(predictor_note("sampled_scores", sample_words(estimate)))
    result = _result(fitted, settings.trials, facts)
    curves = _curves(fitted, risk, positive, scored.weights)
    write_found(
        work, Prediction(result=result, curves=curves, thresholds=tuple(fitted.thresholds), notes=notes)
    )


def is_underpowered(work: Work, labels: Flags) -> bool:
    """Whether too few examples are memorized, or too few are not: then no predictor needs features."""
    return find_underpowered(labels, _units(work, labels).of_row) is not None


def _write_without(work: Work, labels: Flags, origin: Origin, fitted: Fitted) -> None:
    """Write why there is no predictor; no example has a risk, and what is memorized is flagged."""
    found = PredictorResult(
        status="underpowered",
        reason=text_of(fitted.notes, "no_predictor"),
        labels=origin.labels,
        student=origin.student,
        positives=fitted.positives,
    )
    write_found(work, Prediction(result=found, curves=Curves(), notes=fitted.notes))
    write_risks(work.run, None, labels)


def _what_is_missing(fitted: Fitted) -> list[Note]:
    """Why a figure of a predictor is undefined."""
    notes = []
    if fitted.curves is not None and fitted.curves.calibration is None:
        text = "The risk predictor's calibration is not drawn: too few examples are memorized for two bins."
        notes.append(predictor_note("calibration_undefined", text))
    if fitted.figures is not None and fitted.figures.precision is None:
        text = (
            "The risk predictor's precision is undefined, because no trial flagged any example at even odds "
            "between the two classes."
        )
        notes.append(predictor_note("precision_undefined", text))
    return notes


def _result(fitted: Fitted, trials: int, facts: dict[str, Any]) -> PredictorResult:
    figures = {} if fitted.figures is None else fitted.figures._asdict()
    return PredictorResult(status="ok", positives=fitted.positives, trials=trials, **figures, **facts)


def facts_of(predictor: Predictor, risk: Floats) -> dict[str, Any]:
    """The fields of a `PredictorResult` that a fitted predictor alone determines."""
    return {
        "labels": predictor.labels,
        "student": predictor.origin.student,
        "coefficients": predictor.coefficients,
        "intercept": predictor.intercept,
        "threshold": predictor.threshold,
        "promise": predictor.promise,
        "flagged": int(predictor.flagged(risk).sum()),
    }


def _curves(fitted: Fitted, risk: Floats, positive: Flags, weights: Floats | None) -> Curves:
    drawn = {} if fitted.curves is None else fitted.curves._asdict()
    groups = {"memorized": positive, "other": ~positive}
    return Curves(**drawn, risk_histogram=risk_histogram(risk, groups, weights))


def write_risk(work: Work, predictor: Predictor, features: Floats, scored: ScoredExamples) -> Floats:
    """Write risk.parquet; give the risk of what was scored, float64 (scored,)."""
    risk = predictor.risk(features)
    write_risks(work.run, risk, predictor.flagged(risk), scored.ids)
    return risk


def write_found(work: Work, prediction: Prediction) -> None:
    """Keep what a predictor is worth."""
    work.run.write_text(layout.PREDICTION, prediction.model_dump_json(indent=1) + "\n")


def read_prediction(work: Work) -> Prediction:
    """What was kept by `write_found`."""
    return work.run.read_json(layout.PREDICTION, Prediction)


def _units(work: Work, labels: Flags) -> Units:
    """What the recall guarantee counts: documents, or distinct texts.

    An example that stands in several documents goes by the first of them.
    """
    documents, suffixes = [], []
    for shard in work.run.shards(layout.EXAMPLES):
        table = read_shard(work.run, shard, ["example_id", "document_id", "token_ids"])
        documents.append(_hashes(name.encode() for name in table["document_id"].to_pylist()))
        suffixes.append(_hashes(row.tobytes() for row in examples_of(table, work.split).targets))
    return find_units(np.concatenate(documents), np.concatenate(suffixes), labels)


def _hashes(values: Iterable[bytes]) -> NDArray[np.int64]:
    digests = (hashlib.blake2b(value, digest_size=8).digest() for value in values)
    return np.frombuffer(b"".join(digests), dtype=np.int64)
