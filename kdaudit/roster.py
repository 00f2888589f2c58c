"""The models of an audit, resolved: who they are, where their weights lie, and their one tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kdaudit.config.audit import (
    CorpusConfig,
    EngineName,
    ExtractionBase,
    ModelConfig,
    ModelSet,
    tensor_parallel_by_key,
)
from kdaudit.engines import EngineOptions, require
from kdaudit.engines.sizing import read_config
from kdaudit.errors import ModelError, UsageError
from kdaudit.extraction import Split
from kdaudit.models import (
    ResolvedModel,
    check_same_tokenizer,
    resolve_model,
    smaller_teacher_warning,
)
from kdaudit.tokenizer import bos_token_id, load_tokenizer, uses_bos

Role = Literal["teacher", "baseline", "student"]
KdMethod = Literal["soft", "hard"]


class Member(NamedTuple):
    """One model of the audit."""

    name: str
    """teacher, baseline, baseline-N or the student's name: its key in results and its folder."""
    role: Role
    kd: KdMethod | None
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


def assemble_roster(models: ModelSet) -> Roster:
    """Find every model, check that they fit one another, and load their tokenizer.

    Raises:
        ModelError: a model is missing, unsafe or damaged, or has another tokenizer.

    """
    members = [_resolve(one) for one in _configured(models)]
    check_same_tokenizer({member.name: member.model for member in members})
    warnings = [
        warning
        for member in members
        if member.role == "student"
        and (warning := smaller_teacher_warning(members[0].model, member.model, member.name))
    ]
    return Roster(members, _tokenizer_of(members[0]), warnings)


def lone_teacher(models: ModelSet) -> Roster:
    """A roster of the teacher and its tokenizer alone.

    Raises:
        ModelError: the teacher is missing, unsafe or damaged.

    """
    teacher = _resolve(_configured(models)[0])
    return Roster([teacher], _tokenizer_of(teacher), [])


def _resolve(one: _Configured) -> Member:
    return Member(one.name, one.role, one.kd, one.key, one.config, resolve_model(one.config, one.key))


def _tokenizer_of(member: Member) -> Any:  # noqa: ANN401 - `tokenizers` is untyped
    return load_tokenizer(member.model.folder, trust_remote_code=member.config.trust_remote_code)


def check_machine(models: ModelSet, extraction: ExtractionBase) -> None:
    """Refuse at once what would fail only when the first model is loaded, after the whole corpus was read.

    Raises:
        UsageError: the engine is not installed, or more GPUs are asked for than there are.

    """
    if extraction.engine != "vllm":
        return
    require(extraction.engine)
    for key, wanted in tensor_parallel_by_key(models, extraction).items():
        found = _accelerators() if wanted > 1 else wanted
        if wanted > found:
            there = {0: "none", 1: "one"}.get(found, f"only {found}")
            raise UsageError(
                f"{key}: asks for {wanted} GPUs and this machine has {there}; set it to {max(1, found)}"
            )


def _accelerators() -> int:
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


class _Configured(NamedTuple):
    name: str
    role: Role
    kd: KdMethod | None
    key: str
    config: ModelConfig


def _configured(models: ModelSet) -> list[_Configured]:
    count = len(models.baseline or ())
    baselines = ["baseline"] if count == 1 else [f"baseline-{row + 1}" for row in range(count)]
    who: list[tuple[str, Role, KdMethod | None]] = [("teacher", "teacher", None)]
    who += [(name, "baseline", None) for name in baselines]
    who += [(student.name, "student", student.kd) for student in models.students]
    return [_Configured(*one, *where) for one, where in zip(who, models.by_key().items(), strict=True)]


def split_of(extraction: ExtractionBase, roster: Roster, whole: Mapping[str, CorpusConfig]) -> Split:
    """Where examples are cut, and the begin token that goes before them.

    Args:
        extraction: what counts as memorized.
        roster: the models.
        whole: corpora whose whole windows models will read, by configuration key.

    Raises:
        ModelError: `bos: always` and the tokenizer has no begin token; or a model reads fewer tokens.

    """
    begin = extraction.bos == "always" or (extraction.bos == "auto" and uses_bos(roster.tokenizer))
    bos = bos_token_id(roster.tokenizer) if begin else None
    if begin and bos is None:
        raise ModelError("extraction.bos: the tokenizer has no begin token; set it to auto or never")
    split = Split(extraction.prefix_tokens, extraction.suffix_tokens, bos)
    for member in roster.members:
        _check_fit(roster, member, split, whole)
    return split


def _check_fit(roster: Roster, member: Member, split: Split, whole: Mapping[str, CorpusConfig]) -> None:
    """Check that a model can read what it will be given."""
    described = read_config(member.model.folder)
    where = f"{member.key}.path: {member.model.name}"
    most = _whole(described, "max_position_embeddings", "n_positions")
    if most is not None and most < split.tokens:
        raise ModelError(
            f"{where}: the model reads {most} tokens at most, prefix and suffix take {split.tokens}; "
            "lower extraction.prefix_tokens or extraction.suffix_tokens"
        )
    for key, corpus in whole.items():
        wanted = corpus.window - 1 + (split.bos is not None)  # the last token is foretold, not read
        if most is not None and most < wanted:
            raise ModelError(
                f"{where}: the model reads {most} tokens at most, and perplexities are taken over whole "
                f"windows of the {key}, {wanted} of their tokens; lower {key}.window"
                + (" or, in an audit, set predictor.enabled to false" if key == "corpus" else "")
            )
    rows = _whole(described, "vocab_size")
    if rows is not None and rows < len(roster.tokenizer):
        raise ModelError(
            f"{where}: the tokenizer has {len(roster.tokenizer):,} tokens and the model rows for "
            f"{rows:,}; save the model after model.resize_token_embeddings(len(tokenizer))"
        )


def _whole(described: dict[str, Any], *names: str) -> int | None:
    """The first whole number that stands under one of these keys; a model's own code may put others there."""
    return next((described[name] for name in names if isinstance(described.get(name), int)), None)


def engine_options(
    extraction: ExtractionBase,
    engine: EngineName,
    member: Member,
    split: Split,
    examples: int,
    sequences: int = 0,
) -> EngineOptions:
    """How to load a model for extraction; a model's own settings come before the audit's."""
    return EngineOptions(
        engine=engine,
        path=str(member.model.folder),
        max_tokens=split.tokens,
        dtype=member.config.dtype or extraction.dtype,
        tensor_parallel=member.config.tensor_parallel or extraction.tensor_parallel,
        trust_remote_code=member.config.trust_remote_code,
        expected_examples=examples,
        sequences=sequences,
    )
