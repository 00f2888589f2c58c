"""What the attacks beside exact greedy extraction found, as results.json says it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kdaudit.analysis.exposed import inherited_under_attack
from kdaudit.analysis.intervals import Flags, clopper_pearson
from kdaudit.analysis.strata import Strata
from kdaudit.attacks import NearVerbatim
from kdaudit.attacks.sampled import discoverable
from kdaudit.config.attacks import SampledConfig
from kdaudit.pipelines.stages.attacked import Attacked
from kdaudit.pipelines.stages.measured import Measured, Measurements, SampleProbabilities
from kdaudit.schemas.attacks import (
    EVEN,
    PROBABILITIES,
    AttackInheritance,
    AttackResults,
    NearVerbatimResult,
    SampledPoint,
    SampledResult,
)
from kdaudit.schemas.notes import Note

_Exposed = Callable[[Measurements, str], Flags | None]


def attack_results(measurements: Measurements) -> dict[str, AttackResults]:
    """By model; empty if only exact greedy extraction ran."""
    asked = measurements.config.attacks
    if asked.near_verbatim is None and asked.sampled is None and not measurements.membership.results:
        return {}
    found = {name: _results(measurements, name, one) for name, one in measurements.by_model.items()}
    students = {one.name for one in measurements.models.students}
    return {
        name: one.model_copy(update=_inheritance(measurements, name, one)) if name in students else one
        for name, one in found.items()
    }


def attack_notes(measurements: Measurements, attacks: Mapping[str, AttackResults]) -> list[Note]:
    """Which models an attack was not run on, and why, and which figures are not to be relied on."""
    asked = measurements.config.attacks
    near = [name for name, found in attacks.items() if asked.near_verbatim and found.near_verbatim is None]
    drawn = [name for name, found in attacks.items() if asked.sampled and found.sampled is None]
    return [*_not_run(near, drawn), *measurements.membership.notes]


def _not_run(near: list[str], drawn: list[str]) -> list[Note]:
    texts = []
    if near:
        texts.append(
            f"Near-verbatim extraction was not run on {', '.join(near)}: it compares token ids, and "
            "a model behind an endpoint or with a tokenizer of its own gives none that can be compared."
        )
    if drawn:
        texts.append(
            f"Extraction by sampling was not measured of {', '.join(drawn)}: it takes the probability of "
            "each of the suffix's tokens. An endpoint gives none, and a model with its own tokenizer may "
            "write the suffix's text in other tokens too."
        )
    return [Note(code="attack_not_run", subject="attacks", text=text) for text in texts]


def _results(measurements: Measurements, name: str, measured: Measured) -> AttackResults:
    asked = measurements.config.attacks
    near = None if asked.near_verbatim is None else NearVerbatim(asked.near_verbatim.max_edit_distance)
    found = None if near is None else measured.attacks.get(near.name)
    return AttackResults(
        near_verbatim=None if near is None or found is None else _near_verbatim(measurements, found, near),
        sampled=None
        if asked.sampled is None or measured.drawn is None
        else sampled_result(measurements, measured.drawn, asked.sampled),
        membership=measurements.membership.results.get(name),
    )


def _inheritance(measurements: Measurements, student: str, found: AttackResults) -> dict[str, Any]:
    """The attacks of a student with what it inherits under them."""
    each = {"near_verbatim": _nearly, "sampled": _discovered}
    return {
        attack: getattr(found, attack).model_copy(
            update={"inheritance": _inherited(measurements, student, exposed)}
        )
        for attack, exposed in each.items()
        if getattr(found, attack) is not None
    }


def _inherited(measurements: Measurements, student: str, exposed: _Exposed) -> AttackInheritance | None:
    """What a student inherits of what an attack exposes; None if it did not run on all of the family."""
    teacher, baselines = measurements.models.teacher, measurements.models.baselines
    if teacher is None or not baselines:
        return None
    own, of_teacher = (exposed(measurements, name) for name in (student, teacher.name))
    others = [flags for one in baselines if (flags := exposed(measurements, one.name)) is not None]
    if own is None or of_teacher is None or len(others) < len(baselines):
        return None
    return inherited_under_attack(own, of_teacher, others, measurements.family.documents)


def _nearly(measurements: Measurements, name: str) -> Flags | None:
    found = measurements.by_model[name].attacks.get(NearVerbatim.name)
    return None if found is None else found.exposed


def _discovered(measurements: Measurements, name: str) -> Flags | None:
    """Which examples the most queries give as likely as not; None where only a sample is scored."""
    asked, drawn = measurements.config.attacks.sampled, measurements.by_model[name].drawn
    if asked is None or drawn is None or Strata.of(drawn.weights).left:
        return None
    return discoverable(drawn.log_probability, max(asked.queries), EVEN)


def _near_verbatim(measurements: Measurements, found: Attacked, near: NearVerbatim) -> NearVerbatimResult:
    count, total = int(found.exposed.sum()), len(found.exposed)
    most = int(near.limits(measurements.target_lengths).max())
    distances = found.rows["edit_distance"].drop_null().to_numpy()
    return NearVerbatimResult(
        max_edit_distance=near.max_edit_distance,
        examples=total,
        exposed=count,
        rate=count / total,
        ci95=clopper_pearson(count, total),
        ci95_by_document=measurements.family.documents.rate(found.exposed),
        distances=np.bincount(distances, minlength=most + 1).tolist(),
    )


def sampled_result(
    measurements: Measurements, drawn: SampleProbabilities, asked: SampledConfig
) -> SampledResult:
    """What extraction by sampling gives of a model's examples."""
    strata = Strata.of(drawn.weights)
    return SampledResult(
        temperature=asked.temperature,
        top_k=asked.top_k,
        examples=strata.examples,
        scored=len(drawn.example_ids),
        curve=list(_curve(measurements, drawn, strata, asked)),
    )


def _curve(
    measurements: Measurements, drawn: SampleProbabilities, strata: Strata, asked: SampledConfig
) -> Iterator[SampledPoint]:
    for p in PROBABILITIES:
        for queries in sorted({*asked.queries}):
            found = discoverable(drawn.log_probability, queries, p)
            rate, ci95 = strata.share(found)
            by_document = None if strata.left else measurements.family.documents.rate(found)
            yield SampledPoint(queries=queries, p=p, rate=rate, ci95=ci95, ci95_by_document=by_document)
