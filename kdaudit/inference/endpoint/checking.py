"""Before an audit: that the model is there, takes what it is given, and answers alike twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

from kdaudit.config.endpoint import Endpoint
from kdaudit.errors import ModelError
from kdaudit.inference.endpoint.client import EndpointClient, EndpointError, MissingKeyError
from kdaudit.inference.endpoint.ways import SAMPLE, SPARE, Way, ask_once, find_way
from kdaudit.models.tokenizer import ModelTokenizer, bos_token_id

_TEXT = (
    "The quick brown fox \N{EM DASH} 1,234 na\u00efve caf\u00e9s,\n\t\u6771\u4eac; (c) 2024: jumps over a dog"
)
"""Words, digits, accents, white space and CJK, which tokenizers take apart in different ways."""
_PROBED = 16
"""Tokens that the model writes twice."""
_SHOWN = 80
"""Characters of a name that the server gives."""
_FORBIDDEN = (401, 403)
_ATTEMPTS = 3
"""A user waits: what does not answer in three attempts is told at once."""


class Found(NamedTuple):
    """What a server turned out to be."""

    way: Way
    """How it is asked."""
    context: int | None
    """Tokens of prompt and answer that it can be asked for; None where it does not say."""


def check_endpoint(endpoint: Endpoint, tokenizer: ModelTokenizer, key: str, tokens: int) -> Found:
    """Ask a model twice for the same few tokens.

    Args:
        endpoint: where it is.
        tokenizer: what the audit reads texts with.
        key: where the model stands in the configuration, as in `models.teacher`.
        tokens: of the longest sequence to come.

    Raises:
        ModelError: the server does not answer, lacks the model, refuses prompts, reads other tokens than the
            tokenizer, or answers otherwise the second time.

    """
    with _told(endpoint, key), EndpointClient(endpoint, _ATTEMPTS) as client:
        most = _context(_listed(client, endpoint, key))
        way = find_way(client)
        spare = 0 if way.ids_in and way.ids_out else SPARE
        _check_context(most, tokens + spare, endpoint, key)
        if not way.ids_in:
            _check_text(client, way, key)
        _check_reading(client, way, tokenizer, endpoint, key)
        _check_repeats(client, way, tokenizer, endpoint, key)
    return Found(way, None if most is None else most - spare)


@contextmanager
def _told(endpoint: Endpoint, key: str) -> Iterator[None]:
    """What the client says, under the key that it is about, with a remedy."""
    try:
        yield
    except MissingKeyError as error:
        raise ModelError(
            error.what, fix="set it to the server's key, then run again", key=f"{key}.api_key_env"
        ) from error
    except EndpointError as error:
        raise _refusal(error, endpoint, key) from error


def _refusal(error: EndpointError, endpoint: Endpoint, key: str) -> ModelError:
    status = error.refusal.status if error.refusal else 0
    place, fix = f"{key}.path", "check the address and the server's log"
    if error.unreachable:
        fix = "start the server, or correct the address"
    elif status in _FORBIDDEN and endpoint.api_key_env is None:
        fix = "put the server's key into an environment variable and name that in api_key_env"
        place = f"{key}.api_key_env"
    elif status in _FORBIDDEN:
        fix, place = f"correct the key in {endpoint.api_key_env}", f"{key}.api_key_env"
    elif status in (404, 405):
        fix = "name a server and model with /v1/completions: a chat endpoint does not continue a prefix"
    return ModelError(f"{endpoint.url} {error.what}", fix=fix, key=place)


def _listed(client: EndpointClient, endpoint: Endpoint, key: str) -> dict[str, Any]:
    """What the server says of the model, which it must have; nothing where it lists no models."""
    try:
        listed = {str(one.get("id")): one for one in client.models()}
    except EndpointError as error:
        if error.refusal is None or error.refusal.status != 404:
            raise
        return {}
    if endpoint.model not in listed:
        near = get_close_matches(endpoint.model, listed, n=1)
        there = ", ".join(name[:_SHOWN] for name in sorted(listed)[:5]) or "none"
        raise ModelError(
            f"{endpoint.url} has no model {endpoint.model!r}",
            fix=f"did you mean {near[0][:_SHOWN]}?" if near else f"choose from: {there}",
            key=f"{key}.model",
        )
    return listed[endpoint.model]


def _context(described: dict[str, Any]) -> int | None:
    most = described.get("max_model_len")
    return most if isinstance(most, int) else None


def _check_context(most: int | None, tokens: int, endpoint: Endpoint, key: str) -> None:
    if most is not None and most < tokens:
        raise ModelError(
            f"{endpoint.url}: the context length of {endpoint.model} is {most} tokens, not {tokens}",
            fix="lower extraction.prefix_tokens or extraction.suffix_tokens, or raise it at the server",
            key=f"{key}.path",
        )


def _check_text(client: EndpointClient, way: Way, key: str) -> None:
    """Refuse a server that takes text and gives nothing for it."""
    if not any(piece.text for piece in ask_once(client, way, _TEXT, _PROBED)):
        raise ModelError(
            "the server continues a text with nothing",
            fix="name a model that continues text, not one for chats or embeddings",
            key=f"{key}.model",
        )


def _check_reading(
    client: EndpointClient, way: Way, tokenizer: ModelTokenizer, endpoint: Endpoint, key: str
) -> None:
    """Refuse a server that reads other tokens than the tokenizer makes, or than it is given.

    Most say what they read. What takes text alone and does not say so makes its own tokens, and is believed.
    """
    given = ask_once(client, way, SAMPLE, 1) if way.ids_in else []
    taken = next((piece.prompt_token_ids for piece in given if piece.prompt_token_ids), SAMPLE)
    if taken != SAMPLE:
        raise ModelError(
            f"{endpoint.url} reads other tokens than the ids that it is given",
            fix="let the server add no BOS token, and change no ids",
            key=f"{key}.path",
        )
    said = ask_once(client, way, _TEXT, 1)
    read = next((piece.prompt_token_ids for piece in said if piece.prompt_token_ids), None)
    own = tokenizer.encode(_TEXT)
    if read is None and way.ids_in:
        alike = _reads_alike(client, way, own, bos_token_id(tokenizer))
    else:
        alike = read is None or list(read[-len(own) :]) == own
    if not alike:
        raise ModelError(
            f"{endpoint.url} reads text as other tokens than the tokenizer that the audit takes for it",
            fix="name the model's own tokenizer, a folder or hub id",
            key=f"{key}.tokenizer",
        )


def _reads_alike(client: EndpointClient, way: Way, ids: list[int], bos: int | None) -> bool:
    """Whether a text is continued as its ids are, with a BOS token or without, where nothing else tells."""

    def said(prompt: Sequence[int] | str) -> str:
        return "".join(piece.text for piece in ask_once(client, way, prompt, _PROBED))

    return said(_TEXT) in [said(one) for one in (ids, *([] if bos is None else [[bos, *ids]]))]


def _check_repeats(
    client: EndpointClient, way: Way, tokenizer: ModelTokenizer, endpoint: Endpoint, key: str
) -> None:
    """Refuse a server whose greedy decoding is none."""
    prompt = tokenizer.encode(_TEXT) if way.ids_in else _TEXT
    first, second = (ask_once(client, way, prompt, _PROBED) for _ in range(2))
    both = [("".join(one.text for one in said), [one.token_ids for one in said]) for said in (first, second)]
    ids = [[token for part in parts for token in part or ()] for _, parts in both]
    if both[0][0] != both[1][0] or ids[0] != ids[1]:
        raise ModelError(
            f"{endpoint.url} continues the same text in two ways, at temperature 0",
            fix="make the server decode greedily and deterministically: no sampling, one replica",
            key=f"{key}.path",
        )
