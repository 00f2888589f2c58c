"""Whether a server takes token ids or text, and which of them it gives; and how it is asked.

Greedy decoding is asked for in full: a server may have penalties and sampling settings of its own for what a
request leaves out. Settings beyond OpenAI's are left out for servers that refuse them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kdaudit.inference.endpoint.client import EndpointClient, EndpointError
from kdaudit.inference.endpoint.stream import Piece

_GREEDY = {"temperature": 0, "presence_penalty": 0, "frequency_penalty": 0}
_MORE = {
    "repetition_penalty": 1.0,
    "ignore_eos": True,
    "return_token_ids": True,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
}
"""What vLLM takes beside it."""
SPARE = 8
"""Tokens that a server may take more than the target has, where it writes the same text in other tokens."""
_NOT_TAKEN = (400, 404, 405, 422, 501)
"""Statuses of a server that does not take a request of this form."""
SAMPLE = (5, 6, 7)
"""Ids that every vocabulary has, and a text: what a server takes is tried with them."""
_TEXT = "One two three"


class Way(NamedTuple):
    """How a server is asked."""

    ids_in: bool
    """Whether it takes a prompt's token ids; else its text."""
    more: bool
    """Whether it takes settings beyond OpenAI's."""
    ids_out: bool
    """Whether it gives token ids; else text alone."""

    def body(self, prompt: Sequence[int] | str, tokens: int) -> dict[str, Any]:
        """A request for so many tokens after a prompt."""
        given = prompt if isinstance(prompt, str) else [int(token) for token in prompt]
        return {"prompt": given, "max_tokens": tokens, **_GREEDY, **(_MORE if self.more else {})}

    @property
    def words(self) -> str:
        """The way in words."""
        plain = "" if self.more else ", OpenAI's settings alone"
        both = "token ids" if self.ids_in else "text", "token ids" if self.ids_out else "text"
        return f"{both[0]} in, {both[1]} out{plain}"


def find_way(client: EndpointClient) -> Way:
    """The best way that a server takes: token ids before text, more settings before fewer.

    Raises:
        EndpointError: it takes none, or failed.

    """
    refused: EndpointError | None = None
    for ids_in in (True, False):
        for more in (True, False):
            way = Way(ids_in, more, ids_out=False)
            try:
                pieces = ask_once(client, way, SAMPLE if ids_in else _TEXT, 1)
            except EndpointError as error:
                if error.refusal is None or error.refusal.status not in _NOT_TAKEN:
                    raise
                refused = refused or error
            else:
                return way._replace(ids_out=any(piece.token_ids for piece in pieces))
    assert refused is not None  # noqa: S101 - one of four was
    raise refused


class Collected:
    """See `Taker`: takes all."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def take(self, piece: Piece) -> bool:
        """See `Taker.take`."""
        self.pieces.append(piece)
        return True


def ask_once(client: EndpointClient, way: Way, prompt: Sequence[int] | str, tokens: int) -> list[Piece]:
    """All pieces of a completion."""
    return client.complete(way.body(prompt, tokens), Collected).pieces
