"""The keys of distill.yaml as frozen pydantic models; each field's docstring is its help.

As in audit.yaml (`kdaudit.config.audit`), local paths are absolute after loading, and a check of ours raises
MisfitError with the key. Whatever the audit that follows training would refuse in its audit.yaml is refused
here, before anything is trained.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from kdaudit.config.attacks import CanariesRef
from kdaudit.config.audit import AuditConfig
from kdaudit.config.corpus import CorpusRef
from kdaudit.config.extraction import ExtractionConfig, fit_extraction
from kdaudit.config.models import ModelConfig, ModelRef, ModelsConfig, StudentConfig, check_names
from kdaudit.config.paths import PathOrId
from kdaudit.config.section import NAME_PATTERN, DType, Name, Section, Share
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.config.yaml.schema import nearest
from kdaudit.runs.layout import AUDIT_FILE

Positive = Annotated[float, Field(gt=0.0)]

RESERVED_NAMES = ("teacher", "holdout", AUDIT_FILE)
"""Names that a student cannot take: an audit's own, and the file beside the students' folders."""


def _text_or_keys(value: object) -> str:
    """Which branch of a union of text and a section a value is meant as: its errors are of that one."""
    return "as text" if isinstance(value, str) else "as keys"


class NewModelConfig(Section):
    """A model that starts from random weights: its configuration, as transformers takes it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    model_type: Annotated[str, Field(min_length=1)]
    """The architecture's name in transformers, such as llama or gpt_neox; the other keys are that one's."""

    @model_validator(mode="before")
    @classmethod
    def _has_a_type(cls, value: Any) -> Any:  # noqa: ANN401 - raw YAML
        if isinstance(value, dict) and "model_type" not in value:
            near = nearest("model_type", list(value))
            if near:
                raise MisfitError("unknown key", fix="did you mean model_type?", key=near)
            raise MisfitError(
                "is required and missing in a model's configuration",
                fix="add it, as in {model_type: llama, ...}, or give a folder or hub id as plain text",
                key="model_type",
            )
        return value


Base = Annotated[
    Annotated[PathOrId, Tag("as text")] | Annotated[NewModelConfig, Tag("as keys")],
    Discriminator(_text_or_keys),
]


class LearnerConfig(Section):
    """A model that is trained, and for how long."""

    base: Base
    """Where training starts: a local folder, a hub id, or a model's configuration (`model_type` and what
    that type takes), which starts from random weights."""
    epochs: PositiveInt
    """Times that training goes through the corpus."""
    learning_rate: Positive
    """Highest learning rate, after the warm-up."""


class LoraSection(Section):
    """A LoRA adapter that is trained in place of all weights, through PEFT."""

    r: PositiveInt = 16
    """Rank of the low-rank matrices."""
    alpha: PositiveInt = 32
    """What they are multiplied by is alpha over r."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of their inputs that training drops."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    """Layers that get them, by the last part of their names, as in [q_proj, v_proj], or [all-linear]; null
    takes PEFT's own choice for the architecture."""


class StudentLearnerConfig(LearnerConfig):
    """Where baselines and students start, and how they are trained."""

    lora: LoraSection | None = None
    """Train a LoRA adapter on `base`, which stays as it is; null trains all weights."""

    @model_validator(mode="after")
    def _an_adapter_has_a_base(self) -> Self:
        if self.lora is not None and isinstance(self.base, NewModelConfig):
            raise MisfitError(
                "an adapter on random weights is of no use",
                fix="set base to a folder or hub id, or remove lora",
                key="lora",
            )
        return self


def _trained_or_taken(value: object) -> str:
    """Which branch of `teacher` a value is meant as."""
    is_taken = isinstance(value, str | ModelConfig) or (isinstance(value, dict) and "path" in value)
    return "as it is" if is_taken else "to train"


def _not_both(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Refuse what belongs to training beside the path of a teacher that is taken as it is."""
    if isinstance(value, dict) and "path" in value:
        if value.get("base") is not None:
            raise MisfitError(
                "cannot stand beside path",
                fix="keep base to train a teacher from it, or path to take a teacher as it is",
                key="base",
            )
        for key in (one for one in LearnerConfig.model_fields if one != "base"):
            if key in value:
                raise MisfitError(
                    "is for a teacher that is trained, and path takes one as it is",
                    fix="remove it, or write base instead of path",
                    key=key,
                )
    return value


TeacherConfig = Annotated[
    Annotated[LearnerConfig, Tag("to train")] | Annotated[ModelRef, Tag("as it is")],
    Discriminator(_trained_or_taken),
    BeforeValidator(_not_both),
]


class BpeConfig(Section):
    """A tokenizer that is made from the corpus."""

    train_bpe: Annotated[int, Field(ge=257)]
    """Entries of a byte-level BPE trained on the corpus: at least the 256 bytes and the end of text."""


Tokenizer = Annotated[
    Annotated[PathOrId, Tag("as text")] | Annotated[BpeConfig, Tag("as keys")],
    Discriminator(_text_or_keys),
]


class _FamilyReader(Section):
    """A student that reads the family's tokens, and so has no tokenizer of its own."""

    @model_validator(mode="before")
    @classmethod
    def _no_tokenizer_of_its_own(cls, value: Any) -> Any:  # noqa: ANN401 - raw YAML
        if isinstance(value, dict) and value.get("tokenizer") is not None:
            raise MisfitError(
                "is for hard students alone, which learn the text that the teacher writes; a "
                f"{value.get('method')} one learns the family's tokens",
                fix="remove it",
                key="tokenizer",
            )
        return value


class BaselineStudent(_FamilyReader):
    """A model of the student's size that learns the corpus without a teacher."""

    name: Name
    """Its folder in the output."""
    method: Literal["baseline"]
    """Cross-entropy on the corpus."""
    count: PositiveInt = 3
    """Baselines that each audit names, at least: two or more show what chance alone gives a student. Each
    seed trains one, and those of all seeds count. Where that is fewer, more are trained beside the first
    seed's, in seed-N/NAME-2, NAME-3 and so on: with other random weights and dropout, and in an order of
    their own. 1 trains none of these."""


class SoftStudent(_FamilyReader):
    """A student that learns the teacher's softened next-token distribution."""

    name: Name
    """Its folder in the output, and its name in the audit."""
    method: Literal["soft"]
    """Divergence between teacher and student at every token (logit-level distillation)."""
    temperature: Positive = 2.0
    """What both models' logits are divided by."""
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    """The distance between the two distributions; forward_kl is KL(teacher, student)."""
    alpha: Share = 0.0
    """Share of plain cross-entropy on the corpus in the loss; 0 is distillation alone."""


class HardStudent(Section):
    """A student that learns what the teacher writes."""

    name: Name
    """Its folder in the output, and its name in the audit."""
    method: Literal["hard"]
    """Cross-entropy on the teacher's own choice of tokens."""
    level: Literal["sequence", "token"] = "sequence"
    """sequence: the teacher continues each window's prefix; token: its likeliest next token after each
    token of the corpus."""
    prefix_tokens: PositiveInt = 50
    """For sequence: tokens of a window that the teacher continues."""
    decoding: Literal["greedy", "sampled"] = "greedy"
    """For sequence: how the teacher continues; sampled takes the run's seed."""
    sampling_temperature: Positive = 1.0
    """For sampled decoding: what the teacher's logits are divided by."""
    tokenizer: Tokenizer | None = None
    """For sequence, on plain text: a tokenizer of the student's own, which learns what the teacher writes as
    text; a folder, a hub id, or `{train_bpe: 4096}`. null takes the family's."""

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        changed = [
            key for key, field in type(self).model_fields.items() if getattr(self, key) != field.default
        ]
        if self.level == "token" and self.tokenizer is not None:
            raise MisfitError(
                "is for level: sequence; with level: token a student learns the teacher's tokens",
                fix="remove it, or set level to sequence",
                key="tokenizer",
            )
        for key in ("prefix_tokens", "decoding"):
            if self.level == "token" and key in changed:
                raise MisfitError(
                    "has no effect with level: token", fix="remove it, or set level to sequence", key=key
                )
        if self.decoding == "greedy" and "sampling_temperature" in changed:
            raise MisfitError(
                "has no effect with decoding: greedy",
                fix="remove it, or set decoding to sampled",
                key="sampling_temperature",
            )
        return self


LabStudent = Annotated[BaselineStudent | SoftStudent | HardStudent, Field(discriminator="method")]


class TrainingConfig(Section):
    """What is the same in the training of every model."""

    batch_size: PositiveInt = 32
    """Windows a step, over all processes that train together."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate changes after the warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.03
    """Share of all steps in which the learning rate rises from 0."""
    precision: DType = "auto"
    """Number format of the computation."""
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
    """The teacher: trained from `base`, or with `path` an existing one as it is."""
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
                    f"{student.name!r} ends like the files of a seed",
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
