"""What models know of canaries: extraction and exposure by how often training data hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.exposure import Exposures, exposures, highest, median
from kdaudit.analysis.intervals import Flags, clopper_pearson
from kdaudit.attacks import GREEDY
from kdaudit.models.audited import AuditedModel
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
    """The median over canaries whose family has controls; None if there are none."""
    found = [*_by_family(planted, chosen, likelihoods)]
    return ExposureResult(**median(found)._asdict()) if found else None


def _by_family(planted: Planted, chosen: Flags, likelihoods: NDArray[np.float64]) -> Iterator[Exposures]:
    for family in np.unique(planted.families[chosen]):
        own = planted.families == family
        controls = likelihoods[own & ~planted.planted]
        if len(controls):
            yield exposures(likelihoods[own & chosen], controls)


def _highest(planted: Planted) -> float | None:
    """The largest exposure that the controls of any family can show."""
    _, counts = np.unique(planted.families[~planted.planted], return_counts=True)
    return max((highest(int(count)) for count in counts), default=None)


def with_canaries(
    attacks: Mapping[str, AttackResults], canaries: Mapping[str, CanariesResult]
) -> dict[str, AttackResults]:
    """The results of other attacks with those of canaries, by model."""
    return {**attacks} | {
        name: attacks.get(name, AttackResults()).model_copy(update={"canaries": found})
        for name, found in canaries.items()
    }


def canary_notes(run: RunStore, canaries: Mapping[str, CanariesResult]) -> list[Note]:
    """What of the canaries is not available, and why."""
    if not canaries:
        return []
    notes = []
    counted = run.read_json(layout.summary(CANARY_EXAMPLES), CorpusResult)
    measured = next(iter(canaries.values()))
    if left := counted.documents - measured.planted - measured.controls:
        text = (
            f"Canaries and controls that are not measured: {left:,} of {counted.documents:,}. They have "
            "fewer tokens than prefix and suffix, or begin with the same tokens as another."
        )
        notes.append(Note(code="canaries_left_out", subject="canaries", text=text))
    without = [name for name, one in canaries.items() if one.highest_exposure is None]
    if without:
        text = (
            f"The exposure of canaries is not known of {', '.join(without)}: it takes the probabilities that "
            "a model gives to a text, and an endpoint does not give them."
        )
        notes.append(Note(code="no_exposure", subject="canaries", text=text))
    return notes
