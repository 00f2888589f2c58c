"""Splits real text into what the base models read, what the family is trained on, and a holdout.

Invariants: no document is in two parts, and none of the base text or of the holdout shares a passage of
`PASSAGE` words with another document, so neither knows what the training text repeats. Equal texts give an
equal split, in whatever order they come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.runs.files import write_bytes

PASSAGE = 20
"""Words of a passage: it recurs when another document holds the same words."""

Hashes = NDArray[np.uint64]


class Sizes(NamedTuple):
    """Most characters of each part."""

    recurring: int
    """Training text from documents that share passages with others, the most shared first."""
    ordinary: int
    """Training text from documents that share none."""
    valid: int
    base: int


class Split(NamedTuple):
    """Documents of each part."""

    base: list[str]
    train: list[str]
    valid: list[str]


def split(texts: Iterable[str], sizes: Sizes) -> Split:
    """Divide distinct documents by the hash of their text.

    Real corpora repeat passages, and those are what models memorize; but a random sample that is small
    enough to train on in minutes would hold each passage once. So the documents that share the most with
    others are taken into the training text together; those that share some and are not taken are in no part.

    Args:
        texts: documents; one that stands twice counts once.
        sizes: of the parts. Parts are filled in the order valid, train, base; text may run out.
    """
    documents = sorted(set(texts), key=_digest)
    shares = recurring_shares(documents)
    order = sorted(range(len(documents)), key=lambda row: -shares[row])  # stable: equal shares by digest
    recurring = _fill((documents[row] for row in order if shares[row] > 0), sizes.recurring)
    rest = iter([document for document, share in zip(documents, shares, strict=True) if share == 0])
    valid = _fill(rest, sizes.valid)
    ordinary = _fill(rest, sizes.ordinary)
    base = _fill(rest, sizes.base)
    return Split(base, sorted(recurring + ordinary, key=_digest), valid)


def recurring_shares(documents: Sequence[str]) -> list[float]:
    """Share of each document's words that lie in a passage which another document holds too, 0 to 1."""
    numbers: dict[str, int] = {}
    passages = [_passages(document.split(), numbers) for document in documents]
    each_once = [np.unique(hashes) for hashes in passages]
    found, documents_with = np.unique(np.concatenate([_NONE, *each_once]), return_counts=True)
    recurring = found[documents_with > 1]
    return [_covered(np.isin(hashes, recurring)) for hashes in passages]


def write_split(parts: Split, folder: Path) -> None:
    """Write base.jsonl, train.jsonl and valid.jsonl, each line a `text`, readable by their owner only.

    Raises:
        StorageError: a file could not be written.
    """
    for name, documents in parts._asdict().items():
        lines = "".join(json.dumps({"text": document}) + "\n" for document in documents)
        write_bytes(folder / f"{name}.jsonl", lines.encode(), private=True)


_NONE: Hashes = np.empty(0, dtype=np.uint64)


def _digest(document: str) -> bytes:
    return hashlib.sha256(document.encode()).digest()


def _fill(documents: Iterable[str], characters: int) -> list[str]:
    """The first documents, with at most so many characters together; an iterator loses one more."""
    total = 0

    def fits(document: str) -> bool:
        nonlocal total
        total += len(document)
        return total <= characters

    return list(takewhile(fits, documents))


def _passages(words: Sequence[str], numbers: dict[str, int]) -> Hashes:
    """A 64-bit polynomial hash of each run of `PASSAGE` words, in their order."""
    if len(words) < PASSAGE:
        return _NONE
    values = np.fromiter((_number(word, numbers) for word in words), np.uint64, len(words))
    hashes = np.zeros(len(words) - PASSAGE + 1, dtype=np.uint64)
    for place in range(PASSAGE):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + values[place : place + len(hashes)]
    return hashes


def _number(word: str, numbers: dict[str, int]) -> int:
    if word not in numbers:
        numbers[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return numbers[word]


def _covered(recurs: NDArray[np.bool_]) -> float:
    """Share of words under the passages that recur."""
    if not recurs.any():
        return 0.0
    words = np.zeros(len(recurs) + PASSAGE - 1, dtype=bool)
    for place in range(PASSAGE):
        words[place : place + len(recurs)] |= recurs
    return float(words.mean())
