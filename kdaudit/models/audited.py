"""The models of an audit, resolved: who they are, where their weights lie, and how they read text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from kdaudit.config.models import ModelConfig, ModelSet, StudentConfig
from kdaudit.errors import ModelError
from kdaudit.models.adapters import remote_part
from kdaudit.models.checkpoint.copies import equal_models
from kdaudit.models.endpoints import endpoint_notes, is_left_out, plain_key_warning, resolve_endpoint
from kdaudit.models.resolving import (
    ResolvedModel,
    compare_tokenizers,
    copy_warnings,
    read_tokenizer,
    resolve_model,
    smaller_teacher_warning,
)
from kdaudit.models.tokenizer import (
    Alike,
    ModelTokenizer,
    Other,
    ReadingCheck,
    habit_warning,
    reader_of,
    rewriting_warning,
)
from kdaudit.models.tokenizer.reading import difference
from kdaudit.runs import Progress
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

    members: list[AuditedModel]
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
        return self.members[0]

    @property
    def teacher(self) -> AuditedModel | None:
        """The teacher, unless it is not available."""
        return next((member for member in self.members if member.role == "teacher"), None)

    @property
    def tokenizer(self) -> ModelTokenizer:
        """What cuts the texts; other models' tokenizers read them alike, but for those `by_text`."""
        return self.cutter.tokenizer

    @property
    def vocabulary(self) -> int:
        """Columns of the logits that stand for tokens, of all models that read the first one's tokens."""
        return min(len(member.tokenizer) for member in self.members if member.name not in self.by_text)

    def vocabulary_of(self, member: AuditedModel) -> int:
        """Columns of a model's logits that stand for tokens of the vocabulary that it is compared in."""
        return len(member.tokenizer) if member.name in self.by_text else self.vocabulary

    @property
    def with_weights(self) -> list[AuditedModel]:
        """Models whose weights are here, and not behind an endpoint: those that can be scored."""
        return [member for member in self.members if member.model.behind is None]

    @property
    def students(self) -> list[AuditedModel]:
        """The students, in the configuration's order."""
        return [member for member in self.members if member.role == "student"]

    @property
    def baselines(self) -> list[AuditedModel]:
        """The baselines, in the configuration's order."""
        return [member for member in self.members if member.role == "baseline"]

    @property
    def base(self) -> AuditedModel | None:
        """The untouched model that baselines and students started from, where one is named."""
        return next((member for member in self.members if member.role == "base"), None)

    def decode(self, token_ids: Iterable[int]) -> str:
        """Text of token ids, special tokens included."""
        return self.tokenizer.decode(token_ids)

    def reading_check(self, key: str, names: Collection[str]) -> ReadingCheck:
        """What checks, while the corpus under `key` is read, that these models read its texts alike."""
        members = [member for member in self.members if member.name in names]
        others = {
            member.name: Other(member.tokenizer, self.alike[member.name])
            for member in members
            if member.name in self.alike
        }
        rowless = {member.name: self.rowless(member) or [] for member in members}
        return ReadingCheck(key, self.cutter.name, self.tokenizer, others, rowless)

    def differences(self) -> dict[str, list[str] | None]:
        """Texts that models may read otherwise than the first, by name; None where each has to be tried.

        Models that read every text alike are left out.
        """
        found: dict[str, list[str] | None] = {}
        for member in self.members:
            rowless, alike = self.rowless(member) or [], self.alike.get(member.name)
            literals = () if alike is None else alike.literals
            if rowless or literals != ():
                found[member.name] = None if literals is None else [*rowless, *literals]
        return found

    def rowless(self, member: AuditedModel) -> list[str] | None:
        """Added tokens that a model has no row for in its embeddings, as Gemma 3 1B has none for images.

        None where ordinary text becomes such a token.
        """
        rows = embedding_rows(member)
        tokenizer = member.tokenizer if member.name in self.by_text else self.tokenizer
        return [] if rows is None else tokenizer.literals(rows, self.vocabulary_of(member))


def find_models(
    models: ModelSet,
    *,
    one_tokenizer: bool = False,
    headers_only: bool = False,
    progress: Progress = lambda *_: None,
) -> AuditedModels:
    """Find every model, check that they fit one another, and load their tokenizers.

    Args:
        models: the models.
        one_tokenizer: whether all have to read text as the same tokens.
        headers_only: leave out those on the hub, and the fingerprints of the others: no weights are read.
        progress: told of each model.

    Raises:
        ModelError: a model is missing, unsafe or damaged, or its tokenizer cannot be used here.

    """
    members: list[AuditedModel] = []
    configured = _configured(models)
    for done, one in enumerate(sorted(configured, key=lambda one: one.config.endpoint is not None)):
        progress("models: reading headers" if headers_only else "models: hashing", done, len(configured))
        if not (headers_only and _is_remote(one, members)):
            members.append(_resolve(one, members, hashed=not headers_only))
    order = [one.name for one in configured]
    members.sort(key=lambda member: order.index(member.name))
    found = compare_tokenizers({member.name: member.model for member in members}, one=one_tokenizer)
    alike = {name: one for name, one in found.items() if one is not None}
    by_text = frozenset(found.keys() - alike.keys()) | _asked_by_text(members, one_tokenizer=one_tokenizer)
    alike = {name: one for name, one in alike.items() if name not in by_text}
    if by_text:
        own = [member for member in members if member.name in by_text]
        _check_readers([members[0], *own])
    notes = [] if headers_only else [*_endpoints(members), *_adapters(members), *_copies(members)]
    warnings = list(_warnings(members, copies=not headers_only))
    warnings += [
        _compared_by_text(members[0], member) for member in members if found.get(member.name, 0) is None
    ]
    return AuditedModels(members, warnings, alike, notes, by_text)


def _asked_by_text(members: Sequence[AuditedModel], *, one_tokenizer: bool) -> set[str]:
    """Models that the configuration wants to be compared by text.

    Raises:
        ModelError: it is the one whose tokenizer cuts the texts, or none may be.

    """
    asked = [member for member in members if member.config.match_by == "text"]
    for member in asked:
        if one_tokenizer or member is members[0]:
            why = (
                "both models of a screening score the same tokens"
                if one_tokenizer
                else f"the tokenizer of {member.name} cuts the texts"
            )
            raise ModelError(
                f"{member.name} cannot be compared by text: {why}",
                fix="remove the key",
                key=f"{member.key}.match_by",
            )
    return {member.name for member in asked}


def _compared_by_text(first: AuditedModel, member: AuditedModel) -> str:
    differ = difference(first.tokenizer, member.tokenizer, first.name, member.name)
    return (
        f"{first.name} and {member.name} have different tokenizers ({differ}): {member.name} is compared by "
        "the text that it writes"
    )


def _check_readers(members: Sequence[AuditedModel]) -> None:
    """Refuse a tokenizer whose tokens cannot be mapped to text: without that, nothing is compared as text."""
    for member in members:
        try:
            reader_of(member.tokenizer)
        except ModelError as error:
            error.key = f"{member.key}.path"
            raise


def _is_remote(one: _Configured, before: Sequence[AuditedModel]) -> bool:
    """Whether a model cannot be found without the hub."""
    if one.config.endpoint is not None:
        return is_left_out(one.config, _with_weights(before))
    return remote_part(one.config, one.key) is not None


def _with_weights(members: Sequence[AuditedModel]) -> list[ResolvedModel]:
    return [member.model for member in members if member.model.behind is None]


def _endpoints(members: Sequence[AuditedModel]) -> Iterator[Note]:
    """For readers of the results: which models are behind endpoints."""
    names = [member.name for member in members if member.model.behind is None]
    for member in members:
        if member.model.behind is not None:
            lender = names[0] if member.config.tokenizer is None else None
            yield from endpoint_notes(member.name, member.model.behind, lender)


def _adapters(members: Sequence[AuditedModel]) -> Iterator[Note]:
    """For readers of the results: which models are adapters, and what on."""
    for member in members:
        if (adapted := member.model.adapted) is not None:
            base, namer = (
                adapted.base,
                "the configuration" if member.config.base else "its adapter_config.json",
            )
            commit = f" at commit {base.revision}" if base.revision else ""
            named = adapted.adapter.base if member.config.base else None
            other = f" Its adapter_config.json names '{named}'." if named not in (None, base.path) else ""
            yield Note(
                code="adapter",
                subject=member.name,
                text=f"{member.name} is an adapter ({adapted.adapter.summary}), measured merged into "
                f"{base.path}{commit}, the base model that {namer} names.{other}",
            )


def _copies(members: Sequence[AuditedModel]) -> list[Note]:
    """For readers of the results: which figures compare a model with itself."""
    return [
        Note(
            code="same_weights",
            subject=None,
            text=f"{one} and {two} have the same weights, tensor for tensor: figures that set one against "
            "the other compare a model with itself, and of two such baselines the second measures nothing.",
        )
        for one, two in equal_models({member.name: member.model.weights for member in members})
    ]


def _warnings(members: Sequence[AuditedModel], *, copies: bool) -> Iterator[str]:
    """What the user should know of the models and need not act on."""
    yield from (member.model.warning for member in members if member.model.warning)
    yield from (note.text for note in (*_endpoints(members), *_adapters(members)))
    for member in members:
        plain = None if member.model.behind is None else plain_key_warning(member.model.behind)
        if plain:
            yield f"{member.key}: {plain}"
    teacher = next((member for member in members if member.role == "teacher"), None)
    for member in members:
        if member.role == "student" and teacher is not None:
            smaller = smaller_teacher_warning(teacher.model, member.model, member.name)
            if smaller:
                yield smaller
    if copies:
        yield from copy_warnings({member.name: member.model for member in members})


def lone_cutter(models: ModelSet) -> AuditedModels:
    """The model whose tokenizer cuts the texts, alone: the teacher, without one the first model.

    Raises:
        ModelError: it is missing, unsafe or damaged, or behind an endpoint.

    """
    first = _configured(models)[0]
    if first.config.endpoint is not None:
        raise ModelError(
            "is behind an endpoint, and engines are timed on weights that are here",
            fix="name a folder or a hub id",
            key=f"{first.key}.path",
        )
    return AuditedModels([_resolve(_configured(models)[0], [])], [], {}, [])


def _resolve(one: _Configured, before: Sequence[AuditedModel], *, hashed: bool = True) -> AuditedModel:
    """Find a model; one that reads text like a model before it shares that one's tokenizer."""
    endpoint = one.config.endpoint
    if endpoint is None:
        model = resolve_model(one.config, one.key, hashed=hashed)
    else:
        model = resolve_endpoint(one.config, endpoint, one.key, _with_weights(before))
    # A tokenizer that is named for an endpoint may bring the chat template of all: the teacher's.
    shared = before if one.config.tokenizer is None else []
    same = (
        member.tokenizer
        for member in shared
        if member.model.tokenizer_fingerprint == model.tokenizer_fingerprint
    )
    tokenizer = next(same, None)
    if tokenizer is None:
        tokenizer = read_tokenizer(model)
    return AuditedModel(one.name, one.role, one.kd, one.key, one.config, model, tokenizer)


def with_tokenizer_notes(models: AuditedModels, texts: Iterable[str]) -> AuditedModels:
    """The same models, with what users and readers should know of how their tokenizers are taken.

    Args:
        models: all of them.
        texts: the corpus's first documents.

    """
    first = list(texts)
    names: dict[str, list[str]] = {}
    for member in models.members:
        folder, tokenizer = member.model.tokenizer_folder, member.tokenizer
        trusted = member.config.trust_remote_code
        for said in (
            rewriting_warning(folder, tokenizer, first, trust_remote_code=trusted),
            habit_warning(folder, tokenizer),
        ):
            if said is not None:
                names.setdefault(said, []).append(member.name)
    notes = [
        Note(
            code="tokenizer_reading",
            subject=members[0] if len(members) == 1 else None,
            text=f"{', '.join(members)}: {said}",
        )
        for said, members in names.items()
    ]
    warnings = [*models.warnings, *(note.text for note in notes)]
    return models._replace(warnings=warnings, notes=[*models.notes, *notes])


class _Configured(NamedTuple):
    name: str
    role: Role
    kd: KdMethod | None
    key: str
    config: ModelConfig


_SECTIONS: dict[str, Role] = {"teacher": "teacher", "baseline": "baseline", "base": "base"}
"""Sections of `models` that are no student's, and the role of their models."""


def _configured(models: ModelSet) -> list[_Configured]:
    return [_named(key, config) for key, config in models.by_key().items()]


def _named(key: str, config: ModelConfig) -> _Configured:
    """A model under the name that it has in results; one of several baselines is baseline-N."""
    if isinstance(config, StudentConfig):
        return _Configured(config.name, "student", config.kd, key, config)
    _, section, *row = key.split(".")
    name = f"{section}-{int(row[0]) + 1}" if row else section
    return _Configured(name, _SECTIONS[section], None, key, config)


def embedding_rows(member: AuditedModel) -> int | None:
    """Rows of a model's embeddings; None where its own code puts something else under that key."""
    return member.model.embedding_rows
