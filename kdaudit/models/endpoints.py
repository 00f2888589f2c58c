"""Models behind endpoints, resolved: nothing of them is here but a tokenizer.

The server is not asked. What tells one such model from another is its address and its name there: weights
that change behind them cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from kdaudit.config.endpoint import Endpoint
from kdaudit.config.models import ModelConfig
from kdaudit.errors import ModelError
from kdaudit.models.fetching import fetch_tokenizer
from kdaudit.models.resolving import ResolvedModel, tokenizer_of
from kdaudit.models.tokenizer import reading_fingerprint
from kdaudit.schemas.notes import Note

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def resolve_endpoint(
    config: ModelConfig, endpoint: Endpoint, key: str, others: Sequence[ResolvedModel]
) -> ResolvedModel:
    """A model behind an endpoint, with the tokenizer that is named, else with that of the first other model.

    Args:
        config: the model's section.
        endpoint: where it is.
        key: where it stands in the configuration.
        others: models with weights.

    Raises:
        ModelError: there is no tokenizer, or it cannot be loaded.

    """
    fingerprint = sha256(f"{endpoint.url}\0{endpoint.model}".encode()).hexdigest()
    folder, reading = _tokenizer(config, key, others)
    return ResolvedModel(
        folder, f"endpoint:{fingerprint}", 0, reading, f"{endpoint.model} at {endpoint.url}", behind=endpoint
    )


def _tokenizer(config: ModelConfig, key: str, others: Sequence[ResolvedModel]) -> tuple[Path, str]:
    """A folder with the tokenizer, and the fingerprint of how it reads text."""
    if config.tokenizer is None:
        if not others:
            raise ModelError(
                "no model of this audit has weights, and so none lends its tokenizer to the endpoint's",
                fix="name the model's own, a folder or hub id",
                key=f"{key}.tokenizer",
            )
        return others[0].tokenizer_folder, others[0].tokenizer_fingerprint
    folder = fetch_tokenizer(config.tokenizer, f"{key}.tokenizer")
    try:
        return folder, reading_fingerprint(tokenizer_of(folder, ModelConfig(path=config.tokenizer), key))
    except ModelError as error:
        error.key = f"{key}.tokenizer"
        raise


def is_left_out(config: ModelConfig, others: Iterable[ResolvedModel]) -> bool:
    """Whether a model behind an endpoint cannot be resolved without the hub."""
    if config.tokenizer is None:
        return not list(others)
    return not Path(config.tokenizer).is_absolute()


def plain_key_warning(endpoint: Endpoint) -> str | None:
    """A warning where a key travels unencrypted to another machine, else None."""
    host = urlsplit(endpoint.url).hostname
    if endpoint.api_key_env is None or endpoint.url.startswith("https:") or host in _THIS_MACHINE:
        return None
    return f"the key in {endpoint.api_key_env} is sent unencrypted to {host}: write path with https if it can"


def endpoint_notes(name: str, endpoint: Endpoint, lender: str | None) -> list[Note]:
    """What a reader should know of a model behind an endpoint.

    Args:
        name: the model's.
        endpoint: where it is.
        lender: the model whose tokenizer is taken for it; None where its own is named.

    """
    text = (
        f"{name} is the model {endpoint.model} at {endpoint.url}. Its weights were not here: they cannot be "
        "verified, and what was measured holds for what answered there. Its engine was not checked, and its "
        "perplexity, entropy and margins are null."
    )
    notes = [Note(code="endpoint", subject=name, text=text)]
    if lender is not None:
        borrowed = f"The tokenizer of {name} is taken to be that of {lender}."
        notes.append(Note(code="endpoint_tokenizer", subject=name, text=borrowed))
    return notes
