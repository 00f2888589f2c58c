"""How many tokens a model can read: its context length, as both engines have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_KEYS = ("max_position_embeddings", "max_seq_len", "max_target_positions", "max_sequence_length")
"""Where configurations say it. transformers gives old families' names, such as n_positions, as the first."""
_COMMAND_R = {"cohere", "cohere2"}
"""Their rotary embedding was made for `model_max_length`. Elsewhere a tokenizer's setting stands under it."""
_UNBOUNDED = {"bloom"}
"""Positions are distances that attention subtracts (ALiBi); a `seq_length` there is that of training."""
_COUNTS_PADDING = {"camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xmod"}
"""Positions count from the one after the padding token's id, and the table of positions has no more rows for
that. OPT and BioGPT count from 2 as well, but their tables have two more rows than the configuration says."""


def read_context_length(folder: Path, *, trust_remote_code: bool = False) -> int | None:
    """Context length of the model in a folder, in tokens; see `context_length`."""
    from transformers import AutoConfig

    return context_length(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code))


def context_length(config: Any) -> int | None:  # noqa: ANN401 - any configuration of transformers
    """Tokens that a model can read with both engines, None where nothing bounds them.

    Args:
        config: a model's configuration in transformers, whose text part counts.

    """
    text = config.get_text_config()
    if text.model_type in _UNBOUNDED or getattr(text, "alibi", False) is True:
        return None
    found = next((most for key in _KEYS if (most := _positive(text, key)) is not None), None)
    if found is None or text.model_type in _COMMAND_R:
        found = _positive(text, "model_max_length") or found
    if found is None:
        return None
    if text.model_type in _COUNTS_PADDING:
        return found - (text.pad_token_id or 0) - 1
    return min(_scaled(found, rope) for rope in _ropes(text) or [{}])


def length_of_short_texts(config: Any) -> int | None:  # noqa: ANN401 - as above
    """Tokens up to which positions are encoded otherwise than in longer texts; None where they never are."""
    kinds = [rope for rope in _ropes(config.get_text_config()) if rope.get("rope_type") == "longrope"]
    return min((int(rope["original_max_position_embeddings"]) for rope in kinds), default=None)


def _positive(config: Any, key: str) -> int | None:  # noqa: ANN401
    found = getattr(config, key, None)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _ropes(text: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """The rotary embeddings of a model: one, or one for each kind of layer."""
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [kind for kind in rope.values() if isinstance(kind, dict)]
    return kinds or [rope]


def _scaled(most: int, rope: dict[str, Any]) -> int:
    """Positions that a rotary embedding is made for.

    For `llama3` and `longrope` max_position_embeddings is the scaled length already, for `yarn` it may be or
    not. `dynamic` scaling would stretch it, but past that length vLLM has no positions, and in transformers a
    whole text gives other logits than decoding token by token.

    Args:
        most: max_position_embeddings.
        rope: a rotary embedding's parameters.

    """
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not factor:
        return most
    if rope.get("rope_type") == "linear":
        return int(most * factor)
    if rope.get("rope_type") == "yarn" and original:
        return int(original * factor)
    return most
