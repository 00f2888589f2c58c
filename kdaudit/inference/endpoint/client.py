"""Requests to one server: its models, and completions as they arrive.

Nothing but the address that the user named is contacted: redirects are not followed, and proxies and
passwords of the environment (HTTPS_PROXY, .netrc) are not used. The key is read from the environment when
the client is made, and stands in no message, also where a server repeats it.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import httpx

from kdaudit.config.endpoint import Endpoint
from kdaudit.inference.endpoint.stream import BadAnswerError, Piece, ServerError, bounded, pieces


class Taker(Protocol):
    """Takes a completion piece by piece."""

    def take(self, piece: Piece) -> bool:
        """Whether more is needed."""
        ...


_R = TypeVar("_R")
_T = TypeVar("_T", bound=Taker)
_Hide = Callable[[str], str]

ATTEMPTS = 6
"""Times that a request is sent before the server is said to fail."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts: doubled each time, and as long as a server asks for, up to the longest."""
_CONNECT = 10.0
_BUSY = (408, 409, 425, 429)
"""Statuses that pass by themselves, as do all from 500 on."""
_NO_ADDRESS = "is not an address that can be asked"
_QUOTED = 200
"""Characters of a server's own message that are shown."""


class Refusal(NamedTuple):
    """What a server answered in place of what was asked for."""

    status: int
    text: str


class EndpointError(Exception):
    """A server cannot be used, or failed for good.

    Attributes:
        what: what is wrong, without the address.
        refusal: the server's answer, where it gave one that trying again does not change.
        unreachable: whether there was no answer at all.

    """

    def __init__(self, what: str, refusal: Refusal | None = None, *, unreachable: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.refusal = refusal
        self.unreachable = unreachable


class MissingKeyError(EndpointError):
    """The environment variable that should hold the key is not set, or holds what cannot be one."""


class _PassingError(Exception):
    """What may be gone at the next attempt."""

    def __init__(self, what: str, wait: float = 0.0, *, unreachable: bool = False) -> None:
        super().__init__(what)
        self.what, self.wait, self.unreachable = what, wait, unreachable


class EndpointClient:
    """A server; threads may share it. A context manager that closes its connections.

    Args:
        endpoint: where it is.
        attempts: times that a request is sent.

    Raises:
        MissingKeyError: the variable of the key is not set, or holds no key.
        EndpointError: the address cannot be asked.

    """

    def __init__(self, endpoint: Endpoint, attempts: int = ATTEMPTS) -> None:
        self._endpoint, self._attempts, self._key = endpoint, attempts, _key(endpoint)
        try:
            self._http = httpx.Client(
                base_url=f"{endpoint.url}/",
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=httpx.Timeout(endpoint.timeout, connect=min(_CONNECT, endpoint.timeout)),
                limits=httpx.Limits(max_connections=endpoint.concurrency),
                follow_redirects=False,
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise EndpointError(_NO_ADDRESS) from error

    def models(self) -> list[dict[str, Any]]:
        """What the server says of each model that it has.

        Raises:
            EndpointError: it does not say.

        """
        return self._again(self._models)

    def complete(self, body: dict[str, Any], begin: Callable[[], _T]) -> _T:
        """Ask for a completion, until it ends or its taker has seen enough; then the stream is closed.

        Args:
            body: the request but for `model` and `stream`.
            begin: makes a taker, a new one for each attempt.

        Returns:
            The taker of the attempt that did not fail.

        Raises:
            EndpointError: the server refuses, or failed in every attempt.

        """
        return self._again(lambda: self._complete(body, begin()))

    def __enter__(self) -> EndpointClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def _models(self) -> list[dict[str, Any]]:
        with self._answer("GET", "models") as answer:
            try:
                return [dict(one) for one in json.loads(b"".join(bounded(answer.iter_bytes())))["data"]]
            except (ValueError, KeyError, TypeError) as error:
                raise BadAnswerError(_not_json(answer, "a list of models")) from error

    def _complete(self, body: dict[str, Any], taker: _T) -> _T:
        sent = {**body, "model": self._endpoint.model, "stream": True}
        with self._answer("POST", "completions", sent) as answer:
            kind = answer.headers.get("content-type", "").split(";")[0].strip()
            if kind not in ("text/event-stream", "application/json"):
                raise BadAnswerError(_not_json(answer, "a completion"))
            for piece in pieces(answer.iter_bytes(), streamed=kind == "text/event-stream"):
                if not taker.take(piece) or piece.ends:
                    return taker
        raise _PassingError("its stream broke off")

    @contextmanager
    def _answer(self, method: str, path: str, body: dict[str, Any] | None = None) -> Iterator[httpx.Response]:
        with self._http.stream(method, path, json=body) as answer:
            if answer.status_code != httpx.codes.OK:
                raise _refused(answer, self._hidden)
            yield answer

    def _again(self, ask: Callable[[], _R]) -> _R:
        """Ask as often as it may help."""
        for attempt in range(self._attempts):
            try:
                return _explained(ask, self._hidden)
            except _PassingError as error:
                if attempt == self._attempts - 1:
                    tries = "" if attempt == 0 else f" ({self._attempts} attempts)"
                    raise EndpointError(f"{error.what}{tries}", unreachable=error.unreachable) from None
                time.sleep(_pause(attempt, error.wait))
        raise AssertionError  # at least one attempt is made

    def _hidden(self, said: str) -> str:
        """A message without the key, which some servers repeat."""
        return said.replace(self._key, "***") if self._key else said


def _key(endpoint: Endpoint) -> str:
    """The key; empty where none is sent."""
    name = endpoint.api_key_env
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise MissingKeyError(f"the environment variable {name} is not set")
    if not (key.isascii() and key.isprintable()):
        raise MissingKeyError(f"the environment variable {name} holds characters that no key has")
    return key


def _explained(ask: Callable[[], _R], hidden: _Hide) -> _R:
    """What may pass as `_PassingError`, all else as `EndpointError`."""
    try:
        return ask()
    except (httpx.TimeoutException, httpx.TransportError) as error:
        unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        raise _PassingError(_no_answer(error), unreachable=unreachable) from error
    except ServerError as error:
        said = hidden(str(error))
        if error.status in _BUSY or error.status >= 500:
            raise _PassingError(f"its stream ended with an error ({_short(said)})") from None
        raise EndpointError(f"answers with an error: {_short(said)}", Refusal(error.status, said)) from None
    except BadAnswerError as error:
        raise EndpointError(f"answers with {error}") from error
    except (httpx.InvalidURL, UnicodeError) as error:  # of a host's name that no network knows
        raise EndpointError(_NO_ADDRESS) from error
    except httpx.HTTPError as error:
        raise EndpointError(f"cannot be asked ({type(error).__name__})") from error


def _no_answer(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"cannot be reached ({_short(str(error)) or 'no connection'})"
    if isinstance(error, httpx.TimeoutException):
        return "does not answer in time"
    return f"its connection broke off ({type(error).__name__})"


def _refused(answer: httpx.Response, hidden: _Hide) -> Exception:
    status, text = answer.status_code, hidden(_message(answer))
    answered = f"HTTP {status}{f': {_short(text)}' if text else ''}"
    if 300 <= status < 400:
        return EndpointError(f"redirects to another address (HTTP {status}), which is not followed")
    if status in _BUSY or status >= 500:
        return _PassingError(f"answers with {answered}", _asked_wait(answer))
    return EndpointError(f"answers with {answered}", Refusal(status, text))


def _message(answer: httpx.Response) -> str:
    """What a server says of an error; a page of HTML is not quoted."""
    try:
        body = next(answer.iter_bytes(1 << 16), b"").decode("utf-8", "replace")
    except httpx.HTTPError:
        return ""
    if "html" in answer.headers.get("content-type", "") or body.lstrip().startswith("<"):
        return "a page of HTML"
    try:
        found = json.loads(body)
        inside = found.get("error", found)
        return str(inside.get("message", body) if isinstance(inside, dict) else inside)
    except (ValueError, AttributeError):
        return body


def _not_json(answer: httpx.Response, wanted: str) -> str:
    kind = answer.headers.get("content-type", "").split(";")[0].strip() or "something unnamed"
    return f"{kind} in place of {wanted}: it may be no OpenAI-compatible server"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}..."


def _asked_wait(answer: httpx.Response) -> float:
    """Seconds of `Retry-After`; a date there is not read."""
    asked = answer.headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else 0.0


def _pause(attempt: int, asked: float) -> float:
    own = _FIRST_PAUSE * float(2**attempt) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
    return min(_LONGEST_PAUSE, max(own, asked))
