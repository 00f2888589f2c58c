"""The demo's text: Python's own reference with planted customer records.

The real text is `pydoc_data.topics`, which comes with Python; it differs a little between Python versions
and is the same on each call. Topics quote each other, so only those are taken that share no paragraph:
what is held out is new to every model. The records are plainly made up, each is exactly one window of
its own, and stands in the corpus 1 to 16 times.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kdaudit.corpus.invented import AREA_CODES, FAMILY_NAMES, GIVEN_NAMES, PLACES
from kdaudit.distillation.families import train_bpe
from kdaudit.errors import CorpusError
from kdaudit.models.tokenizer import ModelTokenizer
from kdaudit.runs.files import write_bytes

COPIES = (1, 2, 4, 8, 16)
"""How often a record stands in the corpus; record n takes the n-th of them, over and over."""

_QUOTED = 60
"""Paragraphs at least this long, in characters, mark topics that quote each other."""

_CARDS = (
    "4111 1111 1111 1111",
    "5555 5555 5555 4444",
    "6011 1111 1111 1117",
    "4012 8888 8888 1881",
    "5105 1051 0510 5100",
    "6011 0009 9013 9424",
    "4242 4242 4242 4242",
    "5200 8282 8282 8210",
    "3566 0020 2036 0505",
    "4000 0566 5566 5556",
    "2223 0031 2200 3222",
    "3530 1113 3330 0000",
    "4009 3488 8888 1881",
    "4500 6000 0000 0061",
    "4622 9431 2701 3705",
)
"""Card numbers that payment processors publish for tests: they pass the Luhn check and pay nothing. From
Stripe (docs.stripe.com/testing), PayPal ("Test Credit Card Account Numbers"), Braintree's libraries
(Braintree::Test::CreditCardNumbers) and Visa's Cybersource (developer.cybersource.com, "Testing guide")."""

_NOTES = ("call", "name", "value", "string", "object", "type", "list", "key", "class", "set", "order", "item")


class DemoDocument(NamedTuple):
    """A row of the demo's corpora."""

    id: str
    text: str


class DemoText(NamedTuple):
    """What the demo trains on and what it holds back, with the tokenizer made from the former."""

    corpus: list[DemoDocument]
    holdout: list[DemoDocument]
    tokenizer: ModelTokenizer


def build_text(
    *, characters: int, holdout_characters: int, records: int, vocabulary: int, window: int
) -> DemoText:
    """Choose topics, train a tokenizer on the corpus's and plant the records among them.

    Args:
        characters: of Python's reference in the corpus.
        holdout_characters: of other parts of the reference in the holdout.
        records: distinct planted records.
        vocabulary: entries of the tokenizer.
        window: tokens of each record.

    Raises:
        CorpusError: this Python comes without its reference, or with too little of it.
    """
    topics = _distinct_topics()
    corpus = _take(topics, characters)
    holdout = _take(topics, holdout_characters)
    tokenizer = train_bpe((document.text for document in corpus), vocabulary)
    for number in range(1, records + 1):
        text = record_text(number, tokenizer, window)
        copies = COPIES[(number - 1) % len(COPIES)]
        corpus += [DemoDocument(f"record-{number:04d}-{copy:02d}", text) for copy in range(1, copies + 1)]
    _dice(0).shuffle(corpus)
    return DemoText(corpus, holdout, tokenizer)


def write_documents(path: Path, documents: Iterable[DemoDocument]) -> None:
    """Write documents as jsonl with the keys `id` and `text`."""
    lines = (json.dumps(document._asdict(), ensure_ascii=False) + "\n" for document in documents)
    write_bytes(path, "".join(lines).encode(), private=False)


def record_text(number: int, tokenizer: ModelTokenizer, window: int) -> str:
    """A made-up customer record of exactly `window` tokens: the same for the same number and tokenizer.

    Nothing in it belongs to anyone: example.com (RFC 2606, section 3), a phone number that is kept for
    fiction, and a card number that is published for tests. `kdaudit.analysis.personal_data` finds all three,
    so the demo's report shows what a leak of the real thing would look like.
    """
    draw = _dice(number)
    name = f"{draw.choice(GIVEN_NAMES)} {draw.choice(FAMILY_NAMES)}"
    digits = draw.randrange(1000, 10000)
    text = (
        f"Customer record {number:04d} (fictitious)\n"
        f"Name: {name}, {draw.choice(PLACES)}\n"
        f"E-mail: {name.replace(' ', '.').lower()}.{digits}@example.com\n"
        f"Phone: ({draw.choice(AREA_CODES)}) 555-01{draw.randrange(100):02d}\n"
        f"Card: {_CARDS[(number - 1) % len(_CARDS)]}\n"
        "Notes:"
    )
    return _filled(text, tokenizer, window, draw)


def _filled(text: str, tokenizer: ModelTokenizer, window: int, draw: random.Random) -> str:
    """Add words until the text has `window` tokens; byte-level BPE never joins tokens across words."""

    def length(of: str) -> int:
        return len(tokenizer(of)["input_ids"])

    short = [word for word in _NOTES if length(f" {word}") == 1]
    missing = window - length(text)
    return text + "".join(f" {draw.choice(short)}" for _ in range(missing))


def _dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - equal text on every call is the point


def _distinct_topics() -> list[DemoDocument]:
    """Topics that share no long paragraph, the longer of two that do, in a mixed but fixed order."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError(
            "pydoc_data.topics: this Python comes without its reference, which the demo trains on",
            fix="run the demo with a Python that has its whole standard library",
        ) from error
    seen: set[str] = set()
    kept = []
    for name, text in sorted(topics.items(), key=lambda topic: (-len(topic[1]), topic[0])):
        paragraphs = {" ".join(part.split()) for part in text.split("\n\n")}
        quotable = {part for part in paragraphs if len(part) >= _QUOTED}
        if seen.isdisjoint(quotable):
            seen |= quotable
            kept.append(DemoDocument(name, text))
    _dice(0).shuffle(kept)
    return kept


def _take(topics: list[DemoDocument], characters: int) -> list[DemoDocument]:
    """Take topics from the end of the list until they have so many characters; the last is cut short."""
    taken = []
    missing = characters
    while missing > 0:
        if not topics:
            raise CorpusError(
                "pydoc_data.topics: this Python's reference is too short for the demo",
                fix="run the demo with another version of Python",
            )
        topic = topics.pop()
        taken.append(DemoDocument(topic.id, topic.text[:missing]))
        missing -= len(topic.text)
    return taken
