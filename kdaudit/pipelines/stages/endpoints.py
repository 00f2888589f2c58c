"""What is asked of models behind endpoints before anything costs time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kdaudit.config.extraction import ExtractionBase
from kdaudit.corpus import ChatFormat, begins_with_bos
from kdaudit.errors import ModelError
from kdaudit.models.audited import AuditedModel
from kdaudit.models.tokenizer import uses_bos
from kdaudit.pipelines.stages.fit import split_of_model
from kdaudit.runs import Progress

if TYPE_CHECKING:
    from kdaudit.inference.endpoint.checking import Found  # imports httpx


def ask_endpoints(
    extraction: ExtractionBase,
    audited_models: Iterable[AuditedModel],
    chats: Mapping[str, ChatFormat],
    progress: Progress,
) -> list[str]:
    """Check that each model behind an endpoint answers as an audit needs it; give the names of those asked.

    Args:
        extraction: how models are asked.
        audited_models: the models, those with weights among them.
        chats: how prompts and answers become tokens, by the texts' keys; none of plain text.
        progress: told of each server.

    Raises:
        ModelError: one does not.

    """
    asked = []
    for audited in audited_models:
        if (endpoint := audited.model.behind) is None:
            continue
        from kdaudit.inference.endpoint.checking import check_endpoint

        progress(f"{audited.name}: asking {endpoint.url}", 0, 0)
        split = split_of_model(extraction, audited, answers=bool(chats))
        found = check_endpoint(endpoint, audited.tokenizer, audited.key, split.tokens)
        if chats:
            _check_chats(audited, found, chats)
        elif not found.way.ids_in and (split.bos is not None) != uses_bos(audited.tokenizer):
            raise _puts_its_own_bos(audited)
        asked.append(audited.name)
    return asked


def _check_chats(audited: AuditedModel, found: Found, chats: Mapping[str, ChatFormat]) -> None:
    """Refuse a server that would read prompts cut by itself, or behind another BOS token."""
    shortest = min((chat.context for chat in chats.values() if chat.context is not None), default=None)
    if found.context is not None and (shortest is None or found.context < shortest):
        raise ModelError(
            f"{audited.model.name} reads {found.context} tokens, and prompts of a chat may be longer",
            fix=f"write {audited.key}.context: {found.context}, so that longer ones are cut to it",
            key=f"{audited.key}.context",
        )
    begins = {begins_with_bos(chat, audited.tokenizer) for chat in chats.values()}
    if not found.way.ids_in and begins != {uses_bos(audited.tokenizer)}:
        raise _puts_its_own_bos(audited)


def _puts_its_own_bos(audited: AuditedModel) -> ModelError:
    return ModelError(
        f"{audited.model.name} takes text, and puts a BOS token before it or not as its tokenizer does",
        fix="set it to auto; a chat template has to begin with the BOS token as the tokenizer does",
        key="extraction.bos",
    )
