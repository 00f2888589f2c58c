"""What models know of canaries: extraction and exposure by how often training data hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.exposure import exposures, highest, median
from kdaudit.analysis.intervals import Flags, clopper_pearson
from kdaudit.attacks import GREEDY
from kdaudit.corpus.canaries import LEAST_CONTROLS
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.pipelines.stages.attacked import attack_folder, read_attack
from kdaudit.pipelines.stages.scores import OF_CANARIES, read_scores
from kdaudit.pipelines.stages.work import CANARY_EXAMPLES, Work
from kdaudit.runs import layout
from kdaudit.runs.store import RunStore
from kdaudit.schemas.attacks import AttackResults, CanariesResult, ExposureResult, RepetitionsResult
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.notes import Note


class Planted(NamedTuple):
    """What is known of each canary and control that is measured, by example id."""

    ids: NDArray[np.int64]
    """Ascending."""
    families: NDArray[np.object_]
    repetitions: NDArray[np.int32]
    """0 for a control."""

    @property
    def planted(self) -> Flags:
        """Which were planted: bool (rows,)."""
        flags: Flags = self.repetitions > 0
        return flags

    def controls_of(self) -> dict[str, int]:
        """How many controls each family with canaries has."""
        names = np.unique(self.families[self.planted]).tolist()
        return {name: int((~self.planted & (self.families == name)).sum()) for name in names}

    def measurable(self) -> list[Flags]:
        """Canaries and controls of each family that has controls enough: bool (rows,) each."""
        return [
            self.families == name for name, count in self.controls_of().items() if count >= LEAST_CONTROLS
        ]


def measured_canaries(work: Work, audited: AuditedModel) -> CanariesResult | None:
    """What a model knows of the canaries; None where none are measured."""
    planted = read_planted(work.run)
    if planted is None:
        return None
    folder = layout.beside_corpus(layout.CANARIES, attack_folder(GREEDY, audited))
    extracted = read_attack(work.run, GREEDY, folder).exposed
    likelihoods = _likelihoods(work, audited)
    return canaries_result(
        planted, extracted[planted.ids], None if likelihoods is None else likelihoods[planted.ids]
    )


def _likelihoods(work: Work, audited: AuditedModel) -> NDArray[np.float64] | None:
    """Ln p of each suffix after its prefix: float64 (examples,); None of a model without weights."""
    if audited not in work.models.with_weights:
        return None
    rows = read_scores(work, audited, OF_CANARIES)["log_probabilities"].combine_chunks()
    starts = rows.offsets.to_numpy()[:-1] - rows.offsets[0].as_py()
    sums: NDArray[np.float64] = np.add.reduceat(rows.flatten().to_numpy().astype(np.float64), starts)
    return sums


def read_planted(run: RunStore) -> Planted | None:
    """None where no canaries are measured."""
    if not run.has(layout.PLANTED):
        return None
    table = run.read_table(layout.PLANTED)
    return Planted(
        table["example_id"].to_numpy(), table["family"].to_numpy(), table["repetitions"].to_numpy()
    )


def canaries_result(
    planted: Planted, extracted: Flags, likelihoods: NDArray[np.float64] | None
) -> CanariesResult:
    """What one model knows of the canaries.

    Args:
        planted: the canaries.
        extracted: whose suffix greedy decoding reproduces: bool (rows,).
        likelihoods: ln p of each suffix after its prefix: float64 (rows,); None where it is not known.

    """
    counts = np.unique(planted.repetitions[planted.planted]).tolist()
    controls = ~planted.planted
    return CanariesResult(
        controls=int(controls.sum()),
        controls_extracted=int(extracted[controls].sum()),
        highest_exposure=None if likelihoods is None else _highest(planted),
        repetitions={
            str(count): _repeated(planted, planted.repetitions == count, extracted, likelihoods)
            for count in counts
        },
    )


def _repeated(
    planted: Planted, chosen: Flags, extracted: Flags, likelihoods: NDArray[np.float64] | None
) -> RepetitionsResult:
    count, found = int(chosen.sum()), int(extracted[chosen].sum())
    return RepetitionsResult(
        canaries=count,
        extracted=found,
        extracted_ci95=clopper_pearson(found, count),
        exposure=None if likelihoods is None else _exposure(planted, chosen, likelihoods),
    )


def _exposure(planted: Planted, chosen: Flags, likelihoods: NDArray[np.float64]) -> ExposureResult | None:
    """The median over canaries whose family has controls enough; None if there are none."""
    found = [
        exposures(likelihoods[own & chosen], likelihoods[own & ~planted.planted])
        for own in planted.measurable()
        if (own & chosen).any()
    ]
    return ExposureResult(**median(found)._asdict()) if found else None


def _highest(planted: Planted) -> float | None:
    """The largest exposure that the controls of any family can show."""
    counts = [int((own & ~planted.planted).sum()) for own in planted.measurable()]
    return highest(max(counts)) if counts else None


def with_canaries(
    attacks: Mapping[str, AttackResults], canaries: Mapping[str, CanariesResult]
) -> dict[str, AttackResults]:
    """The results of other attacks with those of canaries, by model."""
    return {**attacks} | {
        name: attacks.get(name, AttackResults()).model_copy(update={"canaries": found})
        for name, found in canaries.items()
    }


def canary_notes(run: RunStore, models: AuditedModels) -> list[Note]:
    """What of the canaries is not available, and why."""
    planted = read_planted(run)
    if planted is None:
        return []
    counted = run.read_json(layout.summary(CANARY_EXAMPLES), CorpusResult)
    endpoints = [one.name for one in models.all if one not in models.with_weights]
    few = {name: count for name, count in planted.controls_of().items() if count < LEAST_CONTROLS}
    return [
        *_left_out(counted.documents - len(planted.ids), counted.documents),
        *_few_controls(few),
        *_without_probabilities(endpoints),
    ]


def _left_out(left: int, of: int) -> list[Note]:
    if not left:
        return []
    text = (
        f"Canaries and controls that are not measured: {left:,} of {of:,}. They have fewer tokens than "
        "prefix and suffix, begin with the same tokens as another, or have no boundary that all tokenizers "
        "share where prefix and suffix end."
    )
    return [Note(code="canaries_left_out", subject="canaries", text=text)]


def _few_controls(few: Mapping[str, int]) -> list[Note]:
    if not few:
        return []
    counts = ", ".join(f"{name} {count}" for name, count in few.items())
    text = (
        f"The exposure leaves out families with fewer than {LEAST_CONTROLS} controls that are measured: "
        f"{counts}. Extraction counts all canaries."
    )
    return [Note(code="canaries_few_controls", subject="canaries", text=text)]


def _without_probabilities(names: list[str]) -> list[Note]:
    if not names:
        return []
    text = (
        f"The exposure of canaries is not known of {', '.join(names)}: it takes the probabilities that a "
        "model gives to a text, and an endpoint does not give them."
    )
    return [Note(code="no_exposure", subject="canaries", text=text)]
