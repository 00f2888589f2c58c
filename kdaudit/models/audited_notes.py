"""What users and readers of the results should know of the audited models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.models.checkpoint.copies import equal_models
from kdaudit.models.endpoints import endpoint_notes, plain_key_warning
from kdaudit.models.resolving import copy_warnings, smaller_teacher_warning
from kdaudit.models.tokenizer import habit_warning, rewriting_warning
from kdaudit.schemas.notes import Note


def model_notes(audited_models: Sequence[AuditedModel]) -> list[Note]:
    """For readers of the results: endpoints, adapters, and models with the same weights."""
    return [*_endpoint_notes(audited_models), *adapter_notes(audited_models), *_copy_notes(audited_models)]


def _endpoint_notes(audited_models: Sequence[AuditedModel]) -> Iterator[Note]:
    """For readers of the results: which models are behind endpoints."""
    names = [audited.name for audited in audited_models if audited.model.behind is None]
    for audited in audited_models:
        if audited.model.behind is not None:
            lender = names[0] if audited.config.tokenizer is None else None
            yield from endpoint_notes(audited.name, audited.model.behind, lender)


def adapter_notes(audited_models: Sequence[AuditedModel]) -> Iterator[Note]:
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


def _copy_notes(audited_models: Sequence[AuditedModel]) -> list[Note]:
    """For readers of the results: which figures compare a model with itself."""
    return [
        Note(
            code="same_weights",
            subject=None,
            text=f"{one} and {two} have the same weights, tensor for tensor: figures that set one against "
            "the other compare a model with itself.",
        )
        for one, two in equal_models({audited.name: audited.model.weights for audited in audited_models})
    ]


def model_warnings(audited_models: Sequence[AuditedModel], *, copies: bool) -> Iterator[str]:
    """What the user should know of the models and need not act on."""
    yield from (audited.model.warning for audited in audited_models if audited.model.warning)
    yield from (note.text for note in (*_endpoint_notes(audited_models), *adapter_notes(audited_models)))
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
