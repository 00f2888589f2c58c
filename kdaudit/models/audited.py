"""The models of an audit, resolved: who they are, where their weights lie, and how they read text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from kdaudit.attacks.greedy import Progress, Split
from kdaudit.config.audit import (
    CorpusConfig,
    EngineName,
    ExtractionBase,
    ModelConfig,
    ModelSet,
    tensor_parallel_by_key,
)
from kdaudit.errors import ModelError, UsageError
from kdaudit.inference import EngineOptions, require
from kdaudit.inference.context import read_context_length
from kdaudit.inference.sizing import read_config
from kdaudit.models.resolving import (
    ResolvedModel,
    check_same_tokenizer,
    copy_warnings,
    resolve_model,
    smaller_teacher_warning,
)
from kdaudit.models.tokenizer import (
    Alike,
    ModelTokenizer,
    Other,
    ReadingCheck,
    bos_token_id,
    habit_warning,
    load_tokenizer,
    rewriting_warning,
    uses_bos,
)

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
    tokenizer: ModelTokenizer


class Roster(NamedTuple):
    """All models: teacher, baselines, students."""

    members: list[Member]
    warnings: list[str]
    alike: Mapping[str, Alike]
    """What is known of each model whose tokenizer is not the teacher's, by its name."""
    notes: list[str]
    """What readers of the results should know of the tokenizers."""

    @property
    def tokenizer(self) -> ModelTokenizer:
        """The teacher's, which cuts the texts; all others read them alike."""
        return self.members[0].tokenizer

    @property
    def vocabulary(self) -> int:
        """Columns of all models' logits that stand for tokens."""
        return min(len(member.tokenizer) for member in self.members)

    @property
    def students(self) -> list[Member]:
        """The students, in the configuration's order."""
        return [member for member in self.members if member.role == "student"]

    @property
    def baselines(self) -> list[Member]:
        """The baselines, in the configuration's order."""
        return [member for member in self.members if member.role == "baseline"]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Text of token ids, special tokens included."""
        return self.tokenizer.decode(token_ids)

    def reading_check(self, key: str) -> ReadingCheck:
        """What checks, while the corpus under `key` is read, that all models read its texts alike."""
        others = {
            member.name: Other(member.tokenizer, self.alike[member.name])
            for member in self.members
            if member.name in self.alike
        }
        rowless = {member.name: self.rowless(member) or [] for member in self.members}
        return ReadingCheck(key, self.members[0].name, self.tokenizer, others, rowless)

    def rowless(self, member: Member) -> list[str] | None:
        """Added tokens that a model has no row for in its embeddings, as Gemma 3 1B has none for images.

        None where ordinary text becomes such a token.
        """
        rows = _rows(member)
        return [] if rows is None else self.tokenizer.literals(rows, self.vocabulary)


def assemble_roster(
    models: ModelSet, *, headers_only: bool = False, progress: Progress = lambda *_: None
) -> Roster:
    """Find every model, check that they fit one another, and load their tokenizer.

    Args:
        models: the models.
        headers_only: leave out those on the hub, and the fingerprints of the others: no weights are read.
        progress: told of each model.

    Raises:
        ModelError: a model is missing, unsafe or damaged, or has another tokenizer.

    """
    members: list[Member] = []
    configured = _configured(models)
    for done, one in enumerate(configured):
        progress("models: reading headers" if headers_only else "models: hashing", done, len(configured))
        if not headers_only or Path(one.config.path).is_absolute():
            members.append(_resolve(one, members, hashed=not headers_only))
    alike = check_same_tokenizer({member.name: member.model for member in members})
    return Roster(members, list(_warnings(members, copies=not headers_only)), alike, [])


def _warnings(members: Sequence[Member], *, copies: bool) -> Iterator[str]:
    """What the user should know of the models and need not act on."""
    yield from (member.model.warning for member in members if member.model.warning)
    for member in members:
        if member.role == "student" and members[0].role == "teacher":
            smaller = smaller_teacher_warning(members[0].model, member.model, member.name)
            if smaller:
                yield smaller
    if copies:
        yield from copy_warnings({member.name: member.model for member in members})


def lone_teacher(models: ModelSet) -> Roster:
    """A roster of the teacher and its tokenizer alone.

    Raises:
        ModelError: the teacher is missing, unsafe or damaged.

    """
    return Roster([_resolve(_configured(models)[0], [])], [], {}, [])


def _resolve(one: _Configured, before: Sequence[Member], *, hashed: bool = True) -> Member:
    """Find a model; one that reads text like a model before it shares that one's tokenizer."""
    model = resolve_model(one.config, one.key, hashed=hashed)
    same = (
        member.tokenizer
        for member in before
        if member.model.tokenizer_fingerprint == model.tokenizer_fingerprint
    )
    tokenizer = next(same, None)
    if tokenizer is None:
        tokenizer = load_tokenizer(model.folder, trust_remote_code=one.config.trust_remote_code)
    return Member(one.name, one.role, one.kd, one.key, one.config, model, tokenizer)


def with_tokenizer_notes(roster: Roster, texts: Iterable[str]) -> Roster:
    """The same models, with what users and readers should know of how their tokenizers are taken.

    Args:
        roster: the models.
        texts: the corpus's first documents.

    """
    first = list(texts)
    names: dict[str, list[str]] = {}
    for member in roster.members:
        folder, tokenizer = member.model.folder, member.tokenizer
        trusted = member.config.trust_remote_code
        for said in (
            rewriting_warning(folder, tokenizer, first, trust_remote_code=trusted),
            habit_warning(folder, tokenizer),
        ):
            if said is not None:
                names.setdefault(said, []).append(member.name)
    notes = [f"{', '.join(members)}: {said}" for said, members in names.items()]
    return roster._replace(warnings=[*roster.warnings, *notes], notes=notes)


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
    """Where examples are cut, with the teacher's BOS token; see `member_split` for the others.

    Args:
        extraction: what counts as memorized.
        roster: the models.
        whole: corpora whose whole windows models will read, by configuration key.

    Raises:
        ModelError: `bos: always` and a tokenizer has no BOS token; or a model's context is too short.

    """
    for member in roster.members:
        _check_fit(roster, member, member_split(extraction, member), whole)
    return member_split(extraction, roster.members[0])


def member_split(extraction: ExtractionBase, member: Member) -> Split:
    """Where examples are cut for a model, and the BOS token that it reads before them.

    Raises:
        ModelError: `bos: always` and its tokenizer has no BOS token.

    """
    begin = extraction.bos == "always" or (extraction.bos == "auto" and uses_bos(member.tokenizer))
    bos = bos_token_id(member.tokenizer) if begin else None
    if begin and bos is None:
        raise ModelError(
            f"extraction.bos: the tokenizer of {member.name} has no BOS token; set it to auto or never"
        )
    return Split(extraction.prefix_tokens, extraction.suffix_tokens, bos)


def tokenizer_notes(extraction: ExtractionBase, roster: Roster) -> list[str]:
    """What a reader of the results should know where the models' tokenizers differ."""
    notes = list(roster.notes)
    begun = {member.name: member_split(extraction, member).bos is not None for member in roster.members}
    if len({*begun.values()}) > 1:
        with_bos, without = (
            ", ".join(name for name, does in begun.items() if does is kind) for kind in (True, False)
        )
        notes.append(
            "A BOS token stands before each prefix where a model's own tokenizer puts one: it does for "
            f"{with_bos}, not for {without}. extraction.bos is the teacher's."
        )
    if roster.alike:
        notes.append(
            f"Tokenizers that differ from the teacher's and read every text as the same tokens: those of "
            f"{', '.join(roster.alike)}."
        )
    return notes


def _check_fit(roster: Roster, member: Member, split: Split, whole: Mapping[str, CorpusConfig]) -> None:
    """Check that a model can read what it will be given."""
    folder, trusted = member.model.folder, member.config.trust_remote_code
    where = f"{member.key}.path: {member.model.name}"
    most = read_context_length(folder, trust_remote_code=trusted)
    needed = split.tokens - 1  # the last token is predicted, not read
    if most is not None and most < needed:
        raise ModelError(
            f"{where}: its context length is {most} tokens, prefix and suffix take {needed}"
            f"{' with their BOS token' if split.bos is not None else ''} (the last one is not read); "
            "lower extraction.prefix_tokens or extraction.suffix_tokens"
        )
    for key, corpus in whole.items():
        wanted = corpus.window - 1 + (split.bos is not None)
        if most is not None and most < wanted:
            raise ModelError(
                f"{where}: its context length is {most} tokens, and perplexities are taken over whole "
                f"windows of the {key}, {wanted} of their tokens; lower {key}.window"
                + (" or, in an audit, set predictor.enabled to false" if key == "corpus" else "")
            )
    rows = _rows(member)
    if roster.rowless(member) is None or (rows is not None and (split.bos or 0) >= rows):
        raise ModelError(
            f"{where}: the tokenizer has {roster.vocabulary:,} tokens and the model rows for "
            f"{rows:,}; save the model after model.resize_token_embeddings(len(tokenizer))"
        )


def _rows(member: Member) -> int | None:
    """Rows of a model's embeddings; None where its own code puts something else under that key."""
    rows = read_config(member.model.folder).get("vocab_size")
    return rows if isinstance(rows, int) else None


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
        vocabulary=len(member.tokenizer),
        unused_ids=member.tokenizer.unused_ids,
    )
