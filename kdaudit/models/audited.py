"""The models of an audit, resolved: who they are, where their weights lie, and how they read text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from kdaudit.config.models import ModelConfig
from kdaudit.models.resolving import ResolvedModel
from kdaudit.models.tokenizer import Alike, ModelTokenizer, Other, ReadingCheck
from kdaudit.schemas.notes import Note
from kdaudit.schemas.result import Role

KdMethod = Literal["soft", "hard"]


class AuditedModel(NamedTuple):
    """One model of the audit."""

    name: str
    """teacher, baseline, baseline-N, base or the student's name: its key in results and its folder."""
    role: Role
    kd: KdMethod | None
    key: str
    """Where it stands in the configuration."""
    config: ModelConfig
    model: ResolvedModel
    tokenizer: ModelTokenizer


class AuditedModels(NamedTuple):
    """All models: teacher, baselines, base, students."""

    all: list[AuditedModel]
    warnings: list[str]
    alike: Mapping[str, Alike]
    """What is known of each model whose tokenizer is not that of the first, by its name."""
    notes: list[Note]
    """What readers of the results should know of the tokenizers."""
    by_text: frozenset[str] = frozenset()
    """Names of models that read text otherwise than the first: what they write is compared as text."""

    @property
    def cutter(self) -> AuditedModel:
        """The model whose tokenizer cuts the texts: the teacher, without one the first model."""
        return self.all[0]

    @property
    def teacher(self) -> AuditedModel | None:
        """The teacher, unless it is not available."""
        return next((audited for audited in self.all if audited.role == "teacher"), None)

    @property
    def tokenizer(self) -> ModelTokenizer:
        """What cuts the texts; other models' tokenizers read them alike, but for those `by_text`."""
        return self.cutter.tokenizer

    @property
    def vocabulary(self) -> int:
        """Columns of the logits that stand for tokens, of all models that read the first one's tokens."""
        return min(len(audited.tokenizer) for audited in self.all if audited.name not in self.by_text)

    def vocabulary_of(self, audited: AuditedModel) -> int:
        """Columns of a model's logits that stand for tokens of the vocabulary that it is compared in."""
        return len(audited.tokenizer) if audited.name in self.by_text else self.vocabulary

    @property
    def with_weights(self) -> list[AuditedModel]:
        """Models whose weights are here, and not behind an endpoint: those that can be scored."""
        return [audited for audited in self.all if audited.model.behind is None]

    @property
    def students(self) -> list[AuditedModel]:
        """The students, in the configuration's order."""
        return [audited for audited in self.all if audited.role == "student"]

    @property
    def baselines(self) -> list[AuditedModel]:
        """The baselines, in the configuration's order."""
        return [audited for audited in self.all if audited.role == "baseline"]

    @property
    def base(self) -> AuditedModel | None:
        """The untouched model that baselines and students started from, where one is named."""
        return next((audited for audited in self.all if audited.role == "base"), None)

    def decode(self, token_ids: Iterable[int]) -> str:
        """Text of token ids, special tokens included."""
        return self.tokenizer.decode(token_ids)

    def reading_check(self, key: str, names: Collection[str]) -> ReadingCheck:
        """What checks, while the corpus under `key` is read, that these models read its texts alike."""
        audited_models = [audited for audited in self.all if audited.name in names]
        others = {
            audited.name: Other(audited.tokenizer, self.alike[audited.name])
            for audited in audited_models
            if audited.name in self.alike
        }
        rowless = {audited.name: self.rowless(audited) or [] for audited in audited_models}
        return ReadingCheck(key, self.cutter.name, self.tokenizer, others, rowless)

    def differences(self) -> dict[str, list[str] | None]:
        """Texts that models may read otherwise than the first, by name; None where each has to be tried.

        Models that read every text alike are left out.
        """
        found: dict[str, list[str] | None] = {}
        for audited in self.all:
            rowless, alike = self.rowless(audited) or [], self.alike.get(audited.name)
            literals = () if alike is None else alike.literals
            if rowless or literals != ():
                found[audited.name] = None if literals is None else [*rowless, *literals]
        return found

    def rowless(self, audited: AuditedModel) -> list[str] | None:
        """Added tokens that a model has no row for in its embeddings, as Gemma 3 1B has none for images.

        None where ordinary text becomes such a token.
        """
        rows = embedding_rows(audited)
        tokenizer = audited.tokenizer if audited.name in self.by_text else self.tokenizer
        return [] if rows is None else tokenizer.literals(rows, self.vocabulary_of(audited))


def embedding_rows(audited: AuditedModel) -> int | None:
    """Rows of a model's embeddings; None where its own code puts something else under that key."""
    return audited.model.embedding_rows
