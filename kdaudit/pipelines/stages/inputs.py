"""What a run is made from."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from kdaudit.config.audit import AuditConfig
from kdaudit.config.extraction import ExtractionBase
from kdaudit.config.screen import ScreenConfig
from kdaudit.corpus import ChatFormat, PinnedSource
from kdaudit.models.audited import AuditedModels
from kdaudit.runs.inputs import VOCABULARY

_CORPUS_KEYS = ("split", "text", "id", "documents", "window", "stride", "limit")
_ANSWER_KEYS = ("split", "prompt", "response", "messages", "id", "window", "limit")
_MODEL_KEYS = ("dtype", "tensor_parallel", "trust_remote_code")


def run_inputs(
    seed: int, sources: Mapping[str, PinnedSource], extraction: ExtractionBase, models: AuditedModels
) -> dict[str, str]:
    """Values and content hashes of all that a run's figures depend on, by key; see `kdaudit.runs.inputs`.

    Args:
        seed: of every random choice.
        sources: the texts, by configuration key.
        extraction: what counts as memorized.
        models: all of them.

    """
    found = {"seed": str(seed)}
    if models.teacher is None:  # its own keys are about the whole run; here the first model cuts the texts
        found["models.teacher"] = "null"
        found["models (whose tokenizer cuts the texts)"] = models.cutter.model.tokenizer_fingerprint
    for key, source in sources.items():
        found[f"{key}.path (its content)"] = source.fingerprint
        for name in _CORPUS_KEYS if not source.config.has_answers else _ANSWER_KEYS:
            found[f"{key}.{name}"] = str(getattr(source.config, name))
    for name, value in extraction.model_dump().items():
        found[f"extraction.{name}"] = str(value)
    for audited in models.all:
        found[f"models.{audited.name}.path (its content)"] = audited.model.fingerprint
        found[f"models.{audited.name}.path (its tokenizer)"] = audited.model.tokenizer_fingerprint
        for name in _MODEL_KEYS:
            found[f"models.{audited.name}.{name}"] = str(getattr(audited.config, name))
        if audited.config.match_by != "auto":
            found[f"models.{audited.name}.match_by"] = audited.config.match_by
    if models.by_text:
        own = {one.model.tokenizer_fingerprint for one in models.all if one.name in models.by_text}
        found["tokenizers (whose boundaries cut the examples)"] = ", ".join(sorted(own))
    return found | {VOCABULARY: str(models.vocabulary)}


def chat_inputs(chats: Mapping[str, ChatFormat]) -> dict[str, str]:
    """The same of what makes texts of prompts and answers, by the texts' keys."""
    found = {}
    for key, chat in chats.items():
        text = chat.template.jinja
        found[f"{key}.template (its content)"] = (
            "none" if text is None else f"sha256:{sha256(text.encode()).hexdigest()}"
        )
        found[f"{key}.context"] = str(chat.context)
    return found


def pinned(
    config: AuditConfig | ScreenConfig, sources: Mapping[str, PinnedSource], models: AuditedModels
) -> dict[str, Any]:
    """The configuration's JSON values with the commits that this run read from the hub as revisions.

    What is local has no commit and stays as it is; an adapter's base model is named. A run of these
    values reads the same data again, whatever was pushed to the hub since.
    """
    values: dict[str, Any] = config.model_dump(mode="json")
    for key, source in sources.items():
        if key in values:  # canaries are a file
            values[key]["revision"] = source.config.revision
    for audited in models.all:
        _, role, *row = audited.key.split(".")
        section = values["models"][role]
        section = section if isinstance(section, dict) else section[int(row[0]) if row else 0]
        if commit := audited.model.commit:
            section["revision"] = commit
        if adapted := audited.model.adapted:
            section["base"] = {"path": adapted.base.path, "revision": adapted.base.revision}
    return values
