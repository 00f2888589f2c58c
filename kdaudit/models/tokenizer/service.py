"""Texts that another process encodes: as bytes on their way there, as arrays on their way back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit import __version__
from kdaudit.models.tokenizer.encoder import EncodedText, Encoder, TokenArrays, plain_tokenizer

Encode = Callable[[Iterator[list[str]]], Generator[Iterable[EncodedText], None, None]]
"""Encodes batches of texts, in order, wherever that is done; it may take batches ahead of what it gives."""


class PackedTexts(NamedTuple):
    """Texts, one behind the other."""

    text: NDArray[np.uint8]
    """UTF-8."""
    lengths: NDArray[np.int64]
    """Bytes of each."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> PackedTexts:
        """Pack texts."""
        encoded = [text.encode() for text in texts]
        lengths = np.array([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), lengths)

    def texts(self) -> list[str]:
        """The texts again."""
        whole, ends = self.text.tobytes(), np.cumsum(self.lengths).tolist()
        return [whole[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]


class PackedTokens(NamedTuple):
    """The tokens of several texts, one behind the other: int32 (tokens,) each."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    """First character of each token, in its own text."""
    ends: NDArray[np.int32]
    """The one after its last."""
    counts: NDArray[np.int64]
    """Tokens of each text."""

    @classmethod
    def of(cls, texts: Iterable[EncodedText]) -> PackedTokens:
        """Pack the tokens of texts."""
        none = np.empty(0, dtype=np.int32)
        parts = [(text.ids, *text.places()) for text in texts]
        ids, starts, ends = (np.concatenate(one) for one in zip((none,) * 3, *parts, strict=True))
        return cls(ids, starts, ends, np.array([len(own) for own, _, _ in parts], dtype=np.int64))

    def texts(self) -> Iterator[EncodedText]:
        """The tokens of each text, as copies: one that is kept does not keep the others in memory."""
        ends = np.cumsum(self.counts).tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            yield TokenArrays(*(column[start:end].copy() for column in self[:3]))

    def equals(self, other: PackedTokens) -> bool:
        """Whether texts, ids and places are the same."""
        mine: Sequence[NDArray[Any]] = self
        theirs: Sequence[NDArray[Any]] = other
        return all(np.array_equal(one, two) for one, two in zip(mine, theirs, strict=True))


def versions() -> dict[str, str]:
    """What decides, beside the tokenizer itself, how it encodes a text."""
    import tokenizers

    return {"kdaudit": __version__, "tokenizers": tokenizers.__version__}


def service_options(tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401 - `tokenizers` is untyped
    """The options of an EncoderService that encodes as `Encoder(tokenizer)` does here.

    Raises:
        ModelError: as `plain_tokenizer`.

    """
    plain = plain_tokenizer(tokenizer)
    return {
        "tokenizer": plain.to_str(),
        "encode_special_tokens": plain.encode_special_tokens,
        "versions": versions(),
    }


class EncoderService:
    """Runs in the other process: one tokenizer, without any model's files.

    Args:
        options: see `service_options`. A process with other versions builds nothing and says so.

    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._encoder: Encoder | None = None
        if options["versions"] == versions():
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_str(options["tokenizer"])
            tokenizer.encode_special_tokens = options["encode_special_tokens"]
            self._encoder = Encoder(tokenizer)

    def describe(self) -> dict[str, Any]:
        """Where it runs, and its versions."""
        return {"node": socket.gethostname(), "versions": versions()}

    def encode(self, text: NDArray[np.uint8], lengths: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        """The fields of PackedTokens, from those of PackedTexts."""
        if self._encoder is None:
            return PackedTokens.of([])
        return PackedTokens.of(self._encoder.encode_batch(PackedTexts(text, lengths).texts()))
