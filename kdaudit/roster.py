"""The models of an audit, resolved: who they are, where their weights lie, and their one tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from kdaudit.config.audit import AuditConfig, ModelConfig
from kdaudit.engines import EngineOptions
from kdaudit.engines.sizing import read_config
from kdaudit.errors import ModelError
from kdaudit.extraction import Split
from kdaudit.models import (
    ResolvedModel,
    bos_token_id,
    check_same_tokenizer,
    load_tokenizer,
    resolve_model,
    smaller_teacher_warning,
    uses_bos,
)


class Member(NamedTuple):
    """One model of the audit."""

    name: str
    """teacher, baseline, baseline-N or the student's name: its key in results and its folder."""
    role: Literal["teacher", "baseline", "student"]
    kd: Literal["soft", "hard"] | None
    key: str
    """Where it stands in the configuration."""
    config: ModelConfig
    model: ResolvedModel


class Roster(NamedTuple):
    """All models: teacher, baselines, students."""

    members: list[Member]
    tokenizer: Any
    warnings: list[str]

    @property
    def students(self) -> list[Member]:
        """The students, in the configuration's order."""
        return [member for member in self.members if member.role == "student"]

    @property
    def baselines(self) -> list[Member]:
        """The baselines, in the configuration's order."""
        return [member for member in self.members if member.role == "baseline"]

    def decode(self, token_ids: Sequence[int] | Any) -> str:  # noqa: ANN401 - an int32 array
        """Text of token ids, special tokens included."""
        text: str = self.tokenizer.decode(
            [int(token) for token in token_ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


def assemble_roster(config: AuditConfig) -> Roster:
    """Find every model, check that they fit one another, and load their tokenizer.

    Raises:
        ModelError: a model is missing, unsafe or damaged, or has another tokenizer or too few positions.

    """
    members = [
        Member(name, role, kd, key, model, resolve_model(model, key))
        for name, role, kd, key, model in _configured(config)
    ]
    check_same_tokenizer({member.name: member.model for member in members})
    tokenizer = load_tokenizer(members[0].model.folder, trust_remote_code=members[0].config.trust_remote_code)
    warnings = [
        warning
        for member in members
        if member.role == "student"
        and (warning := smaller_teacher_warning(members[0].model, member.model, member.name))
    ]
    return Roster(members, tokenizer, warnings)


class _Configured(NamedTuple):
    name: str
    role: Literal["teacher", "baseline", "student"]
    kd: Literal["soft", "hard"] | None
    key: str
    config: ModelConfig


def _configured(config: AuditConfig) -> list[_Configured]:
    models = config.models
    baselines = models.baseline or ()
    found = [_Configured("teacher", "teacher", None, "models.teacher", models.teacher)]
    for row, baseline in enumerate(baselines):
        many = len(baselines) > 1
        name, key = (
            ("baseline", "models.baseline") if not many else (f"baseline-{row + 1}", f"models.baseline.{row}")
        )
        found.append(_Configured(name, "baseline", None, key, baseline))
    for row, student in enumerate(models.students):
        found.append(_Configured(student.name, "student", student.kd, f"models.students.{row}", student))
    return found


def split_of(config: AuditConfig, roster: Roster) -> Split:
    """Where examples are cut, and the begin token that goes before them.

    Raises:
        ModelError: `bos: always` and the tokenizer has no begin token; or a model reads fewer tokens.

    """
    wanted = config.extraction.bos
    begin = wanted == "always" or (wanted == "auto" and uses_bos(roster.tokenizer))
    bos = bos_token_id(roster.tokenizer) if begin else None
    if begin and bos is None:
        raise ModelError("extraction.bos: the tokenizer has no begin token; set it to auto or never")
    split = Split(config.extraction.prefix_tokens, config.extraction.suffix_tokens, bos)
    for member in roster.members:
        _check_fit(config, roster, member, split)
    return split


def _check_fit(config: AuditConfig, roster: Roster, member: Member, split: Split) -> None:
    """Check that a model can read what it will be given."""
    described = read_config(member.model.folder)
    most = described.get("max_position_embeddings") or described.get("n_positions")
    if most is not None and int(most) < split.tokens:
        raise ModelError(
            f"{member.key}: the model reads {most} tokens at most, prefix and suffix take {split.tokens}; "
            "lower extraction.prefix_tokens or extraction.suffix_tokens"
        )
    whole = 0 if config.holdout is None else config.holdout.window + (split.bos is not None)
    if most is not None and int(most) < whole:
        raise ModelError(
            f"{member.key}: the model reads {most} tokens at most, and its perplexity is taken over whole "
            f"windows of the holdout, {whole}; lower holdout.window"
        )
    rows = described.get("vocab_size")
    if rows is not None and int(rows) < len(roster.tokenizer):
        raise ModelError(
            f"{member.key}: the tokenizer has {len(roster.tokenizer):,} tokens and the model rows for "
            f"{rows:,}; save the model after model.resize_token_embeddings(len(tokenizer))"
        )


def engine_options(config: AuditConfig, member: Member, split: Split, examples: int) -> EngineOptions:
    """How to load a model for extraction; a model's own settings come before the audit's."""
    return EngineOptions(
        engine=config.extraction.engine,
        path=str(member.model.folder),
        max_tokens=split.tokens,
        dtype=member.config.dtype or config.extraction.dtype,
        tensor_parallel=member.config.tensor_parallel or config.extraction.tensor_parallel,
        trust_remote_code=member.config.trust_remote_code,
        expected_examples=examples,
    )
