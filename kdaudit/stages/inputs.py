"""What must not change while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping

from kdaudit.config.audit import ExtractionBase
from kdaudit.corpus import PinnedSource
from kdaudit.roster import Roster

_CORPUS_KEYS = ("split", "text", "id", "documents", "window", "stride", "limit")
_MODEL_KEYS = ("dtype", "tensor_parallel", "trust_remote_code")


def run_inputs(
    seed: int, sources: Mapping[str, PinnedSource], extraction: ExtractionBase, roster: Roster
) -> dict[str, str]:
    """Values and content hashes of all that a run's figures depend on, by configuration key.

    Args:
        seed: of every random choice.
        sources: the texts, by configuration key.
        extraction: what counts as memorized.
        roster: the models.

    """
    found = {"seed": str(seed)}
    for key, source in sources.items():
        found[f"{key}.path (its content)"] = source.fingerprint
        for name in _CORPUS_KEYS:
            found[f"{key}.{name}"] = str(getattr(source.config, name))
    for name, value in extraction.model_dump().items():
        found[f"extraction.{name}"] = str(value)
    for member in roster.members:
        found[f"{member.key}.path (its content)"] = member.model.fingerprint
        found[f"{member.key}.path (its tokenizer)"] = member.model.tokenizer_fingerprint
        found[f"{member.key}.name"] = member.name
        for name in _MODEL_KEYS:
            found[f"{member.key}.{name}"] = str(getattr(member.config, name))
    return found
