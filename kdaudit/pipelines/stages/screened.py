"""What every step of a screening works with, and what is known of each example on the way."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags
from kdaudit.attacks import GREEDY
from kdaudit.config.predictor import LabelKind
from kdaudit.config.screen import ScreenConfig
from kdaudit.corpus import PinnedSource
from kdaudit.pipelines.stages.attacked import exposed_by
from kdaudit.pipelines.stages.examples import read_cuts
from kdaudit.pipelines.stages.features import read_features
from kdaudit.pipelines.stages.flagging import Flagged
from kdaudit.pipelines.stages.predicting import label_flags
from kdaudit.pipelines.stages.work import Work
from kdaudit.risk import Predictor, load_predictor
from kdaudit.runs import layout


class ScreenWork(NamedTuple):
    """What every step of a screening works with."""

    config: ScreenConfig
    work: Work
    source: PinnedSource
    given: Predictor | None
    """The predictor of an earlier audit or screening, where the configuration names one."""

    @property
    def kind(self) -> LabelKind:
        """What is looked for in the models: the prediction target."""
        if self.given is None:
            return cast("LabelKind", self.config.predictor.labels)
        return "teacher" if self.given.labels == "teacher" else "easy_core"  # no student need be there

    @property
    def student(self) -> str | None:
        """Whose memorized examples are the labels, for those of that kind."""
        if self.kind != "student":
            return None
        return self.config.predictor.student or self.config.models.students[0].name

    @property
    def depends(self) -> dict[str, Any]:
        """What decides which examples are flagged."""
        given = None if self.given is None else self.given.model_dump(mode="json")
        audited_models = self.work.models.all
        return {
            "predictor": self.config.predictor.model_dump(mode="json"),
            "given": given,
            "student": self.student,
            "models": [[one.name, self.work.fingerprints(one.name)] for one in audited_models],
            "vocabulary": self.work.vocabulary,
        }


def memorized_of(screening: ScreenWork) -> dict[str, Flags]:
    """Which examples each model memorizes, by its name: bool (examples,)."""
    work = screening.work
    if screening.config.extraction.engine is not None:
        return exposed_by(work, work.models.all)
    ids, *matched = read_features(work, ("example_id", "teacher_matched", "baseline_matched")).T
    lengths = read_cuts(work)[1]
    both = [
        GREEDY.exposed(GREEDY.rows(ids.astype(np.int64), one.astype(np.int16), lengths)) for one in matched
    ]
    return dict(zip(("teacher", "baseline"), both, strict=True)) | exposed_by(work, work.models.students)


def labels_of(screening: ScreenWork) -> Flags:
    """The prediction target: bool (examples,)."""
    return label_flags(screening.kind, memorized_of(screening), screening.student)


def flagged_of(screening: ScreenWork) -> Flagged:
    """What is flagged: by its risk, or because the models memorize it already."""
    predictor, risk = predictor_of(screening), risk_of(screening)
    flags = labels_of(screening)
    if predictor is not None and risk is not None:
        flags = flags | predictor.flagged(risk)
    return Flagged(flags, risk, memorized_of(screening))


def predictor_of(screening: ScreenWork) -> Predictor | None:
    """The predictor that was fitted or given; None where too few examples are memorized for one."""
    run = screening.work.run
    return load_predictor(run.folder / layout.PREDICTOR) if run.has(layout.PREDICTOR) else None


def risk_of(screening: ScreenWork) -> NDArray[np.float64] | None:
    """Each example's risk, computed again: a later step rewrites risk.parquet, and it may be missing."""
    predictor = predictor_of(screening)
    return None if predictor is None else predictor.risk(read_features(screening.work, predictor.features))
