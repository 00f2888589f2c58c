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
    audited_models: list[AuditedModel] = []
    configured = _configured(models)
    for done, one in enumerate(sorted(configured, key=lambda one: one.config.endpoint is not None)):
        progress("models: reading headers" if headers_only else "models: hashing", done, len(configured))
        if not (headers_only and _is_remote(one, audited_models)):
            audited_models.append(_resolve(one, audited_models, hashed=not headers_only))
    order = [one.name for one in configured]
    audited_models.sort(key=lambda audited: order.index(audited.name))
    found = compare_tokenizers({audited.name: audited.model for audited in audited_models}, one=one_tokenizer)
    alike = {name: one for name, one in found.items() if one is not None}
    by_text = frozenset(found.keys() - alike.keys()) | _asked_by_text(
        audited_models, one_tokenizer=one_tokenizer
    )
    alike = {name: one for name, one in alike.items() if name not in by_text}
    if by_text:
        own = [audited for audited in audited_models if audited.name in by_text]
        _check_readers([audited_models[0], *own])
    notes = (
        []
        if headers_only
        else [*_endpoints(audited_models), *_adapters(audited_models), *_copies(audited_models)]
    )
    warnings = list(_warnings(audited_models, copies=not headers_only))
    warnings += [
        _compared_by_text(audited_models[0], audited)
        for audited in audited_models
        if found.get(audited.name, 0) is None
    ]
    return AuditedModels(audited_models, warnings, alike, notes, by_text)


def _asked_by_text(audited_models: Sequence[AuditedModel], *, one_tokenizer: bool) -> set[str]:
    """Models that the configuration wants to be compared by text.

    Raises:
        ModelError: it is the one whose tokenizer cuts the texts, or none may be.

    """
    asked = [audited for audited in audited_models if audited.config.match_by == "text"]
    for audited in asked:
        if one_tokenizer or audited is audited_models[0]:
            why = (
                "both models of a screening score the same tokens"
                if one_tokenizer
                else f"the tokenizer of {audited.name} cuts the texts"
            )
            raise ModelError(
                f"{audited.name} cannot be compared by text: {why}",
                fix="remove the key",
                key=f"{audited.key}.match_by",
            )
    return {audited.name for audited in asked}


def _compared_by_text(first: AuditedModel, audited: AuditedModel) -> str:
    differ = difference(first.tokenizer, audited.tokenizer, first.name, audited.name)
    return (
        f"{first.name} and {audited.name} have different tokenizers ({differ}): {audited.name} is compared "
        "by the text that it writes"
    )


def _check_readers(audited_models: Sequence[AuditedModel]) -> None:
    """Refuse a tokenizer whose tokens cannot be mapped to text: without that, nothing is compared as text."""
    for audited in audited_models:
        try:
            reader_of(audited.tokenizer)
        except ModelError as error:
            error.key = f"{audited.key}.path"
            raise


def _is_remote(one: _Configured, before: Sequence[AuditedModel]) -> bool:
    """Whether a model cannot be found without the hub."""
    if one.config.endpoint is not None:
        return is_left_out(one.config, _with_weights(before))
    return remote_part(one.config, one.key) is not None


def _with_weights(audited_models: Sequence[AuditedModel]) -> list[ResolvedModel]:
    return [audited.model for audited in audited_models if audited.model.behind is None]


def _endpoints(audited_models: Sequence[AuditedModel]) -> Iterator[Note]:
    """For readers of the results: which models are behind endpoints."""
    names = [audited.name for audited in audited_models if audited.model.behind is None]
    for audited in audited_models:
        if audited.model.behind is not None:
            lender = names[0] if audited.config.tokenizer is None else None
            yield from endpoint_notes(audited.name, audited.model.behind, lender)


def _adapters(audited_models: Sequence[AuditedModel]) -> Iterator[Note]:
    """For readers of the results: which models are adapters, and what on."""
    for audited in audited_models:
        if (adapted := audited.model.adapted) is not None:
            base, namer = (
                adapted.base,
                "the configuration" if audited.config.base else "its adapter_config.json",
            )
            commit = f" at commit {base.revision}" if base.revision else ""
            named = adapted.adapter.base if audited.config.base else None
            other = f" Its adapter_config.json names '{named}'." if named not in (None, base.path) else ""
            yield Note(
                code="adapter",
                subject=audited.name,
                text=f"{audited.name} is an adapter ({adapted.adapter.summary}), measured merged into "
                f"{base.path}{commit}, the base model that {namer} names.{other}",
            )


def _copies(audited_models: Sequence[AuditedModel]) -> list[Note]:
    """For readers of the results: which figures compare a model with itself."""
    return [
        Note(
            code="same_weights",
            subject=None,
            text=f"{one} and {two} have the same weights, tensor for tensor: figures that set one against "
            "the other compare a model with itself, and of two such baselines the second measures nothing.",
        )
        for one, two in equal_models({audited.name: audited.model.weights for audited in audited_models})
    ]


def _warnings(audited_models: Sequence[AuditedModel], *, copies: bool) -> Iterator[str]:
    """What the user should know of the models and need not act on."""
    yield from (audited.model.warning for audited in audited_models if audited.model.warning)
    yield from (note.text for note in (*_endpoints(audited_models), *_adapters(audited_models)))
    for audited in audited_models:
        plain = None if audited.model.behind is None else plain_key_warning(audited.model.behind)
        if plain:
            yield f"{audited.key}: {plain}"
    teacher = next((audited for audited in audited_models if audited.role == "teacher"), None)
    for audited in audited_models:
        if audited.role == "student" and teacher is not None:
            smaller = smaller_teacher_warning(teacher.model, audited.model, audited.name)
            if smaller:
                yield smaller
    if copies:
        yield from copy_warnings({audited.name: audited.model for audited in audited_models})


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
        audited.tokenizer
        for audited in shared
        if audited.model.tokenizer_fingerprint == model.tokenizer_fingerprint
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
    for audited in models.all:
        folder, tokenizer = audited.model.tokenizer_folder, audited.tokenizer
        trusted = audited.config.trust_remote_code
        for said in (
            rewriting_warning(folder, tokenizer, first, trust_remote_code=trusted),
            habit_warning(folder, tokenizer),
        ):
            if said is not None:
                names.setdefault(said, []).append(audited.name)
    notes = [
        Note(
            code="tokenizer_reading",
            subject=named[0] if len(named) == 1 else None,
            text=f"{', '.join(named)}: {said}",
        )
        for said, named in names.items()
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


def embedding_rows(audited: AuditedModel) -> int | None:
    """Rows of a model's embeddings; None where its own code puts something else under that key."""
    return audited.model.embedding_rows
