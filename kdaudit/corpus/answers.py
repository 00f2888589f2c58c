"""Rendered conversations -> examples: each answer with the prompt before it, as token ids.

A conversation is encoded once, as training encodes it; examples are slices of its tokens. A token that stands
for characters on both sides of where the answer begins is the answer's. The target is the answer's first
tokens, without the special tokens and the white space that end its message. Where prompt and target are more
than a model can read, the prompt is cut from the left, behind its BOS token, and counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from kdaudit.corpus.documents import Answer, Document
from kdaudit.corpus.rendering import ChatFormat
from kdaudit.corpus.windows import ExampleTokens, Window
from kdaudit.models.tokenizer import EncodedText, Encoder, ModelTokenizer, bos_token_id, uses_bos

Ids = NDArray[np.int32]


def begins_with_bos(chat: ChatFormat, tokenizer: ModelTokenizer) -> bool:
    """Whether conversations begin with the BOS token; where a template does not say, as the tokenizer."""
    if chat.bos != "auto":
        return chat.bos == "always"
    if chat.template.jinja is None:
        return uses_bos(tokenizer)
    asking = [{"role": "user", "content": "a"}]
    try:
        text = tokenizer.render(asking, chat.template.jinja, tools=None, ask=False)
    except Exception:  # a template may raise anything
        return uses_bos(tokenizer)
    return tokenizer.encode(text)[:1] == [bos_token_id(tokenizer)]


class AnswerCutter:
    """Cuts batches of rendered conversations, counting what it gives and leaves out.

    Args:
        tokenizer: the teacher's.
        chat: what stands before the first token, and what models can read.
        window: tokens of an answer that an example holds at most.
        tokens: of the answer: those that are given behind the prompt, and those to reproduce.
        heed: told of each conversation's token ids, int32 (tokens,).

    """

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        chat: ChatFormat,
        *,
        window: int,
        tokens: ExampleTokens,
        heed: Callable[[Ids], None] | None = None,
    ) -> None:
        self._encoder = Encoder(tokenizer)
        self._chat = chat
        self._length = window
        self._tokens = tokens
        self._heed = heed
        self._bos = bos_token_id(tokenizer)
        self._adds_bos = chat.bos == "always" or (
            chat.bos == "auto" and chat.template.jinja is None and uses_bos(tokenizer)
        )
        self._special = {tokenizer.vocabulary[text] for text in tokenizer.special_texts}
        self.windows = 0
        """Examples given so far, duplicates included."""
        self.too_short = 0
        """Answers left out so far, as they have too few tokens."""
        self.no_boundary = 0
        """As in `Cutter`: models with tokenizers of their own are not audited on answers."""
        self.prompts_cut = 0
        """Prompts cut from the left so far."""
        self.answers_cut = 0
        """Answers that have more tokens than an example holds."""
        self.without_prompt = 0
        """Answers left out so far, as nothing stands before them."""

    def cut(self, batch: list[Document], texts: Iterable[EncodedText] | None = None) -> Iterator[Window]:
        """The examples of the conversations, in order; see `Cutter.cut`."""
        for windows in self.by_turn(batch, texts):
            yield from windows.values()

    def by_turn(
        self, batch: list[Document], texts: Iterable[EncodedText] | None = None
    ) -> Iterator[dict[int, Window]]:
        """The examples of each conversation, by their answers' places among its messages."""
        if texts is None:
            texts = self._encoder.encode_batch([document.text for document in batch])
        for document, encoded in zip(batch, texts, strict=True):
            reading = _Reading(document.text, encoded, self._before(encoded.ids))
            if self._heed is not None:
                self._heed(reading.ids)
            made = {answer.turn: self._window(document, reading, answer) for answer in document.answers}
            found = {turn: window for turn, window in made.items() if window is not None}
            self.windows += len(found)
            yield found

    def _before(self, ids: Ids) -> int | None:
        """What takes the place of the BOS token: its id is put before the first, or -1 takes it away."""
        has_bos = len(ids) > 0 and ids[0] == self._bos
        if has_bos and self._chat.bos == "never":
            return -1
        return self._bos if self._adds_bos and not has_bos else None

    def _window(self, document: Document, reading: _Reading, answer: Answer) -> Window | None:
        (prefix, suffix, _), context = self._tokens, self._chat.context
        start, end = reading.token_at(answer.start), reading.token_at(answer.end)
        told = self._told(reading, start, end)
        if told < self._tokens.least:
            self.too_short += 1
            return None
        if start + prefix == 0:
            self.without_prompt += 1
            return None
        target = min(suffix, told - prefix)
        measured = start + prefix + target
        dropped = 0 if context is None else max(0, measured - context)
        self.prompts_cut += dropped > 0
        stop = min(end, start + self._length, dropped + (context or end))
        self.answers_cut += stop < end
        ids = reading.ids[dropped:stop]
        if dropped and reading.ids[0] == self._bos:
            ids = np.concatenate([reading.ids[:1], ids[1:]])
        text = document.text[slice(*reading.characters(dropped, stop))]
        return Window(document.id, dropped, text, ids, start + prefix - dropped, target)

    def _told(self, reading: _Reading, start: int, end: int) -> int:
        """Tokens of an answer without what ends its message."""
        while end > start and (int(reading.ids[end - 1]) in self._special or reading.of(end - 1).isspace()):
            end -= 1
        return end - start


class _Reading:
    """A conversation's tokens, with or without a BOS token that its text does not hold.

    Args:
        text: the conversation.
        encoded: its tokens.
        before: see `AnswerCutter._before`.

    """

    def __init__(self, text: str, encoded: EncodedText, before: int | None) -> None:
        self._text = text
        self._encoded = encoded
        self._shift = 0 if before is None else (-1 if before < 0 else 1)
        put = [] if before is None or before < 0 else [before]
        taken = int(self._shift < 0)
        self.ids: Ids = np.concatenate([np.array(put, np.int32), encoded.ids[taken:]])

    def token_at(self, character: int) -> int:
        """The first token that reaches beyond a character; all tokens where none does."""
        own = range(len(self._encoded))
        found = bisect_left(own, True, key=lambda token: self._encoded.span(token, token + 1)[1] > character)
        return max(0, found + self._shift)

    def of(self, token: int) -> str:
        """The text of a token."""
        return self._text[slice(*self.characters(token, token + 1))]

    def characters(self, start: int, end: int) -> tuple[int, int]:
        """Characters of some tokens: the first, and the one after the last."""
        first, last = start - self._shift, end - self._shift
        return self._encoded.span(max(0, first), last)
