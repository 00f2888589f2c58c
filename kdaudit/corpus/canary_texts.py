"""The texts of canaries: random tokens, random characters, random words and made-up customer records.

Each text has a generator of its own, seeded by seed, family and number: canaries and controls of a family are
drawn alike. A text is at least as long as asked. A tokenizer counts its tokens; without one its words are
counted, of which each is a token or more.
"""

from __future__ import annotations

import random
import string
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kdaudit.corpus.invented import AREA_CODES, FAMILY_NAMES, GIVEN_NAMES, PLACES, WORDS
from kdaudit.errors import UsageError
from kdaudit.models.tokenizer import ModelTokenizer
from kdaudit.schemas.canaries import CanaryFamily

_CHARACTERS = string.ascii_lowercase + string.digits
_GROUP = 4
"""Random characters between two spaces."""
_LEAST_POOL = 100
"""Tokens to draw from at least: 6.6 bits each."""
_SPACES = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}\N{LOWER ONE EIGHTH BLOCK}"
"""What stands in a vocabulary for a space: that of byte-level BPE, and that of SentencePiece."""


class Drawing(NamedTuple):
    """How texts are drawn."""

    seed: int
    tokens: int
    """Least tokens of a text."""
    count: Callable[[str], int]
    """Tokens of a text, or no more than there are."""
    pools: dict[CanaryFamily, Callable[[random.Random], str]]
    """A random word of each family."""

    def text(self, family: CanaryFamily, number: int) -> str:
        """The text of a family with this number."""
        draw = random.Random(f"{self.seed}/{family}/{number}")  # noqa: S311 - equal for an equal seed
        head = _record(draw) if family == "fake_record" else []
        words = [*head, *(self.pools[family](draw) for _ in range(self.tokens))]
        enough = bisect_left(
            range(len(words)),
            self.tokens,
            lo=max(1, len(head)),
            key=lambda n: self.count(" ".join(words[:n])),
        )
        return " ".join(words[:enough])


def drawing(seed: int, tokens: int, tokenizer: ModelTokenizer | None) -> Drawing:
    """How texts of so many tokens are drawn; random tokens take a tokenizer, in place of random characters.

    Raises:
        UsageError: the tokenizer has too few tokens that are whole words.

    """
    pools: dict[CanaryFamily, Callable[[random.Random], str]] = {
        "random_word": lambda draw: draw.choice(WORDS),
        "fake_record": lambda draw: draw.choice(WORDS),
    }
    if tokenizer is None:
        pools = {"random_characters": _characters, **pools}
        return Drawing(seed, tokens, lambda text: len(text.split()), pools)
    whole = _whole_words(tokenizer)
    if len(whole) < _LEAST_POOL:
        raise UsageError(
            f"the tokenizer has {len(whole):,} tokens that are whole words of letters and digits, and random "
            f"tokens are drawn from {_LEAST_POOL:,} or more",
            fix="leave the option out: random characters take their place",
            key="--tokenizer",
        )
    return Drawing(
        seed,
        tokens,
        lambda text: len(tokenizer.encode(text)),
        {"random_token": lambda draw: draw.choice(whole), **pools},
    )


def _characters(draw: random.Random) -> str:
    return "".join(draw.choice(_CHARACTERS) for _ in range(_GROUP))


def _whole_words(tokenizer: ModelTokenizer) -> Sequence[str]:
    """Words that the tokenizer reads as one token behind a space, so that a text of them is read as drawn."""
    bare = sorted({token.lstrip(_SPACES) for token in tokenizer.vocabulary})
    words = [word for word in bare if word.isascii() and word.isalnum()]
    alone = len(tokenizer.encode("a"))
    return [word for word in words if len(tokenizer.encode(f"a {word}")) == alone + 1]


def _record(draw: random.Random) -> list[str]:
    """A made-up customer record, in parts between which spaces stand; nothing in it belongs to anyone.

    It begins with a random number, so that no two records begin alike. Its address is one of example.com
    (RFC 2606, section 3), its phone number is kept for fiction.
    """
    given, family = draw.choice(GIVEN_NAMES), draw.choice(FAMILY_NAMES)
    number = " ".join(f"{draw.randrange(10_000):04d}" for _ in range(3))
    text = (
        f"Customer {number} (fictitious)\nName: {given} {family}, {draw.choice(PLACES)}\n"
        f"E-mail: {given}.{family}.{draw.randrange(10_000):04d}@example.com\n"
        f"Phone: ({draw.choice(AREA_CODES)}) 555-01{draw.randrange(100):02d}\n"
        "Notes:"
    )
    return text.split(" ")
