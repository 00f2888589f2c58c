"""The examples that two runs have in common: those of equal prefix and suffix, token by token.

Each example's content hash, 16 bytes, is computed as its shard is read and is written nowhere. Memory: these,
and a few numbers for each example of both runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags
from kdaudit.attacks import GREEDY, Attack, NearVerbatim
from kdaudit.attacks.examples import cuts_of
from kdaudit.errors import RunStateError
from kdaudit.inference import Split
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import CUT_COLUMNS, EXAMPLES_SCHEMA
from kdaudit.runs.finished import read_shards, shards_of
from kdaudit.schemas.results import AuditResults

Rows = NDArray[np.int64]
_HASH_BYTES = 16
_READ = pa.schema([EXAMPLES_SCHEMA.field(name) for name in ("document_id", "token_ids", *CUT_COLUMNS)])
"""What of an example is read."""


class RunExamples(NamedTuple):
    """A run's examples, in the order of their ids."""

    hashes: NDArray[np.bytes_]
    """Of prefix and suffix: S16 (examples,)."""
    documents: Rows
    """Equal for examples of one document: int64 (examples,)."""


class Joined(NamedTuple):
    """Ids of the examples that two runs have in common, pair by pair."""

    old: Rows
    new: Rows
    documents: Rows
    """As the new run names them: int64 (pairs,)."""
    old_total: int
    new_total: int
    """Distinct examples of each run."""


def read_run_examples(run_dir: Path, results: AuditResults) -> RunExamples | None:
    """A run's examples; None where it holds none any more.

    Raises:
        RunStateError: they are damaged, or not all there.

    """
    if not shards_of(run_dir, layout.EXAMPLES):
        return None
    hashes, documents = [], []
    for table in read_shards(run_dir, layout.EXAMPLES, _READ, CUT_COLUMNS, null_in=["document_id"]):
        hashes.append(np.array([*_hashes(table, results)], dtype=f"S{_HASH_BYTES}"))
        documents.append(_codes(table["document_id"]))
    found = RunExamples(np.concatenate(hashes), np.concatenate(documents))
    if len(found.hashes) != results.corpus.examples:
        raise RunStateError(
            f"{run_dir / layout.EXAMPLES}: holds {len(found.hashes):,} examples, and the audit had "
            f"{results.corpus.examples:,}",
            fix="`kdaudit verify` says what was changed",
        )
    return found


def _hashes(table: pa.Table, results: AuditResults) -> Iterator[bytes]:
    """The content hash of each example of a shard."""
    ids = table["token_ids"].combine_chunks()
    values = ids.values.to_numpy().astype("<i4")
    starts = ids.offsets.to_numpy()
    usual = Split(results.extraction.prefix_tokens, results.extraction.suffix_tokens, None)
    prefixes, suffixes = cuts_of(table, usual)
    for start, prefix, suffix in zip(starts, prefixes, suffixes, strict=False):
        text = values[start : start + prefix + suffix].tobytes()
        # A NUL at the end would be lost in an array of bytes.
        yield (
            hashlib.blake2b(int(prefix).to_bytes(8, "little") + text, digest_size=_HASH_BYTES - 1).digest()
            + b"."
        )


def _codes(names: pa.ChunkedArray) -> Rows:
    """A number for each document id, the same in both runs."""
    encoded = names.combine_chunks().dictionary_encode()
    codes = np.array([_code(name or "") for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    found: Rows = codes[encoded.indices.to_numpy()]
    return found


def _code(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def join(old: RunExamples, new: RunExamples) -> Joined:
    """Pair the examples of both runs; of equal ones in one run the first stands for all."""
    firsts = [np.unique(run.hashes, return_index=True) for run in (old, new)]
    (old_hashes, old_rows), (new_hashes, new_rows) = firsts
    _, of_old, of_new = np.intersect1d(old_hashes, new_hashes, assume_unique=True, return_indices=True)
    rows = new_rows[of_new]
    return Joined(old_rows[of_old], rows, new.documents[rows], len(old_hashes), len(new_hashes))


class Outcome(NamedTuple):
    """What an attack found of a model in a run."""

    exposed: Flags
    """bool (examples,)."""
    settings: str
    """The attack's, as its shards have them; empty for one that has none."""


def read_outcome_of(run_dir: Path, attack: str, model: str, examples: int) -> Outcome | None:
    """Which examples an attack exposed; None where the run does not hold it.

    Raises:
        RunStateError: it is damaged, or not all there.

    """
    folder, flags, settings = layout.attack(attack, model), [], ""
    columns = pa.schema([*_ATTACKS[attack].columns][1:])
    for table in read_shards(run_dir, folder, columns, null_in=["edit_distance"]):
        metadata = table.schema.metadata or {}
        settings = metadata.get(b"settings", b"").decode()
        flags.append(_ATTACKS[attack].exposed(table))
    if not flags:
        return None
    exposed: Flags = np.concatenate(flags)
    if len(exposed) != examples:
        raise RunStateError(
            f"{run_dir / folder}: holds {len(exposed):,} rows, and the run has {examples:,} examples",
            fix="`kdaudit verify` says what was changed",
        )
    return Outcome(exposed, settings)


_ATTACKS: dict[str, Attack] = {GREEDY.name: GREEDY, NearVerbatim.name: NearVerbatim(0.0)}
"""Attacks whose outcomes are compared example by example; what is exposed is read from their rows."""
COMPARED_ATTACKS = tuple(_ATTACKS)
