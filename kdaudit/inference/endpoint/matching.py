"""Which targets a completion still follows, by token ids or by text.

Both count matched tokens as `Engine.match` does. By text a target is matched when the completion begins with
all of its text; fewer tokens are those whose text the completion begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kdaudit.inference.endpoint.client import Taker
from kdaudit.inference.endpoint.stream import BadAnswerError, Piece
from kdaudit.inference.texts import common_bytes

Decode = Callable[[Sequence[int]], str]
_HALF = "\N{REPLACEMENT CHARACTER}"
"""What a decoder gives for the first bytes of a character whose last are missing."""


class Follower(Taker, Protocol):
    """Takes a completion until no target goes on with it, or all are decided."""

    def matched(self) -> list[int]:
        """Matched tokens of each target."""
        ...


class ByTokens:
    """See `Follower`.

    Args:
        targets: tokens of each.

    """

    def __init__(self, targets: Sequence[Sequence[int]]) -> None:
        self._targets = targets
        self._matched = [0] * len(targets)
        self._shown: list[int] = []

    def take(self, piece: Piece) -> bool:
        """See `Taker.take`."""
        if piece.token_ids is None:
            raise BadAnswerError("a piece without token_ids, after others that had them")
        for token in piece.token_ids:
            step = len(self._shown)
            self._shown.append(token)
            for row, target in enumerate(self._targets):
                if self._matched[row] == step < len(target) and target[step] == token:
                    self._matched[row] += 1
        return any(
            count == len(self._shown) < len(target)
            for count, target in zip(self._matched, self._targets, strict=True)
        )

    def matched(self) -> list[int]:
        """See `Follower.matched`."""
        return self._matched


class ByBytes:
    """See `Follower`; counts bytes of a text, as `Engine.match_text` does.

    Args:
        targets: the bytes of each.

    """

    def __init__(self, targets: Sequence[bytes]) -> None:
        self._targets = targets
        self._shown = b""

    def take(self, piece: Piece) -> bool:
        """See `Taker.take`."""
        self._shown += piece.text.rstrip(_HALF).encode()
        return any(
            target.startswith(self._shown) and len(self._shown) < len(target) for target in self._targets
        )

    def matched(self) -> list[int]:
        """See `Follower.matched`."""
        return [common_bytes(self._shown, target) for target in self._targets]


class _Text(NamedTuple):
    """A target as text."""

    whole: str
    starts: list[str]
    """Text of its first 1, 2, ... tokens."""


class ByText:
    """See `Follower`.

    Args:
        prompt: what the model reads, without a BOS token.
        targets: tokens of each.
        decode: token ids to text.

    """

    def __init__(self, prompt: Sequence[int], targets: Sequence[Sequence[int]], decode: Decode) -> None:
        before = decode(prompt)
        self._targets = [_text(before, prompt, target, decode) for target in targets]
        self._shown = ""

    def take(self, piece: Piece) -> bool:
        """See `Taker.take`."""
        self._shown += piece.text
        shown = self._shown.rstrip(_HALF)
        return any(
            target.whole.startswith(shown) and len(shown) < len(target.whole) for target in self._targets
        )

    def matched(self) -> list[int]:
        """See `Follower.matched`."""
        return [self._count(target) for target in self._targets]

    def _count(self, target: _Text) -> int:
        if self._shown.startswith(target.whole):
            return len(target.starts)
        short = (row for row, start in enumerate(target.starts[:-1]) if self._shown.startswith(start))
        return max((row + 1 for row in short), default=0)


def _text(before: str, prompt: Sequence[int], target: Sequence[int], decode: Decode) -> _Text:
    """Decoded behind its prompt: alone it may lose the space that it begins with.

    Of a character that the target ends within, text tells nothing: whole characters are compared.
    """
    texts = [decode([*prompt, *target[: end + 1]])[len(before) :].rstrip(_HALF) for end in range(len(target))]
    return _Text(texts[-1], texts)
