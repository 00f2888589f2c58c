"""Keys of distill.yaml for each student: a baseline, or one that learns from the teacher, soft or hard."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from kdaudit.config.learners import text_or_keys
from kdaudit.config.paths import PathOrId
from kdaudit.config.section import Name, Positive, Section, Share
from kdaudit.config.yaml.misfit import MisfitError


class BpeConfig(Section):
    """A tokenizer that is made from the corpus."""

    train_bpe: Annotated[int, Field(ge=257)]
    """Entries of a byte-level BPE trained on the corpus: at least the 256 bytes and the end of text."""


Tokenizer = Annotated[
    Annotated[PathOrId, Tag("as text")] | Annotated[BpeConfig, Tag("as keys")],
    Discriminator(text_or_keys),
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
