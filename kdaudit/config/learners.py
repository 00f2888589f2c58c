"""Keys of distill.yaml for the models that are trained: where they start, and for how long they learn."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PositiveInt,
    Tag,
    model_validator,
)

from kdaudit.config.models import ModelConfig, ModelRef
from kdaudit.config.paths import PathOrId
from kdaudit.config.section import Positive, Section
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.config.yaml.schema import nearest


def text_or_keys(value: object) -> str:
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
    Discriminator(text_or_keys),
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
    """Refuse what belongs to training beside the path of a teacher that is taken as it is.

    `base` alone may stand there: it is what a teacher that is an adapter was trained on.
    """
    if isinstance(value, dict) and "path" in value:
        trained = any(key in value for key in LearnerConfig.model_fields if key != "base")
        if value.get("base") is not None and trained:
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
