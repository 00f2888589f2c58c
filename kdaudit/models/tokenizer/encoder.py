"""Texts -> token ids and places in the text, in bounded memory however long a text is.

While it encodes, the tokenizer needs some 150 bytes a character. So a long text is encoded in pieces, which
overlap, and a piece takes over from the one before it at a cut that is shown to change nothing:

- Each piece starts some way before its first token that counts. What a tokenizer does at the start of a
  text, such as to put a space there, then falls on tokens that are left out.
- At the cut both pieces begin a token, and both with a new word of the pre-tokenizer. Words become tokens
  each for itself. A BPE model may do without words: there a cut is also where no token of its vocabulary
  holds the two characters beside it, which no merge can then join.
- Behind the cut, up to near the end of the earlier piece, both pieces have the same tokens at the same
  places, and the text there changes often between letters, digits, spaces and others. So a run of such
  characters, which a pre-tokenizer may split by the distance from its start or by what follows, ends there.

Assumed is that normalizer and pre-tokenizer look no further than that. A regular expression may, as one
from a quotation mark to the next, or it may not, and to tell takes more than a look at it: so only those of
published tokenizers (`joints`) are taken to be near, and with any other a text is encoded at once, in
whatever memory that takes. Where no cut is safe, as for a Unigram model without pre-tokenizer, the piece
grows, up to the whole text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kdaudit.errors import ModelError
from kdaudit.models.tokenizer.joints import Joints

PIECE_CHARACTERS = 500_000
"""A longer text is encoded in pieces of this many characters."""
_REACH = 2_000
"""Characters at either end of a piece that are encoded for the sake of those between."""
_CHANGES = 4
"""How often the kind of character changes behind a cut, at least."""
_TRIED = 4
"""Cuts tried in a piece before it grows."""


class EncodedText(Protocol):
    """The tokens of one text."""

    @property
    def ids(self) -> NDArray[np.int32]:
        """Token ids, int32 (tokens,)."""
        ...

    def __len__(self) -> int:
        """Number of tokens."""
        ...

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Characters of the tokens from `start` up to `end`: the first, and the one after the last."""
        ...

    def places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """First character of each token, and the one after its last: int32 (tokens,) each."""
        ...


class Encoder:
    """Encodes texts as they are: without special tokens, truncation and padding.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or a transformers tokenizer that holds one.
        piece: characters from which on a text is encoded in pieces, and of a piece.
        reach: characters encoded before and behind each piece.

    Raises:
        ModelError: the tokenizer has no `tokenizers.Tokenizer` inside.

    """

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
        *,
        piece: int = PIECE_CHARACTERS,
        reach: int = _REACH,
    ) -> None:
        self._tokenizer = plain_tokenizer(tokenizer)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._piece = piece
        # An added token is found as a whole or not at all; normalized, it may stand for some more characters.
        self._reach = reach + 2 * max((len(token.content) for token in added), default=0)
        self._joints: Joints | None = None

    def encode_batch(self, texts: Sequence[str]) -> Iterator[EncodedText]:
        """The tokens of each text, in order; those that are not long are encoded together."""
        for is_long, group in groupby(texts, lambda text: len(text) > self._piece):
            if is_long:
                self._joints = self._joints or Joints(self._tokenizer)
                yield from (self._encode_long(text, self._joints) for text in group)
            else:
                batch = self._tokenizer.encode_batch([*group], add_special_tokens=False)
                yield from map(_Whole, batch)

    def encode(self, text: str) -> EncodedText:
        """The tokens of one text."""
        return next(self.encode_batch([text]))

    def _encode_long(self, text: str, joints: Joints) -> EncodedText:
        if joints.far:
            return _Whole(self._tokenizer.encode(text, add_special_tokens=False))
        done: list[_Tokens] = []
        piece, size = self._encode_piece(text, 0, self._piece, joints), self._piece
        while piece.end < len(text):
            taken = self._take_over(text, piece, size, joints)
            if taken is not None:
                ended, piece = taken
                done.append(ended)
                size = self._piece
                continue
            size *= 2
            grown = self._grown(text, piece, size, joints)
            if grown is None:  # what stood behind the piece changed its start
                return _Whole(self._tokenizer.encode(text, add_special_tokens=False))
            piece = grown
        pieces = zip(*done, piece.tokens, strict=True)
        return TokenArrays(*(np.concatenate(column) for column in pieces))

    def _encode_piece(self, text: str, start: int, size: int, joints: Joints) -> _Piece:
        """Encode `size` characters from `start` on, and some more on either side."""
        low, end = max(0, start - self._reach), min(len(text), start + size + 2 * self._reach)
        encoding = self._tokenizer.encode(text[low:end], add_special_tokens=False)
        places = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2) + low
        tokens = _Tokens(np.array(encoding.ids, dtype=np.int32), places[:, 0], places[:, 1])
        return _Piece(start, end, tokens, _cuts(tokens, joints.parts(encoding)))

    def _take_over(
        self, text: str, piece: _Piece, size: int, joints: Joints
    ) -> tuple[_Tokens, _Piece] | None:
        """The piece's tokens up to a cut in its second half, and the next piece from there on."""
        starts = piece.tokens.starts
        least, most = piece.start + max(size // 2, 1), piece.end - 2 * self._reach
        places = np.flatnonzero(piece.cuts & (starts >= least) & (starts <= most))
        # Tokens here and there, the last first: what is wrong with a place is wrong with its neighbours.
        tried = dict.fromkeys(
            places[np.linspace(len(places) - 1, 0, _TRIED).astype(int)] if len(places) else ()
        )
        for at in tried:
            cut = int(starts[at])
            if not _changes(text[cut : piece.end - self._reach]):
                continue
            following = self._encode_piece(text, cut, self._piece, joints)
            there = _common(piece, int(at), following, self._reach)
            if there is not None:
                return piece.tokens.part(0, int(at)), following.since(there)
        return None

    def _grown(self, text: str, piece: _Piece, size: int, joints: Joints) -> _Piece | None:
        """The piece with more text behind it; None where its first tokens become others by that."""
        grown = self._encode_piece(text, piece.start, size, joints)
        if piece.start == 0:
            return grown
        there = _common(piece, 0, grown, self._reach)
        return None if there is None else grown.since(there)


class _Tokens(NamedTuple):
    """Tokens and the characters that they stand for, each int32 (tokens,)."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]

    def part(self, start: int, end: int | None) -> _Tokens:
        """Copies of some: a view would keep all of them in memory."""
        return _Tokens(*(column[start:end].copy() for column in self))


class _Piece(NamedTuple):
    """A stretch of a text, encoded."""

    start: int
    """The first character whose tokens count."""
    end: int
    """Where the encoded text ends."""
    tokens: _Tokens
    cuts: NDArray[np.bool_]
    """Before which tokens the text may be cut."""

    def since(self, token: int) -> _Piece:
        """The piece without what precedes a token."""
        return self._replace(tokens=self.tokens.part(token, None), cuts=self.cuts[token:])


class _Whole:
    """The tokens of a text that was encoded at once."""

    def __init__(self, encoding: Any) -> None:  # noqa: ANN401 - `tokenizers` is untyped
        self._encoding = encoding

    @property
    def ids(self) -> NDArray[np.int32]:
        return np.array(self._encoding.ids, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._encoding)

    def span(self, start: int, end: int) -> tuple[int, int]:
        # One lookup for each end: `encoding.offsets` would build a tuple for every token.
        first, _ = self._encoding.token_to_chars(start)
        _, last = self._encoding.token_to_chars(end - 1)
        return first, last

    def places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        starts, ends = np.array(self._encoding.offsets, dtype=np.int32).reshape(-1, 2).T
        return starts, ends


class TokenArrays:
    """The tokens of a text, in arrays.

    Args:
        ids: int32 (tokens,).
        starts: first character of each, int32 (tokens,).
        ends: the one after its last, int32 (tokens,).

    """

    def __init__(self, ids: NDArray[np.int32], starts: NDArray[np.int32], ends: NDArray[np.int32]) -> None:
        self.ids, self._starts, self._ends = ids, starts, ends

    def __len__(self) -> int:
        return len(self.ids)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """See `EncodedText.span`."""
        return int(self._starts[start]), int(self._ends[end - 1])

    def places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """See `EncodedText.places`."""
        return self._starts, self._ends


def _cuts(tokens: _Tokens, apart: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which tokens stand wholly behind all before them, and no other place between tokens is there too."""
    _, starts, ends = tokens
    cuts = apart & (ends > starts)
    if len(starts):
        cuts &= starts == np.minimum.accumulate(starts[::-1])[::-1]
        cuts[1:] &= (np.maximum.accumulate(ends)[:-1] <= starts[1:]) & (starts[:-1] < starts[1:])
    return cuts


def _common(one: _Piece, at: int, two: _Piece, reach: int) -> int | None:
    """The token of `two` that begins where `one`'s token `at` does, where both go on alike, else None."""
    cut, limit = one.tokens.starts[at], min(one.end, two.end) - reach
    there = np.flatnonzero(two.cuts & (two.tokens.starts == cut))
    shared = int(np.searchsorted(np.maximum.accumulate(one.tokens.ends[at:]), limit, side="right"))
    if not len(there) or not shared:
        return None
    mine, theirs = (
        each.part(start, start + shared) for each, start in ((one.tokens, at), (two.tokens, there[0]))
    )
    return int(there[0]) if all(map(np.array_equal, mine, theirs)) else None


def _changes(text: str) -> bool:
    """Whether the kind of character changes often in a text."""
    return sum(1 for _ in zip(groupby(text, _kind), range(_CHANGES + 1), strict=False)) > _CHANGES


def _kind(character: str) -> tuple[bool, bool, bool]:
    return character.isalpha(), character.isnumeric(), character.isspace()


def plain_tokenizer(tokenizer: Any) -> Any:  # noqa: ANN401 - `tokenizers` is untyped
    """A copy of the `tokenizers.Tokenizer` inside that encodes text as it is.

    Truncation and padding are off. The post-processor is dropped: without special tokens all that
    it does is to trim white space from the offsets, which would then miss text that is in the window.

    Raises:
        ModelError: the tokenizer has no `tokenizers.Tokenizer` inside.
    """
    from tokenizers import Tokenizer

    inner = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(inner, Tokenizer):
        raise ModelError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, which is needed to map tokens to text",
            fix="save the model with a tokenizer.json",
            key="tokenizer",
        )
    plain = Tokenizer.from_str(inner.to_str())
    plain.no_truncation()
    plain.no_padding()
    plain.post_processor = None
    plain.encode_special_tokens = getattr(tokenizer, "split_special_tokens", inner.encode_special_tokens)
    return plain
