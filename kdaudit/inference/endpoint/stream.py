"""A completion as it arrives: server-sent events, or one JSON document from servers that do not stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_MOST_BYTES = 1 << 22
"""Of an event, and of an answer that is not streamed."""

_MOST_IDS = 2**31
"""No vocabulary has as many."""


class BadAnswerError(Exception):
    """A server answered with something that is not a completion; it says what."""


class ServerError(Exception):
    """A server reported an error in the midst of its stream.

    Attributes:
        status: its HTTP status, as far as the server said one; else 500.

    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Piece(NamedTuple):
    """A part of a completion."""

    text: str
    token_ids: tuple[int, ...] | None
    """None where the server gives text alone."""
    prompt_token_ids: tuple[int, ...] | None
    """What it read; with the first piece, where it says so."""
    ends: bool
    """Whether the server says that the completion is finished."""


def pieces(chunks: Iterable[bytes], *, streamed: bool) -> Iterator[Piece]:
    """The pieces of a completion, in their order.

    Args:
        chunks: the answer's bytes, cut anywhere.
        streamed: whether it is a stream of events, not one JSON document.

    Raises:
        BadAnswerError: it is neither.
        ServerError: the server reports an error.

    """
    if not streamed:
        yield _piece(b"".join(bounded(chunks)))
        return
    for line in _lines(chunks):
        name, _, value = line.partition(b":")
        if name == b"data":
            if value.strip() == b"[DONE]":
                yield Piece("", (), None, ends=True)
                return
            yield _piece(value)


def bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of an answer that is not too long."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > _MOST_BYTES:
            raise BadAnswerError("an answer of more than 4 MiB")
        yield chunk


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, by CR and LF or LF alone; one that is not ended broke off, and is none."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MOST_BYTES:
            raise BadAnswerError("a line of more than 4 MiB")
        yield from (line.rstrip(b"\r") for line in whole)


def _piece(data: bytes) -> Piece:
    completion = _object(data)
    if "error" in completion:
        raise _reported(completion["error"])
    choices = completion.get("choices")
    if choices == []:  # usage figures, which some servers send last
        return Piece("", (), None, ends=False)
    choice = choices[0] if isinstance(choices, list) else None
    if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
        raise BadAnswerError("JSON that is not a completion: it has no choices.0.text")
    ends = choice.get("finish_reason") is not None
    # JSON may hold halves of characters that are no text.
    text = choice["text"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Piece(text, _ids(choice, "token_ids"), _ids(choice, "prompt_token_ids"), ends)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise BadAnswerError("something other than JSON") from error
    if not isinstance(value, dict):
        raise BadAnswerError("JSON that is not a completion")
    return value


def _reported(error: Any) -> ServerError:  # noqa: ANN401 - JSON
    details = error if isinstance(error, dict) else {"message": error}
    code = details.get("code")
    return ServerError(code if isinstance(code, int) else 500, str(details.get("message", "")))


def _ids(choice: dict[str, Any], key: str) -> tuple[int, ...] | None:
    ids = choice.get(key)
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(type(one) is int and 0 <= one < _MOST_IDS for one in ids):
        raise BadAnswerError(f"JSON that is not a completion: {key} is not a list of ids")
    return tuple(ids)
