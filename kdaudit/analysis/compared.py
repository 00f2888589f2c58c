"""What changed between two runs: leaks that are new, gone or remain, and each model's paired rates."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.intervals import Flags
from kdaudit.analysis.joined import COMPARED_ATTACKS, Joined, Outcome, Rows, read_outcome_of
from kdaudit.analysis.leaks import leak_batches, read_leaks
from kdaudit.analysis.paired import paired_rates, with_holm
from kdaudit.analysis.severity import Worst, change_severity
from kdaudit.schemas.compared import Change, ChangeCounts, ComparedModel, LeakChange, PairedRates
from kdaudit.schemas.notes import Note
from kdaudit.schemas.results import AuditResults, Leak, ModelResult

_ENDPOINT = "endpoint:"


class LeakIds(NamedTuple):
    """Which leaks a run has, and whose they are."""

    ids: NDArray[np.int64]
    """Ascending: int64 (leaks,)."""
    memorized: Mapping[str, Flags]
    """By student: bool (leaks,)."""

    def place(self, example: int | None) -> int | None:
        """Where a leak stands; None if the example is none."""
        if example is None:
            return None
        place = int(np.searchsorted(self.ids, example))
        return place if place < len(self.ids) and self.ids[place] == example else None


def leak_ids(leaks: Iterable[Leak], students: Sequence[str]) -> LeakIds:
    """Which leaks there are, of all of them by ascending id."""
    ids, flags = array("q"), {name: bytearray() for name in students}
    for leak in leaks:
        ids.append(leak.example_id)
        for name, flag in flags.items():
            flag.append(name in leak.classes)
    whose = {name: np.frombuffer(bytes(flag), dtype=np.bool_) for name, flag in flags.items()}
    return LeakIds(np.frombuffer(ids.tobytes(), dtype=np.int64), whose)


class Side(NamedTuple):
    """One of both runs."""

    path: Path
    results: AuditResults
    leaks: LeakIds


class Known(NamedTuple):
    """Which examples of the runs are one, as far as leaks need it."""

    new_of_old: Mapping[int, int]
    """Ids in the new run of the old run's leaks that it audited too."""
    old_of_new: Mapping[int, int]
    others_added: bool | None
    """Whether a leak that is in neither was audited by its own run alone; None if that is not known."""


def known_by_examples(joined: Joined, old: Side, new: Side) -> Known:
    """From the examples of both runs."""
    new_of_old = _looked_up(joined.old, joined.new, old.leaks.ids)
    return Known(new_of_old, _looked_up(joined.new, joined.old, new.leaks.ids), True)


def _looked_up(keys: Rows, values: Rows, wanted: Rows) -> dict[int, int]:
    """The pairs of `keys` and `values` whose key is wanted."""
    places = np.flatnonzero(np.isin(keys, wanted))
    return dict(zip(keys[places].tolist(), values[places].tolist(), strict=True))


def known_by_text(old: Side, new: Side) -> Known:
    """From the text of the leaks alone; what else a run audited is known where both audited the same."""
    same = {
        (one.corpus.fingerprint, one.corpus.examples, one.corpus.sampled, one.seed)
        for one in (old.results, new.results)
    }
    ids = {text: example for example, text in _texts(old.path)}
    pairs = [(ids[text], example) for example, text in _texts(new.path) if text in ids]
    return Known(dict(pairs), {two: one for one, two in pairs}, False if len(same) == 1 else None)


def _texts(run_dir: Path) -> Iterator[tuple[int, bytes]]:
    """Each leak's id, and a hash of its prefix and suffix."""
    for batch in leak_batches(run_dir, ("example_id", "prefix", "suffix")):
        for row in batch.to_pylist():
            text = json.dumps([row["prefix"], row["suffix"]])
            yield row["example_id"], hashlib.blake2b(text.encode(), digest_size=16).digest()


class Changes(NamedTuple):
    """How leaks changed."""

    leaks: list[LeakChange]
    """As `CompareResults.leaks`."""
    totals: dict[Change, int]
    counts: dict[str, ChangeCounts]
    """By student, as the new run names it."""
    not_accepted: int
    """New leaks that are not accepted."""


MOST_LISTED = 1000
"""Leaks of each kind that a comparison lists."""
_ORDER: tuple[Change, ...] = ("new", "gone", "remaining")


def leak_changes(
    old: Side, new: Side, students: Mapping[str, str], known: Known, accepted: Collection[int]
) -> Changes:
    """How the leaks of both runs differ.

    Args:
        old: the run that comes first.
        new: the other.
        students: each student of the new run that has a counterpart, and that one's name in the old run.
        known: which examples are one.
        accepted: ids of leaks of the new run that are accepted.

    """
    worst = {change: Worst(MOST_LISTED, change_severity) for change in _ORDER}
    totals, counters = dict.fromkeys(_ORDER, 0), {name: _Counter() for name in students}
    not_accepted = 0
    for leak in chain(
        _of_new_run(old, new, students, known, accepted), _of_old_run(old, new, students, known)
    ):
        worst[leak.change].add(leak)
        totals[leak.change] += 1
        not_accepted += leak.change == "new" and not leak.accepted
        for name in leak.students:
            counters[name].add(leak)
    listed = [leak for change in _ORDER for leak in sorted(worst[change].kept(), key=_own_id)]
    return Changes(listed, totals, {name: one.counts() for name, one in counters.items()}, not_accepted)


def _own_id(leak: LeakChange) -> int:
    """The id in the run that has the leak, the new one of both."""
    return (leak.old_example_id if leak.change == "gone" else leak.example_id) or 0


def _of_new_run(
    old: Side, new: Side, students: Mapping[str, str], known: Known, accepted: Collection[int]
) -> Iterator[LeakChange]:
    """New and remaining leaks."""
    for leak in read_leaks(new.path, new.results):
        same = known.old_of_new.get(leak.example_id)
        earlier = old.leaks.place(same)
        names = [name for name in students if name in leak.classes]
        kept = [
            name for name in names if earlier is not None and old.leaks.memorized[students[name]][earlier]
        ]
        parts: dict[Change, list[str]] = {
            "new": [one for one in names if one not in kept],
            "remaining": kept,
        }
        for change, whose in parts.items():
            if whose:
                ids = (leak.example_id, same)
                added = known.others_added if same is None else False
                yield _change(leak, change, whose, ids, added, leak.example_id in accepted)


def _of_old_run(old: Side, new: Side, students: Mapping[str, str], known: Known) -> Iterator[LeakChange]:
    """Leaks that are gone."""
    for leak in read_leaks(old.path, old.results):
        same = known.new_of_old.get(leak.example_id)
        later = new.leaks.place(same)
        names = [name for name, was in students.items() if was in leak.classes]
        whose = [name for name in names if later is None or not new.leaks.memorized[name][later]]
        if whose:
            added = known.others_added if same is None else False
            yield _change(leak, "gone", whose, (same, leak.example_id), added, False)


def _change(
    leak: Leak,
    change: Change,
    students: list[str],
    ids: tuple[int | None, int | None],
    added: bool | None,
    accepted: bool,
) -> LeakChange:
    return LeakChange(
        change=change,
        added=added,
        students=students,
        example_id=ids[0],
        old_example_id=ids[1],
        document_id=leak.document_id,
        kind=next(iter(leak.classes.values())),
        copies=leak.copies,
        risk=leak.risk,
        tags=leak.tags,
        suffix_hmac=leak.suffix_hmac,
        accepted=accepted,
    )


class _Counter:
    """Counts how one student's leaks changed."""

    def __init__(self) -> None:
        self._all: Counter[Change] = Counter()
        self._added: Counter[Change] = Counter()
        self._unknown, self._not_accepted = False, 0

    def add(self, leak: LeakChange) -> None:
        """Take in a leak of the student."""
        self._all[leak.change] += 1
        self._added[leak.change] += leak.added is True
        self._unknown |= leak.added is None
        self._not_accepted += leak.change == "new" and not leak.accepted

    def counts(self) -> ChangeCounts:
        """The counts so far."""
        added, dropped = self._added["new"], self._added["gone"]
        return ChangeCounts(
            new=self._all["new"] - added,
            gone=self._all["gone"] - dropped,
            remaining=self._all["remaining"],
            added=None if self._unknown else added,
            dropped=None if self._unknown else dropped,
            not_accepted=self._not_accepted,
        )


def compared_models(
    old: Side, new: Side, names: Mapping[str, str], joined: Joined | None
) -> tuple[dict[str, ComparedModel], list[Note]]:
    """Each model's paired rates, and notes on what could not be compared.

    Args:
        old: the run that comes first.
        new: the other.
        names: models of the new run that have a counterpart, and that one's name.
        joined: the examples in common; None where a run holds none.

    """
    rates: dict[tuple[str, str], PairedRates] = {}
    notes: list[Note] = []
    if joined is not None:
        documents = Documents(joined.documents, new.results.seed)
        for name, was in names.items():
            for attack in COMPARED_ATTACKS:
                pair = _outcomes(old, new, attack, (was, name))
                if pair is None:
                    continue
                if pair[0].settings != pair[1].settings:
                    notes.append(_other_settings(attack, name))
                    continue
                flags = (pair[0].exposed[joined.old], pair[1].exposed[joined.new])
                rates[name, attack] = paired_rates(*flags, documents)
    same = {
        name: _same_weights(old.results.models[was], new.results.models[name]) for name, was in names.items()
    }
    changed = {key: one for key, one in rates.items() if same[key[0]] is not True}
    rates |= with_holm(changed)
    notes += [note for key, one in rates.items() if same[key[0]] and (note := _drift(key, one)) is not None]
    found = {
        name: ComparedModel(
            role=new.results.models[name].role,
            old_name=was,
            same_weights=same[name],
            attacks={attack: one for (whose, attack), one in rates.items() if whose == name},
        )
        for name, was in names.items()
    }
    return found, notes


def _outcomes(old: Side, new: Side, attack: str, names: tuple[str, str]) -> tuple[Outcome, Outcome] | None:
    found = [
        read_outcome_of(side.path, attack, name, side.results.corpus.examples)
        for side, name in zip((old, new), names, strict=True)
    ]
    first, second = found
    return None if first is None or second is None else (first, second)


def _same_weights(old: ModelResult, new: ModelResult) -> bool | None:
    if _ENDPOINT in (old.fingerprint[: len(_ENDPOINT)], new.fingerprint[: len(_ENDPOINT)]):
        return None
    return old.fingerprint == new.fingerprint


def _other_settings(attack: str, name: str) -> Note:
    text = f"{attack} of {name} is not compared: the runs tried it with other settings (attacks.{attack})."
    return Note(code="attack_not_compared", subject=name, text=text)


def _drift(key: tuple[str, str], rates: PairedRates) -> Note | None:
    """What a reader should know where one model is found to memorize other examples than before."""
    changed = rates.old_only + rates.new_only
    if not changed:
        return None
    text = (
        f"{key[0]} has the same weights in both runs, and {key[1]} finds other outcomes for {changed:,} of "
        f"{rates.examples:,} examples: engine, dtype or rounding make that difference, and may make some of "
        "the others."
    )
    return Note(code="same_weights_differ", subject=key[0], text=text)
