"""What the attacks beside exact greedy extraction found, as results.json says it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdaudit.analysis.intervals import clopper_pearson
from kdaudit.attacks import NearVerbatim
from kdaudit.pipelines.stages.attacked import Attacked
from kdaudit.pipelines.stages.measured import Audited
from kdaudit.schemas.attacks import AttackResults, NearVerbatimResult
from kdaudit.schemas.notes import Note


def attack_results(audited: Audited) -> dict[str, AttackResults]:
    """By model; empty if only exact greedy extraction ran."""
    asked = audited.config.attacks.near_verbatim
    if asked is None and not audited.membership.results:
        return {}
    near = None if asked is None else NearVerbatim(asked.max_edit_distance)
    return {
        name: AttackResults(
            near_verbatim=None
            if near is None
            else _near_verbatim(audited, measured.attacks.get(near.name), near),
            membership=audited.membership.results.get(name),
        )
        for name, measured in audited.measured.items()
    }


def attack_notes(audited: Audited, attacks: Mapping[str, AttackResults]) -> list[Note]:
    """Which models an attack was not run on, and why, and which figures are not to be relied on."""
    asked = audited.config.attacks.near_verbatim is not None
    left = [name for name, found in attacks.items() if asked and found.near_verbatim is None]
    return [*_not_run(left), *audited.membership.notes]


def _not_run(left: list[str]) -> list[Note]:
    if not left:
        return []
    text = (
        f"Near-verbatim extraction was not run on {', '.join(left)}: it compares token ids, and "
        "a model behind an endpoint or with a tokenizer of its own gives none that can be compared."
    )
    return [Note(code="attack_not_run", subject="attacks", text=text)]


def _near_verbatim(audited: Audited, found: Attacked | None, near: NearVerbatim) -> NearVerbatimResult | None:
    if found is None:
        return None
    count, total = int(found.exposed.sum()), len(found.exposed)
    most = int(near.limits(audited.target_lengths).max())
    distances = found.rows["edit_distance"].drop_null().to_numpy()
    return NearVerbatimResult(
        max_edit_distance=near.max_edit_distance,
        examples=total,
        exposed=count,
        rate=count / total,
        ci95=clopper_pearson(count, total),
        ci95_by_document=audited.family.documents.rate(found.exposed),
        distances=np.bincount(distances, minlength=most + 1).tolist(),
    )
