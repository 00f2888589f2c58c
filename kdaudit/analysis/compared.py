"""What changed between two runs: leaks that are new, gone or remain, and each model's paired rates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.joined import COMPARED_ATTACKS, Joined, Outcome, read_outcome_of
from kdaudit.analysis.paired import paired_rates, with_holm
from kdaudit.schemas.compared import Change, ComparedModel, LeakChange, LeakCounts, PairedRates
from kdaudit.schemas.notes import Note
from kdaudit.schemas.results import AuditResults, Leak, ModelResult

_ENDPOINT = "endpoint:"


class Side(NamedTuple):
    """One of both runs."""

    path: Path
    results: AuditResults
    table: pa.Table
    """Rows of layout.LEAKS_SCHEMA."""


class Known(NamedTuple):
    """Which examples of the runs are one, as far as leaks need it."""

    new_of_old: Mapping[int, int]
    """Ids in the new run of the old run's leaks that it audited too."""
    old_of_new: Mapping[int, int]
    others_added: bool | None
    """Whether a leak that is in neither was audited by its own run alone; None if that is not known."""


def known_by_examples(joined: Joined, old: Side, new: Side) -> Known:
    """From the examples of both runs."""
    new_of_old = _looked_up(joined.old, joined.new, old.results.leaks)
    return Known(new_of_old, _looked_up(joined.new, joined.old, new.results.leaks), True)


def _looked_up(keys: np.ndarray, values: np.ndarray, leaks: Sequence[Leak]) -> dict[int, int]:
    """The pairs of `keys` and `values` whose key is a leak's id."""
    wanted = np.array([leak.example_id for leak in leaks], dtype=np.int64)
    places = np.flatnonzero(np.isin(keys, wanted))
    return dict(zip(keys[places].tolist(), values[places].tolist(), strict=True))


def known_by_text(old: Side, new: Side) -> Known:
    """From the text of the leaks alone; what else a run audited is known where both audited the same."""
    same = {
        (one.corpus.fingerprint, one.corpus.examples, one.corpus.sampled, one.seed)
        for one in (old.results, new.results)
    }
    ids = {text: example for example, text in _texts(old.table)}
    pairs = [(ids[text], example) for example, text in _texts(new.table) if text in ids]
    return Known(dict(pairs), {two: one for one, two in pairs}, False if len(same) == 1 else None)


def _texts(table: pa.Table) -> Iterator[tuple[int, tuple[str, str]]]:
    for batch in table.select(["example_id", "prefix", "suffix"]).to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield row["example_id"], (row["prefix"], row["suffix"])


class Changes(NamedTuple):
    """How leaks changed."""

    leaks: list[LeakChange]
    """New ones first, then gone ones, then those that remain; each by the id of its run."""
    counts: dict[str, LeakCounts]
    """By student, as the new run names it."""


_ORDER: tuple[Change, ...] = ("new", "gone", "remaining")


def leak_changes(
    old: Side, new: Side, students: Mapping[str, str], known: Known, accepted: Collection[int]
) -> Changes:
    """Every leak of both runs.

    Args:
        old: the run that comes first.
        new: the other.
        students: each student of the new run that has a counterpart, and that one's name in the old run.
        known: which examples are one.
        accepted: ids of leaks of the new run that are accepted.

    """
    before = {leak.example_id: leak for leak in old.results.leaks}
    after = {leak.example_id: leak for leak in new.results.leaks}
    found = [
        *_of_new_run(after, before, students, known, accepted),
        *_of_old_run(before, after, students, known),
    ]
    found.sort(key=lambda one: _ORDER.index(one.change))
    return Changes(found, {name: _counts(name, found) for name in students})


def _of_new_run(
    after: Mapping[int, Leak],
    before: Mapping[int, Leak],
    students: Mapping[str, str],
    known: Known,
    accepted: Collection[int],
) -> Iterator[LeakChange]:
    """New and remaining leaks."""
    for example, leak in after.items():
        same = known.old_of_new.get(example)
        earlier = before.get(same) if same is not None else None
        names = [name for name in students if name in leak.classes]
        kept = [name for name in names if earlier is not None and students[name] in earlier.classes]
        parts: dict[Change, list[str]] = {
            "new": [one for one in names if one not in kept],
            "remaining": kept,
        }
        for change, whose in parts.items():
            if whose:
                ids = (example, same)
                added = known.others_added if same is None else False
                yield _change(leak, change, whose, ids, added, example in accepted)


def _of_old_run(
    before: Mapping[int, Leak], after: Mapping[int, Leak], students: Mapping[str, str], known: Known
) -> Iterator[LeakChange]:
    """Leaks that are gone."""
    for example, leak in before.items():
        same = known.new_of_old.get(example)
        later = after.get(same) if same is not None else None
        names = [name for name, was in students.items() if was in leak.classes]
        whose = [name for name in names if later is None or name not in later.classes]
        if whose:
            added = known.others_added if same is None else False
            yield _change(leak, "gone", whose, (same, example), added, False)


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


def _counts(student: str, leaks: Sequence[LeakChange]) -> LeakCounts:
    own = [one for one in leaks if student in one.students]
    new, gone, remaining = ([one for one in own if one.change == change] for change in _ORDER)
    unknown = any(one.added is None for one in own)
    added, dropped = (sum(one.added is True for one in some) for some in (new, gone))
    return LeakCounts(
        new=len(new) - added,
        gone=len(gone) - dropped,
        remaining=len(remaining),
        added=None if unknown else added,
        dropped=None if unknown else dropped,
        not_accepted=sum(not one.accepted for one in new),
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
