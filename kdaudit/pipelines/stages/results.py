"""From what an audit found to results.json: counts, comparison, gate, curves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kdaudit import __version__
from kdaudit.analysis.accepted import accepted_notes
from kdaudit.analysis.excess import can_be_cut
from kdaudit.analysis.inheritance import compare_student, soft_vs_hard, survival
from kdaudit.analysis.inheritance_notes import NO_TEACHER
from kdaudit.analysis.intervals import Flags, clopper_pearson
from kdaudit.analysis.personal_data import NOT_SEARCHED
from kdaudit.analysis.pretraining import NO_BASE, also_base
from kdaudit.analysis.unlike import unlike_notes
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.answers import answer_notes
from kdaudit.pipelines.stages.attack_results import attack_notes, attack_results
from kdaudit.pipelines.stages.attacked import Attacked
from kdaudit.pipelines.stages.canary_results import canary_notes, with_canaries
from kdaudit.pipelines.stages.engine_check import engine_notes
from kdaudit.pipelines.stages.judging import judged
from kdaudit.pipelines.stages.leaked import Leaked
from kdaudit.pipelines.stages.likelihoods import likelihood_notes
from kdaudit.pipelines.stages.measured import Measured, Measurements
from kdaudit.pipelines.stages.overlap import overlap_notes, overlap_result
from kdaudit.runs.store import RunStore
from kdaudit.schemas.comparison import AlsoBase, ComparisonResult, SoftVsHard
from kdaudit.schemas.notes import Note
from kdaudit.schemas.results import (
    AuditResults,
    BelowRounding,
    Curves,
    ExtractionResult,
    Floor,
    ModelResult,
    Point,
    Repeated,
)

_Share = TypeVar("_Share", Floor, Repeated)

_CLOUD = 400
"""Points a model that the report draws: more would only thicken the cloud."""


def build_results(run: RunStore, measurements: Measurements, leaked: Leaked) -> AuditResults:
    """Everything in results.json."""
    models = {name: _model_result(measurements, one) for name, one in measurements.by_model.items()}
    comparison, soft_hard, notes = _compare(measurements)
    attacks = with_canaries(attack_results(measurements), measurements.canaries)
    gate = judged(measurements, models, comparison, attacks, leaked)
    return AuditResults(
        schema_version="2",
        name=measurements.config.name,
        created=run.created,
        kdaudit_version=__version__,
        seed=measurements.config.seed,
        corpus=measurements.corpus,
        extraction=_extraction_result(measurements),
        models=models,
        comparison=comparison,
        soft_vs_hard=soft_hard,
        predictor=measurements.prediction.result,
        curves=_curves(measurements),
        gate=gate,
        leaks=leaked.worst,
        leak_counts=leaked.counts,
        leak_suffixes=leaked.suffixes,
        generated=measurements.generated,
        holdout_overlap=overlap_result(measurements.overlap),
        attacks=attacks,
        accepted=leaked.accepted,
        notes=[
            *accepted_notes(leaked.accepted),
            *notes,
            *_missing(measurements),
            *attack_notes(measurements, attacks),
            *canary_notes(run, measurements.models),
            *measurements.prediction.notes,
        ],
    )


def _curves(measurements: Measurements) -> Curves:
    """The predictor's curves, and for all but the teacher the cloud of entropy against log-probability."""
    points = {
        name: [
            Point(x=float(entropy), y=float(log_p))
            for entropy, log_p in cloud[:: max(1, len(cloud) // _CLOUD)]
        ]
        for name, cloud in measurements.entropies.items()
        if name != "teacher"
    }
    return measurements.prediction.curves.model_copy(update={"entropy_logprob": points or None})


def _missing(measurements: Measurements) -> list[Note]:
    notes = [
        Note(code="tags_not_searched", subject=None, text=NOT_SEARCHED),
        *engine_notes({name: one.checked for name, one in measurements.by_model.items()}),
        *likelihood_notes({name: one.likelihood for name, one in measurements.by_model.items()}),
        *measurements.notes,
        *answer_notes(
            measurements.corpus, {"holdout": measurements.holdout, "generated": measurements.generated}
        ),
        *overlap_notes(measurements.overlap, sampled=measurements.corpus.sampled),
        *_unlike_notes(measurements),
        *_own_rate_notes(measurements),
    ]
    notes += [note for one in measurements.by_model.values() for note in _endpoint_notes(one)]
    if measurements.config.holdout is None:
        text = "Without a holdout corpus there is no false-positive floor and no perplexity of any model."
        notes.insert(0, Note(code="no_holdout", subject="holdout", text=text))
    if without := measurements.corpus.skipped.no_boundary:
        text = (
            "Windows that are left out because the models' tokenizers have no boundary in common near the "
            f"end of prefix or suffix: {without:,}, beside {measurements.corpus.windows:,} that are audited."
        )
        notes.append(Note(code="no_joint_boundary", subject="corpus", text=text))
    unknown = [name for name, one in measurements.by_model.items() if one.below_rounding is None]
    if unknown:
        text = (
            f"For how many examples rounding may decide is not known of {', '.join(unknown)}. It takes an "
            "engine check, and margins, which the predictor's features give of teacher and first baseline."
        )
        notes.append(Note(code="rounding_unknown", subject="below_rounding", text=text))
    if measurements.models.teacher is None:
        notes.insert(0, Note(code="no_teacher", subject="teacher", text=NO_TEACHER))
    if measurements.models.base is None:
        notes.append(Note(code="no_base", subject="base", text=NO_BASE + _base_of_adapters(measurements)))
    return notes


def _base_of_adapters(measurements: Measurements) -> str:
    """That the untouched model is at hand, where students are adapters; empty where none is."""
    names = [audited.name for audited in measurements.models.students if audited.model.adapted is not None]
    return f" Of {', '.join(names)} it is the base model of the adapter." if names else ""


def _unlike_notes(measurements: Measurements) -> list[Note]:
    """Whether the baselines are too unlike to measure chance."""
    if measurements.family.teacher is None:
        return []
    return unlike_notes({one.name: measurements.memorized(one.name) for one in measurements.models.baselines})


def _own_rate_notes(measurements: Measurements) -> Iterator[Note]:
    """Why baselines are not cut at a student's count."""
    family = measurements.family
    if family.teacher is None or len(family.baselines) < 2:
        return
    for student in measurements.models.students:
        count = int(np.count_nonzero(measurements.memorized(student.name)))
        if not all(can_be_cut(one, count) for one in family.baselines):
            text = (
                f"Student {student.name}: what chance gives at its own rate is not known. It memorizes more "
                "than a baseline, and what that one is near to besides takes the scoring pass "
                "(attacks.sampled, or attacks.membership with a holdout)."
            )
            yield Note(code="own_rate_unknown", subject=student.name, text=text)


def _endpoint_notes(measured: Measured) -> Iterator[Note]:
    """What a reader should know of a server that takes or gives less than its engine would."""
    name, engine = measured.audited.name, measured.corpus.engine
    if engine.engine != "endpoint":
        return
    if "text" in engine.version:
        text = (
            f"{name} was asked by text {engine.version}. A prefix that it reads as other tokens than the "
            "audit's is another prompt to it, and a continuation that begins with the suffix's text counts "
            "as memorized."
        )
        yield Note(code="endpoint_text", subject=name, text=text)
    if "settings alone" in engine.version:
        text = (
            f"{name}'s server takes OpenAI's settings alone. It stops at an end token and leaves special "
            "tokens out of its text, so a suffix that holds one counts as not memorized there."
        )
        yield Note(code="endpoint_stops", subject=name, text=text)


def _model_result(measurements: Measurements, measured: Measured) -> ModelResult:
    audited, corpus = measured.audited, measured.corpus
    memorized = measurements.memorized(audited.name)
    count, total = int(memorized.sum()), len(memorized)
    return ModelResult(
        role=audited.role,
        kd=audited.kd,
        examples=total,
        memorized=count,
        rate=count / total,
        ci95=clopper_pearson(count, total),
        ci95_by_document=measurements.family.documents.rate(memorized),
        windows_memorized=int(measurements.copies[memorized].sum(dtype=np.int64)),
        survival=survival(corpus.rows["matched_tokens"].to_numpy(), measurements.target_lengths),
        holdout=_floor(measured.holdout, measurements.overlap),
        generated=_repeated(measured.generated),
        perplexity=None if measured.likelihood is None else measured.likelihood.perplexity,
        bits_per_byte=None if measured.likelihood is None else measured.likelihood.bits_per_byte,
        fingerprint=audited.model.fingerprint,
        seconds=round(corpus.seconds, 3),
        tokens_per_second=round(measurements.prompt_tokens / corpus.seconds, 1) if corpus.seconds else None,
        engine_check=measured.checked.check,
        matched_by="text" if audited.name in measurements.models.by_text else "tokens",
        below_rounding=_below_rounding(memorized, measured.below_rounding),
        quantization=None if audited.model.quantization is None else audited.model.quantization.name,
    )


def _below_rounding(memorized: Flags, near: NDArray[np.float64] | None) -> BelowRounding | None:
    if near is None:
        return None
    lost, count = round(near[memorized].sum()), int(memorized.sum())
    return BelowRounding(
        memorized=lost, others=round(near[~memorized].sum()), share=lost / count if count else None
    )


def _floor(found: Attacked | None, overlap: Flags | None) -> Floor | None:
    """What is memorized of the holdout, without what stands in the corpus too; None if nothing is left."""
    if found is None or overlap is None or overlap.all():
        return None
    return _share(found.exposed[~overlap], Floor)


def _repeated(found: Attacked | None) -> Repeated | None:
    """What is memorized of the teacher's own text."""
    return None if found is None else _share(found.exposed, Repeated)


def _share(exposed: Flags, kind: type[_Share]) -> _Share:
    count, total = int(exposed.sum()), len(exposed)
    return kind(examples=total, memorized=count, rate=count / total, ci95=clopper_pearson(count, total))


def _extraction_result(measurements: Measurements) -> ExtractionResult:
    engines = [measured.corpus.engine for measured in measurements.by_model.values()]
    answers = measurements.corpus.answers
    return ExtractionResult(
        engine=", ".join(dict.fromkeys(engine.engine for engine in engines)),
        engine_version=", ".join(sorted({engine.version for engine in engines})),
        prefix_tokens=measurements.split.prefix_tokens,
        suffix_tokens=measurements.split.suffix_tokens,
        bos=measurements.split.bos is not None if answers is None else answers.bos,
        dtype=", ".join(sorted({engine.dtype for engine in engines})),
        device=", ".join(sorted({engine.device for engine in engines})),
    )


class _Compared(NamedTuple):
    comparison: dict[str, ComparisonResult]
    soft_vs_hard: SoftVsHard | None
    notes: list[Note]


def _compare(measurements: Measurements) -> _Compared:
    notes: list[Note] = []
    comparison = {}
    for student in measurements.models.students:
        found = compare_student(student.name, measurements.memorized(student.name), measurements.family)
        comparison[student.name] = found.figures.model_copy(
            update={"also_base": _also_base(measurements, student)}
        )
        notes += found.notes
    pair = {kd: _first(measurements.models.students, kd) for kd in ("soft", "hard")}
    soft, hard = pair["soft"], pair["hard"]
    if soft is None or hard is None:
        text = (
            "Soft and hard KD are not compared: that takes one student of each kind (models.students, key "
            "kd)."
        )
        notes.append(Note(code="soft_vs_hard_missing", subject="soft_vs_hard", text=text))
        return _Compared(comparison, None, notes)
    others = [one.name for one in measurements.models.students if one.kd and one not in (soft, hard)]
    if others:
        text = (
            f"Soft and hard KD are compared for the first student of each kind; not for {', '.join(others)}."
        )
        notes.append(Note(code="soft_vs_hard_partial", subject="soft_vs_hard", text=text))
    both = soft_vs_hard(
        soft.name,
        hard.name,
        measurements.memorized(soft.name),
        measurements.memorized(hard.name),
        measurements.family,
    )
    return _Compared(comparison, both.figures, [*notes, *both.notes])


def _also_base(measurements: Measurements, student: AuditedModel) -> AlsoBase | None:
    base = measurements.models.base
    if base is None:
        return None
    family = measurements.family
    return also_base(
        measurements.memorized(student.name), family.teacher, family.flags, measurements.memorized(base.name)
    )


def _first(students: list[AuditedModel], kd: str) -> AuditedModel | None:
    return next((student for student in students if student.kd == kd), None)
