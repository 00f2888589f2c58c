"""From `models` of a configuration to audited models: found, checked against one another, tokenizers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdaudit.config.models import ModelConfig, ModelSet, StudentConfig
from kdaudit.errors import ModelError
from kdaudit.models.adapters import remote_part
from kdaudit.models.audited import AuditedModel, AuditedModels, KdMethod
from kdaudit.models.audited_notes import model_notes, model_warnings
from kdaudit.models.endpoints import is_left_out, resolve_endpoint
from kdaudit.models.resolving import ResolvedModel, compare_tokenizers, read_tokenizer, resolve_model
from kdaudit.models.tokenizer import reader_of
from kdaudit.models.tokenizer.reading import difference
from kdaudit.runs import Progress
from kdaudit.schemas.result import Role


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
    notes = [] if headers_only else model_notes(audited_models)
    warnings = list(model_warnings(audited_models, copies=not headers_only))
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
    return AuditedModels([_resolve(first, [])], [], {}, [])


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
