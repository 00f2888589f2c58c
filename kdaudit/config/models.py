"""The sections that name models: weights, adapters, endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    model_validator,
)

from kdaudit.config.endpoint import (
    CONCURRENCY,
    TIMEOUT,
    Endpoint,
    ModelPath,
    VariableName,
    is_url,
)
from kdaudit.config.paths import PathOrId
from kdaudit.config.section import DType, Name, Section, one_or_many, path_alone
from kdaudit.config.yaml.misfit import MisfitError

RESERVED_NAMES = ("teacher", "baseline", "holdout")
"""Names of models that a student cannot take; `baseline-N` is reserved too, and `base` where one is named."""


def check_names(names: Sequence[str], reserved: Sequence[str]) -> None:
    """Refuse names of students that are reserved, or that differ in case alone: they become folders.

    Raises:
        MisfitError: one is.
    """
    seen: set[str] = set()
    for row, written in enumerate(names):
        name = written.lower()
        if name in reserved or name.startswith("baseline-"):
            raise MisfitError(
                f"{written!r} is reserved",
                fix=f"choose a name other than {', '.join(reserved)} and baseline-N",
                key=f"students.{row}.name",
            )
        if name in seen:
            raise MisfitError(
                f"{written!r} is used twice",
                fix="give each student its own name (upper and lower case do not count)",
                key=f"students.{row}.name",
            )
        seen.add(name)


class AdapterBase(Section):
    """The model that an adapter was trained on."""

    path: PathOrId
    """A local folder in Hugging Face form, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""


AdapterBaseRef = Annotated[
    AdapterBase, BeforeValidator(path_alone, json_schema_input_type=PathOrId | AdapterBase)
]


class ModelConfig(Section):
    """One model: a local folder, a Hugging Face model id, or a model behind a completions endpoint."""

    path: ModelPath
    """A local folder in Hugging Face form, or a hub id: whole weights, or a LoRA adapter as PEFT saves it. Or
    the address of an OpenAI-compatible completions endpoint, as in http://localhost:8000/v1."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    base: AdapterBaseRef | None = None
    """For an adapter: the model that it was trained on; null takes the one that its adapter_config.json
    names."""
    match_by: Literal["auto", "text"] = "auto"
    """What is compared: auto takes tokens where the model reads text as the teacher's tokens, else text; text
    takes the text that the model writes in any case, as for documents that both read differently."""
    dtype: DType | None = None
    """Overrides `extraction.dtype` for this model."""
    tensor_parallel: PositiveInt | None = None
    """Overrides `extraction.tensor_parallel` for this model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Of an endpoint: the model's name there."""
    tokenizer: PathOrId | None = None
    """Of an endpoint: a folder or hub id with the model's tokenizer; null takes that of the audit's first
    model with weights."""
    api_key_env: VariableName | None = None
    """Of an endpoint: the environment variable that holds its key. The key itself never stands in a file."""
    concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    """Of an endpoint: requests at a time; null takes 16."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Of an endpoint: seconds to wait for the next bytes of an answer; null takes 120."""
    context: PositiveInt | None = None
    """Of an endpoint: tokens of prompt and answer that its server reads. Longer prompts of a chat are cut to
    that."""

    @model_validator(mode="after")
    def _keys_fit_the_path(self) -> Self:
        if is_url(self.path):
            of_weights = {key: getattr(self, key) for key in _OF_WEIGHTS}
            self._refuse(of_weights, "goes with a model's weights, and path is an endpoint", "remove it")
            if self.model is None:
                raise MisfitError(
                    "is required with an endpoint", fix="name the model as its server does", key="model"
                )
        else:
            of_endpoint = {key: getattr(self, key) for key in _OF_ENDPOINT}
            self._refuse(
                of_endpoint,
                "goes with an endpoint, and path is not one",
                "remove it, or write path as http://HOST:PORT/v1",
            )
        return self

    def _refuse(self, settings: dict[str, object], what: str, fix: str) -> None:
        for key, value in settings.items():
            if value:
                raise MisfitError(what, fix=fix, key=key)

    @property
    def endpoint(self) -> Endpoint | None:
        """How the model is asked, if it is behind an endpoint."""
        if not is_url(self.path):
            return None
        return Endpoint(
            self.path,
            self.model or "",
            self.api_key_env,
            self.concurrency or CONCURRENCY,
            self.timeout or TIMEOUT,
        )


_OF_WEIGHTS = ("revision", "base", "dtype", "tensor_parallel", "trust_remote_code")
_OF_ENDPOINT = ("model", "tokenizer", "api_key_env", "concurrency", "timeout", "context")
"""Keys of a model that go with one kind of path."""


ModelRef = Annotated[ModelConfig, BeforeValidator(path_alone, json_schema_input_type=ModelPath | ModelConfig)]


class StudentConfig(ModelConfig):
    """A distilled model under audit."""

    name: Name
    """The student's name in results and reports, and its folder in the run directory."""
    kd: Literal["soft", "hard"] | None = None
    """How it was distilled: soft (logit-level) or hard (sequence-level)."""


ModelRefs = Annotated[tuple[ModelRef, ...], Field(min_length=1, strict=False)]


Baselines = Annotated[
    ModelRefs | None, BeforeValidator(one_or_many, json_schema_input_type=ModelRef | ModelRefs | None)
]


class ModelSet(Section):
    """Models of one family that are measured on one corpus."""

    teacher: ModelRef | None
    """The model that the students were distilled from; null where its weights are not available. Then nothing
    is known of what students inherit."""
    baseline: Baselines = None
    """A model of the student's size, fine-tuned on the corpus without a teacher; or a list, one per seed."""
    students: Annotated[tuple[StudentConfig, ...], Field(strict=False)] = ()
    """The distilled models."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        base = tuple(self._untouched())
        check_names([student.name for student in self.students], (*RESERVED_NAMES, *base))
        return self

    def by_key(self) -> dict[str, ModelConfig]:
        """Every model under its dotted key: teacher, baselines, base, students."""
        baselines = self.baseline or ()
        keys = ["baseline"] if len(baselines) == 1 else [f"baseline.{row}" for row in range(len(baselines))]
        students = {f"students.{row}": student for row, student in enumerate(self.students)}
        controls = {**dict(zip(keys, baselines, strict=True)), **self._untouched()}
        teacher = {} if self.teacher is None else {"teacher": self.teacher}
        found = {**teacher, **controls, **students}
        return {f"models.{key}": model for key, model in found.items()}

    def _untouched(self) -> dict[str, ModelConfig]:
        """The model that baseline and students started from, under its key; empty where none is named."""
        return {}


class ModelsConfig(ModelSet):
    """The models of an audit."""

    base: ModelRef | None = None
    """The untouched model that baseline and students started from: what it completes it knew before it was
    trained on this corpus."""
    students: Annotated[tuple[StudentConfig, ...], Field(min_length=1, strict=False)]
    """The distilled models."""

    def _untouched(self) -> dict[str, ModelConfig]:
        return {} if self.base is None else {"base": self.base}
