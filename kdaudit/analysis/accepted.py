"""Which leaks accepted.yaml names: keyed hashes of prefix and suffix, places, last days.

An example's hash is HMAC-SHA256 of its prefix and suffix under a key of 32 random bytes that lies beside the
file, for its owner alone. So the file says nothing about the text to somebody without the key, even to one
who has the corpus. Each hash begins with an id of its key, so that another key is told from no match.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from kdaudit.config.accepted import AcceptedLeak, DocumentPlace, read_accepted
from kdaudit.errors import ConfigError
from kdaudit.runs import layout
from kdaudit.runs.keys import read_key
from kdaudit.schemas.accepted import AcceptedEntry, AcceptedResult
from kdaudit.schemas.notes import Note, NoteCode

MANY_LEAKS = 10
"""An entry for a whole document that names more leaks is over-broad."""
_ID_OF = b"kdaudit accepted leaks: id of the key"


class Acceptance(NamedTuple):
    """A file of accepted leaks as it holds on a day."""

    entries: Sequence[AcceptedLeak]
    key: bytes | None
    """None where no entry has a hash."""
    day: date

    @property
    def holding(self) -> list[bool]:
        """Whether each entry has not expired."""
        return [entry.until >= self.day for entry in self.entries]


def today() -> date:
    """The day in UTC, so that all machines agree on it."""
    return datetime.now(UTC).date()


def acceptance(path: Path) -> Acceptance:
    """Read a file of accepted leaks, and its key where an entry needs it.

    Raises:
        ConfigError: the file or its key cannot be read, or a hash was made with another key.

    """
    entries = read_accepted(path)
    hashes = [(row, one.example) for row, one in enumerate(entries, 1) if isinstance(one.example, str)]
    key = key_of(path) if hashes else None
    for row, hashed in hashes:
        if key is not None and hashed.partition("-")[0] != _id_of(key):
            raise ConfigError(
                f"{path}: the hash of entry {row} was made with another key than "
                f"{layout.accepted_key(path).name}",
                fix="put the key back that it was made with, or remove the entry and accept the leak again",
                key="gate.accept",
            )
    return Acceptance(entries, key, today())


def key_of(accepted: Path) -> bytes:
    """The key of a file's hashes.

    Raises:
        ConfigError: it is missing or damaged.

    """
    path = layout.accepted_key(accepted)
    try:
        return read_key(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: the key of the hashes in {accepted.name} cannot be read ({error.strerror})",
            fix="put it back from where its owner keeps it: without it nobody can tell which leaks they mean",
            key="gate.accept",
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{path}: {error}", fix="put the key back from where its owner keeps it", key="gate.accept"
        ) from None


def _id_of(key: bytes) -> str:
    return hmac.new(key, _ID_OF, hashlib.sha256).hexdigest()[:8]


def hash_of(key: bytes, prefix: str, suffix: str) -> str:
    """An example as a file of accepted leaks names it: `KEY_ID-HMAC`, the same in every run of its corpus."""
    parts = [text.encode("utf-8", "surrogatepass") for text in (prefix, suffix)]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return f"{_id_of(key)}-{hmac.new(key, message, hashlib.sha256).hexdigest()}"


class LeakPlace(NamedTuple):
    """What entries are matched with."""

    example_id: int
    document_id: str
    offset: int
    prefix: str
    suffix: str
    tags: list[str]


def match(accepted: Acceptance, leaks: Iterable[pa.RecordBatch]) -> AcceptedResult:
    """What each entry names among the leaks.

    Args:
        accepted: the entries.
        leaks: batches of rows of LEAKS_SCHEMA.

    """
    matcher = Matcher(accepted)
    for batch in leaks:
        for row in batch.select([*LeakPlace._fields]).to_pylist():
            matcher.add(LeakPlace(**row))
    return matcher.result()


class Matcher:
    """Finds what entries name, one leak at a time.

    Args:
        accepted: the entries.

    """

    def __init__(self, accepted: Acceptance) -> None:
        self._accepted, self._holding = accepted, accepted.holding
        self._places = _by_place(accepted.entries)
        self._named: list[list[int]] = [[] for _ in accepted.entries]
        self._tagged: set[int] = set()

    def add(self, leak: LeakPlace) -> bool:
        """Match a leak; give whether an entry that holds names it."""
        keys: list[object] = [(leak.document_id, leak.offset), (leak.document_id, None)]
        if self._accepted.key is not None:
            keys.append(hash_of(self._accepted.key, leak.prefix, leak.suffix))
        rows = {row for key in keys for row in self._places.get(key, ())}
        for row in rows:
            self._named[row].append(leak.example_id)
            if leak.tags:
                self._tagged.add(row)
        return any(self._holding[row] for row in rows)

    def result(self) -> AcceptedResult:
        """What each entry names among the leaks so far."""
        return _result(self._accepted, self._named, self._tagged)


def _by_place(entries: Sequence[AcceptedLeak]) -> Mapping[object, list[int]]:
    """Rows, from 0, by hash or place."""
    found: dict[object, list[int]] = {}
    for row, entry in enumerate(entries):
        place = entry.example
        key = (place.document, place.offset) if isinstance(place, DocumentPlace) else place
        found.setdefault(key, []).append(row)
    return found


def _result(accepted: Acceptance, named: Sequence[list[int]], tagged: set[int]) -> AcceptedResult:
    entries = [
        AcceptedEntry(row=row, reason=entry.reason, until=entry.until.isoformat(), leaks=sorted(leaks))
        for row, (entry, leaks) in enumerate(zip(accepted.entries, named, strict=True), 1)
    ]
    holding = [one for one, holds in zip(entries, accepted.holding, strict=True) if holds]
    matched = [one for one in holding if one.leaks]
    return AcceptedResult(
        day=accepted.day.isoformat(),
        entries=len(entries),
        matched=len(matched),
        leaks=len({leak for one in matched for leak in one.leaks}),
        in_force=matched,
        expired=[one for one, holds in zip(entries, accepted.holding, strict=True) if not holds],
        unmatched=[one for one in holding if not one.leaks],
        over_broad=[
            one.row
            for one in matched
            if _is_whole_document(accepted.entries[one.row - 1])
            and (len(one.leaks) > MANY_LEAKS or one.row - 1 in tagged)
        ],
    )


def _is_whole_document(entry: AcceptedLeak) -> bool:
    return isinstance(entry.example, DocumentPlace) and entry.example.offset is None


def accepted_notes(accepted: AcceptedResult | None) -> list[Note]:
    """Which entries need a look; they hold none of their words, since pages for everyone show notes."""
    if accepted is None:
        return []
    found: list[tuple[NoteCode, Sequence[int], str]] = [
        (
            "accepted_expired",
            [one.row for one in accepted.expired],
            "expired, and the gate counts what it names again: renew it with `kdaudit accept`, or remove it",
        ),
        (
            "accepted_unmatched",
            [one.row for one in accepted.unmatched],
            "names no leak of this run: remove it if the leak is gone for good",
        ),
        (
            "accepted_over_broad",
            accepted.over_broad,
            f"accepts a whole document and names over {MANY_LEAKS} leaks, or one that seems to hold personal "
            "data or secrets: name its leaks one by one",
        ),
    ]
    return [
        Note(code=code, subject="accepted", text=_sentence(rows, text)) for code, rows, text in found if rows
    ]


_MOST_ROWS = 20


def _sentence(rows: Sequence[int], text: str) -> str:
    shown = ", ".join(map(str, rows[:_MOST_ROWS]))
    more = f" and {len(rows) - _MOST_ROWS:,} more" if len(rows) > _MOST_ROWS else ""
    which = "This entry" if len(rows) == 1 else "Each of these entries"
    return f"{which} of the accepted leaks {text}: {shown}{more}."
