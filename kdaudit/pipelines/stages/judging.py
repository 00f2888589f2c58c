"""What the gate judges: the students' figures, with accepted leaks left out of what they memorize.

A rate keeps its denominator: an accepted example is one that the student was tried with as with any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdaudit.analysis.accepted import acceptance
from kdaudit.analysis.gate import Others, judge
from kdaudit.analysis.inheritance import compare_student
from kdaudit.analysis.intervals import Flags, clopper_pearson
from kdaudit.attacks import NearVerbatim
from kdaudit.config.gate import GateConfig
from kdaudit.pipelines.stages.attack_results import sampled_result
from kdaudit.pipelines.stages.leaked import Leaked
from kdaudit.pipelines.stages.measured import Measurements
from kdaudit.schemas.attacks import AttackResults, NearVerbatimResult, SampledResult
from kdaudit.schemas.comparison import ComparisonResult
from kdaudit.schemas.results import GateResult, ModelResult


def accepted_state(gate: GateConfig) -> dict[str, object] | None:
    """What a verdict depends on beside the gate's own keys: the accepted leaks that hold today.

    Raises:
        ConfigError: the file of accepted leaks cannot be used.

    """
    if gate.accept is None:
        return None
    accepted = acceptance(Path(gate.accept))
    entries = [entry.model_dump(mode="json") for entry in accepted.entries]
    return {"entries": entries, "holding": accepted.holding}


def judged(
    measurements: Measurements,
    models: Mapping[str, ModelResult],
    comparisons: Mapping[str, ComparisonResult],
    attacks: Mapping[str, AttackResults],
    leaked: Leaked,
) -> GateResult:
    """The gate's verdict on the students' figures without accepted leaks.

    Args:
        measurements: what was measured.
        models: each model's figures, accepted leaks counted, as the next two.
        comparisons: by student.
        attacks: what other attacks found, by model.
        leaked: all leaks.

    """
    accepted: Flags = np.zeros(len(measurements.copies), dtype=np.bool_)
    if leaked.accepted is not None:
        accepted[[*leaked.accepted.examples]] = True
    own_models, own_comparisons, others = dict(models), dict(comparisons), {}
    for student in comparisons:
        memorized = measurements.memorized(student)
        disregarded = int(np.count_nonzero(memorized & accepted))
        found = attacks.get(student, AttackResults())
        nearly, drawn = found.near_verbatim, found.sampled
        if accepted.any():
            left = memorized & ~accepted
            own_models[student] = _without(measurements, models[student], left)
            own_comparisons[student] = compare_student(student, left, measurements.family).figures
            nearly = _near_without(measurements, nearly, student, accepted)
            drawn = _sampled_without(measurements, student, accepted)
        others[student] = Others(
            nearly,
            leaked.tagged[student],
            disregarded,
            drawn,
            membership=found.membership,
            canaries=found.canaries,
        )
    census = not measurements.corpus.sampled
    return judge(measurements.config.gate, own_comparisons, own_models, census, others)


def _without(measurements: Measurements, model: ModelResult, left: Flags) -> ModelResult:
    return model.model_copy(update={"memorized": int(np.count_nonzero(left)), **_rate(measurements, left)})


def _near_without(
    measurements: Measurements, near: NearVerbatimResult | None, student: str, accepted: Flags
) -> NearVerbatimResult | None:
    found = measurements.by_model[student].attacks.get(NearVerbatim.name)
    if near is None or found is None:
        return None
    left = found.exposed & ~accepted
    return near.model_copy(update={"exposed": int(np.count_nonzero(left)), **_rate(measurements, left)})


def _sampled_without(measurements: Measurements, student: str, accepted: Flags) -> SampledResult | None:
    asked, drawn = measurements.config.attacks.sampled, measurements.by_model[student].drawn
    if asked is None or drawn is None:
        return None
    left = np.where(accepted[drawn.example_ids], -np.inf, drawn.log_probability)
    return sampled_result(measurements, drawn._replace(log_probability=left), asked)


def _rate(measurements: Measurements, left: Flags) -> dict[str, object]:
    """Share of the examples where these count, bool (examples,), with its intervals."""
    count, total = int(np.count_nonzero(left)), len(left)
    return {
        "rate": count / total,
        "ci95": clopper_pearson(count, total),
        "ci95_by_document": measurements.family.documents.rate(left),
    }
