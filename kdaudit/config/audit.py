"""The keys of audit.yaml as frozen pydantic models; each field's docstring is its help.

Paths are plain strings, since each may also name a model or dataset on the Hugging Face hub; a local
one is absolute after loading (`kdaudit.config.paths`). A check of ours raises MisfitError with
the key, relative to its section, as in `students.0.name`, so that the loader can say the full key and its
line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    model_validator,
)

from kdaudit.config.attacks import AttacksConfig
from kdaudit.config.compute import ComputeConfig
from kdaudit.config.corpus import CorpusRef
from kdaudit.config.extraction import ExtractionConfig, fit_extraction, tensor_parallel_by_key
from kdaudit.config.gate import NEED_BASELINE, NEED_TEACHER, GateConfig
from kdaudit.config.models import ModelsConfig
from kdaudit.config.predictor import PredictorConfig
from kdaudit.config.section import Name, Section
from kdaudit.config.yaml.misfit import MisfitError

Tracker = Literal["mlflow", "wandb", "trackio"]


def _each_once(trackers: tuple[str, ...]) -> tuple[str, ...]:
    if len({*trackers}) < len(trackers):
        raise MisfitError("names a tracker twice", fix="name each once")
    return trackers


class ReportConfig(Section):
    """What the HTML reports show."""

    title: str | None = None
    """Heading of the report; null takes `name`."""
    max_examples: NonNegativeInt = 200
    """Leaked examples shown at most, worst first."""
    document_ids: bool = False
    """Whether the public report may name documents."""
    trackers: Annotated[tuple[Tracker, ...], Field(strict=False), AfterValidator(_each_once)] = ()
    """Experiment trackers that get figures and the public page, never training text."""


class AuditConfig(Section):
    """audit.yaml: one audit of a teacher, its students and the training corpus."""

    name: Name
    """Names the audit and its run directory, runs/NAME."""
    corpus: CorpusRef
    """The training corpus."""
    holdout: CorpusRef | None = None
    """Text that no model was trained on: gives the false-positive floor and the perplexities."""
    models: ModelsConfig
    """Teacher, baseline and students."""
    generated: CorpusRef | None = None
    """Text that the teacher wrote, such as the corpus of hard KD: how much of it each model repeats."""
    extraction: ExtractionConfig = ExtractionConfig()
    """How memorization is measured."""
    attacks: AttacksConfig = AttacksConfig()
    """What else is tried to get training text out of the models."""
    compute: ComputeConfig = ComputeConfig()
    """Where models run, and how many replicas share the work."""
    predictor: PredictorConfig = PredictorConfig()
    """The risk predictor."""
    gate: GateConfig = GateConfig()
    """Limits that decide the exit code."""
    report: ReportConfig = ReportConfig()
    """What the reports show."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of every random choice."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        others = {"holdout": self.holdout, "generated": self.generated}
        fit_extraction(self, self.extraction, self.corpus, others)
        self._gate_can_be_judged()
        self._labels_can_be_had()
        self._students_exist()
        self._engine_can_share_out()
        self._holdout_is_other_text()
        self._generated_is_other_text()
        self._canaries_can_be_measured()
        return self

    def _canaries_can_be_measured(self) -> None:
        if self.attacks.canaries is not None and self.corpus.has_answers:
            raise MisfitError(
                "are plain text, and the corpus holds prompts and answers",
                fix="remove it",
                key="attacks.canaries",
            )
        if self.gate.max_canaries_extracted is not None and self.attacks.canaries is None:
            raise MisfitError(
                "needs attacks.canaries",
                fix="name a canaries.jsonl or remove this limit",
                key="gate.max_canaries_extracted",
            )

    def _gate_can_be_judged(self) -> None:
        gate = self.gate
        for key, instead in (("max_inherited", "gate.max_inheritance_rate"), ("max_tagged", "gate.max_rate")):
            if getattr(gate, key) is not None and self.corpus.limit is not None:
                raise MisfitError(
                    "a count cannot be judged on a sample (corpus.limit is set)",
                    fix=f"use {instead}, or remove corpus.limit",
                    key=f"gate.{key}",
                )
        if gate.max_near_verbatim_rate is not None and self.attacks.near_verbatim is None:
            raise MisfitError(
                "needs attacks.near_verbatim, which is null",
                fix="remove that key, so that the attack runs, or remove this limit",
                key="gate.max_near_verbatim_rate",
            )
        self._attacks_can_be_judged()
        if self.models.teacher is None:
            self._refuse_limits(NEED_TEACHER, "needs models.teacher, which is null", "name the teacher")
        if self.models.baseline is None:
            self._refuse_limits(NEED_BASELINE, "needs models.baseline", "name a baseline")

    def _attacks_can_be_judged(self) -> None:
        extractable, sampled = self.gate.max_extractable, self.attacks.sampled
        if extractable is not None and (sampled is None or extractable.queries not in sampled.queries):
            asked = "null" if sampled is None else f"[{', '.join(map(str, sampled.queries))}]"
            raise MisfitError(
                f"{extractable.queries} is not among attacks.sampled.queries, {asked}",
                fix="add it there, or name one of those",
                key="gate.max_extractable.queries",
            )
        if self.gate.max_membership_tpr is not None and (
            self.attacks.membership is None or self.holdout is None
        ):
            raise MisfitError(
                "needs attacks.membership and a holdout",
                fix="name a holdout of the same kind of text, or remove this limit",
                key="gate.max_membership_tpr",
            )

    def _refuse_limits(self, keys: Sequence[str], what: str, fix: str) -> None:
        for key in keys:
            if getattr(self.gate, key) is not None:
                raise MisfitError(what, fix=f"{fix} or remove this limit", key=f"gate.{key}")

    def _labels_can_be_had(self) -> None:
        labels = self.predictor.labels
        if self.models.teacher is None and self.predictor.enabled and labels != "student":
            raise MisfitError(
                f"{labels} needs models.teacher, which is null",
                fix="name the teacher or remove predictor.labels",
                key="predictor.labels",
            )

    def _students_exist(self) -> None:
        names = [student.name for student in self.models.students]
        wanted = [("predictor.student", self.predictor.student)]
        wanted += [(f"gate.students.{row}", name) for row, name in enumerate(self.gate.students or ())]
        for key, name in wanted:
            if name is not None and name not in names:
                raise MisfitError(
                    f"there is no student {name!r}", fix=f"choose from {', '.join(names)}", key=key
                )

    def _engine_can_share_out(self) -> None:
        if self.extraction.engine == "vllm":
            return
        for key, count in tensor_parallel_by_key(self.models, self.extraction).items():
            if count > 1:
                raise MisfitError(
                    f"the {self.extraction.engine} engine runs a model on one device",
                    fix="set it to 1, or extraction.engine to vllm",
                    key=key,
                )

    def _holdout_is_other_text(self) -> None:
        if self.holdout and self.holdout.where == self.corpus.where:
            raise MisfitError(
                "is the corpus itself",
                fix="name text that no model has seen, or remove holdout",
                key="holdout.path",
            )

    def _generated_is_other_text(self) -> None:
        for key, other in (("corpus", self.corpus), ("holdout", self.holdout)):
            if self.generated and other and self.generated.where == other.where:
                raise MisfitError(
                    f"is the {key} itself",
                    fix="name the text that the teacher wrote, or remove generated",
                    key="generated.path",
                )
