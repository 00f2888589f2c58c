"""Keys of distill.yaml for each student: a baseline, or one that learns from the teacher, soft or hard."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from kdaudit.config.section import Name, Positive, Section, Share
from kdaudit.config.yaml.misfit import MisfitError


class BaselineStudent(Section):
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


class SoftStudent(Section):
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

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        changed = [
            key for key, field in type(self).model_fields.items() if getattr(self, key) != field.default
        ]
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
