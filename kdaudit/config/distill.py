"""The keys of distill.yaml as frozen pydantic models; each field's docstring is its help.

As in audit.yaml (`kdaudit.config.audit`), local paths are absolute after loading, and a check of ours raises
MisfitError with the key. Whatever the audit that follows training would refuse in its audit.yaml is refused
here, before anything is trained.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from kdaudit.config.attacks import CanariesRef
from kdaudit.config.audit import AuditConfig
from kdaudit.config.corpus import CorpusRef
from kdaudit.config.extraction import ExtractionConfig, fit_extraction
from kdaudit.config.learners import NewModelConfig, StudentLearnerConfig, TeacherConfig
from kdaudit.config.models import ModelConfig, ModelsConfig, StudentConfig, check_names
from kdaudit.config.section import NAME_PATTERN, DType, Name, Section
from kdaudit.config.students import BpeConfig, HardStudent, LabStudent, Tokenizer
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.runs.layout import AUDIT_FILE

RESERVED_NAMES = ("teacher", "holdout", AUDIT_FILE)
"""Names that a student cannot take: an audit's own, and the file beside the students' folders."""


class TrainingConfig(Section):
    """What is the same in the training of every model."""

    batch_size: PositiveInt = 32
    """Windows a step, over all processes that train together."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate changes after the warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.03
    """Share of all steps in which the learning rate rises from 0."""
    precision: DType = "auto"
    """dtype of the computation."""
    order: Literal["shared", "own"] = "shared"
    """In which order models read the windows: all of one seed in the same (shared), or each in its own, drawn
    from seed and name. Where baseline and student share it, what they memorize alike may be due to that."""


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class DistillConfig(Section):
    """distill.yaml: a teacher, a baseline and students trained on one corpus, to be audited."""

    name: Name
    """Names the training and its output folder."""
    corpus: CorpusRef
    """The training corpus; its windows are what the models are trained on."""
    holdout: CorpusRef
    """Text that no model is trained on: for the perplexities, and for the audit's false-positive floor."""
    canaries: CanariesRef | None = None
    """A canaries.jsonl, which `kdaudit canaries` writes: each text is mixed into the corpus of all models as
    often as it says. Controls are left out."""
    tokenizer: Tokenizer | None = None
    """null takes the models' own; or a local folder or hub id; or `{train_bpe: 4096}`."""
    teacher: TeacherConfig
    """The teacher: trained from `base`, or with `path` an existing one as it is; of an adapter, `base` beside
    `path` is the model that it was trained on."""
    student: StudentLearnerConfig
    """Where baseline and students start, and how long they are trained."""
    students: Annotated[tuple[LabStudent, ...], Field(min_length=1, strict=False)]
    """The models of the student's size that are trained, for each seed."""
    training: TrainingConfig = TrainingConfig()
    """How every model is trained."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] = (0,)
    """Each seed trains all students once, and is audited on its own."""
    extraction: ExtractionConfig = ExtractionConfig()
    """For the audit.yaml that is written; `engine` also writes the teacher's text for hard students."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        self._weights_are_here()
        self._names_can_be_used()
        self._one_baseline_and_a_student()
        self._own_tokenizers_are_of_use()
        self._prefixes_leave_text()
        self._canaries_are_text()
        self._seeds_differ()
        self._tokenizer_is_to_be_had()
        self._holdout_is_other_text()
        fit_extraction(self, self.extraction, self.corpus, {"holdout": self.holdout})
        self._audit_can_follow()
        return self

    def _weights_are_here(self) -> None:
        if isinstance(self.teacher, ModelConfig) and self.teacher.endpoint is not None:
            raise MisfitError(
                "is an endpoint, and students are distilled from weights",
                fix="name a folder or a hub id",
                key="teacher.path",
            )

    def _names_can_be_used(self) -> None:
        check_names([student.name for student in self.students], RESERVED_NAMES)
        for row, student in enumerate(self.students):
            if re.search(r"(^|-)seed-\d+$", student.name, re.IGNORECASE):
                raise MisfitError(
                    f"{student.name!r} ends in seed-N, as the files of a seed do",
                    fix="choose another name",
                    key=f"students.{row}.name",
                )
            if student.name.lower() == "baseline" and student.method != "baseline":
                raise MisfitError(
                    f"{student.name!r} is kept for method: baseline",
                    fix="choose another name",
                    key=f"students.{row}.name",
                )

    def _one_baseline_and_a_student(self) -> None:
        rows = [row for row, student in enumerate(self.students) if student.method == "baseline"]
        if len(rows) > 1:
            raise MisfitError(
                "is a second baseline",
                fix="keep one, and set its count",
                key=f"students.{rows[1]}.method",
            )
        if len(rows) == len(self.students):
            raise MisfitError(
                "holds a baseline alone, and an audit needs a student",
                fix="add a soft or hard one",
                key="students",
            )

    def _prefixes_leave_text(self) -> None:
        for row, student in enumerate(self.students):
            if not isinstance(student, HardStudent) or student.level == "token":
                continue
            if self.corpus.has_answers:
                if student.prefix_tokens != HardStudent.model_fields["prefix_tokens"].default:
                    raise MisfitError(
                        "has no effect on prompts and answers: the teacher answers the prompt",
                        fix="remove it",
                        key=f"students.{row}.prefix_tokens",
                    )
                continue
            shortest = self.extraction.prefix_tokens + self.extraction.suffix_tokens
            if self.corpus.window > student.prefix_tokens >= shortest:
                raise MisfitError(
                    f"{student.prefix_tokens} tokens leave nothing to continue of the shortest windows, "
                    f"which have extraction.prefix_tokens + extraction.suffix_tokens = {shortest} tokens",
                    fix="lower it",
                    key=f"students.{row}.prefix_tokens",
                )
            if student.prefix_tokens >= self.corpus.window:
                raise MisfitError(
                    f"{student.prefix_tokens} tokens leave nothing to continue of a window of "
                    f"{self.corpus.window} tokens",
                    fix="lower it, or raise corpus.window",
                    key=f"students.{row}.prefix_tokens",
                )

    def _canaries_are_text(self) -> None:
        if self.canaries is not None and self.corpus.has_answers:
            raise MisfitError(
                "are plain text, and the corpus holds prompts and answers", fix="remove it", key="canaries"
            )

    def own_tokenizers(self) -> dict[str, str | BpeConfig]:
        """What students with a tokenizer of their own take it from, under their dotted keys."""
        return {
            f"students.{row}.tokenizer": student.tokenizer
            for row, student in enumerate(self.students)
            if isinstance(student, HardStudent) and student.tokenizer is not None
        }

    def _own_tokenizers_are_of_use(self) -> None:
        for key in self.own_tokenizers():
            if self.corpus.has_answers:
                raise MisfitError(
                    "is for plain text: prompts and answers are rendered and cut with the family's tokenizer",
                    fix="remove it",
                    key=key,
                )
            if isinstance(self.student.base, str):
                raise MisfitError(
                    "is for students that start from random weights; weights go with the tokenizer that they "
                    "were trained with",
                    fix="remove it, or set student.base to a configuration, as in {model_type: llama, ...}",
                    key=key,
                )

    def _seeds_differ(self) -> None:
        for row, seed in enumerate(self.seeds):
            if seed in self.seeds[:row]:
                raise MisfitError(f"{seed} is given twice", fix="keep one", key=f"seeds.{row}")

    def starts(self) -> dict[str, str | NewModelConfig]:
        """What teacher and students start from, under their dotted keys."""
        student = {"student.base": self.student.base}
        if isinstance(self.teacher, ModelConfig):
            return {"teacher.path": self.teacher.path, **student}
        return {"teacher.base": self.teacher.base, **student}

    def _tokenizer_is_to_be_had(self) -> None:
        starts = self.starts()
        named = {key: start for key, start in starts.items() if isinstance(start, str)}
        new = [key for key in starts if key not in named]
        if any(os.path.isabs(start) and not os.path.lexists(start) for start in named.values()):  # noqa: PTH117
            return  # `check_paths` says so
        if self.tokenizer is None and new:
            remedy = next((f"such as {start}" for start in named.values()), "or to {train_bpe: 4096}")
            raise MisfitError(
                "a configuration brings no tokenizer",
                fix=f"set tokenizer to a folder or hub id, {remedy}",
                key=new[0],
            )
        if isinstance(self.tokenizer, BpeConfig) and named:
            key, start = next(iter(named.items()))
            remedy = f"set tokenizer to {start}" if new else "remove tokenizer"
            raise MisfitError(f"{key} brings its own tokenizer", fix=remedy, key="tokenizer.train_bpe")

    def _holdout_is_other_text(self) -> None:
        if self.holdout.where == self.corpus.where:
            raise MisfitError(
                "is the corpus itself", fix="name text that no model is trained on", key="holdout.path"
            )

    def _audit_can_follow(self) -> None:
        """Build a stand-in for the audit.yaml that will be written, and pass on what it refuses."""
        name = f"{self.name}-seed-{max(self.seeds)}"
        if not re.fullmatch(NAME_PATTERN, name):
            raise MisfitError(
                f"its audit's name, {name}, is longer than 64 characters", fix="shorten it", key="name"
            )
        teacher = self.teacher if isinstance(self.teacher, ModelConfig) else ModelConfig(path="/teacher")
        models = ModelsConfig(teacher=teacher, students=(StudentConfig(name="student", path="/student"),))
        try:
            AuditConfig(
                name=name,
                corpus=self.corpus,
                holdout=self.holdout,
                models=models,
                extraction=self.extraction,
            )
        except ValidationError as error:
            found: MisfitError = error.errors()[0]["ctx"]["error"]
            key = found.key and found.key.removeprefix("models.")
            raise MisfitError(found.what, fix=found.fix, key=key) from None
