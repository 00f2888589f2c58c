"""What the gate judges: the students' figures, with accepted leaks left out of what they memorize.

A rate keeps its denominator: an accepted example is one that the student was tried with as with any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from kdaudit.analysis.accepted import acceptance, match
from kdaudit.analysis.gate import Others, judge
from kdaudit.analysis.inheritance import compare
from kdaudit.analysis.intervals import Flags, clopper_pearson
from kdaudit.attacks import NearVerbatim
from kdaudit.config.gate import GateConfig
from kdaudit.pipelines.stages.attack_results import sampled_result
from kdaudit.pipelines.stages.leak_table import leaks_of, leaks_table
from kdaudit.pipelines.stages.measured import Audited
from kdaudit.runs.store import RunStore
from kdaudit.schemas.accepted import AcceptedResult
from kdaudit.schemas.attacks import AttackResults, NearVerbatimResult, SampledResult
from kdaudit.schemas.results import ComparisonResult, GateResult, Leak, ModelResult


class Leaked(NamedTuple):
    """All leaks."""

    leaks: Sequence[Leak]
    table: pa.Table
    """Rows of layout.LEAKS_SCHEMA, in the same order."""
    accepted: AcceptedResult | None
    """None where the gate names no file of accepted leaks."""


def leaked_of(run: RunStore, audited: Audited) -> Leaked:
    """The leaks, and which of them are accepted.

    Raises:
        ConfigError: the file of accepted leaks cannot be used.

    """
    leaks = list(leaks_of(run, audited))
    table = leaks_table(run, audited, leaks)
    file = audited.config.gate.accept
    if file is None:
        return Leaked(leaks, table, None)
    accepted = match(acceptance(Path(file)), table)
    named = accepted.examples
    marked = [leak.model_copy(update={"accepted": leak.example_id in named}) for leak in leaks]
    return Leaked(marked, table, accepted)


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
    audited: Audited,
    models: Mapping[str, ModelResult],
    comparisons: Mapping[str, ComparisonResult],
    attacks: Mapping[str, AttackResults],
    leaks: Sequence[Leak],
) -> GateResult:
    """The gate's verdict on the students' figures without accepted leaks.

    Args:
        audited: what was measured.
        models: each model's figures, accepted leaks counted, as the next two.
        comparisons: by student.
        attacks: what other attacks found, by model.
        leaks: all of them.

    """
    accepted: Flags = np.zeros(len(audited.copies), dtype=np.bool_)
    accepted[[leak.example_id for leak in leaks if leak.accepted]] = True
    own_models, own_comparisons, others = dict(models), dict(comparisons), {}
    for student in comparisons:
        memorized = audited.memorized(student)
        disregarded = int(np.count_nonzero(memorized & accepted))
        tagged = sum(bool(one.tags) and not one.accepted and student in one.classes for one in leaks)
        found = attacks.get(student, AttackResults())
        nearly, drawn = found.near_verbatim, found.sampled
        if accepted.any():
            left = memorized & ~accepted
            own_models[student] = _without(audited, models[student], left)
            own_comparisons[student] = compare(student, left, audited.family).figures
            nearly = _near_without(audited, nearly, student, accepted)
            drawn = _sampled_without(audited, student, accepted)
        others[student] = Others(
            nearly, tagged, disregarded, drawn, membership=found.membership, canaries=found.canaries
        )
    census = not audited.corpus.sampled
    return judge(audited.config.gate, own_comparisons, own_models, census, others)


def _without(audited: Audited, model: ModelResult, left: Flags) -> ModelResult:
    return model.model_copy(update={"memorized": int(np.count_nonzero(left)), **_rate(audited, left)})


def _near_without(
    audited: Audited, near: NearVerbatimResult | None, student: str, accepted: Flags
) -> NearVerbatimResult | None:
    found = audited.measured[student].attacks.get(NearVerbatim.name)
    if near is None or found is None:
        return None
    left = found.exposed & ~accepted
    return near.model_copy(update={"exposed": int(np.count_nonzero(left)), **_rate(audited, left)})


def _sampled_without(audited: Audited, student: str, accepted: Flags) -> SampledResult | None:
    asked, drawn = audited.config.attacks.sampled, audited.measured[student].drawn
    if asked is None or drawn is None:
        return None
    left = np.where(accepted[drawn.example_ids], -np.inf, drawn.log_probability)
    return sampled_result(audited, drawn._replace(log_probability=left), asked)


def _rate(audited: Audited, left: Flags) -> dict[str, object]:
    """Share of the examples where these count, bool (examples,), with its intervals."""
    count, total = int(np.count_nonzero(left)), len(left)
    return {
        "rate": count / total,
        "ci95": clopper_pearson(count, total),
        "ci95_by_document": audited.family.documents.rate(left),
    }
