"""The keys of screen.yaml as frozen pydantic models; each field's docstring is its help.

Sections that an audit has too are those of `kdaudit.config.audit`. As there, local paths are absolute after
loading, and a check of ours raises MisfitError with the key.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from kdaudit.config.compute import ComputeConfig
from kdaudit.config.corpus import CorpusRef
from kdaudit.config.extraction import ExtractionBase, fit_extraction
from kdaudit.config.models import ModelRef, ModelRefs, ModelSet, StudentConfig
from kdaudit.config.paths import PathOrId
from kdaudit.config.predictor import LabelKind, PredictorBase
from kdaudit.config.section import EngineName, Name, Section, one_or_many
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.config.yaml.schema import nearest

KINDS: tuple[str, ...] = get_args(LabelKind)


KindOrFile = Annotated[LabelKind | PathOrId, Field(union_mode="left_to_right")]
"""The kinds come first: a file of the same name must not hide one."""


class ScreenModels(ModelSet):
    """The models that a corpus is screened with."""

    teacher: ModelRef
    """The model that students will be distilled from."""
    baseline: Annotated[ModelRefs, BeforeValidator(one_or_many, json_schema_input_type=ModelRef | ModelRefs)]
    """A model of the student's size, fine-tuned on the corpus without a teacher; or a list, one per seed,
    of which the first gives the features."""
    students: Annotated[tuple[StudentConfig, ...], Field(strict=False)] = ()
    """Distilled models, for `predictor.labels: student` alone."""


class ScreenExtraction(ExtractionBase):
    """What counts as memorized."""

    engine: EngineName | None = None
    """null: the forward passes that give the features also tell what teacher and baseline memorize. With an
    engine these are extracted as in an audit, and so are students, by transformers where this is null."""


class ScreenPredictor(PredictorBase):
    """How examples are scored by their risk of being memorized."""

    enabled: Literal[True] = True
    """A screening always scores."""
    labels: KindOrFile = "easy_core"
    """The prediction target: easy_core (teacher and baseline both memorize), teacher (the
    teacher memorizes, so also what hard KD may inherit), student (a student memorizes); or the predictor.json
    of an earlier audit or screening, which is used as it is."""


class ScreenConfig(Section):
    """screen.yaml: a corpus scored before distillation, and written again without its risky examples."""

    name: Name
    """Names the screening and its output folder, screened/NAME."""
    corpus: CorpusRef
    """The corpus to screen."""
    models: ScreenModels
    """Teacher and baseline."""
    extraction: ScreenExtraction = ScreenExtraction()
    """What counts as memorized."""
    compute: ComputeConfig = ComputeConfig()
    """Where models are extracted, and how many replicas share the work."""
    predictor: ScreenPredictor = ScreenPredictor()
    """The risk predictor."""
    drop: Literal["document", "window"] = "document"
    """document leaves out every document with a flagged window; window cuts flagged windows out, and the
    stretches that remain become rows of their own. Of a chat, window leaves out the flagged answer and all
    that follows it; of a prompt with its answer, the row."""
    format: Literal["parquet", "jsonl"] = "parquet"
    """How the kept corpus is written."""
    max_flagged: Annotated[float, Field(gt=0, le=1)] = 0.25
    """A screening that would flag a larger share of the examples, or leave out a larger share of the
    documents, writes no kept/ and ends with exit code 3."""
    max_examples: Annotated[int, Field(ge=0)] = 50
    """Flagged examples that the report shows at most, riskiest first."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of every random choice."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self._weights_are_here()
        fit_extraction(self, self.extraction, self.corpus, {})
        self._labels_can_be_had()
        self._memorized_can_be_told()
        return self

    def _weights_are_here(self) -> None:
        for key, model in self.models.by_key().items():
            if model.endpoint is not None:
                raise MisfitError(
                    "a screening reads weights, and this model is behind an endpoint",
                    fix="name a folder or a hub id",
                    key=f"{key}.path",
                )

    def _memorized_can_be_told(self) -> None:
        if len(self.models.baseline) > 1 and self.extraction.engine is None:
            raise MisfitError(
                "several baselines need an extraction, and extraction.engine is null",
                fix="set extraction.engine to vllm or transformers, or name one baseline",
                key="models.baseline",
            )

    def _labels_can_be_had(self) -> None:
        labels, names = self.predictor.labels, [student.name for student in self.models.students]
        if labels not in KINDS and not labels.lower().endswith(".json"):
            near = nearest(labels, list(KINDS))
            remedy = f"did you mean {near}?" if near else f"choose from {', '.join(KINDS)}"
            raise MisfitError(
                f"{labels!r} is neither a kind of labels nor a predictor.json",
                fix=remedy,
                key="predictor.labels",
            )
        if labels == "student" and not names:
            raise MisfitError(
                "student needs a student in models.students",
                fix="add one, or take easy_core or teacher, which need none",
                key="predictor.labels",
            )
        if labels != "student" and names:
            raise MisfitError(
                f"are used only with predictor.labels: student, and it is {labels}",
                fix="remove them, or change it",
                key="models.students",
            )
        wanted = self.predictor.student
        if wanted is not None and wanted not in names:
            there = f"choose from {', '.join(names)}" if names else "remove it"
            raise MisfitError(f"there is no student {wanted!r}", fix=there, key="predictor.student")
