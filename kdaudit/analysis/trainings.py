"""The figures of several audits of one corpus, side by side and over trainings (`kdaudit.analysis.spread`).

A model that several runs share was trained once: it has no spread, and what is measured against it holds
nothing of what another one would give. Notes say so.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kdaudit import __version__
from kdaudit.analysis.spread import Spread, spread
from kdaudit.schemas.notes import Note
from kdaudit.schemas.result import Interval
from kdaudit.schemas.results import AuditResults
from kdaudit.schemas.trainings import (
    Form,
    Training,
    TrainingsCorpus,
    TrainingsFigure,
    TrainingsResults,
)


class _Wanted(NamedTuple):
    """A figure that is shown."""

    key: str
    what: str
    form: Form
    interval: str | None = None
    """Key of its interval, beside it."""


_OF_MODEL = (
    _Wanted("rate", "Memorization rate", "percent", "ci95"),
    _Wanted("perplexity", "Perplexity of the holdout", "number"),
)
_OF_STUDENT = (
    _Wanted("ratio_to_baseline", "Rate, relative to the baselines", "times", "ratio_ci95"),
    _Wanted("difference", "Rate minus the baselines'", "points", "difference_ci95"),
    _Wanted("share_in_easy_core", "Share of its memorized examples in the easy core", "percent"),
    _Wanted("teacher_specific", "Teacher-specific examples", "count"),
    _Wanted("inherited", "Inherited of these", "count"),
    _Wanted("inheritance_rate", "Inheritance rate", "percent", "inheritance_ci95"),
    _Wanted("reference_inheritance", "Inheritance rate with one baseline as the reference", "percent"),
    _Wanted("inheritance_floor", "What other baselines regain there by chance", "percent"),
    _Wanted("excess_inheritance", "Inheritance beyond chance", "points", "excess_ci95"),
    _Wanted("ratio_to_floor", "Inheritance relative to chance", "times", "ratio_to_floor_ci95"),
    _Wanted(
        "excess_at_own_rate",
        "Inheritance beyond chance at the student's own rate",
        "points",
        "excess_at_own_rate_ci95",
    ),
)
_OF_PAIR = (
    _Wanted("ratio", "Inherited, hard over soft", "times", "ratio_ci95"),
    _Wanted("difference", "Inheritance rate, hard minus soft", "points", "difference_ci95"),
    _Wanted("excess_difference", "Beyond chance, hard minus soft", "points", "excess_difference_ci95"),
    _Wanted("share_of_hard_in_soft", "Share of hard's memorized examples that are soft's too", "percent"),
)
_OF_PREDICTOR = (_Wanted("auc.mean", "AUC of the risk predictor", "number"),)


_OF_CONTROLS = frozenset({"teacher_specific", "inheritance_floor"})
"""Figures of a student's comparison that teacher and baselines alone determine."""


def over_trainings(found: Sequence[AuditResults]) -> TrainingsResults:
    """Every figure over all runs, which are of one corpus."""
    first = found[0]
    corpus = TrainingsCorpus.model_validate(first.corpus.model_dump(include={*TrainingsCorpus.model_fields}))
    return TrainingsResults(
        kdaudit_version=__version__,
        corpus=corpus,
        prefix_tokens=first.extraction.prefix_tokens,
        suffix_tokens=first.extraction.suffix_tokens,
        runs=[_training(one) for one in found],
        figures=list(_figures(found)),
        notes=list(_notes(found)),
    )


def _training(run: AuditResults) -> Training:
    models = {name: model.public_fingerprint for name, model in run.models.items()}
    return Training(name=run.name, created=run.created, models=models)


def _figures(found: Sequence[AuditResults]) -> Iterator[TrainingsFigure]:
    runs = [one.model_dump() for one in found]
    shared, of_controls = _shared(found), _OF_CONTROLS if _share_controls(found) else frozenset()
    for name in _common(found):
        once = frozenset(one.key for one in _OF_MODEL) if name in shared else frozenset()
        yield from _of([run["models"][name] for run in runs], name, _OF_MODEL, once)
    for name in _common(found):
        if name in found[0].comparison:
            yield from _of([run["comparison"].get(name, {}) for run in runs], name, _OF_STUDENT, of_controls)
    for part, wanted, alike in (
        ("soft_vs_hard", _OF_PAIR, ("soft", "hard")),
        ("predictor", _OF_PREDICTOR, ("labels", "student")),
    ):
        sections = [run[part] or {} for run in runs]
        if all(section.get(key) == sections[0].get(key) for section in sections for key in alike):
            yield from _of(sections, part, wanted)


def _common(found: Sequence[AuditResults]) -> list[str]:
    """Models that every run has, in the first one's order."""
    return [name for name in found[0].models if all(name in one.models for one in found)]


def _shared(found: Sequence[AuditResults]) -> list[str]:
    """Names that stand for one model in several runs."""
    weights = {name: [one.models[name].fingerprint for one in found] for name in _common(found)}
    return [name for name, prints in weights.items() if len({*prints}) < len(prints)]


def _share_controls(found: Sequence[AuditResults]) -> bool:
    """Whether two runs set their students against one teacher and the same baselines, in any order."""
    controls = [
        frozenset(model.fingerprint for model in one.models.values() if model.role in ("teacher", "baseline"))
        for one in found
    ]
    return len({*controls}) < len(controls)


def _of(
    sections: Sequence[Mapping[str, Any]],
    about: str,
    wanted: Iterable[_Wanted],
    once: Container[str] = frozenset(),
) -> Iterator[TrainingsFigure]:
    """The figures of a section that at least one run has.

    Args:
        sections: of each run's results.json.
        about: what they are about.
        wanted: which figures.
        once: keys of those that one training gave to several runs, which have no spread.

    """
    for one in wanted:
        values = [_value(section, one.key) for section in sections]
        intervals = [_interval(section, one.interval) for section in sections]
        if any(value is not None for value in values):
            yield TrainingsFigure(
                about=about,
                key=one.key,
                what=one.what,
                form=one.form,
                values=values,
                intervals=intervals,
                **(Spread() if one.key in once else _spread(values, intervals))._asdict(),
            )


def _spread(values: Sequence[float | None], intervals: Sequence[Interval | None]) -> Spread:
    known = [value for value in values if value is not None]
    return spread(known, intervals) if len(known) == len(values) else Spread()


def _value(section: Mapping[str, Any], key: str) -> float | None:
    found: Any = section
    for part in key.split("."):
        found = None if found is None else found.get(part)
    return None if found is None else float(found)


def _interval(section: Mapping[str, Any], key: str | None) -> Interval | None:
    """By document where there is one."""
    found = None if key is None else section.get(f"{key}_by_document") or section.get(key)
    return None if found is None else (found[0], found[1])


def _notes(found: Sequence[AuditResults]) -> Iterator[Note]:
    common, shared = _common(found), _shared(found)
    for name in sorted({name for one in found for name in one.models} - {*common}):
        text = f"{name} is not in every run, so it has no figures over trainings."
        yield Note(code="not_in_every_run", subject=name, text=text)
    for name in shared:
        text = (
            f"{name} is one model in several runs: its figures have no spread over trainings, and the spread "
            "of those that are measured against it leaves out what another training of it would give."
        )
        yield Note(code="trained_once", subject=name, text=text)
