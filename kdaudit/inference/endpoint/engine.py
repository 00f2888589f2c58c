"""The engine of a model behind an endpoint: greedy, with several requests at once.

It runs in a worker process like any engine. Each distinct prompt is one request, whose stream is closed at
the first token that no target goes on with: servers such as vLLM then stop decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kdaudit.config.endpoint import Endpoint
from kdaudit.errors import EngineError
from kdaudit.inference.base import Engine, EngineInfo, EngineOptions, Loaded, MatchedBytes
from kdaudit.inference.endpoint.client import EndpointClient, EndpointError
from kdaudit.inference.endpoint.matching import ByBytes, ByText, ByTokens, Follower
from kdaudit.inference.endpoint.ways import SPARE, ask_once, find_way
from kdaudit.inference.examples import Lengths, Ragged, Tokens, lengths_of, no_matches
from kdaudit.inference.prefixes import SharedPrompts
from kdaudit.models.tokenizer import ModelTokenizer, bos_token_id, load_tokenizer, uses_bos

_R = TypeVar("_R")
_T = TypeVar("_T")


class _Request(NamedTuple):
    """A prompt, and the targets that may follow it."""

    prompt: Tokens
    examples: list[int]
    targets: list[list[int]]


class EndpointEngine(Engine):
    """A model behind an endpoint.

    Args:
        options: the fields of `EngineOptions`; `endpoint` says where it is, `path` where its tokenizer lies.

    Raises:
        EngineError: the server cannot be used.

    """

    def __init__(self, options: dict[str, Any]) -> None:
        wanted = EngineOptions(**options)
        self._folder = Path(wanted.path)
        self._endpoint = Endpoint(*(wanted.endpoint or ()))
        with _failures(self._endpoint):
            self._client = EndpointClient(self._endpoint)
            self._way = find_way(self._client)

    def describe(self) -> Loaded:
        """See `Engine.describe`."""
        info = EngineInfo("endpoint", f"({self._way.words})", "unknown", "unknown")
        return Loaded(info, self._endpoint.concurrency)

    def match(self, prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        """See `Engine.match`."""
        matched = no_matches(targets)
        requests = list(_requests(prompts, targets))
        for request, counts in zip(requests, self._each(self._match, requests), strict=True):
            matched[request.examples] = counts
        return matched

    def match_text(self, prompts: Ragged, targets: Ragged) -> MatchedBytes:
        """See `Engine.match_text`."""
        matched = np.zeros(len(targets), dtype=np.int32)
        requests = list(_requests(prompts, targets))
        for request, counts in zip(requests, self._each(self._match_text, requests), strict=True):
            matched[request.examples] = counts
        return matched

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """See `Engine.generate`; greedy alone. A server that stops at an EOS token gives fewer tokens."""
        if temperature:
            raise EngineError(f"an endpoint is asked greedily alone, not with seed {seed}")
        rows = list(zip(prompts, lengths_of(tokens, len(prompts)).tolist(), strict=True))
        return Ragged.of(self._each(self._generate, rows))

    def _match(self, request: _Request) -> list[int]:
        longest = max(map(len, request.targets))
        most = longest + (0 if self._way.ids_out else SPARE)
        body = self._way.body(self._given(request.prompt), most)
        return self._client.complete(body, lambda: self._follower(request)).matched()

    def _match_text(self, request: _Request) -> list[int]:
        texts = [bytes(target) for target in request.targets]
        body = self._way.body(self._given(request.prompt), max(map(len, texts)))  # a byte a token at most
        return self._client.complete(body, lambda: ByBytes(texts)).matched()

    def _follower(self, request: _Request) -> Follower:
        if self._way.ids_out:
            return ByTokens(request.targets)
        return ByText(self._unmarked(request.prompt), request.targets, self._tokenizer.decode)

    def _generate(self, row: tuple[Tokens, int]) -> list[int]:
        prompt, tokens = row
        pieces = ask_once(self._client, self._way, self._given(prompt), tokens)
        if self._way.ids_out:
            return [token for piece in pieces for token in piece.token_ids or ()][:tokens]
        text = "".join(piece.text for piece in pieces)
        return self._tokenizer.encode(text)[:tokens]

    def _given(self, prompt: Tokens) -> list[int] | str:
        """A prompt as the server takes it. As text it lacks the BOS token, which servers put there.

        Raises:
            EngineError: as text it would begin otherwise there: with a BOS token, or without.

        """
        given: list[int] = prompt.tolist()
        if self._way.ids_in:
            return given
        ids = self._unmarked(prompt)
        if (len(ids) < len(prompt)) != self._puts_bos:
            raise EngineError(
                f"{self._endpoint.url} takes text, and puts a BOS token before it or not as its tokenizer "
                "does; a prompt of this audit begins otherwise (extraction.bos, or the chat template)"
            )
        return self._tokenizer.decode(ids)

    def _unmarked(self, prompt: Tokens) -> list[int]:
        ids: list[int] = prompt.tolist()
        return ids[1:] if ids and ids[0] == bos_token_id(self._tokenizer) else ids

    @cached_property
    def _puts_bos(self) -> bool:
        return uses_bos(self._tokenizer)

    @cached_property
    def _tokenizer(self) -> ModelTokenizer:
        return load_tokenizer(self._folder)

    def _each(self, do: Callable[[_T], _R], rows: Iterable[_T]) -> list[_R]:
        """Do it for all rows, several at a time; the first failure ends the rest."""
        with _failures(self._endpoint), ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            try:
                return list(pool.map(do, rows))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _requests(prompts: Ragged, targets: Ragged) -> Iterator[_Request]:
    """Examples by their prompts: those that share one share its completion."""
    shared = SharedPrompts.of(prompts)
    for prompt, examples in zip(shared.prompts, shared.examples, strict=True):
        yield _Request(prompt, examples, [targets[example].tolist() for example in examples])


@contextmanager
def _failures(endpoint: Endpoint) -> Iterator[None]:
    """Failures of the client as an engine's."""
    try:
        yield
    except EndpointError as error:
        raise EngineError(f"{endpoint.model} at {endpoint.url} {error.what}") from error
